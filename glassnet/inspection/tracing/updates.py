"""What one step of an optimizer makes of one weight, beside what torch's own step makes of a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet.inspection.tracing.derivation import aligned, number
from glassnet.inspection.tracing.local_derivatives import gradient_of
from glassnet.inspection.tracing.update_rules import RULES, Line, Weight

if TYPE_CHECKING:
    from glassnet.inspection.tracing.weights import WeightTrace


@dataclass(frozen=True, kw_only=True)
class Update:
    """One weight's step, line by line."""

    address: str
    optimizer: str
    """The class's name."""
    lines: tuple[Line, ...]
    """From the weight and its gradient to the new weight."""
    before: float
    after: float
    """The weight after the step, by these lines, in float64."""
    value: float
    """The weight after torch's own step."""
    scale: float
    """What rounding is measured against: the sum of the weight's size and the update's."""

    @property
    def difference(self) -> float:
        """The new weight less torch's."""
        return self.after - self.value

    @property
    def relative_difference(self) -> float:
        """The difference relative to the sum of the sizes of weight and update."""
        return 0.0 if self.difference == 0 else abs(self.difference) / max(self.scale, 1e-300)

    def __str__(self) -> str:
        rows = [(line.name, number(line.value, 9), line.formula) for line in self.lines]
        rows.append(("torch's step gives", number(self.value, 9), self._apart))
        return "\n".join([f"{self.address} by {self.optimizer}", *(f"  {line}" for line in aligned(rows))])

    def to_markdown(self) -> str:
        """Return the lines as a table."""
        rows = [f"| {line.name} | {line.formula} | {number(line.value, 9)} |" for line in self.lines]
        last = f"| torch's step gives | {self._apart} | {number(self.value, 9)} |"
        head = [f"**`{self.address}` by {self.optimizer}**", "", "| | | |", "|---|---|---:|"]
        return "\n".join([*head, *rows, last])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "address": self.address,
            "optimizer": self.optimizer,
            "lines": [line._asdict() for line in self.lines],
            "before": self.before,
            "after": self.after,
            "value": self.value,
            "difference": self.difference,
            "relative_difference": self.relative_difference,
        }

    @property
    def _apart(self) -> str:
        return "the same" if self.difference == 0 else f"difference {number(self.difference, 2)}"


def update_of(trace: WeightTrace, optimizer: Any) -> Update:
    """Return the update of one traced weight; see `WeightTrace.step`."""
    found = trace.parameter.tensor
    part, group, parameter = _holder(optimizer, found, trace.address)
    name = type(part).__name__
    if name not in RULES:
        known = ", ".join(RULES)
        raise UsageError(f"The step of one of {known} can be taken apart; got {name}. Use one of these.")
    if len(parameter.shape) != 2 and "Muon" in name:
        raise UsageError(f"Muon takes matrices; {trace.address} is of {tuple(parameter.shape)}. Give it to SGD.")
    gradient = gradient_of(trace.parameter)
    if gradient is None:
        raise UsageError(f"A step needs a gradient; the loss does not depend on {trace.address}. Name another weight.")
    place = _place(found, trace.index, parameter)
    weight = Weight(
        all=parameter.detach(),
        gradient=_as_held(gradient.detach(), found, parameter),
        place=place,
        state=part.state.get(parameter, {}),
        group=group,
    )
    with torch.no_grad():
        lines = RULES[name](weight)
    after = _stepped(part, weight)
    return Update(
        address=trace.address,
        optimizer=name,
        lines=tuple(lines),
        before=weight.w,
        after=lines[-1].value,
        value=float(after[place]),
        scale=abs(weight.w) + abs(lines[-2].value),
    )


def _holder(optimizer: Any, tensor: Tensor, address: str) -> tuple[Any, Mapping[str, Any], Tensor]:
    """Return the optimizer, group and parameter that a traced parameter is in; they share its memory.

    glassnet's optimizer of kernels is of several parts, and has kernels as matrices in the same memory.
    """
    parts = getattr(optimizer, "parts", [optimizer])
    if not all(isinstance(part, torch.optim.Optimizer) for part in parts):
        raise UsageError(
            f"An optimizer over the traced model is needed, such as torch.optim.SGD(model.parameters(), lr=0.1); got "
            f"{type(optimizer).__name__}."
        )
    for part, group, parameter in _parameters(parts):
        if parameter.data_ptr() == tensor.data_ptr() and parameter.numel() == tensor.numel():
            return part, group, parameter
    raise UsageError(
        f"The optimizer must be one of the traced model; it does not have the parameter of {address}. Build it over "
        "model.parameters()."
    )


def _parameters(parts: list[Any]) -> Iterator[tuple[Any, Mapping[str, Any], Tensor]]:
    for part in parts:
        for group in part.param_groups:
            for parameter in group["params"]:
                yield part, group, parameter


def _place(tensor: Tensor, index: tuple[int, ...], held: Tensor) -> tuple[int, ...]:
    """Return the index in `held` of the number at `index` of `tensor`, of the same memory."""
    if held.shape == tensor.shape and held.stride() == tensor.stride():
        return index
    left = sum(place * stride for place, stride in zip(index, tensor.stride(), strict=True))
    places = [0] * held.ndim
    strides = held.stride()
    for axis in sorted(range(held.ndim), key=lambda axis: -strides[axis]):
        if held.shape[axis] > 1:
            places[axis], left = divmod(left, strides[axis])
    return tuple(places)


def _as_held(gradient: Tensor, tensor: Tensor, held: Tensor) -> Tensor:
    """Return a gradient in the shape in which the optimizer holds its parameter."""
    if held.shape == tensor.shape:
        return gradient
    laid_out = torch.empty_strided(tensor.shape, tensor.stride(), dtype=gradient.dtype).copy_(gradient)
    return laid_out.as_strided(held.shape, held.stride())


def _stepped(optimizer: torch.optim.Optimizer, weight: Weight) -> Tensor:
    """Return the parameter after a step by torch of a copy, with a copy of its state."""
    held = torch.nn.Parameter(weight.all.clone())
    held.grad = weight.gradient.clone().to(held.dtype)
    options = {name: copy.deepcopy(value) for name, value in weight.group.items() if name != "params"}
    try:
        twin = type(optimizer)([{**options, "params": [held]}])  # type: ignore[call-arg]
    except TypeError as error:
        raise UsageError(
            f"An optimizer is copied to be stepped; {type(optimizer).__name__} refused: {error}."
        ) from None
    state = {name: copy.deepcopy(value) for name, value in weight.state.items()}
    if state:
        twin.state[held] = state
    twin.step()
    return held.detach()
