"""Convolution as mathematics has it: with the kernel flipped.

torch's `nn.Conv2d` computes the cross-correlation `S(i, j) = sum_m,n I(i + m, j + n) K(m, n)` (Goodfellow, Bengio
and Courville, "Deep Learning" (2016), equation 9.6). Convolution proper runs through the image against the kernel:
`S(i, j) = sum_m,n I(i - m, j - n) K(m, n)` (equation 9.5), which is cross-correlation with the kernel reversed along
every axis. A network learns one as well as the other; the kernels come out mirrored. Every option is torch's.
"""

from __future__ import annotations

from torch import Tensor, nn


class TrueConv1d(nn.Conv1d):
    """Convolution along one axis, `S(i) = sum_m I(i - m) K(m)`: `(B, C, W)` -> `(B, out_channels, W')`.

    `weight` `(out_channels, in_channels / groups, k)` is the kernel K, unreversed. Options as in `nn.Conv1d`.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        sums: Tensor = super()._conv_forward(input, weight.flip(2), bias)
        return sums


class TrueConv2d(nn.Conv2d):
    """Convolution over images, `S(i, j) = sum_m,n I(i - m, j - n) K(m, n)`: `(B, C, H, W)` -> `(B, out, H', W')`.

    `weight` `(out_channels, in_channels / groups, k, k)` is the kernel K, unreversed. Options as in `nn.Conv2d`.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        sums: Tensor = super()._conv_forward(input, weight.flip(2, 3), bias)
        return sums


class TrueConv3d(nn.Conv3d):
    """Convolution over volumes, with three reversed axes: `(B, C, D, H, W)` -> `(B, out_channels, D', H', W')`.

    `weight` `(out_channels, in_channels / groups, k, k, k)` is the kernel, unreversed. Options as in `nn.Conv3d`.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        sums: Tensor = super()._conv_forward(input, weight.flip(2, 3, 4), bias)
        return sums
