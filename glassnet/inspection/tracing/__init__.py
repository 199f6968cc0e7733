"""Recording one pass of any model: every call, every number, every gradient.

For those who build on it
=========================
`trace(model, image, label)` returns a `Trace`: `steps` in the order of the calls, and `Value`s between them.

A `Value` is one tensor as it was when it was made. It is produced by a step (`value.step`, `value.origin.output`), or
is an input, a parameter (`value.path`), a buffer, or a constant. `value.tensor` holds the numbers, `value.gradient`
autograd's dL/d(value). The same value read by three steps is one `Value` in the `inputs` of each, so the `Value`s and
steps are the graph, and `trace.consumers(value)` is its other direction: pairs of a step and a position among its
`inputs`.

A `Step` is one call at the level people name. `step.op` is the operation's name, the same for `a + b`, `a.add(b)`,
`a += b` and `torch.add(a, b)`: rules go by it. `step.input("weight")` is the value of an argument, `step.arguments`
the arguments without tensors by torch's names, only those that were given: torch's documented defaults hold for the
rest. `step.named` has both, with `Slot(position)` for a tensor (also inside the list of `cat` and an index of
`getitem`). `step.outputs` are several for `chunk` or `max(1)`; batch norm in training mode has its new running
statistics as outputs 1 and 2.

Forward rules itemise `step.output.tensor[index]` from `step.inputs`, and compare. Where there is no rule,
`step.vjp({0: one_hot}, positions)` is a row of the Jacobian, and `step.replay({position: tensor})` repeats the call
with other numbers: the same random draws, on copies of what it writes to, in the same memory layout.

Backward sums itemise `value.gradient` from `trace.consumers(value)`: each consumer's `outputs[k].gradient` times the
local derivative. The sum is exact for every value, because the graph is complete: what changed by writing to shared
memory is said by a step of its own (`overwrite`, below). Steps with `is_differentiable` False (the model ran them
under `no_grad`) pass nothing on; nor do `detach` and `data`.

How it works
============
- `recording.Recorder` is a `torch.overrides.TorchFunctionMode`: it sees calls above autograd, at the level at which
  they are written. Inside the handler the mode is off, so a call such as `F.batch_norm` is one step; composites
  (`calls.COMPOSITES`) are run with the mode on again and give one step for each call inside.
- `calls` says by name what a function is: a step, a question (`x.shape`), a creation, what it writes to.
- `opaque` catches what modes do not see, users' `autograd.Function`s and scripted functions, as one step each.
- `scopes` follows modules by hooks that all modules share, and makes names: a module that made one call gives its own
  name (`conv1`), other calls their module's and their own (`layer1.0.add`); a name's second use is `_1`. A module's
  path also finds the step whose output it returned (`trace.step("layer1")`).
- `storage` knows which live tensors share memory. Before a call writes, the values that lie there are copied (only
  then: otherwise values are the pass's own tensors). A tensor whose memory was written to through another one gets a
  new value when it is next read, by a step `overwrite` from its old value and what was written.
- `gradients`: the place of each value in autograd's graph is noted when the value is made, and one call of
  `torch.autograd.grad` returns all gradients. Where a view was written to, autograd keeps no gradient of the value
  alone; it is then summed over its consumers by autograd on single steps.
- `preservation` leaves the model as it was. The pass runs on copies of buffers; parameters and other tensors that it
  writes to are put back.
- `replay.replay_from` repeats the recorded calls downstream of a change. It refuses where the model's Python code
  read a changed number (`x.item()`, `if x.sum() > 0`), because the calls might be others.
- `deltas` and `weights` are the sums of the backward pass; their terms come from `fan_out` and `uses`, which read
  convolutions and the like off (`sliding`), and from `local_derivatives`, a column of any step's Jacobian by forward
  mode. `updates` has an optimizer's step of one weight by `update_rules`; `gradient_check` finite differences on
  `float64_pass`.
- `address`, `location`, `layout`: texts such as `features.6:12@3,5`, and the place in a value that they name.

- `rules` itemise units of one operation each, many at once (`rules.question`); `terms` has the columns that come out,
  for deltas and gradients too; `unit`, `sources`, `perturbation` are what is asked of them; `derivation` their text.

`trace.gaps` says in words what went unseen (calls inside `torch.func` transforms; C++ that calls no torch function).
"""

from glassnet.inspection.tracing.address import Address, WeightAddress
from glassnet.inspection.tracing.gradient_check import GradientCheck
from glassnet.inspection.tracing.location import Location
from glassnet.inspection.tracing.perturbation import Perturbation
from glassnet.inspection.tracing.record import Trace
from glassnet.inspection.tracing.replay import Replay
from glassnet.inspection.tracing.sources import Driver, Source, Sources
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.terms import Kind, PartialSum, Places, Terms, UnitTrace
from glassnet.inspection.tracing.tracer import trace
from glassnet.inspection.tracing.unit import Unit, Units
from glassnet.inspection.tracing.updates import Update
from glassnet.inspection.tracing.values import Value
from glassnet.inspection.tracing.weights import WeightTrace

__all__ = [
    "Address", "Driver", "GradientCheck", "Kind", "Location", "PartialSum", "Perturbation", "Places", "Replay",
    "Source", "Sources", "Step", "Terms", "Trace", "Unit", "UnitTrace", "Units", "Update", "Value", "WeightAddress",
    "WeightTrace", "trace",
]  # fmt: skip
