"""LeNet-5's subsampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet.nn.size import pair


class TrainableSubsampling2d(nn.Module):
    """The sum of each patch times one coefficient of its map, plus one bias: `a = w_c * sum(patch) + b_c`.

    `x` `(B, num_channels, H, W)` -> `(B, num_channels, H // k, W // k)`: patches do not overlap, rows and columns
    that fill no patch are dropped. Two parameters a map, the `coefficient` and the `bias`, `(num_channels,)` each. It
    is the weighted sum `a` of layers S2 and S4; the squashing function that follows is a layer of its own,
    `ScaledTanh`. LeCun, Bottou, Bengio and Haffner (1998), section II.B.

    A coefficient starts uniform within +-1 / sqrt(k * k), as torch starts a convolution of one k x k patch.

    Raises `UsageError` for an image smaller than one patch.
    """

    def __init__(self, num_channels: int, kernel_size: int | tuple[int, int] = 2) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.coefficient = nn.Parameter(torch.empty(num_channels))
        self.bias = nn.Parameter(torch.empty(num_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients anew; biases become 0."""
        fan_in = self.kernel_size[0] * self.kernel_size[1]
        nn.init.uniform_(self.coefficient, -(fan_in**-0.5), fan_in**-0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sums, before any squashing."""
        if (
            x.ndim != 4
            or x.shape[1] != self.num_channels
            or any(size < patch for size, patch in zip(x.shape[2:], self.kernel_size, strict=True))
        ):
            raise UsageError(
                f"Subsampling needs images (B, {self.num_channels}, H, W) of at least "
                f"{self.kernel_size[0]}x{self.kernel_size[1]} pixels; got {tuple(x.shape)}."
            )
        patch_sum = F.avg_pool2d(x, self.kernel_size, divisor_override=1)
        return self.coefficient[:, None, None] * patch_sum + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return f"{self.num_channels}, kernel_size={self.kernel_size}"
