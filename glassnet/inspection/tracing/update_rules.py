"""One weight's update by each of torch's optimizers, line by line, in float64.

Each rule returns the lines of its derivation: a name, the formula, the number; the last but one is the update that is
added, the last the new weight. State is the optimizer's own, read before the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Line(NamedTuple):
    """One line of a derivation."""

    name: str
    formula: str
    value: float


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight and what an optimizer knows of it."""

    all: Tensor
    """The parameter as the optimizer has it."""
    gradient: Tensor
    """dL/d(parameter), of its shape."""
    place: tuple[int, ...]
    state: Mapping[str, Any]
    """The parameter's state before the step; empty before the first."""
    group: Mapping[str, Any]
    """The options of the parameter's group."""

    @property
    def w(self) -> float:
        """The weight."""
        return float(self.all[self.place])

    @property
    def g(self) -> float:
        """Its gradient."""
        return float(self.gradient[self.place])

    def option(self, name: str, default: float = 0.0) -> float:
        """Return an option of the group as a number."""
        return float(self.group.get(name) or 0.0) if name in self.group else default

    def kept(self, name: str, default: float = 0.0) -> float:
        """Return the weight's entry of a state."""
        found = self.state.get(name)
        return default if found is None else float(found[self.place])

    @property
    def num_steps(self) -> int:
        """Steps taken so far."""
        return int(self.state.get("step", 0))


def sgd(weight: Weight) -> list[Line]:
    """Return the update by stochastic gradient descent, with momentum in Polyak's or Nesterov's form.

    Sutskever et al. (2013), "On the importance of initialization and momentum in deep learning"; as torch has it, the
    rate multiplies the velocity, and the first velocity is the gradient, not dampened.
    """
    g, lines = _gradient(weight)
    rate, momentum, dampening = (weight.option(name) for name in ("lr", "momentum", "dampening"))
    direction, said = g, "g"
    if momentum:
        if weight.state.get("momentum_buffer") is None:
            velocity, formula = g, "g, the first velocity"
        else:
            before = weight.kept("momentum_buffer")
            velocity = momentum * before + (1 - dampening) * g
            share = f" x (1 - {dampening:g})" if dampening else ""
            formula = f"{momentum:g} x v, before {before:.6g}, + g{share}"
        lines.append(Line("velocity v", formula, velocity))
        direction, said = (
            (g + momentum * velocity, f"g + {momentum:g} x v") if weight.group["nesterov"] else (velocity, "v")
        )
        if weight.group["nesterov"]:
            lines.append(Line("direction d", said, direction))
            said = "d"
    return _ended(weight, lines, -rate * direction, f"-{rate:g} x {said}")


def adam(weight: Weight) -> list[Line]:
    """Return the update by Adam: Kingma and Ba (2015), algorithm 1; `amsgrad` is Reddi et al. (2018)."""
    return _adam(weight, is_decoupled=bool(weight.group.get("decoupled_weight_decay")))


def adamw(weight: Weight) -> list[Line]:
    """Return the update by AdamW: Loshchilov and Hutter (2019), algorithm 2, weight decay apart from the gradient."""
    return _adam(weight, is_decoupled=True)


def _adam(weight: Weight, *, is_decoupled: bool) -> list[Line]:
    g, lines = _gradient(weight, has_decay=not is_decoupled)
    rate, epsilon, decay = (weight.option(name) for name in ("lr", "eps", "weight_decay"))
    beta1, beta2 = (float(beta) for beta in weight.group["betas"])
    step = weight.num_steps + 1
    mean = beta1 * weight.kept("exp_avg") + (1 - beta1) * g
    square = beta2 * weight.kept("exp_avg_sq") + (1 - beta2) * g * g
    lines.append(Line("mean m", f"{beta1:g} x {weight.kept('exp_avg'):.6g} + (1 - {beta1:g}) x g", mean))
    lines.append(Line("mean square v", f"{beta2:g} x {weight.kept('exp_avg_sq'):.6g} + (1 - {beta2:g}) x g^2", square))
    if weight.group.get("amsgrad"):
        square = max(weight.kept("max_exp_avg_sq"), square)
        lines.append(Line("largest v", "the larger of v and the largest before", square))
    unbiased, unbiased_square = mean / (1 - beta1**step), square / (1 - beta2**step)
    lines.append(Line("m without bias", f"m / (1 - {beta1:g}^{step})", unbiased))
    lines.append(Line("v without bias", f"v / (1 - {beta2:g}^{step})", unbiased_square))
    update = -rate * unbiased / (math.sqrt(unbiased_square) + epsilon)
    lines.append(Line("step", f"-{rate:g} x m / (sqrt(v) + {epsilon:g})", update))
    shrinking = _decoupled(weight, lines, rate, decay) if is_decoupled else 0.0
    return _ended(weight, lines, update + shrinking, "step + decay" if shrinking else "step")


def rmsprop(weight: Weight) -> list[Line]:
    """Return the update by RMSprop: Hinton (2012), lecture 6e; centred as in Graves (2013), equation 38."""
    g, lines = _gradient(weight)
    rate, alpha, epsilon, momentum = (weight.option(name) for name in ("lr", "alpha", "eps", "momentum"))
    square = alpha * weight.kept("square_avg") + (1 - alpha) * g * g
    lines.append(Line("mean square v", f"{alpha:g} x {weight.kept('square_avg'):.6g} + (1 - {alpha:g}) x g^2", square))
    spread, said = square, "v"
    if weight.group.get("centered"):
        mean = alpha * weight.kept("grad_avg") + (1 - alpha) * g
        spread, said = _variance(square, mean, weight.all.dtype), "s"
        lines.append(Line("mean m", f"{alpha:g} x {weight.kept('grad_avg'):.6g} + (1 - {alpha:g}) x g", mean))
        lines.append(Line("variance s", "v - m^2", spread))
    direction = g / (math.sqrt(spread) + epsilon) if spread >= 0 else math.nan
    lines.append(Line("direction d", f"g / (sqrt({said}) + {epsilon:g})", direction))
    if momentum > 0:
        direction += momentum * weight.kept("momentum_buffer")
        lines.append(Line("velocity u", f"{momentum:g} x {weight.kept('momentum_buffer'):.6g} + d", direction))
    return _ended(weight, lines, -rate * direction, f"-{rate:g} x {'u' if momentum > 0 else 'd'}")


def _variance(square: float, mean: float, dtype: torch.dtype) -> float:
    """Return `square - mean^2` rounded as torch's is, where two nearly equal numbers leave only rounding."""
    one, other = (torch.tensor(number, dtype=dtype) for number in (square, mean))
    return float(one.addcmul(other, other, value=-1))


def adagrad(weight: Weight) -> list[Line]:
    """Return the update by Adagrad: Duchi, Hazan and Singer (2011), the diagonal form."""
    g, lines = _gradient(weight)
    rate, epsilon, slowing = (weight.option(name) for name in ("lr", "eps", "lr_decay"))
    total = weight.kept("sum", weight.option("initial_accumulator_value")) + g * g
    lines.append(Line("sum of squares s", f"{total - g * g:.6g} + g^2", total))
    said = f"{rate:g}"
    if slowing:
        rate /= 1 + weight.num_steps * slowing
        lines.append(Line("rate r", f"{said} / (1 + {weight.num_steps} x {slowing:g})", rate))
        said = "r"
    return _ended(weight, lines, -rate * g / (math.sqrt(total) + epsilon), f"-{said} x g / (sqrt(s) + {epsilon:g})")


def muon(weight: Weight, dtype: torch.dtype) -> list[Line]:
    """Return the update by Muon, in whose iteration every entry of the matrix has a part.

    Jordan et al. (2024), "Muon: an optimizer for hidden layers": the velocity's matrix is brought near the orthogonal
    matrix nearest to it. `dtype` is the type that the iteration multiplies in.
    """
    group, rate, momentum = weight.group, weight.option("lr"), weight.option("momentum")
    before = weight.state.get("momentum_buffer")
    before = torch.zeros_like(weight.gradient) if before is None else before
    velocity = before.lerp(weight.gradient, 1 - momentum)
    matrix = weight.gradient.lerp(velocity, momentum) if group["nesterov"] else velocity
    place = weight.place
    formula = f"{momentum:g} x {float(before[place]):.6g} + (1 - {momentum:g}) x g"
    lines = [Line("gradient g", "", weight.g), Line("velocity v", formula, float(velocity[place]))]
    if group["nesterov"]:
        lines.append(Line("direction d", f"(1 - {momentum:g}) x g + {momentum:g} x v", float(matrix[place])))
    turned = orthogonal(matrix, group["ns_coefficients"], int(group["ns_steps"]), float(group["eps"]), dtype)
    rows, columns = matrix.shape
    count, entry = int(group["ns_steps"]), float(turned[place])
    lines.append(Line("orthogonalised o", f"{rows}x{columns} matrix, {count} Newton-Schulz steps", entry))
    scale = _muon_scale(group.get("adjust_lr_fn"), rows, columns)
    lines.append(Line("scale c", f"for {rows}x{columns}", scale))
    shrinking = _decoupled(weight, lines, rate, weight.option("weight_decay"))
    said = f"-{rate:g} x c x o" + (" + decay" if shrinking else "")
    return _ended(weight, lines, -rate * scale * entry + shrinking, said)


def orthogonal(
    matrix: Tensor, coefficients: tuple[float, float, float], num_steps: int, epsilon: float, dtype: torch.dtype
) -> Tensor:
    """Return the matrix after `num_steps` of `X <- aX + (bA + cA^2)X` with `A = X X^T`; singular values near one."""
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    result = matrix.to(dtype)
    result = result.T if is_tall else result
    result = result / result.norm().clamp(min=epsilon)
    for _ in range(num_steps):
        products = result @ result.T
        products = torch.addmm(products, products, products, beta=b, alpha=c)
        result = torch.addmm(result, products, result, beta=a)
    return result.T if is_tall else result


def _muon_scale(name: str | None, rows: int, columns: int) -> float:
    if name in {None, "original"}:
        return math.sqrt(max(1, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns)) if name == "match_rms_adamw" else 1.0


def _gradient(weight: Weight, *, has_decay: bool = True) -> tuple[float, list[Line]]:
    """Return the gradient as the optimizer takes it: turned round to maximise, weight decay added."""
    g, lines = weight.g, [Line("gradient g", "", weight.g)]
    if weight.group.get("maximize"):
        g = -g
        lines.append(Line("g", "-g, to maximise", g))
    decay = weight.option("weight_decay")
    if decay and has_decay:
        g += decay * weight.w
        lines.append(Line("g with weight decay", f"g + {decay:g} x w", g))
    return g, lines


def _decoupled(weight: Weight, lines: list[Line], rate: float, decay: float) -> float:
    shrinking = -rate * decay * weight.w
    if decay:
        lines.append(Line("decay", f"-{rate:g} x {decay:g} x w", shrinking))
    return shrinking


def _ended(weight: Weight, lines: list[Line], update: float, formula: str) -> list[Line]:
    return [
        Line("weight w", "", weight.w),
        *lines,
        Line("update", formula, update),
        Line("new weight", "w + update", weight.w + update),
    ]


RULES: dict[str, Callable[[Weight], list[Line]]] = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adamw,
    "RMSprop": rmsprop,
    "Adagrad": adagrad,
    "Muon": lambda weight: muon(weight, torch.bfloat16),
    "Float32Muon": lambda weight: muon(weight, torch.float32),
}
"""By the name of the optimizer's class."""
