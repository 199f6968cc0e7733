"""Moving numbers: views, joins, indexing, padding. The answer is where the number came from.

Found by running torch's own operation once more, on tensors whose every number is its own place.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import Answer, Question, gathered, summed, unravelled
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.terms import NOWHERE, Kind, Places

VIEWS = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone", "detach", "view_as",
         "to", "float", "double", "half", "bfloat16", "type", "type_as", "cpu", "cuda", "positive", "data", "alias",
         "identity", "reshape_as", "atleast_2d", "requires_grad", "ravel"}  # fmt: skip
"""Operations that keep the order of the numbers."""

CONSTANTS = {"pad", "setitem", "masked_fill", "where", "constant_pad_nd", "tril", "triu", "scatter", "index_fill",
             "fill", "zero", "unfold", "diag_embed", "diag", "index_put", "copy"}  # fmt: skip
"""Operations that may put in numbers that stand in no input."""

MOVES = {"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT", "t", "H", "mH", "adjoint",
         "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "getitem", "select", "narrow",
         "index_select", "chunk", "split", "tensor_split", "unbind", "split_with_sizes", "expand", "expand_as",
         "broadcast_to", "repeat", "repeat_interleave", "tile", "roll", "flip", "fliplr", "flipud", "rot90", "gather",
         "take", "take_along_dim", "diagonal", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "embedding",
         "masked_select", "overwrite", "broadcast_tensors", "meshgrid", "as_strided", "rearrange"}  # fmt: skip


def movement(question: Question) -> Answer | None:
    """y = x: a copy of one number of an input, or a constant that was put there."""
    positions, starts, origin = _origins(question)
    if origin is None:
        return None
    values = tuple(question.step.inputs[position] for position in positions)
    rank = max(len(value.shape) for value in values)
    edges = torch.tensor(starts)
    is_copied = origin >= 0
    which = (torch.bucketize(origin, edges, right=True) - 1).where(is_copied, NOWHERE)
    index = torch.zeros(len(origin), rank, dtype=torch.long)
    numbers = torch.zeros(len(origin), dtype=torch.float64)
    for number, value in enumerate(values):
        rows = which == number
        if bool(rows.any()):
            at = unravelled(origin[rows] - starts[number], value.shape)
            index[rows, : at.shape[1]] = at
            numbers[rows] = question.read(value, at)
    put = gathered(question.value.tensor, question.index).double()
    is_padding = question.step.op in {"pad", "constant_pad_nd", "unfold"}
    kind = torch.where(is_copied, Kind.TAKEN, Kind.PADDING if is_padding else Kind.PRODUCT).to(torch.int8)
    notes = () if bool(is_copied.all()) else (_said(is_padding=is_padding),)
    return summed(
        "a copy",
        torch.where(is_copied, numbers, put)[:, None],
        torch.ones((), dtype=torch.float64),
        Places(values, which[:, None], index[:, None]),
        kind=kind[:, None],
        notes=notes,
    )


def _said(*, is_padding: bool) -> str:
    if is_padding:
        return "The padding put this number there; it stands in no input."
    return "The operation put this number there; it stands in no input."


def _origins(question: Question) -> tuple[list[int], list[int], Tensor | None]:
    """Return the movable inputs' positions, where each starts among all places, and the places `(U,)`.

    A place of -1 is a number that stands in no input. None where the operation does not only move.
    """
    step = question.step
    kind = question.value.tensor.dtype
    positions = [
        position
        for position, value in enumerate(step.inputs)
        if value.tensor.dtype == kind or (step.op in VIEWS and position == 0)
    ]
    if not positions or (step.op == "embedding" and positions != [1]):
        return positions, [], None
    if any(value.tensor.is_complex() for value in step.inputs):
        return positions, [], None
    starts = [0]
    for position in positions:
        starts.append(starts[-1] + step.inputs[position].tensor.numel())
    if step.op in VIEWS:
        flat = torch.zeros(question.num_units, dtype=torch.long)
        for axis, size in enumerate(question.value.shape):
            flat = flat * size + question.index[:, axis]
        return positions[:1], starts[:1], flat
    whole = _mapped(step, positions, starts)[question.output]
    if whole is None:
        return positions, starts, None
    return positions, starts[:-1], gathered(whole, question.index)


_MAPS: WeakKeyDictionary[Step, list[Tensor | None]] = WeakKeyDictionary()
"""The places of steps that were asked about, as long as their trace lives."""


def _mapped(step: Step, positions: list[int], starts: list[int]) -> list[Tensor | None]:
    """Return for every output the place that each number came from."""
    if step not in _MAPS:
        _MAPS[step] = _worked_out(step, positions, starts)
    return _MAPS[step]


def _worked_out(step: Step, positions: list[int], starts: list[int]) -> list[Tensor | None]:
    def run(shift: int) -> list[Tensor]:
        overrides = {
            position: torch.arange(start + shift, start + shift + value.tensor.numel(), dtype=torch.float64).reshape(
                value.shape
            )
            for position, start, value in ((p, s, step.inputs[p]) for p, s in zip(positions, starts, strict=False))
        }
        return list(step.replay_all(overrides))

    end = starts[-1]
    try:
        first = run(0)
        second = run(end) if step.op in CONSTANTS else None
    except (RuntimeError, TypeError):  # an operation that takes no other type
        return [None] * len(step.outputs)
    if second is None:
        return [tensor.long() if tensor.dtype == torch.float64 else None for tensor in first]
    return [
        torch.where(one == other, -1, one).long() if bool(((one == other) | (other - one == end)).all()) else None
        for one, other in zip(first, second, strict=True)
    ]
