"""Residual networks for small images, as published for CIFAR."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.models.residual import (
    BasicBlock,
    ResidualDesign,
    draw_residual_weights,
    image_channels,
    residual_stage,
)


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of 16, 32 and 64 channels, global average pooling, one linear layer.

    `images` `(B, C, H, W)` -> `logits` `(B, num_classes)`. Each stage has `num_blocks` basic blocks of two
    convolutions, so with stem and linear layer there are `6 * num_blocks + 2` layers with weights.
    """

    def __init__(self, num_blocks: int, *, num_classes: int, in_channels: int, design: ResidualDesign) -> None:
        super().__init__()
        self.conv1 = design.conv(in_channels, 16, 3)
        self.bn1 = design.norm(16)
        self.relu = nn.ReLU()
        self.layer1 = residual_stage(BasicBlock, 16, 16, num_blocks, stride=1, design=design)
        self.layer2 = residual_stage(BasicBlock, 16, 32, num_blocks, stride=2, design=design)
        self.layer3 = residual_stage(BasicBlock, 32, 64, num_blocks, stride=2, design=design)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits `(B, num_classes)`."""
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return self.fc(torch.flatten(self.avgpool(maps), 1))  # type: ignore[no-any-return]


def resnet_cifar(
    depth: int,
    *,
    num_classes: int = 10,
    input_shape: Shape = (3, 32, 32),
    shortcut: str = "A",
    zero_init_residual: bool = False,
) -> nn.Module:
    """Residual network of `depth` = 6n + 2 layers for small images: three stages of n basic blocks.

    `images` `(B, C, H, W)` -> `logits` `(B, num_classes)`; stages at 32x32, 16x16 and 8x8 for a 32x32 image, and any
    other size works as well. `shortcut` is `A` (as published), `B` or `C` (`ResidualDesign`); `zero_init_residual`
    starts every block as its shortcut. He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016),
    section 4.2, where the 110-layer network starts with a learning rate of 0.01 instead of 0.1 until it has begun to
    learn.

    Raises `UsageError` for a depth that is not 6n + 2, an unknown `shortcut`, an `input_shape` that is no image.
    """
    num_blocks, rest = divmod(depth - 2, 6)
    if rest or num_blocks < 1:
        near = 6 * max(num_blocks, 1) + 2
        raise UsageError(
            f"depth of a residual network for small images must be 6n + 2 with n of at least 1 (two layers in each "
            f"of n blocks in three stages, stem and output); got {depth}. The nearest are {near} and {near + 6}."
        )
    design = ResidualDesign(shortcut=shortcut)
    channels = image_channels(f"resnet{depth}", input_shape)
    model = CifarResNet(num_blocks, num_classes=num_classes, in_channels=channels, design=design)
    draw_residual_weights(model, design, zero_init_residual)
    return model


def resnet20(
    *,
    num_classes: int = 10,
    input_shape: Shape = (3, 32, 32),
    shortcut: str = "A",
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-20: three stages of 3 basic blocks; 269,722 parameters. See `resnet_cifar`."""
    return resnet_cifar(
        20,
        num_classes=num_classes,
        input_shape=input_shape,
        shortcut=shortcut,
        zero_init_residual=zero_init_residual,
    )


def resnet32(
    *,
    num_classes: int = 10,
    input_shape: Shape = (3, 32, 32),
    shortcut: str = "A",
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-32: three stages of 5 basic blocks; 464,154 parameters. See `resnet_cifar`."""
    return resnet_cifar(
        32,
        num_classes=num_classes,
        input_shape=input_shape,
        shortcut=shortcut,
        zero_init_residual=zero_init_residual,
    )


def resnet44(
    *,
    num_classes: int = 10,
    input_shape: Shape = (3, 32, 32),
    shortcut: str = "A",
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-44: three stages of 7 basic blocks; 658,586 parameters. See `resnet_cifar`."""
    return resnet_cifar(
        44,
        num_classes=num_classes,
        input_shape=input_shape,
        shortcut=shortcut,
        zero_init_residual=zero_init_residual,
    )


def resnet56(
    *,
    num_classes: int = 10,
    input_shape: Shape = (3, 32, 32),
    shortcut: str = "A",
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-56: three stages of 9 basic blocks; 853,018 parameters. See `resnet_cifar`."""
    return resnet_cifar(
        56,
        num_classes=num_classes,
        input_shape=input_shape,
        shortcut=shortcut,
        zero_init_residual=zero_init_residual,
    )


def resnet110(
    *,
    num_classes: int = 10,
    input_shape: Shape = (3, 32, 32),
    shortcut: str = "A",
    zero_init_residual: bool = False,
) -> nn.Module:
    """ResNet-110: three stages of 18 basic blocks; 1,727,962 parameters. See `resnet_cifar`."""
    return resnet_cifar(
        110,
        num_classes=num_classes,
        input_shape=input_shape,
        shortcut=shortcut,
        zero_init_residual=zero_init_residual,
    )
