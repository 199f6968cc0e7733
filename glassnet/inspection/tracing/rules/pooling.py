"""Pooling: the window, its average or its winner."""

from __future__ import annotations

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import (
    Answer,
    Question,
    along,
    axes_of,
    broadcast_index,
    grid,
    places,
    places_in,
    sizes_of,
    summed,
)
from glassnet.inspection.tracing.terms import Kind, Places
from glassnet.inspection.tracing.values import Value


def max_pool(question: Question) -> Answer | None:
    """y[p] = the largest of the window; padding never wins."""
    image, dims = question.step.inputs[0], _dims(question)
    if question.output != 0:
        return None
    at, _ = _window(question, image, dims)
    return _largest(question, image, at, _inside(at, image, dims))


def adaptive_max_pool(question: Question) -> Answer | None:
    """y[p] = the largest of a window from floor(p * in / out) to ceil((p + 1) * in / out)."""
    image, dims = question.step.inputs[0], _dims(question)
    if question.output != 0:
        return None
    at, is_inside = _adaptive_window(question, image, dims)
    return _largest(question, image, at, is_inside)


def avg_pool(question: Question) -> Answer | None:
    """y[p] = the sum of the window / its size; zeros of the padding count unless `count_include_pad` is off."""
    image, dims = question.step.inputs[0], _dims(question)
    at, padding = _window(question, image, dims)
    is_inside = _inside(at, image, dims)
    size = torch.tensor(image.shape[-dims:])
    place = at[..., -dims:]
    is_counted = ((place >= -padding) & (place < size + padding)).all(-1)
    num_counted = is_counted.sum(-1) if question.argument("count_include_pad", True) else is_inside.sum(-1)
    divisor = question.argument("divisor_override")
    count = torch.full_like(num_counted, divisor) if divisor else num_counted
    kind = torch.where(is_inside, Kind.PRODUCT, torch.where(is_counted, Kind.PADDING, Kind.ABSENT)).to(torch.int8)
    return _average(question, image, at, is_inside, count, kind)


def adaptive_avg_pool(question: Question) -> Answer | None:
    """y[p] = the mean of a window from floor(p * in / out) to ceil((p + 1) * in / out)."""
    image, dims = question.step.inputs[0], _dims(question)
    at, is_inside = _adaptive_window(question, image, dims)
    kind = torch.where(is_inside, Kind.PRODUCT, Kind.ABSENT).to(torch.int8)
    return _average(question, image, at, is_inside, is_inside.sum(-1), kind)


def largest(question: Question) -> Answer | None:
    """The largest, or smallest, over axes (`max`, `amax`), or of two tensors (`maximum`)."""
    one, other = question.operand(0, "input"), question.operand(1, "other")
    if isinstance(one, Value) and isinstance(other, Value):
        parts = [(value, broadcast_index(question.index, value)[:, None]) for value in (one, other)]
        numbers = torch.cat([question.read(value, at) for value, at in parts], -1)
        return _chosen(question, numbers, places_in(parts), torch.ones_like(numbers, dtype=torch.bool))
    if question.output != 0 or not isinstance(one, Value):
        return None
    dim = other if other is not None else question.argument("dim")
    is_kept = bool(question.operand(2, "keepdim") or question.argument("keepdim"))
    at = along(question.index, one.shape, axes_of(dim, len(one.shape)), is_kept=is_kept)
    numbers = question.read(one, at)
    return _chosen(question, numbers, places(one, at), torch.ones_like(numbers, dtype=torch.bool))


def _dims(question: Question) -> int:
    return int(next(letter for letter in question.step.op if letter in "123"))


def _window(question: Question, image: Value, dims: int) -> tuple[Tensor, Tensor]:
    """Return the places `(U, T, rank)` of the windows, and the padding."""
    kernel = sizes_of(question.argument("kernel_size"), dims)
    stride = torch.tensor(sizes_of(question.argument("stride") or kernel, dims))
    padding = torch.tensor(sizes_of(question.argument("padding", 0), dims))
    dilation = torch.tensor(sizes_of(question.argument("dilation", 1), dims))
    place = question.index[:, None, -dims:] * stride - padding + grid(kernel) * dilation
    return torch.cat([question.index[:, None, :-dims].expand(-1, place.shape[1], -1), place], -1), padding


def _inside(at: Tensor, image: Value, dims: int) -> Tensor:
    place = at[..., -dims:]
    return ((place >= 0) & (place < torch.tensor(image.shape[-dims:]))).all(-1)


def _adaptive_window(question: Question, image: Value, dims: int) -> tuple[Tensor, Tensor]:
    size, output = torch.tensor(image.shape[-dims:]), torch.tensor(question.value.shape[-dims:])
    position = question.index[:, -dims:]
    start = (position * size).div(output, rounding_mode="floor")
    stop = ((position + 1) * size + output - 1).div(output, rounding_mode="floor")
    place = start[:, None] + grid((stop - start).amax(0).tolist())
    at = torch.cat([question.index[:, None, :-dims].expand(-1, place.shape[1], -1), place], -1)
    return at, (place < stop[:, None]).all(-1)


def _average(question: Question, image: Value, at: Tensor, is_inside: Tensor, count: Tensor, kind: Tensor) -> Answer:
    share = (1.0 / count.double())[:, None].expand(at.shape[:-1])
    return summed("mean of the window", question.read(image, at, is_inside), share, places(image, at), kind=kind)


def _largest(question: Question, image: Value, at: Tensor, is_inside: Tensor) -> Answer:
    return _chosen(question, question.read(image, at, is_inside), places(image, at), is_inside)


def _chosen(question: Question, numbers: Tensor, at: Places, is_inside: Tensor) -> Answer:
    """Return the answer of a choice among `numbers` `(U, T)`: the first of the largest wins, as in torch."""
    is_smallest = "min" in question.step.op
    size = -numbers if is_smallest else numbers
    size = size.masked_fill(~is_inside, -torch.inf)
    has_nan = size.isnan()
    best = size.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(-1, keepdim=True)
    is_best = torch.where(has_nan.any(-1, keepdim=True), has_nan, size == best) & is_inside
    winner = is_best.to(torch.int8).argmax(-1, keepdim=True)
    is_winner = torch.zeros_like(is_best).scatter(-1, winner, True)
    kind = torch.where(is_best, Kind.TIE, Kind.PASSED_OVER).where(is_inside, Kind.ABSENT)
    kind = torch.where(is_winner, Kind.TAKEN, kind).to(torch.int8)
    word = "smallest" if is_smallest else "largest"
    ties = is_best.sum(-1)
    note = (f"{int(ties[0])} numbers of the window are equally {'small' if is_smallest else 'large'}.",)
    return summed(
        f"the {word} of the window",
        numbers,
        is_winner.double(),
        at,
        kind=kind,
        notes=note if len(ties) == 1 and int(ties[0]) > 1 else (),
    )
