"""What follows where some numbers of a pass were others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from glassnet._errors import UsageError, WorkError
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.values import Value


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """A pass with some numbers changed."""

    changed: Mapping[Value, Tensor] = field(repr=False)
    """The new tensor of every value whose numbers differ from the recorded ones."""
    output: Tensor
    """What the model returns now."""
    loss: Tensor | None
    """None for a trace without a label."""

    def tensor(self, value: Value) -> Tensor:
        """Return what a value of the trace is now, changed or not."""
        return self.changed.get(value, value.tensor)


def replay_from(
    steps: Sequence[Step],
    output: Value,
    loss: Value | None,
    read_by_program: Collection[Value],
    changes: Mapping[Value, Tensor],
) -> Replay:
    """Repeat the calls downstream of `changes`; see `Trace.replay_from`."""
    given = {value: _fitted(value, tensor) for value, tensor in changes.items()}
    changed = {value: tensor for value, tensor in given.items() if not torch.equal(tensor, value.tensor)}
    with torch.inference_mode(False), torch.no_grad():
        _check_unread(changed, read_by_program)
        for step in steps:
            overrides = {position: changed[value] for position, value in enumerate(step.inputs) if value in changed}
            if not overrides:
                continue
            new = _differing(step, step.replay_all(overrides), given)
            _check_unread(new, read_by_program)
            changed.update(new)
    return Replay(
        changed=changed,
        output=changed.get(output, output.tensor),
        loss=None if loss is None else changed.get(loss, loss.tensor),
    )


def _differing(step: Step, outputs: Sequence[Tensor], given: Mapping[Value, Tensor]) -> dict[Value, Tensor]:
    """Return the outputs that are not what was recorded, without those that the caller gave."""
    new: dict[Value, Tensor] = {}
    for value, tensor in zip(step.outputs, outputs, strict=True):
        if tuple(tensor.shape) != value.shape:
            raise WorkError(
                f"The changed numbers change the shape of {step.name} from {value.shape} to {tuple(tensor.shape)}, so "
                "that the recorded calls no longer follow. Trace the model again with the change made."
            )
        if value not in given and not torch.equal(tensor, value.tensor):
            new[value] = tensor
    return new


def _check_unread(changed: Mapping[Value, Tensor], read_by_program: Collection[Value]) -> None:
    if any(value in read_by_program for value in changed):
        raise WorkError(
            "The model's own Python code reads a number that changes, and may take another way with it; the recorded "
            "calls cannot tell. Trace the model again with the change made."
        )


def _fitted(value: Value, tensor: Tensor) -> Tensor:
    if tuple(tensor.shape) != value.shape:
        raise UsageError(f"A change must have its value's shape {value.shape}; got {tuple(tensor.shape)}.")
    return tensor.detach().to(value.tensor.dtype)
