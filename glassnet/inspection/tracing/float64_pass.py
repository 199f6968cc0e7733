"""A recorded pass computed again in float64, with other numbers in places: what finite differences need.

Halving a difference of 1e-5 between two losses in float32 leaves two figures of it; in float64, eleven.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glassnet.inspection.tracing.step import NO_AUTOCAST, Call, Step
from glassnet.inspection.tracing.values import Value

if TYPE_CHECKING:
    from glassnet.inspection.tracing.record import Trace

LOWERED = frozenset({"float", "half", "bfloat16"})
"""Conversions whose name is the type."""

SAME_DRAW = 1e-2
"""Relative to the largest number: a step that draws and comes out further off in float64 has drawn other numbers."""


class Float64Pass:
    """A trace's loss as a function of any of its values, in float64."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._numbers: dict[Value, Tensor] = {}
        self.rounded: list[str] = []
        """Steps that would not run in float64, or draw other random numbers in it: they keep their own type."""
        for step in trace.steps:
            outputs = self._first(step, [self.tensor(value) for value in step.inputs])
            self._numbers.update(zip(step.outputs, outputs, strict=True))

    def tensor(self, value: Value) -> Tensor:
        """Return a value of the pass, floating numbers in float64."""
        if value not in self._numbers:
            self._numbers[value] = _doubled(value.tensor)
        return self._numbers[value]

    def loss(self, changes: Mapping[Value, Tensor]) -> float:
        """Return the loss with other tensors in place of some values; what does not follow from them is kept."""
        assert self._trace.loss_value is not None, "the trace has a label"
        changed = dict(changes)
        for step in self._trace.steps:
            if not any(value in changed for value in step.inputs):
                continue
            tensors = [changed[value] if value in changed else self.tensor(value) for value in step.inputs]
            for value, tensor in zip(step.outputs, self._again(step, tensors), strict=True):
                if value not in changes and not torch.equal(tensor, self.tensor(value)):
                    changed[value] = tensor
        loss = self._trace.loss_value
        return float(changed[loss] if loss in changed else self.tensor(loss))

    def _first(self, step: Step, tensors: list[Tensor]) -> list[Tensor]:
        try:
            outputs = self._again(step, tensors)
        except (RuntimeError, TypeError, NotImplementedError):  # a kernel for one type, a user's own function
            outputs = None
        if outputs is None or (step.is_random and not _is_same_draw(step, outputs)):
            self.rounded.append(step.name)
            outputs = self._again(step, tensors)
        return outputs

    def _again(self, step: Step, tensors: list[Tensor]) -> list[Tensor]:
        with torch.inference_mode(False), torch.no_grad():
            if step.name in self.rounded:
                own = [t.to(value.tensor.dtype) for t, value in zip(tensors, step.inputs, strict=True)]
                outputs = step.call.run(own)
            else:
                outputs = _in_float64(step).run(tensors)
        return [_doubled(output) for output in outputs[: len(step.outputs)]]


def _in_float64(step: Step) -> Call:
    call = step.call
    if step.op in LOWERED and step.output.tensor.is_floating_point():
        call = call._replace(function=Tensor.double, args=call.args[:1], kwargs={})
    return call._replace(args=_raised(call.args), kwargs=_raised(call.kwargs), autocast=NO_AUTOCAST)


def _raised(value: Any) -> Any:
    """Return arguments with float64 in place of lower floating types."""
    if isinstance(value, torch.dtype):
        return torch.float64 if value.is_floating_point else value
    if isinstance(value, dict):
        return {name: _raised(part) for name, part in value.items()}
    if type(value) in {tuple, list}:
        return type(value)(_raised(part) for part in value)
    return value


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.is_floating_point() else tensor


def _is_same_draw(step: Step, outputs: list[Tensor]) -> bool:
    pairs = [(out, value.tensor) for out, value in zip(outputs, step.outputs, strict=True) if out.is_floating_point()]
    return all(
        bool((out - was).abs().max() <= SAME_DRAW * was.abs().max().clamp(min=1e-30))
        for out, was in pairs
        if was.numel()
    )
