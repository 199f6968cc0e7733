"""Locally connected layers: a convolution's patches, with a kernel of its own at each position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet.arithmetic import output_size
from glassnet.nn.size import pair


class LocallyConnected2d(nn.Module):
    """Unshared convolution: `z[o, r, c] = b[o, r, c] + sum_i,u,v w[r, c, o, i, u, v] x[i, s r + u, s c + v]`.

    `x` `(B, in_channels, H, W)` with `(H, W) = input_size` -> `(B, out_channels, H', W')`, sizes as for a convolution
    with the same `kernel_size`, `stride` and zero `padding`. `weight` `(H', W', out_channels, in_channels, k, k)`: the
    kernels at position `r, c` are `weight[r, c]`; `bias` `(out_channels, H', W')`. A convolution is the case in which
    all positions agree, at 1 / (H' W') of the parameters. LeCun, "Generalization and network design strategies"
    (1989), network 3; Goodfellow, Bengio and Courville, "Deep Learning" (2016), equation 9.9.

    Weights and biases start uniform within +-1 / sqrt(fan-in), as torch's convolution does.

    Raises `UsageError` where the kernel does not fit `input_size`, and for images of another size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: int | tuple[int, int],
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.input_size = pair(input_size, "input_size")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = pair(padding, "padding", least=0)
        axes = zip(self.input_size, self.kernel_size, self.stride, self.padding, strict=True)
        self.output_size = tuple(output_size(n, k, stride=s, padding=p) for n, k, s, p in axes)
        self.weight = nn.Parameter(torch.empty(*self.output_size, out_channels, in_channels, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels, *self.output_size)) if bias else None
        self.reset_parameters()

    @property
    def fan_in(self) -> int:
        """Inputs of one unit."""
        return self.in_channels * math.prod(self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw weights and biases anew."""
        bound = self.fan_in**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sums at every position."""
        self._check_input(x)
        patches = F.unfold(x, self.kernel_size, stride=self.stride, padding=self.padding)  # (B, inputs, positions)
        kernels = self.weight.flatten(0, 1).flatten(2)  # (positions, out_channels, inputs)
        z: Tensor = torch.einsum("bip,poi->bop", patches, kernels).unflatten(2, self.output_size)
        return z if self.bias is None else z + self.bias

    def _check_input(self, x: Tensor) -> None:
        expected = (self.in_channels, *self.input_size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise UsageError(
                f"This locally connected layer takes images (B, {', '.join(map(str, expected))}): each position has "
                f"kernels of its own, so the size is fixed. Got {tuple(x.shape)}. Resize the images, or build the "
                "layer with their size as input_size."
            )

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return (
            f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}"
        )
