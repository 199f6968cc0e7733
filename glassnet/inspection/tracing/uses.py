"""Where a weight is used: the inputs that it is multiplied by, and the outputs that they go into.

Rules for parameters of convolutions, linear layers and embeddings, and for the scales and shifts of normalisation. Any
other use is answered by `local_derivatives`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from glassnet.inspection.tracing.local_derivatives import derived, gradient_of, numbers_at
from glassnet.inspection.tracing.sliding import sliding_of
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.values import Value

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """The places of one step where a weight has its say, in columns."""

    value: Value
    """The output that they are units of."""
    index: Tensor
    """`(T, rank)`"""
    delta: Tensor
    """`(T,)` float64: dL/d(output)."""
    derivative: Tensor
    """`(T,)` float64: d(output)/d(weight); of a product the input."""
    given: Value | None = None
    """The input that the derivative is; None where it is worked out, or one."""
    given_index: Tensor | None = None
    """`(T, rank)`; outside the input for padding."""
    is_padding: Tensor | None = None
    """`(T,)`"""


class Uses(NamedTuple):
    """The uses at one position of a step's inputs."""

    uses: tuple[Use, ...]
    unexplained: float | None = None
    """dL/d(weight) through the step in one number, where it cannot be taken apart."""


def uses_of(step: Step, position: int, index: Index) -> Uses:
    """Return what the number at `index` of a parameter is multiplied by in one step, and the deltas there."""
    gradient = gradient_of(step.output)
    rule = RULES.get((step.op, step.input_names[position]))
    if rule is not None and gradient is not None and step.is_differentiable:
        found = rule(step, index, gradient)
        if found is not None:
            return Uses((found,))
    columns, unexplained = derived(step, position, index)
    # A scale of normalisation meets the normalised input at its own place.
    given = step.inputs[0] if step.op in NORMS and step.input_names[position] == "weight" else None
    uses = [Use(c.value, c.index, c.delta, c.derivative, given, None if given is None else c.index) for c in columns]
    return Uses(tuple(uses), unexplained)


def _convolution_weight(step: Step, index: Index, gradient: Tensor) -> Use | None:
    sliding, given, weight = sliding_of(step), step.input("input"), step.input("weight")
    if sliding is None or given is None or weight is None:
        return None
    first, second, *entry = index
    if sliding.is_transposed:  # the weight is (inputs, outputs of the group, ...)
        channel, group = first, first // (weight.shape[0] // sliding.groups)
        out_channel = group * weight.shape[1] + second
    else:
        out_channel, group = first, first // (weight.shape[0] // sliding.groups)
        channel = group * weight.shape[1] + second
    read, made = sliding.met_by_entry(tuple(entry), given.shape[2:], step.shape[2:])
    at, found = (_of_images(given.shape[0], c, places) for c, places in ((channel, read), (out_channel, made)))
    size = torch.tensor(given.shape[2:])
    is_padding = ((at[:, 2:] < 0) | (at[:, 2:] >= size)).any(1)
    inside = torch.cat([at[:, :2], at[:, 2:].clamp(min=0).minimum(size - 1)], 1)
    values = numbers_at(given.tensor, inside).masked_fill(is_padding, 0.0)
    return Use(step.output, found, numbers_at(gradient, found), values, given, at, is_padding)


def _of_images(count: int, channel: int, places: Tensor) -> Tensor:
    """Return places in one channel of every image, `(count * T, 2 + axes)`."""
    images = torch.arange(count).repeat_interleave(len(places))
    channels = torch.full_like(images, channel)
    return torch.cat([images[:, None], channels[:, None], places.repeat(count, 1)], 1)


def _convolution_bias(step: Step, index: Index, gradient: Tensor) -> Use | None:
    return _shift(step, gradient, 1, index[0])


def _linear_weight(step: Step, index: Index, gradient: Tensor) -> Use | None:
    given = step.input("input")
    if given is None or len(index) != 2:
        return None
    row, column = index
    deltas, values = gradient[..., row], given.tensor[..., column]
    lead = torch.ones_like(deltas, dtype=torch.bool).nonzero()
    found, at = (torch.cat([lead, torch.full((len(lead), 1), place)], 1) for place in (row, column))
    return Use(step.output, found, deltas.reshape(-1).double(), values.reshape(-1).double(), given, at)


def _linear_bias(step: Step, index: Index, gradient: Tensor) -> Use | None:
    return _shift(step, gradient, gradient.ndim - 1, index[0]) if len(index) == 1 else None


def _shift(step: Step, gradient: Tensor, axis: int, channel: int) -> Use:
    """What is added everywhere in a channel has the deltas of all of it, each times one."""
    deltas = gradient.select(axis, channel)
    lead = torch.ones_like(deltas, dtype=torch.bool).nonzero()
    found = torch.cat([lead[:, :axis], torch.full((len(lead), 1), channel), lead[:, axis:]], 1)
    flat = deltas.reshape(-1).double()
    return Use(step.output, found, flat, torch.ones_like(flat))


def _embedding(step: Step, index: Index, gradient: Tensor) -> Use | None:
    tokens, named = step.input("input"), step.named
    if tokens is None or named.get("scale_grad_by_freq") or named.get("max_norm") is not None:
        return None
    row, column = index
    found = (tokens.tensor == row).nonzero()
    padding = named.get("padding_idx")
    weight = step.input("weight")
    if padding is not None and weight is not None and row == padding % weight.shape[0]:
        found = found[:0]  # the row of padding is not learned
    at = torch.cat([found, torch.full((len(found), 1), column)], 1)
    deltas = numbers_at(gradient, at)
    return Use(step.output, at, deltas, torch.ones_like(deltas), tokens, found)


NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})

CONVOLUTIONS = [f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3)]

RULES: dict[tuple[str, str], Callable[[Step, Index, Tensor], Use | None]] = {
    **{(op, "weight"): _convolution_weight for op in CONVOLUTIONS},
    **{(op, "bias"): _convolution_bias for op in CONVOLUTIONS},
    ("linear", "weight"): _linear_weight,
    ("linear", "bias"): _linear_bias,
    ("embedding", "weight"): _embedding,
}
