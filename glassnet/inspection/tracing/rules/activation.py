"""Activations: each a function of one number, written as in the textbook and worked out in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import Answer, Question, broadcast_index, places, summed, turned

Function = Callable[[Tensor, Question], Tensor]


def _a(question: Question, name: str, default: float) -> float:
    found = question.argument(name)
    return default if found is None else float(found)


def _sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return torch.where(x * beta > threshold, x, torch.log1p((x * beta).clamp(max=threshold).exp()) / beta)


def _elu(x: Tensor, alpha: float, scale: float = 1.0, inner: float = 1.0) -> Tensor:
    return torch.where(x > 0, scale * x, scale * alpha * torch.expm1((x * inner).clamp(max=0)))


def _gelu(x: Tensor, question: Question) -> Tensor:
    if question.argument("approximate") == "tanh":
        return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

FUNCTIONS: dict[str, tuple[str, Function]] = {
    "sigmoid": ("1 / (1 + e^-x)", lambda x, _: _sigmoid(x)),
    "tanh": ("(e^x - e^-x) / (e^x + e^-x)", lambda x, _: torch.tanh(x)),
    "logsigmoid": ("-log(1 + e^-x)", lambda x, _: -_softplus(-x, threshold=700)),
    "gelu": ("x times the normal distribution's share below x", _gelu),
    "silu": ("x / (1 + e^-x)", lambda x, _: x * _sigmoid(x)),
    "mish": ("x tanh(log(1 + e^x))", lambda x, _: x * torch.tanh(_softplus(x))),
    "hardswish": ("x min(max(x + 3, 0), 6) / 6", lambda x, _: x * (x + 3).clamp(0, 6) / 6),
    "hardsigmoid": ("min(max(x + 3, 0), 6) / 6", lambda x, _: (x + 3).clamp(0, 6) / 6),
    "elu": ("x, or alpha (e^x - 1) below 0", lambda x, q: _elu(x, _a(q, "alpha", 1.0))),
    "celu": ("x, or alpha (e^(x / alpha) - 1) below 0",
             lambda x, q: _elu(x, _a(q, "alpha", 1.0), 1.0, 1 / _a(q, "alpha", 1.0))),
    "selu": ("1.0507 x, or 1.7581 (e^x - 1) below 0", lambda x, _: _elu(x, SELU_ALPHA, SELU_SCALE)),
    "softplus": ("log(1 + e^(beta x)) / beta", lambda x, q: _softplus(x, _a(q, "beta", 1), _a(q, "threshold", 20))),
    "hardtanh": ("x, held between its bounds", lambda x, q: x.clamp(_a(q, "min_val", -1), _a(q, "max_val", 1))),
    "threshold": ("x, or a value where x is not above the threshold",
                  lambda x, q: torch.where(x > _a(q, "threshold", 0), x, _a(q, "value", 0))),
    "softshrink": ("x brought towards 0 by lambda",
                   lambda x, q: x.sign() * (x.abs() - _a(q, "lambd", 0.5)).clamp(min=0)),
    "hardshrink": ("x, or 0 near 0", lambda x, q: torch.where(x.abs() > _a(q, "lambd", 0.5), x, 0.0)),
}  # fmt: skip
"""By operation: what is said of it, and the function."""

FUNCTIONS["log_sigmoid"] = FUNCTIONS["logsigmoid"]
FUNCTIONS["relu6"] = ("x, held between 0 and 6", lambda x, _: x.clamp(0, 6))

PLAIN = {
    "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "square", "abs", "sin", "cos", "tan", "atan",
    "sinh", "cosh", "erf", "erfc", "reciprocal", "sign", "floor", "ceil", "round", "trunc", "frac", "nan_to_num",
    "asin", "acos", "sinc", "logit",
}  # fmt: skip
"""Functions of one number that need no words: torch's own, in float64."""


def activation(question: Question) -> Answer | None:
    """One number, turned into another by a formula."""
    words, function = FUNCTIONS[question.step.op]
    given = question.step.inputs[0]
    if len(question.step.inputs) != 1:
        return None
    at = question.index[:, None]
    x = question.read(given, at)
    return turned(words, x, function(x, question), places(given, at))


def elementwise(question: Question) -> Answer | None:
    """One number, turned into another by a function that torch names."""
    given = question.step.inputs[0]
    if len(question.step.inputs) != 1 or question.step.arguments:
        return None
    at = question.index[:, None]
    x = question.read(given, at)
    with torch.no_grad():
        result: Tensor = getattr(torch, question.step.op)(x)
    scale = (x.abs() + 1 + result.abs())[:, 0] if question.step.op in {"log", "log1p", "log2", "log10"} else None
    more = {} if scale is None else {"scale": scale}
    return turned(f"{question.step.op} of the number", x, result, places(given, at), **more)


def relu(question: Question) -> Answer | None:
    """y = x where x > 0, else 0: a weight of 1 or 0."""
    return _sloped(question, 0.0, "x where it is above 0, else 0")


def leaky_relu(question: Question) -> Answer | None:
    """y = x where x > 0, else slope * x."""
    return _sloped(question, _a(question, "negative_slope", 0.01), "x where it is above 0, else slope x")


def prelu(question: Question) -> Answer | None:
    """y = x where x > 0, else a learned slope times x (He et al. 2015)."""
    given, weight = question.step.inputs
    channel = question.index[:, 1:2] if len(given.shape) > 1 else question.index[:, :1]
    at = channel if weight.shape[0] > 1 else torch.zeros_like(channel)
    slope = question.read(weight, at)
    return _sloped(question, slope, "x where it is above 0, else the learned slope x")


def clamp(question: Question) -> Answer | None:
    """y = x, held between two numbers."""
    given = question.step.inputs[0]
    low, high = question.operand(1, "min"), question.operand(2, "max")
    if len(question.step.inputs) != 1:
        return None
    low, high = {"clamp_min": (low, None), "clamp_max": (None, low if low is not None else high)}.get(
        question.step.op, (low, high)
    )
    at = question.index[:, None]
    x = question.read(given, at)
    return turned("x, held between its bounds", x, x.clamp(low, high), places(given, at))


def glu(question: Question) -> Answer | None:
    """y = a * sigmoid(b), the two halves along an axis (Dauphin et al. 2017)."""
    given = question.step.inputs[0]
    axis = int(question.argument("dim", -1)) % len(given.shape)
    at = question.index[:, None]
    gate_at = at.clone()
    gate_at[..., axis] += question.value.shape[axis]
    gate = question.read(given, gate_at)
    return summed(
        "a x sigmoid(b)", question.read(given, at), _sigmoid(gate), places(given, at), working=(("b", gate[:, 0]),)
    )


def _sloped(question: Question, slope: float | Tensor, words: str) -> Answer:
    given = question.step.inputs[0]
    at = broadcast_index(question.index, given)[:, None]
    x = question.read(given, at)
    slope = slope[:, None] if isinstance(slope, Tensor) else torch.full_like(x, slope)
    # A nan stays one: the comparison with 0 is false for it, and nan times the slope is nan.
    factor = torch.where(x > 0, 1.0, slope)
    return summed(words, x, factor, places(given, at))
