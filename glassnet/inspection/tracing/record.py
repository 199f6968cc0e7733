"""The record of one pass of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import by
from glassnet.inspection.tracing.address import Address, WeightAddress, unknown_step
from glassnet.inspection.tracing.layout import channel_axes
from glassnet.inspection.tracing.location import Location, located, weight_index
from glassnet.inspection.tracing.naming import Naming
from glassnet.inspection.tracing.perturbation import Perturbation, perturbed
from glassnet.inspection.tracing.recording import Recorded
from glassnet.inspection.tracing.replay import Replay, replay_from
from glassnet.inspection.tracing.rules import without_rule
from glassnet.inspection.tracing.scopes import Names
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.unit import Unit, Units, unit_of, units_of
from glassnet.inspection.tracing.values import Table, Value

if TYPE_CHECKING:
    from glassnet.inspection.tracing.gradient_check import GradientCheck
    from glassnet.inspection.tracing.terms import UnitTrace
    from glassnet.inspection.tracing.weights import WeightTrace


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trace:
    """Every call of one pass, with every number it read and made; and autograd's gradients where a label was given.

    Made by `trace`. The tensors are those of the pass, not copies: do not write to them.
    """

    inputs: tuple[Value, ...]
    """What the model was given, with the batch axis."""
    parameters: Mapping[str, Value]
    """Every parameter by its path; a shared one by each of its paths."""
    output_value: Value
    """What the model returned; of several tensors `logits`, or the first."""
    loss_value: Value | None
    """None without a label."""
    target: Tensor | None
    """What the output was compared with."""
    is_training: bool
    """True where the pass ran with `training=True`."""
    is_batch_added: bool
    """True where one example was given, and a batch axis of 1 put before it."""
    gaps: tuple[str, ...]
    """What could not be recorded, in words: numbers computed there appear as constants. Empty for most models."""
    read_by_program: frozenset[Value]
    """Values whose numbers the model's own Python code looked at, and may have branched on."""
    _table: Table = field(repr=False)
    _recorded: Sequence[Recorded] = field(repr=False)
    _module_outputs: Sequence[tuple[str, int]] = field(repr=False)
    _paths: Collection[str] = field(repr=False)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """In the order of the calls, those of the loss last."""
        return named_steps(self._recorded, self._table, self._paths)

    @cached_property
    def modules(self) -> Mapping[str, Value]:
        """What each module returned in its first call (`layer1`), second (`layer1_1`), and so on."""
        names = Names(())
        return {names.unique(path): Value(number, self._table) for path, number in self._module_outputs}

    @property
    def output(self) -> Tensor:
        """What the model returned, `(N, ...)`."""
        return self.output_value.tensor

    @property
    def loss(self) -> Tensor | None:
        """The loss, one number; None without a label."""
        return None if self.loss_value is None else self.loss_value.tensor

    def step(self, name: str) -> Step:
        """Return the step of that name, or the step whose output the module of that path returned.

        Raises `UsageError` for an unknown name, with the nearest.
        """
        value = self.value(name)
        if value.step is None:
            raise UsageError(f"'{name}' must be a step; it is an input of the model. Ask for its value.")
        return self.steps[value.step]

    def value(self, name: str) -> Value:
        """Return the first output of the step `name`, what the module of that path returned, or an input by name.

        Raises `UsageError` for an unknown name, with the nearest.
        """
        if name in self._by_name:
            return self._by_name[name]
        raise unknown_step(name, {known: value.shape for known, value in self._by_name.items()})

    def gradient(self, of: Value | Step | str) -> Tensor | None:
        """Return autograd's dL/d(value), of the value's shape, of a value, a step's first output, or a name.

        None where the loss does not depend on it by a path that autograd knows. Raises `UsageError` without a label.
        """
        self._require_label()
        if isinstance(of, Step):
            return of.output.gradient
        return (self.value(of) if isinstance(of, str) else of).gradient

    def parameter_gradient(self, path: str) -> Tensor | None:
        """Return autograd's dL/d(parameter) by its path, `conv1.weight`; also of a frozen one. None where unused.

        Raises `UsageError` without a label, and for an unknown path with the nearest.
        """
        self._require_label()
        return self.parameter(path).gradient

    def parameter(self, path: str) -> Value:
        """Return a parameter's value; raises `UsageError` for an unknown path, with the nearest."""
        if path in self.parameters:
            return self.parameters[path]
        raise unknown_step(path, {known: value.shape for known, value in self.parameters.items()}, kind="parameter")

    def consumers(self, value: Value) -> tuple[tuple[Step, int], ...]:
        """Return the steps that read `value`, each with the position among its `inputs`."""
        return self._consumers.get(value, ())

    def channel_axis(self, value: Value) -> int:
        """Return the axis of a value that its channels or features lie on: 1, or the last one for tokens."""
        return self._channel_axes[value.number]

    def locate(self, address: str | Address) -> Location:
        """Return the value that an address such as `features.6:12@3,5` names, and the place in it.

        Raises `UsageError` where it names nothing: with the nearest steps, or the shape and what it allows.
        """
        address = Address.parse(address) if isinstance(address, str) else address
        value = self.value(address.step)
        if value.step is not None:
            outputs = self.steps[value.step].outputs
            # A module may return another output than the first; its path then names that one.
            value = value if address.output == 0 else _output(outputs, address)
        return located(address, value, self.channel_axis(value))

    def locate_weight(self, address: str | WeightAddress) -> tuple[Value, tuple[int, ...]]:
        """Return the parameter that an address such as `conv1.weight[3,0,1,1]` names, and the index in it.

        Raises `UsageError` where it names nothing: with the nearest parameters, or the shape and what it allows.
        """
        address = WeightAddress.parse(address) if isinstance(address, str) else address
        value = self.parameter(address.path)
        return value, weight_index(address, value.shape)

    def delta(self, address: str | Address) -> UnitTrace:
        """Return dL/d(unit) as the sum over the units that it feeds: each one's delta times the local derivative.

        Raises `UsageError` without a label, and for an address that names no unit with real numbers.
        """
        from glassnet.inspection.tracing.deltas import delta

        return delta(self, address)

    def weight(self, address: str | WeightAddress) -> WeightTrace:
        """Return dL/d(weight) as the sum over the places where it is used of input times delta.

        Its `step(optimizer)` is the update that follows. Raises `UsageError` without a label, and for an address that
        names no weight.
        """
        from glassnet.inspection.tracing.weights import weight_trace

        return weight_trace(self, address)

    def gradient_check(self, of: str, n: int = 10, *, epsilon: float = 1e-6, seed: int = 0) -> GradientCheck:
        """Return finite differences of the loss, in float64, beside autograd's gradients.

        `of` is a unit `conv1:3@2,2`, a channel, a step, an input, a parameter `conv1.weight` or one weight; of several
        numbers `n` are drawn by `seed`. `epsilon` is the step to both sides. Raises `UsageError` without a label, and
        where `of` names nothing.
        """
        from glassnet.inspection.tracing.gradient_check import gradient_check

        return gradient_check(self, of, n, epsilon, seed)

    def replay_from(self, changes: Mapping[Value, Tensor]) -> Replay:
        """Recompute what follows from other tensors in place of some values: inputs, parameters, outputs of steps.

        The recorded calls are repeated by torch, downstream of the change alone. Raises `WorkError` where the result
        would not be that of the model: its Python code read a number that changes, or a shape changes.
        """
        return replay_from(self.steps, self.output_value, self.loss_value, self.read_by_program, changes)

    def unit(self, address: str | Address) -> Unit:
        """Return how one number came about: `t.unit("features.6:12@3,5")` has every product, and torch's value beside.

        An operation without a rule is answered by its Jacobian's row and says so. Raises `UsageError` where the
        address names nothing, several numbers, or an input.
        """
        return unit_of(self, address)

    def units(self, address: str | Address) -> Units:
        """Return many units at once: a channel `conv1:3`, an image `conv1[0]`, or all of a step `conv1`.

        Raises `UsageError` where the address names nothing, or an input.
        """
        return units_of(self, address)

    def perturb(self, address: str, value: float | Tensor, *, watch: str | None = None) -> Perturbation:
        """Set a pixel `input:0@5,6`, a unit, a channel or a weight `conv1.weight[3,0,1,1]` to `value`.

        torch repeats what follows; the result says which numbers change. `watch` is a unit to report first. Raises
        `UsageError` for an unknown address, and `WorkError` as `replay_from`.
        """
        return perturbed(self, address, value, watch)

    @property
    def coverage(self) -> float:
        """The share of the steps with floating outputs that a rule itemises; the others are linearised."""
        asked = [step for step in self.steps if step.output.tensor.is_floating_point()]
        return 1 - sum(self.without_rule.values()) / len(asked) if asked else 1.0

    @cached_property
    def without_rule(self) -> Mapping[str, int]:
        """The operations that no rule itemises, with how many steps they are."""
        return without_rule(self.steps)

    @cached_property
    def naming(self) -> Naming:
        """From a value and an index to the address."""
        return Naming(self.steps, self.inputs, self._channel_axes)

    @property
    def memory(self) -> int:
        """Bytes held beside the model's own parameters: values and gradients, each block of memory counted once."""
        own = {_block(value.tensor) for value in self.parameters.values()}
        blocks = {
            _block(tensor): tensor.untyped_storage().nbytes()
            for tensor in (*self._table.tensors, *self._table.gradients.values())
        }
        return sum(size for block, size in blocks.items() if block not in own)

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss {float(self.loss):.4g}"
        return f"Trace({len(self.steps)} steps, output {by(self.output_value.shape)}{loss})"

    @cached_property
    def _by_name(self) -> dict[str, Value]:
        inputs = {value.path: value for value in self.inputs}
        return {**inputs, **self.modules, **{step.name: step.output for step in self.steps}}

    @cached_property
    def _consumers(self) -> dict[Value, tuple[tuple[Step, int], ...]]:
        return consumers_of(self.steps)

    @cached_property
    def _channel_axes(self) -> dict[int, int]:
        return channel_axes(self.steps, self.inputs)

    def _require_label(self) -> None:
        if self.loss_value is None:
            raise UsageError("Gradients need a loss; the trace was made without a label. Write trace(..., label=k).")


def named_steps(recorded: Iterable[Recorded], table: Table, paths: Collection[str]) -> tuple[Step, ...]:
    """Return what was recorded as steps with names; `paths` are those of the model's modules."""
    names = Names(paths)
    return tuple(
        Step(
            index=index,
            name=names.of(step.scope, step.op, is_own=step.is_own),
            op=step.op,
            module=step.scope.module,
            inputs=tuple([Value(number, table) for number in step.inputs]),
            outputs=tuple([Value(number, table) for number in step.outputs]),
            call=step.call,
        )
        for index, step in enumerate(recorded)
    )


def consumers_of(steps: tuple[Step, ...]) -> dict[Value, tuple[tuple[Step, int], ...]]:
    """Return by value the steps that read it, each with the position among its inputs."""
    found: dict[Value, list[tuple[Step, int]]] = {}
    for step in steps:
        for position, value in enumerate(step.inputs):
            found.setdefault(value, []).append((step, position))
    return {value: tuple(readers) for value, readers in found.items()}


def _output(outputs: tuple[Value, ...], address: Address) -> Value:
    if address.output >= len(outputs):
        raise UsageError(
            f"{address.step} has outputs 0 to {len(outputs) - 1}; got '{address}'. "
            f"Write {address.step}#{len(outputs) - 1}."
        )
    return outputs[address.output]


def _block(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
