"""The units that a unit feeds, where the weights between them can be read off: convolutions and linear layers.

`local_derivatives` has the same of any operation, by a repetition of the whole call; these take no arithmetic at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from glassnet.inspection.tracing.local_derivatives import Column, Derived, derived, gradient_of, numbers_at
from glassnet.inspection.tracing.sliding import Index, sliding_of
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.values import Value


def fed_by(step: Step, position: int, index: Index) -> Derived:
    """Return the outputs that one number among a step's inputs feeds, each with its delta and local derivative."""
    rule = RULES.get(step.op)
    gradient = gradient_of(step.output)
    if rule is not None and step.input_names[position] == "input" and gradient is not None and step.is_differentiable:
        found = rule(step, index, gradient)
        if found is not None:
            return Derived((found,))
    return derived(step, position, index)


def _convolution(step: Step, index: Index, gradient: Tensor) -> Column | None:
    sliding, weight = sliding_of(step), step.input("weight")
    if sliding is None or weight is None:
        return None
    image, channel, *place = index
    entries, outputs = sliding.met_by_input(tuple(place), step.shape[2:])
    if sliding.is_transposed:
        per_group, rows = step.inputs[0].shape[1] // sliding.groups, weight.shape[1]
        first, second = torch.full((rows,), channel), torch.arange(rows)
    else:
        per_group, rows = weight.shape[1], weight.shape[0] // sliding.groups
        first, second = torch.arange(rows), torch.full((rows,), channel % per_group)
    group = channel // per_group
    if not sliding.is_transposed:
        first = first + group * rows
    out_channels = torch.arange(rows) + group * rows
    count = len(entries)
    weight_index = torch.cat([torch.stack([first, second], -1).repeat_interleave(count, 0), entries.repeat(rows, 1)], 1)
    images = torch.full((rows * count, 1), image)
    found = torch.cat([images, out_channels.repeat_interleave(count)[:, None], outputs.repeat(rows, 1)], 1)
    return _weighted(step.output, found, gradient, weight, weight_index)


def _linear(step: Step, index: Index, gradient: Tensor) -> Column | None:
    weight = step.input("weight")
    if weight is None or len(weight.shape) != 2:
        return None
    rows = torch.arange(weight.shape[0])
    lead = torch.tensor(index[:-1], dtype=torch.long).expand(len(rows), -1)
    found = torch.cat([lead, rows[:, None]], 1)
    return _weighted(step.output, found, gradient, weight, torch.stack([rows, torch.full_like(rows, index[-1])], -1))


def _weighted(value: Value, found: Tensor, gradient: Tensor, weight: Value, weight_index: Tensor) -> Column:
    return Column(
        value,
        found,
        numbers_at(gradient, found),
        numbers_at(weight.tensor, weight_index),
        weight,
        weight_index,
    )


RULES: dict[str, Callable[[Step, Index, Tensor], Column | None]] = {
    "linear": _linear,
    **{f"conv{axes}d": _convolution for axes in (1, 2, 3)},
    **{f"conv_transpose{axes}d": _convolution for axes in (1, 2, 3)},
}
