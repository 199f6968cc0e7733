"""Changing one number of a pass, and seeing which others change; torch computes it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet.inspection.tracing.address import WEIGHT
from glassnet.inspection.tracing.derivation import number
from glassnet.inspection.tracing.replay import Replay
from glassnet.inspection.tracing.rules.question import unravelled
from glassnet.inspection.tracing.values import Value

if TYPE_CHECKING:
    from glassnet.inspection.tracing.record import Trace

MOST = 12
Place = tuple[Value, tuple[int, ...]]


class Change(NamedTuple):
    """What became of one step's output."""

    step: str
    num_changed: int
    num_numbers: int
    where: str
    """The address of the number that changed most."""
    before: float
    after: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Perturbation:
    """A pass with one number, or several, set to another."""

    address: str
    before: tuple[float, ...]
    """What the numbers were."""
    after: tuple[float, ...]
    watched: Change | None
    """The number that was asked about; None where only the change was asked for."""
    changes: tuple[Change, ...]
    """Every step's output that changed, in the order of the calls."""
    replay: Replay = field(repr=False)
    trace: Trace = field(repr=False)

    @property
    def output(self) -> Tensor:
        """What the model returns now."""
        return self.replay.output

    @property
    def loss(self) -> Tensor | None:
        """The loss now; None for a trace without a label."""
        return self.replay.loss

    def value(self, address: str) -> float:
        """Return what a unit is now, changed or not."""
        place = self.trace.locate(address)
        return float(self.replay.tensor(place.value)[place.unit])

    def __str__(self) -> str:
        head = f"{self.address}: {_some(self.before)} -> {_some(self.after)}"
        lines = [head]
        if self.watched is not None:
            lines.append(f"  {self.watched.where}: {number(self.watched.before)} -> {number(self.watched.after)}")
        if not self.changes:
            return "\n".join([*lines, "  Nothing else changed."])
        shown = self.changes if len(self.changes) <= MOST else (*self.changes[: MOST - 1], self.changes[-1])
        width = max(len(change.step) for change in shown)
        lines += [
            f"  {change.step:<{width}}  {change.num_changed:,} of {change.num_numbers:,} changed; most "
            f"{change.where}: {number(change.before, 4)} -> {number(change.after, 4)}"
            for change in shown
        ]
        if len(shown) < len(self.changes):
            lines.insert(-1, f"  ... {len(self.changes) - len(shown)} more steps")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "address": self.address,
            "before": list(self.before),
            "after": list(self.after),
            "watched": None if self.watched is None else self.watched._asdict(),
            "changes": [change._asdict() for change in self.changes],
        }


def perturbed(trace: Trace, address: str, value: float | Tensor, watch: str | None) -> Perturbation:
    """Set the numbers at `address` to `value` and repeat what follows; see `Trace.perturb`."""
    target, index = _target(trace, address)
    tensor = target.tensor.clone()
    before = tuple(tensor[index].flatten().tolist())
    try:
        tensor[index] = torch.as_tensor(value, dtype=tensor.dtype)
    except (RuntimeError, TypeError, ValueError):
        shape = tuple(tensor[index].shape)
        raise UsageError(f"'{address}' names numbers of shape {shape}; got {value!r}. Give one number.") from None
    replay = trace.replay_from({target: tensor})
    return Perturbation(
        address=address,
        before=before,
        after=tuple(tensor[index].flatten().tolist()),
        watched=None if watch is None else _watched(trace, replay, watch),
        changes=_changes(trace, replay, target),
        replay=replay,
        trace=trace,
    )


def without(trace: Trace, watched: Place, address: str) -> float:
    """Return the number at `watched` with the numbers at `address` set to 0; see `Unit.without`."""
    target, index = _target(trace, address)
    tensor = target.tensor.clone()
    tensor[index] = 0
    value, place = watched
    return float(trace.replay_from({target: tensor}).tensor(value)[place])


def _target(trace: Trace, address: str) -> tuple[Value, tuple[int | slice, ...]]:
    """Return the tensor and the place in it: of a parameter, an input or a step's output."""
    match = WEIGHT.fullmatch(address.replace(", ", ","))
    if match is not None and (match["path"] in trace.parameters or "," in match["index"]):
        return trace.locate_weight(address)
    if address in trace.parameters:
        value = trace.parameters[address]
        return value, (slice(None),) * len(value.shape)
    location = trace.locate(address)
    return location.value, location.index


def _watched(trace: Trace, replay: Replay, watch: str) -> Change:
    place = trace.locate(watch)
    before, after = float(place.value.tensor[place.unit]), float(replay.tensor(place.value)[place.unit])
    return Change(trace.naming.name(place.value), int(before != after), 1, watch, before, after)


def _changes(trace: Trace, replay: Replay, target: Value) -> tuple[Change, ...]:
    found = [
        value
        for step in trace.steps
        for value in step.outputs
        if value in replay.changed and value != target and value.tensor.numel()
    ]
    return tuple(_change(trace, value, replay.changed[value]) for value in found)


def _change(trace: Trace, value: Value, now: Tensor) -> Change:
    before, after = value.tensor.double(), now.double()
    apart = torch.where(before == after, 0.0, (after - before).abs().nan_to_num(nan=torch.inf))
    index = tuple(unravelled(apart.argmax(), value.shape).tolist())
    return Change(
        trace.naming.name(value),
        int((apart > 0).sum()),
        value.tensor.numel(),
        trace.naming.text((value, index)),
        float(before[index]),
        float(after[index]),
    )


def _some(numbers: Sequence[float]) -> str:
    shown = ", ".join(number(value, 5) for value in numbers[:4])
    return shown if len(numbers) <= 4 else f"{shown} and {len(numbers) - 4:,} more"
