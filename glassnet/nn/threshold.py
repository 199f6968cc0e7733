"""Threshold units: all or nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _sign(z: Tensor) -> Tensor:
    # torch.sign has three values, 0 at 0; a threshold unit has two. heaviside and comparisons break the graph.
    return torch.sign(z) + (z == 0)


class Step(nn.Module):
    """The threshold unit: 1 where the input reaches `threshold`, else 0.

    `x` of any shape -> same shape. After `nn.Linear` or a convolution it makes McCulloch and Pitts' neuron; AND, OR
    and NOT are one such unit each, XOR takes two layers. McCulloch and Pitts, "A logical calculus of the ideas
    immanent in nervous activity" (1943); Rosenblatt, "The perceptron" (1958).

    The gradient is 0 everywhere, at the threshold too: backward runs and moves no weight below this layer, which is
    why such units need another way to learn than gradient descent. No straight-through estimate stands in for it.
    NaN gives one half, which is neither.
    """

    def __init__(self, *, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Return 1 where `x >= threshold`, else 0."""
        return (1 + _sign(x - self.threshold)) / 2

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return f"threshold={self.threshold}"


class Sign(nn.Module):
    """The threshold unit with values of either sign: 1 where the input reaches `threshold`, else -1.

    `x` of any shape -> same shape. Unlike `torch.sign` it is 1, not 0, at the threshold. The gradient is 0
    everywhere, as with `Step`; NaN gives 0, which is neither value. Rosenblatt, "The perceptron" (1958); Widrow and
    Hoff, "Adaptive switching circuits" (1960).
    """

    def __init__(self, *, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Return 1 where `x >= threshold`, else -1."""
        return _sign(x - self.threshold)

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return f"threshold={self.threshold}"
