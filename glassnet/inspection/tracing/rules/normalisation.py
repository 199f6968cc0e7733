"""Normalisation: the statistics, and the scale and shift that they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import Answer, Question, along, broadcast_index, places, summed
from glassnet.inspection.tracing.values import Value


def batch_norm(question: Question) -> Answer | None:
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, by channel (Ioffe and Szegedy 2015, algorithms 1, 2)."""
    if question.output != 0:
        return None
    step = question.step
    given = step.inputs[0]
    channel = question.index[:, 1:2]
    mean, variance = step.input("running_mean"), step.input("running_var")
    if not question.argument("training", False) and mean is not None and variance is not None:
        numbers = question.read(mean, channel), question.read(variance, channel)
    else:
        numbers = _statistics_by(question, given, [axis for axis in range(len(given.shape)) if axis != 1])
    return _normalised(question, *numbers, "batch norm's", channel)


def instance_norm(question: Question) -> Answer | None:
    """As batch norm, with the statistics of each channel of each image (Ulyanov et al. 2016)."""
    step = question.step
    channel = question.index[:, 1:2]
    if question.output != 0:
        return None
    mean, variance = step.input("running_mean"), step.input("running_var")
    if not question.argument("use_input_stats", True) and mean is not None and variance is not None:
        numbers = question.read(mean, channel), question.read(variance, channel)
    else:
        numbers = _statistics_by(question, step.inputs[0], range(2, len(step.inputs[0].shape)))
    return _normalised(question, *numbers, "the image's channel's", channel)


def layer_norm(question: Question) -> Answer | None:
    """y = (x - mean) / sqrt(variance + eps) * weight + bias over the last axes (Ba, Kiros and Hinton 2016)."""
    given = question.step.inputs[0]
    shape: Sequence[int] = question.argument("normalized_shape", ())
    first = len(given.shape) - len(shape)
    numbers = _statistics_by(question, given, range(first, len(given.shape)))
    return _normalised(question, *numbers, "the token's", question.index[:, first:])


def group_norm(question: Question) -> Answer | None:
    """As layer norm over groups of channels of an image (Wu and He 2018)."""
    given = question.step.inputs[0]
    groups = int(question.operand(1, "num_groups"))
    size = given.shape[1] // groups
    key = torch.stack([question.index[:, 0], question.index[:, 1].div(size, rounding_mode="floor")], 1)
    numbers = _statistics(key, lambda place: given.tensor[place[0], place[1] * size : (place[1] + 1) * size])
    return _normalised(question, *numbers, "the group's", question.index[:, 1:2])


def rms_norm(question: Question) -> Answer | None:
    """y = x / sqrt(mean of squares + eps) * weight over the last axes (Zhang and Sennrich 2019)."""
    given = question.step.inputs[0]
    shape: Sequence[int] = question.argument("normalized_shape", ())
    first = len(given.shape) - len(shape)
    taps = along(question.index, given.shape, range(first, len(given.shape)), is_kept=True)
    squares = question.read(given, taps).square().mean(-1)
    eps = question.argument("eps")
    eps = torch.finfo(given.tensor.dtype).eps if eps is None else eps
    scale = (squares + eps).rsqrt() * _parameter(question, "weight", question.index[:, first:], 1.0)
    at = question.index[:, None]
    return summed(
        "x / sqrt(mean of squares + eps) x weight",
        question.read(given, at),
        scale[:, None],
        places(given, at),
        working=(("mean of squares", squares), ("scale", scale)),
    )


def local_response_norm(question: Question) -> Answer | None:
    """y = x / (k + alpha * mean of squares of the neighbouring channels)^beta (Krizhevsky et al. 2012, section 3.3).

    As torch computes it: the sum is divided by the window's size, and the window reaches further towards lower
    channels where it is even.
    """
    given = question.step.inputs[0]
    size = int(question.argument("size"))
    alpha, beta, k = (float(question.argument(*pair)) for pair in (("alpha", 1e-4), ("beta", 0.75), ("k", 1.0)))
    offset = torch.arange(size) - size // 2
    neighbours = question.index[:, None].repeat(1, size, 1)
    neighbours[..., 1] += offset
    is_inside = (neighbours[..., 1] >= 0) & (neighbours[..., 1] < given.shape[1])
    squares = question.read(given, neighbours, is_inside).square()
    base = k + alpha * squares.sum(-1) / size
    at = question.index[:, None]
    near = tuple(
        (f"squared, channel {shift:+d}" if shift else "squared, its own", squares[:, place])
        for place, shift in enumerate(offset.tolist())
    )
    return summed(
        "x / (k + alpha x mean of squares of neighbouring channels)^beta",
        question.read(given, at),
        base.pow(-beta)[:, None],
        places(given, at),
        working=(*near, ("k + alpha x mean", base), ("scale", base.pow(-beta))),
    )


def weight_norm(question: Question) -> Answer | None:
    """w = v * g / |v|, with the length of all of v but one axis (Salimans and Kingma 2016)."""
    if len(question.step.inputs) != 2:
        return None
    given, length = question.step.inputs
    dim = int(question.argument("dim", 0)) % len(given.shape)
    at = question.index[:, None]
    own = along(question.index, given.shape, [axis for axis in range(len(given.shape)) if axis != dim], is_kept=True)
    norm = question.read(given, own).square().sum(-1).sqrt()
    g = question.read(length, broadcast_index(question.index, length))
    return summed(
        "v x g / |v|", question.read(given, at), (g / norm)[:, None], places(given, at),
        working=(("g", g), ("|v|", norm)),
    )  # fmt: skip


def _statistics_by(question: Question, given: Value, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return mean and variance `(U,)` over `axes`, each worked out once for the units that share it."""
    kept = [axis for axis in range(len(given.shape)) if axis not in axes]

    def block(key: tuple[int, ...]) -> Tensor:
        rows: list[int | slice] = [slice(None)] * len(given.shape)
        for axis, number in zip(kept, key, strict=True):
            rows[axis] = number
        return given.tensor[tuple(rows)]

    return _statistics(question.index[:, kept], block)


def _statistics(keys: Tensor, block: Callable[[tuple[int, ...]], Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and variance `(U,)` of the block that each unit's key `(U, k)` names, worked out once a block."""
    groups, place = keys.unique(dim=0, return_inverse=True)
    blocks = [block(tuple(group)).cpu().double() for group in groups.tolist()]
    means = torch.stack([numbers.mean() for numbers in blocks])
    variances = torch.stack([numbers.var(correction=0) for numbers in blocks])
    return means[place], variances[place]


def _normalised(question: Question, mean: Tensor, variance: Tensor, whose: str, parameter_at: Tensor) -> Answer:
    given = question.step.inputs[0]
    eps = float(question.argument("eps", 1e-5))
    weight = _parameter(question, "weight", parameter_at, 1.0)
    bias = _parameter(question, "bias", parameter_at, 0.0)
    scale = weight * (variance + eps).rsqrt()
    shift = bias - mean * scale
    at = question.index[:, None]
    x = question.read(given, at)
    return summed(
        "(x - mean) / sqrt(variance + eps) x weight + bias, as x x scale + shift",
        x,
        scale[:, None],
        places(given, at),
        bias=shift,
        scale=(x[:, 0] * scale).abs() + (mean * scale).abs() + bias.abs(),
        working=(
            (f"{whose} mean", mean), (f"{whose} variance", variance), ("eps", torch.full_like(mean, eps)),
            ("normalised", (x[:, 0] - mean) * (variance + eps).rsqrt()), ("weight", weight), ("bias given", bias),
            ("scale", scale), ("shift", shift),
        ),
    )  # fmt: skip


def _parameter(question: Question, name: str, at: Tensor, default: float) -> Tensor:
    value = question.step.input(name)
    if value is None:
        return torch.full((question.num_units,), default, dtype=torch.float64)
    return question.read(value, at)
