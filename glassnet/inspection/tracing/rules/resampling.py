"""Interpolation: which pixels an enlarged or reduced one is mixed of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import Answer, Question, grid, places, summed
from glassnet.inspection.tracing.terms import Kind

LINEAR = {"linear", "bilinear", "trilinear"}


def interpolate(question: Question) -> Answer | None:
    """Nearest: one pixel. Linear: two along each axis, weighted by how near they are to the output pixel's centre."""
    mode = str(question.argument("mode", "nearest"))
    if question.argument("antialias") or mode not in LINEAR | {"nearest", "nearest-exact"}:
        return None
    image = question.step.inputs[0]
    dims = len(image.shape) - 2
    parts = [
        _axis(question, axis, mode, image.shape[2 + axis], question.value.shape[2 + axis], dims) for axis in range(dims)
    ]
    return _mixed(question, parts)


def _axis(question: Question, axis: int, mode: str, size: int, output: int, dims: int) -> tuple[Tensor, Tensor]:
    """Return the places `(U, 1 or 2)` along one axis and their weights, in the precision in which torch finds them."""
    dtype = torch.float64 if question.value.tensor.dtype == torch.float64 else torch.float32
    position = question.index[:, 2 + axis].to(dtype)
    is_aligned = bool(question.argument("align_corners")) and mode in LINEAR
    scale = torch.tensor(_scale(question, axis, size, output, dims, is_aligned=is_aligned), dtype=dtype)
    if mode not in LINEAR:
        start = ((position + 0.5) if mode == "nearest-exact" else position) * scale
        place = start.floor().long().clamp(max=size - 1)[:, None]
        return place, torch.ones_like(place, dtype=torch.float64)
    start = position * scale if is_aligned else (scale * (position + 0.5) - 0.5).clamp(min=0)
    first = start.floor().long().clamp(max=size - 1)
    share = (start - first).double().clamp(0, 1)
    second = (first + 1).clamp(max=size - 1)
    return torch.stack([first, second], -1), torch.stack([1 - share, share], -1)


def _scale(question: Question, axis: int, size: int, output: int, dims: int, *, is_aligned: bool) -> float:
    """Return input pixels for each output pixel."""
    if is_aligned:
        return (size - 1) / (output - 1) if output > 1 else 0.0
    factor = question.argument("scale_factor")
    if factor is None or question.argument("recompute_scale_factor"):
        return size / output
    factors: Sequence[float] = factor if isinstance(factor, list | tuple) else (factor,) * dims
    return 1.0 / float(factors[axis]) if not math.isclose(float(factors[axis]), 0.0) else 0.0


def _mixed(question: Question, parts: list[tuple[Tensor, Tensor]]) -> Answer:
    image = question.step.inputs[0]
    taps = grid([place.shape[1] for place, _ in parts])
    place = torch.stack([place[:, taps[:, axis]] for axis, (place, _) in enumerate(parts)], -1)
    weight = torch.stack([share[:, taps[:, axis]] for axis, (_, share) in enumerate(parts)]).prod(0)
    at = torch.cat([question.index[:, None, :2].expand(-1, len(taps), -1), place], -1)
    kind = torch.where(weight == 0, Kind.ABSENT, Kind.PRODUCT).to(torch.int8)
    formula = "a copy of the nearest" if len(taps) == 1 else "mean of the nearest, weighted by their nearness"
    return summed(formula, question.read(image, at).masked_fill(weight == 0, 0.0), weight, places(image, at), kind=kind)
