"""Muon for processors that have no instructions for products in bf16."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glassnet._errors import UsageError


def has_muon() -> bool:
    """Return whether torch has Muon, as it has since 2.9."""
    return hasattr(torch.optim, "Muon")


if TYPE_CHECKING or has_muon():
    from torch.optim import Muon
else:
    Muon = torch.optim.Optimizer


class Float32Muon(Muon):
    """torch's Muon with the products of its Newton-Schulz iteration in float32 instead of bf16.

    bf16 halves the work where hardware multiplies it; where it does not, torch's step takes a hundred times as long
    as this one. Momentum, scaling and state are torch's: Jordan et al. 2024, "Muon: an optimizer for hidden layers".
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient. Raises `UsageError` for a closure, which nothing here needs."""
        if closure is not None:
            raise UsageError("This optimizer takes no closure; call backward before step.")
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)

    def _update(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"]
        average.lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
        direction = orthogonal(direction, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = float(group["lr"])
        matrix.mul_(1 - rate * group["weight_decay"])
        rows, columns = matrix.shape
        matrix.add_(direction, alpha=-rate * math.sqrt(max(1, rows / columns)))


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], num_steps: int, epsilon: float) -> Tensor:
    """Return nearly the orthogonal matrix nearest to `matrix`: its singular values are brought to about one.

    `num_steps` of the quintic Newton-Schulz iteration `X <- aX + (bA + cA^2)X` with `A = X X^T`, in float32.
    """
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    result = (matrix.T if is_tall else matrix).float()
    result = result / result.norm().clamp(min=epsilon)  # so that no singular value is above one
    for _ in range(num_steps):
        products = result @ result.T
        products = torch.addmm(products, products, products, beta=b, alpha=c)
        result = torch.addmm(result, products, result, beta=a)
    return result.T if is_tall else result
