"""Where the channels of a value lie: after the batch axis, as images have them, or last, as tokens have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from glassnet._types import Shape
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.values import Value

FIRST = (
    "conv", "batch_norm", "instance_norm", "group_norm", "pool", "interpolate", "upsample", "pixel_shuffle",
    "local_response_norm", "channel_shuffle", "prelu", "dropout1d", "dropout2d", "dropout3d", "grid_sample",
)  # fmt: skip
"""Operations, by a part of the name, whose channels are on axis 1."""

LAST = ("linear", "layer_norm", "rms_norm", "embedding", "lstm", "gru", "rnn_tanh", "rnn_relu")
"""Operations, by a part of the name, whose features are on the last axis."""


def channel_axes(steps: Sequence[Step], inputs: Iterable[Value]) -> dict[int, int]:
    """Return the channel axis of every input and step's output by the value's number: 1, or the last axis.

    Operations of neither kind hand on what they were given; one that moves axes moves the channels with them.
    """
    axes = {value.number: _of_input(value, steps) for value in inputs}
    for step in steps:
        for value in step.outputs:
            axes[value.number] = _of_output(step, value.shape, axes)
    return axes


def _of_input(value: Value, steps: Sequence[Step]) -> int:
    """Return an input's axis by the first operation that tells."""
    for step in steps:
        axis = _told(step.op)
        if axis is not None and any(len(given.shape) == len(value.shape) for given in step.inputs):
            return _at(axis, value.shape)
    return _at(1, value.shape)


def _of_output(step: Step, shape: Shape, axes: dict[int, int]) -> int:
    axis = _told(step.op)
    if axis is not None:
        return _at(axis, shape)
    known = [(axes[value.number], value.shape) for value in step.inputs if value.number in axes]
    if not known:
        return _at(1, shape)
    before, given = next(((axis, other) for axis, other in known if len(other) == len(shape)), known[0])
    order = _moved(step, len(given))
    if order is not None and before < len(given):
        return _at(1 if order.index(before) == 1 else -1, shape)
    if len(given) == len(shape):
        return before
    return _at(_kept(before, given, shape), shape)


def _kept(before: int, given: Shape, shape: Shape) -> int:
    """Return the axis after a change of rank: the one of the channels' size."""
    if len(given) <= before or len(shape) < 2:
        return 1
    return -1 if shape[1] != given[before] and shape[-1] == given[before] else 1


def _told(op: str) -> int | None:
    if any(part in op for part in FIRST):
        return 1
    return -1 if any(part in op for part in LAST) else None


def _at(axis: int, shape: Shape) -> int:
    return max(len(shape) - 1, 0) if axis == -1 else min(axis, max(len(shape) - 1, 0))


def _moved(step: Step, rank: int) -> list[int] | None:
    """Return for each axis after the step which axis it was; None for a step that moves none."""
    order = list(range(rank))
    named = step.named
    if step.op in {"mT", "mH", "adjoint", "T"} and rank >= 2:
        order[-1], order[-2] = order[-2], order[-1]
        return order
    if step.op in {"transpose", "swapaxes", "swapdims"}:
        first, second = (named.get(name) for name in _pair(named))
        if not isinstance(first, int) or not isinstance(second, int):
            return None
        order[first], order[second] = order[second], order[first]
        return order
    if step.op == "permute":
        dims: Any = named.get("dims")
        return [int(axis) % rank for axis in dims] if isinstance(dims, list | tuple) and len(dims) == rank else None
    return None


def _pair(named: dict[str, Any]) -> tuple[str, str]:
    for pair in (("dim0", "dim1"), ("axis0", "axis1")):
        if pair[0] in named:
            return pair
    return "1", "2"
