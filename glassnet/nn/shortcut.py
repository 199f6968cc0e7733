"""The shortcut without parameters of residual networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ZeroPadShortcut(nn.Module):
    """Shortcut option A: every `stride`-th pixel, and channels of zeros after the input's own; no parameters.

    `images` `(B, in_channels, H, W)` -> `(B, out_channels, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.num_zero_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Return the padded, subsampled images."""
        sampled = images[:, :, :: self.stride, :: self.stride]
        return functional.pad(sampled, (0, 0, 0, 0, 0, self.num_zero_channels))

    def extra_repr(self) -> str:
        """Return the settings that `repr` shows."""
        return f"num_zero_channels={self.num_zero_channels}, stride={self.stride}"
