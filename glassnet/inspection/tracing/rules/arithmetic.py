"""Sums, differences, products and quotients of tensors; sums and means over axes; dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import (
    Answer,
    Question,
    broadcast_index,
    gathered,
    places,
    places_in,
    summed,
    turned,
)
from glassnet.inspection.tracing.values import Value


def add(question: Question) -> Answer | None:
    """y = a + alpha * b; y = a - alpha * b, where one of them may be a number."""
    one, other = question.operand(0, "input"), question.operand(1, "other")
    step = question.step
    alpha = float(step.call.kwargs.get("alpha", 1))
    if len(step.call.args) > 2:
        return None
    signs = {"sub": (1.0, -alpha), "subtract": (1.0, -alpha), "rsub": (-alpha, 1.0)}.get(step.op, (1.0, alpha))
    return _weighted(question, [(one, signs[0]), (other, signs[1])], "a - b" if "sub" in step.op else "a + b")


def negative(question: Question) -> Answer | None:
    """y = -x."""
    return _weighted(question, [(question.step.inputs[0], -1.0)], "-x")


def multiply(question: Question) -> Answer | None:
    """y = a * b."""
    one, other = question.operand(0, "input"), question.operand(1, "other")
    if not isinstance(one, Value):
        one, other = other, one
    at = broadcast_index(question.index, one)[:, None]
    factor, factor_at = _factor(question, other)
    return summed("a x b", question.read(one, at), factor, places(one, at), factor_at=factor_at)


def divide(question: Question) -> Answer | None:
    """y = a / b."""
    one, other = question.operand(0, "input"), question.operand(1, "other")
    if question.step.op in {"rtruediv", "rdiv"}:
        one, other = other, one
    if question.argument("rounding_mode") is not None:
        return None
    divisor, _ = _factor(question, other)
    if not isinstance(one, Value):
        at = broadcast_index(question.index, other)[:, None]
        return turned(f"{one:g} / x", divisor, float(one) / divisor, places(other, at))
    at = broadcast_index(question.index, one)[:, None]
    return summed("a / b", question.read(one, at), 1 / divisor, places(one, at), working=(("b", divisor[:, 0]),))


def power(question: Question) -> Answer | None:
    """y = x^p."""
    one, other = question.operand(0, "input"), question.operand(1, "exponent")
    if question.step.op == "rpow":
        one, other = other, one
    if isinstance(one, Value) and isinstance(other, Value):
        return None
    if isinstance(other, Value):
        at = broadcast_index(question.index, other)[:, None]
        x = question.read(other, at)
        return turned(f"{one:g}^x", x, torch.pow(float(one), x), places(other, at))
    at = broadcast_index(question.index, one)[:, None]
    x = question.read(one, at)
    return turned(f"x^{other:g}", x, x.pow(float(other)), places(one, at))


def add_product(question: Question) -> Answer | None:
    """y = x + value * a * b, or x + value * a / b."""
    base, one, other = question.step.inputs[:3] if len(question.step.inputs) == 3 else (None, None, None)
    if base is None or one is None or other is None:
        return None
    value = float(question.argument("value", 1))
    ats = [broadcast_index(question.index, part)[:, None] for part in (base, one, other)]
    factor = question.read(other, ats[2])
    factor = value * (factor if question.step.op == "addcmul" else 1 / factor)
    return summed(
        "x + value x a x b" if question.step.op == "addcmul" else "x + value x a / b",
        torch.cat([question.read(base, ats[0]), question.read(one, ats[1])], -1),
        torch.cat([torch.ones_like(factor), factor], -1),
        places_in([(base, ats[0]), (one, ats[1])]),
    )


def lerp(question: Question) -> Answer | None:
    """y = (1 - weight) * a + weight * b."""
    weight = question.operand(2, "weight")
    if isinstance(weight, Value) or len(question.step.inputs) != 2:
        return None
    one, other = question.step.inputs
    return _weighted(question, [(one, 1 - float(weight)), (other, float(weight))], "(1 - weight) x a + weight x b")


def outer(question: Question) -> Answer | None:
    """y[i,j] = a[i] * b[j]."""
    one, other = question.step.inputs
    at, factor_at = question.index[:, None, :1], question.index[:, None, 1:]
    return summed(
        "a x b", question.read(one, at), question.read(other, factor_at), places(one, at),
        factor_at=places(other, factor_at),
    )  # fmt: skip


def dropout(question: Question) -> Answer | None:
    """y = x / (1 - p), or 0 where it was dropped; in evaluation y = x (Srivastava et al. 2014, section 10)."""
    given = question.step.inputs[0]
    if len(question.step.inputs) != 1:
        return None
    at = question.index[:, None]
    # The same draws on ones: what each number was multiplied with.
    mask = question.step.replay({0: torch.ones_like(given.tensor)})
    factor = gathered(mask, at).double()
    is_training = bool(question.argument("training", True))
    words = "x / (1 - p), or 0 where it was dropped" if is_training else "x, as dropout is off"
    return summed(words, question.read(given, at), factor, places(given, at))


def _factor(question: Question, operand: Any) -> tuple[Tensor, Any]:
    """Return an operand's numbers `(U, 1)`, and where they stand."""
    if not isinstance(operand, Value):
        return torch.full((question.num_units, 1), float(operand), dtype=torch.float64), None
    at = broadcast_index(question.index, operand)[:, None]
    return question.read(operand, at), places(operand, at)


def _weighted(question: Question, operands: list[tuple[Any, float]], formula: str) -> Answer | None:
    """Return the sum of operands with weights; a plain number among them is the bias."""
    parts = [
        (value, broadcast_index(question.index, value)[:, None], weight)
        for value, weight in operands
        if isinstance(value, Value)
    ]
    constants = [float(value) * weight for value, weight in operands if isinstance(value, int | float)]
    if len(parts) + len(constants) != len(operands) or not parts:
        return None
    return summed(
        formula,
        torch.cat([question.read(value, at) for value, at, _ in parts], -1),
        torch.tensor([weight for *_, weight in parts], dtype=torch.float64),
        places_in([(value, at) for value, at, _ in parts]),
        bias=torch.full((question.num_units,), sum(constants), dtype=torch.float64) if constants else None,
    )
