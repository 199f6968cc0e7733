"""Residual blocks: what the residual networks are built of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape
from glassnet.nn.shortcut import ZeroPadShortcut

SHORTCUTS = ("A", "B", "C")
STRIDES_IN = ("3x3", "1x1")
STEMS = ("imagenet", "cifar")


@dataclass(frozen=True, kw_only=True)
class ResidualDesign:
    """What a residual network chooses once for all its blocks. Raises `UsageError` for unknown words."""

    shortcut: str = "B"
    """He et al. 2016, section 4.1: `A` pads with zero channels where sizes change and has no parameters, `B`
    projects (1x1 convolution) where sizes change, `C` projects in every block. Other shortcuts are the identity."""
    stride_in: str = "3x3"
    """The convolution of a bottleneck that strides: `1x1`, the first, as published, or `3x3` as in torchvision."""
    stem: str = "imagenet"
    """What stands before the stages of `ResNet`: `imagenet`, 7x7 with stride 2 and pooling, or `cifar`, 3x3 alone."""
    use_normalisation: bool = True
    """Batch normalisation after each convolution; without it the convolutions have biases."""

    def __post_init__(self) -> None:
        if self.shortcut not in SHORTCUTS:
            raise unknown_name("shortcut", self.shortcut, SHORTCUTS)
        if self.stride_in not in STRIDES_IN:
            raise unknown_name("stride_in", self.stride_in, STRIDES_IN)
        if self.stem not in STEMS:
            raise unknown_name("stem", self.stem, STEMS)

    def conv(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
        """Return a convolution padded by half its kernel, so that stride 1 keeps the size."""
        bias = not self.use_normalisation
        return nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)

    def norm(self, channels: int) -> nn.Module:
        """Return what follows a convolution: batch normalisation, or nothing."""
        return nn.BatchNorm2d(channels) if self.use_normalisation else nn.Identity()

    def shortcut_module(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        """Return what a block's input passes on its way around the branch; None for the identity."""
        is_same_size = stride == 1 and in_channels == out_channels
        if is_same_size and self.shortcut != "C":
            return None
        if self.shortcut == "A":
            return ZeroPadShortcut(in_channels, out_channels, stride)
        return nn.Sequential(self.conv(in_channels, out_channels, 1, stride), self.norm(out_channels))


class BasicBlock(nn.Module):
    """`y = relu(F(x) + shortcut(x))` with two 3x3 convolutions in `F`; the first one strides.

    `x` `(B, in_channels, H, W)` -> `(B, channels, ceil(H / stride), ceil(W / stride))`. He, Zhang, Ren and Sun,
    "Deep residual learning for image recognition" (2016), figure 5 left.
    """

    expansion = 1
    """Channels out of the block for each channel inside."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, design: ResidualDesign) -> None:
        super().__init__()
        self.conv1 = design.conv(in_channels, channels, 3, stride)
        self.bn1 = design.norm(channels)
        self.relu = nn.ReLU()
        self.conv2 = design.conv(channels, channels, 3)
        self.bn2 = design.norm(channels)
        self.downsample = design.shortcut_module(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return `relu(F(x) + shortcut(x))`."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(branch + shortcut)  # type: ignore[no-any-return]

    def branch_end(self) -> tuple[nn.Conv2d, nn.Module]:
        """Return the last convolution of `F` and its normalisation."""
        return self.conv2, self.bn2


class Bottleneck(nn.Module):
    """`y = relu(F(x) + shortcut(x))`; `F` is 1x1 down to `channels`, 3x3, 1x1 up to `4 * channels`.

    `x` `(B, in_channels, H, W)` -> `(B, 4 * channels, ceil(H / stride), ceil(W / stride))`. The same paper,
    figure 5 right.
    """

    expansion = 4
    """Channels out of the block for each channel inside."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, design: ResidualDesign) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if design.stride_in == "1x1" else (1, stride)
        self.conv1 = design.conv(in_channels, channels, 1, stride_1x1)
        self.bn1 = design.norm(channels)
        self.conv2 = design.conv(channels, channels, 3, stride_3x3)
        self.bn2 = design.norm(channels)
        self.conv3 = design.conv(channels, channels * self.expansion, 1)
        self.bn3 = design.norm(channels * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = design.shortcut_module(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return `relu(F(x) + shortcut(x))`."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(branch + shortcut)  # type: ignore[no-any-return]

    def branch_end(self) -> tuple[nn.Conv2d, nn.Module]:
        """Return the last convolution of `F` and its normalisation."""
        return self.conv3, self.bn3


Block = type[BasicBlock] | type[Bottleneck]


def residual_stage(
    block: Block, in_channels: int, channels: int, num_blocks: int, *, stride: int, design: ResidualDesign
) -> nn.Sequential:
    """Return `num_blocks` blocks in a row, of which the first changes the size."""
    first = block(in_channels, channels, stride=stride, design=design)
    width = channels * block.expansion
    return nn.Sequential(first, *(block(width, channels, stride=1, design=design) for _ in range(num_blocks - 1)))


def image_channels(model_name: str, input_shape: Shape) -> int:
    """Return the channels of `input_shape` `(C, H, W)`; raise `UsageError` where it is no image."""
    if len(input_shape) != 3:
        raise UsageError(f"{model_name} takes images: input_shape (channels, height, width); got {input_shape}.")
    return input_shape[0]


def draw_residual_weights(model: nn.Module, design: ResidualDesign, zero_init_residual: bool) -> None:
    """Fill a residual network with initial weights.

    With normalisation, as torchvision: convolutions `N(0, 2 / fan_out)` (He, Zhang, Ren and Sun, "Delving deep into
    rectifiers", 2015, equation 14), scales 1, shifts 0; `zero_init_residual` starts the last scale of every branch at
    0, so that every block starts as its shortcut (Goyal et al. 2017, section 5.1).

    Without normalisation nothing undoes growth. Convolutions start at `N(0, 2 / fan_in)` (the same, equation 10), and
    the last one of each branch, which no rectifier follows before the sum, at `N(0, 1 / (L fan_in))` for `L` blocks.
    A branch then adds 1/L of its input's mean square, and all together multiply it by at most `(1 + 1/L)^L < e`, where
    the first rule alone allows `3^L` (Hanin and Rolnick, "How to start training", 2018: keep the sum of the branch
    scales bounded). Biases start at 0.

    The linear layer keeps torch's own start.
    """
    mode: Literal["fan_in", "fan_out"] = "fan_out" if design.use_normalisation else "fan_in"
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock | Bottleneck)]
    for block in blocks:
        last_conv, last_norm = block.branch_end()
        if isinstance(last_norm, nn.BatchNorm2d) and zero_init_residual:
            nn.init.zeros_(last_norm.weight)
        if not design.use_normalisation:
            with torch.no_grad():
                last_conv.weight.mul_((2 * len(blocks)) ** -0.5)
