"""Many numbers turned into one: sums, means, variances, lengths; and the order of numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import (
    Answer,
    Question,
    along,
    axes_of,
    gathered,
    places,
    summed,
    turned,
)
from glassnet.inspection.tracing.terms import Kind


def reduction(question: Question) -> Answer | None:
    """The sum, or the mean, over axes."""
    given = question.step.inputs[0]
    dim = question.operand(1, "dim")
    is_kept = bool(question.operand(2, "keepdim"))
    at = along(question.index, given.shape, axes_of(dim, len(given.shape)), is_kept=is_kept)
    is_mean = question.step.op == "mean"
    share = torch.tensor(1 / max(at.shape[1], 1) if is_mean else 1.0, dtype=torch.float64)
    return summed("mean" if is_mean else "sum", question.read(given, at), share, places(given, at))


def spread(question: Question) -> Answer | None:
    """Variance, or standard deviation: the sum of (x - mean)^2 / (n - correction), its root."""
    given = question.step.call.kwargs
    dim = question.operand(1, "dim")
    is_biased = dim is False or question.operand(2) is False or given.get("unbiased") is False
    dim = None if isinstance(dim, bool) else dim
    numbers, at = _reduced(question, dim, bool(given.get("keepdim") or question.operand(3)))
    correction = given.get("correction")
    correction = 0 if is_biased else 1 if correction is None else correction
    mean = numbers.mean(-1, keepdim=True)
    squares = (numbers - mean).square()
    variance = squares.sum(-1) / (numbers.shape[-1] - correction)
    is_root = question.step.op == "std"
    return turned(
        "sum of (x - mean)^2 / (n - correction)" + (", its root" if is_root else ""),
        numbers,
        squares,
        places(question.step.inputs[0], at),
        working=(("mean", mean[:, 0]), ("variance", variance)),
        is_sum=False,
        scale=numbers.abs().mean(-1) if is_root else numbers.square().mean(-1),
        total=variance.sqrt() if is_root else variance,
    )


def length(question: Question) -> Answer | None:
    """The p-norm: (sum of |x|^p)^(1/p)."""
    order: Any = question.operand(1, "p", "ord")
    order = 2 if order is None or order == "fro" else order
    if not isinstance(order, int | float) or order <= 0 or math.isinf(order):
        return None
    numbers, at = _reduced(question, question.operand(2, "dim"), bool(question.operand(3, "keepdim")))
    powers = numbers.abs() ** order
    whole = powers.sum(-1)
    return turned(
        f"(sum of |x|^{order:g})^(1/{order:g})", numbers, powers, places(question.step.inputs[0], at), is_sum=False,
        working=((f"sum of |x|^{order:g}", whole),), total=whole ** (1 / order), scale=numbers.abs().sum(-1),
    )  # fmt: skip


def log_sum(question: Question) -> Answer | None:
    """m + log(sum of e^(z - m)), with m the largest."""
    numbers, at = _reduced(question, question.operand(1, "dim"), bool(question.operand(2, "keepdim")))
    largest = numbers.amax(-1)
    powers = (numbers - largest[:, None]).exp()
    return turned(
        "m + log(sum of e^(z - m))", numbers, powers, places(question.step.inputs[0], at), is_sum=False,
        working=(("m, the largest", largest), ("sum of e^(z - m)", powers.sum(-1))),
        total=largest + powers.sum(-1).log(), scale=largest.abs() + powers.sum(-1).log(),
        notes=("The product column is e^(z - m).",),
    )  # fmt: skip


def ordered(question: Question) -> Answer | None:
    """Sorting, and the k largest: a copy of the number whose place torch gave beside it."""
    if question.output != 0 or len(question.step.outputs) < 2:
        return None
    given = question.step.inputs[0]
    dim = question.operand(2 if question.step.op == "topk" else 1, "dim")
    dim = -1 if dim is None or isinstance(dim, bool) else dim
    axis = int(dim) % len(given.shape)
    at = question.index.clone()
    at[:, axis] = gathered(question.step.outputs[1].tensor, question.index)
    numbers = question.read(given, at[:, None])
    kind = torch.full(numbers.shape, Kind.TAKEN, dtype=torch.int8)
    return summed("a copy", numbers, torch.ones_like(numbers), places(given, at[:, None]), kind=kind)


def _reduced(question: Question, dim: Any, is_kept: bool) -> tuple[Tensor, Tensor]:
    """Return the numbers `(U, T)` that each unit was made of, and their places."""
    given = question.step.inputs[0]
    at = along(question.index, given.shape, axes_of(dim, len(given.shape)), is_kept=is_kept)
    return question.read(given, at), at
