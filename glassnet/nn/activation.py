"""Activation functions that torch.nn lacks.

The randomized leaky ReLU is torch's `nn.RReLU`: `y = a x` for `x < 0` with a slope `a` drawn from `U(1/8, 1/3)` for
each element while training, and the mean slope 11/48 = 0.229 in evaluation. That is the definition of Xu, Wang, Chen
and Li, "Empirical evaluation of rectified activations in convolutional network" (2015), section 2.4. Their
experiments divide instead, by `a` from `U(3, 8)` and by 5.5 in the test: a slope of 0.182 there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError


class ScaledTanh(nn.Module):
    """LeNet-5's squashing function `f(a) = A tanh(S a)`, with A = 1.7159 and S = 2/3.

    `x` of any shape -> same shape, in the open interval (-A, A). The constants make f(1) = 1 and f(-1) = -1, so that
    targets of -1 and 1 lie where the function bends most (at 0.988) and not at its asymptotes. LeCun, Bottou, Bengio
    and Haffner, "Gradient-based learning applied to document recognition" (1998), equation 6 and appendix A.
    """

    def __init__(self, *, amplitude: float = 1.7159, slope: float = 2 / 3) -> None:
        super().__init__()
        self.amplitude = amplitude
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Return `A tanh(S x)`."""
        return self.amplitude * torch.tanh(self.slope * x)

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return f"amplitude={self.amplitude}, slope={self.slope:.4g}"


class ScaledSoftmax(nn.Module):
    """Softmax to a `base` b and at a `temperature` T: `p_i = b^(z_i / T) / sum_j b^(z_j / T)`.

    `z` of any shape -> same shape, summing to 1 along `dim`. T above 1 evens the shares out, T below 1 sharpens them
    (towards the largest alone as T -> 0); with b = e and T = 1 it is `torch.softmax`. A base is a temperature in
    other words: b equals T = 1 / ln b. Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network"
    (2015), equation 1.

    Raises `UsageError` for a temperature of 0 or below and for a base of 1 or below, which would prefer the smallest.
    """

    def __init__(self, *, temperature: float = 1.0, base: float = math.e, dim: int = 1) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise UsageError(f"temperature must be a positive number; got {temperature}. 1 is the plain softmax.")
        if not 1 < base < math.inf:
            raise UsageError(f"base must be a number above 1; got {base}. e = 2.718 is the plain softmax.")
        self.temperature = temperature
        self.base = base
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        """Return the shares of `z` along `dim`."""
        return torch.softmax(z * (math.log(self.base) / self.temperature), dim=self.dim)  # b^x = e^(x ln b)

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return f"temperature={self.temperature}, base={self.base:.4g}, dim={self.dim}"
