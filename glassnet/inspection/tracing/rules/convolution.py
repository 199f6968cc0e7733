"""Convolutions in one to three dimensions, forward and transposed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import Answer, Question, grid, places, sizes_of, summed
from glassnet.inspection.tracing.terms import Kind


def convolution(question: Question) -> Answer | None:
    """y[n,o,p] = sum over c, tap of x[n, c, p * stride - padding + tap * dilation] * w[o,c,tap], + b[o]."""
    image, weight = question.step.input("input"), question.step.input("weight")
    if image is None or weight is None:
        return None
    dims = len(weight.shape) - 2
    stride, dilation = (torch.tensor(sizes_of(question.argument(name, 1), dims)) for name in ("stride", "dilation"))
    padding = torch.tensor(_padding(question, weight.shape[2:], dilation.tolist()))
    channel, position = question.index[:, -dims - 1], question.index[:, -dims:]
    taps = grid(weight.shape[1:])
    group = channel // (weight.shape[0] // int(question.argument("groups", 1)))
    place = position[:, None] * stride - padding + taps[:, 1:] * dilation
    source = (group * weight.shape[1])[:, None, None] + taps[:, :1]
    at = torch.cat([*_batch(question, dims, len(taps)), source, place], -1)
    is_inside = ((place >= 0) & (place < torch.tensor(image.shape[-dims:]))).all(-1)
    weight_at = torch.cat([channel[:, None, None].expand(-1, len(taps), 1), taps.expand(len(channel), -1, -1)], -1)
    return summed(
        "sum of input x weight" + (" + bias" if question.step.input("bias") else ""),
        question.read(image, at, is_inside),
        question.read(weight, weight_at),
        places(image, at),
        kind=torch.where(is_inside, Kind.PRODUCT, Kind.PADDING).to(torch.int8),
        factor_at=places(weight, weight_at),
        **_bias(question, channel),
    )


def transposed(question: Question) -> Answer | None:
    """y[n,o,p] = sum of x[n,c,q] * w[c,o,tap] over c and tap with q * stride = p + padding - tap * dilation, + b[o]."""
    image, weight = question.step.input("input"), question.step.input("weight")
    if image is None or weight is None:
        return None
    dims = len(weight.shape) - 2
    stride, dilation = (torch.tensor(sizes_of(question.argument(name, 1), dims)) for name in ("stride", "dilation"))
    padding = torch.tensor(sizes_of(question.argument("padding", 0), dims))
    channel, position = question.index[:, -dims - 1], question.index[:, -dims:]
    per_group = weight.shape[0] // int(question.argument("groups", 1))
    taps = grid((per_group, *weight.shape[2:]))
    group, within = channel // weight.shape[1], channel % weight.shape[1]
    start = position[:, None] + padding - taps[:, 1:] * dilation
    place = start.div(stride, rounding_mode="floor")
    source = (group * per_group)[:, None, None] + taps[:, :1]
    is_met = ((start % stride == 0) & (place >= 0) & (place < torch.tensor(image.shape[-dims:]))).all(-1)
    at = torch.cat([*_batch(question, dims, len(taps)), source, place], -1)
    weight_at = torch.cat(
        [source, within[:, None, None].expand(-1, len(taps), 1), taps[:, 1:].expand(len(channel), -1, -1)], -1
    )
    return summed(
        "sum of input x weight, of the inputs whose kernels reach here"
        + (" + bias" if _bias(question, channel) else ""),
        question.read(image, at, is_met),
        question.read(weight, weight_at),
        places(image, at),
        kind=torch.where(is_met, Kind.PRODUCT, Kind.ABSENT).to(torch.int8),
        factor_at=places(weight, weight_at),
        **_bias(question, channel),
    )


def _padding(question: Question, kernel: tuple[int, ...], dilation: list[int]) -> tuple[int, ...]:
    """Return the zeros before each axis; where `same` is uneven, torch puts the extra one behind."""
    padding = question.argument("padding", 0)
    if padding == "same":
        return tuple(step * (size - 1) // 2 for size, step in zip(kernel, dilation, strict=True))
    return (0,) * len(kernel) if padding == "valid" else sizes_of(padding, len(kernel))


def _batch(question: Question, dims: int, num_taps: int) -> list[Tensor]:
    """Return the image's number as a column, nothing where there is no batch axis."""
    if question.index.shape[1] == dims + 1:
        return []
    return [question.index[:, :1, None].expand(-1, num_taps, 1)]


def _bias(question: Question, channel: Tensor) -> dict[str, Any]:
    bias = question.step.input("bias")
    if bias is None:
        return {}
    at = channel[:, None]
    return {"bias": question.read(bias, at), "bias_at": (bias, at)}
