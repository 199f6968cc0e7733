"""Products of matrices: linear layers, matmul and its kin, einsum."""

from __future__ import annotations

from string import ascii_letters
from typing import Any

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import (
    Answer,
    Question,
    broadcast_index,
    grid,
    places,
    summed,
)
from glassnet.inspection.tracing.values import Value


def linear(question: Question) -> Answer | None:
    """y[..., o] = sum over i of x[..., i] * w[o,i], + b[o]."""
    given, weight, bias = (question.step.input(name) for name in ("input", "weight", "bias"))
    if given is None or weight is None:
        return None
    count, index = given.shape[-1], question.index
    has_outputs = len(weight.shape) == 2
    taps = torch.arange(count)[:, None]
    lead = index[:, : len(given.shape) - 1]
    at = _joined(lead, taps)
    output = index[:, -1:] if has_outputs else index[:, :0]
    weight_at = _joined(output, taps)
    more = {} if bias is None else {"bias": question.read(bias, broadcast_index(index, bias))}
    return summed(
        "sum of input x weight" + ("" if bias is None else " + bias"),
        question.read(given, at),
        question.read(weight, weight_at),
        places(given, at),
        factor_at=places(weight, weight_at),
        bias_at=None if bias is None else (bias, broadcast_index(index, bias)),
        **more,
    )


def matmul(question: Question) -> Answer | None:
    """y[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]; vectors are rows on the left, columns on the right."""
    if len(question.step.inputs) != 2:
        return None
    one, other = question.step.inputs
    if question.step.op == "rmatmul":
        one, other = other, one
    return _product(question, one, other)


def addmm(question: Question) -> Answer | None:
    """y = beta * input + alpha * (a @ b), of matrices or of batches of them."""
    added, one, other = question.step.inputs
    beta, alpha = (float(question.argument(name, 1)) for name in ("beta", "alpha"))
    at = broadcast_index(question.index, added)
    bias = beta * question.read(added, at) if beta else torch.zeros(question.num_units, dtype=torch.float64)
    return _product(question, one, other, alpha, bias=bias, bias_at=(added, at) if beta == 1 else None)


def einsum(question: Question) -> Answer | None:
    """Multiply and sum over the labels that are not in the output, in Einstein's notation."""
    equation = question.operand(0, "equation")
    operands = question.step.inputs
    if not isinstance(equation, str) or not 1 <= len(operands) <= 3:
        return None
    reads, result = _labels(equation, [len(operand.shape) for operand in operands])
    if len(reads) != len(operands) or any(len(r) != len(o.shape) for r, o in zip(reads, operands, strict=True)):
        return None
    sizes: dict[str, int] = {}
    for labels, operand in zip(reads, operands, strict=True):
        for label, size in zip(labels, operand.shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    inner = [label for label in sizes if label not in result]
    taps = grid([sizes[label] for label in inner])
    ats = []
    for labels, operand in zip(reads, operands, strict=True):
        columns = [
            question.index[:, None, result.index(label)] if label in result else taps[None, :, inner.index(label)]
            for label in labels
        ]
        is_wide = torch.tensor([int(size != 1) for size in operand.shape], dtype=torch.long)
        shape = (question.num_units, len(taps))
        ats.append(torch.stack([column.expand(shape) for column in columns], -1) * is_wide)
    factor = torch.ones(question.num_units, len(taps), dtype=torch.float64)
    for operand, at in zip(operands[1:], ats[1:], strict=True):
        factor = factor * question.read(operand, at)
    return summed(
        f"sum of products, {equation}",
        question.read(operands[0], ats[0]),
        factor,
        places(operands[0], ats[0]),
        factor_at=places(operands[1], ats[1]) if len(operands) == 2 else None,
    )


def _product(question: Question, one: Value, other: Value, alpha: float = 1.0, **more: Any) -> Answer:
    index, count = question.index, one.shape[-1]
    taps = torch.arange(count)[:, None]
    has_row, has_column = len(one.shape) > 1, len(other.shape) > 1
    num_last = int(has_row) + int(has_column)
    batch = index[:, : index.shape[1] - num_last]
    row = index[:, index.shape[1] - num_last : index.shape[1] - int(has_column)]
    column = index[:, index.shape[1] - int(has_column) :]
    at = _joined(torch.cat([_batch_index(batch, one), row], 1), taps)
    lead = _joined(_batch_index(batch, other), taps)
    factor_at = torch.cat([lead, column[:, None].expand(-1, count, -1)], -1)
    return summed(
        "sum of products" + ("" if alpha == 1 else f" x {alpha:g}") + (" + bias" if "bias" in more else ""),
        question.read(one, at),
        alpha * question.read(other, factor_at),
        places(one, at),
        factor_at=places(other, factor_at) if alpha == 1 else None,
        **more,
    )


def _batch_index(batch: Tensor, operand: Value) -> Tensor:
    """Return the batch part of an operand's index: its own axes, those of size 1 at 0."""
    shape = operand.shape[:-2]
    last = batch[:, batch.shape[1] - len(shape) :]
    return last * torch.tensor([int(size != 1) for size in shape], dtype=torch.long)


def _joined(lead: Tensor, taps: Tensor) -> Tensor:
    """Return `(U, T, rank)`: every unit's leading index `(U, a)` with every tap `(T, b)`."""
    one = lead[:, None].expand(-1, len(taps), -1)
    other = taps.expand(len(lead), -1, -1)
    return torch.cat([one, other], -1)


def _labels(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return the labels of each operand and of the result; an ellipsis gets letters of its own."""
    text = equation.replace(" ", "")
    before, arrow, result = text.partition("->")
    letters = before.replace(",", "").replace(".", "")
    reads = before.split(",")
    rests = [rank - len(read.replace(".", "")) if "." in read else 0 for read, rank in zip(reads, ranks, strict=False)]
    free = [letter for letter in ascii_letters if letter not in letters][: max(rests, default=0)]
    if not arrow:
        once = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
        result = ("..." if free else "") + once
    reads = [read.replace("...", "".join(free[len(free) - rest :])) for read, rest in zip(reads, rests, strict=False)]
    return reads, result.replace("...", "".join(free))
