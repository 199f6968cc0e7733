"""Residual networks for ImageNet-sized images, with torchvision's layout and `state_dict` keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glassnet._types import Shape
from glassnet.models.residual import (
    BasicBlock,
    Block,
    Bottleneck,
    ResidualDesign,
    draw_residual_weights,
    image_channels,
    residual_stage,
)


class ResNet(nn.Module):
    """A stem, four stages of blocks, global average pooling, one linear layer.

    The stem is a 7x7 convolution with stride 2 and a 3x3 max pooling, or for small images a 3x3 convolution alone.

    `images` `(B, C, H, W)` -> `logits` `(B, num_classes)`. `num_blocks` is the length of each stage.
    """

    def __init__(
        self,
        block: Block,
        num_blocks: Sequence[int],
        *,
        num_classes: int,
        in_channels: int,
        design: ResidualDesign,
    ) -> None:
        super().__init__()
        is_small = design.stem == "cifar"
        self.conv1 = design.conv(in_channels, 64, 3) if is_small else design.conv(in_channels, 64, 7, stride=2)
        self.bn1 = design.norm(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if is_small else nn.MaxPool2d(3, stride=2, padding=1)
        wide = block.expansion
        self.layer1 = residual_stage(block, 64, 64, num_blocks[0], stride=1, design=design)
        self.layer2 = residual_stage(block, 64 * wide, 128, num_blocks[1], stride=2, design=design)
        self.layer3 = residual_stage(block, 128 * wide, 256, num_blocks[2], stride=2, design=design)
        self.layer4 = residual_stage(block, 256 * wide, 512, num_blocks[3], stride=2, design=design)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * wide, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits `(B, num_classes)`."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(torch.flatten(self.avgpool(maps), 1))  # type: ignore[no-any-return]


def resnet18(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 224, 224),
    shortcut: str = "B",
    zero_init_residual: bool = False,
    stem: str = "imagenet",
) -> nn.Module:
    """ResNet-18: basic blocks 2, 2, 2, 2; 11,689,512 parameters.

    `images` `(B, C, H, W)` -> `logits` `(B, num_classes)`, with the `state_dict` keys of `torchvision.models.resnet18`.
    Any image size works: padding fills what a kernel lacks. Up to 32x32 the last stage is a single pixel, and then
    batch normalisation needs at least two images to train on. `shortcut` is `A`, `B` or `C` (`ResidualDesign`);
    `zero_init_residual` starts every block as its shortcut. He, Zhang, Ren and Sun 2016, table 1. With `stem="cifar"`
    the first convolution is 3x3 with stride 1 and nothing is pooled after it, as is usual for images of 32x32: with
    10 classes 11,173,962 parameters.

    Raises `UsageError` for an unknown `shortcut` or `stem` and for an `input_shape` that is no image.
    """
    design = ResidualDesign(shortcut=shortcut, stem=stem)
    return _resnet("resnet18", BasicBlock, (2, 2, 2, 2), num_classes, input_shape, design, zero_init_residual)


def resnet18_lecture(*, num_classes: int = 1000, input_shape: Shape = (3, 224, 224)) -> nn.Module:
    """ResNet-18 as lecture tables count it: 11,511,784 parameters.

    Convolutions with biases, no normalisation, shortcuts without parameters (option A). Because nothing normalises,
    the branches start smaller than in `resnet18`: see `draw_residual_weights`. All else as for `resnet18`.
    """
    design = ResidualDesign(shortcut="A", use_normalisation=False)
    return _resnet("resnet18-lecture", BasicBlock, (2, 2, 2, 2), num_classes, input_shape, design)


def resnet34(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 224, 224),
    shortcut: str = "B",
    zero_init_residual: bool = False,
    stem: str = "imagenet",
) -> nn.Module:
    """ResNet-34: basic blocks 3, 4, 6, 3; 21,797,672 parameters. All else as for `resnet18`."""
    design = ResidualDesign(shortcut=shortcut, stem=stem)
    return _resnet("resnet34", BasicBlock, (3, 4, 6, 3), num_classes, input_shape, design, zero_init_residual)


def resnet50(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 224, 224),
    shortcut: str = "B",
    stride_in: str = "3x3",
    zero_init_residual: bool = False,
    stem: str = "imagenet",
) -> nn.Module:
    """ResNet-50: bottlenecks 3, 4, 6, 3; 25,557,032 parameters.

    `stride_in` `3x3` is torchvision's form (known as v1.5), `1x1` the published one. All else as for `resnet18`.
    """
    design = ResidualDesign(shortcut=shortcut, stride_in=stride_in, stem=stem)
    return _resnet("resnet50", Bottleneck, (3, 4, 6, 3), num_classes, input_shape, design, zero_init_residual)


def resnet101(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 224, 224),
    shortcut: str = "B",
    stride_in: str = "3x3",
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-101: bottlenecks 3, 4, 23, 3; 44,549,160 parameters. All else as for `resnet50`."""
    design = ResidualDesign(shortcut=shortcut, stride_in=stride_in)
    return _resnet("resnet101", Bottleneck, (3, 4, 23, 3), num_classes, input_shape, design, zero_init_residual)


def resnet152(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 224, 224),
    shortcut: str = "B",
    stride_in: str = "3x3",
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-152: bottlenecks 3, 8, 36, 3; 60,192,808 parameters. All else as for `resnet50`."""
    design = ResidualDesign(shortcut=shortcut, stride_in=stride_in)
    return _resnet("resnet152", Bottleneck, (3, 8, 36, 3), num_classes, input_shape, design, zero_init_residual)


def _resnet(
    name: str,
    block: Block,
    num_blocks: Sequence[int],
    num_classes: int,
    input_shape: Shape,
    design: ResidualDesign,
    zero_init_residual: bool = False,
) -> nn.Module:
    channels = image_channels(name, input_shape)
    model = ResNet(block, num_blocks, num_classes=num_classes, in_channels=channels, design=design)
    draw_residual_weights(model, design, zero_init_residual)
    return model
