"""The same network with fewer multiplications in it: 3x3 convolutions by Winograd's minimal filtering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn

from glassnet.nn.pooling import SIZE
from glassnet.nn.winograd import (
    CHANNELS_STEP,
    KERNEL_SIZE,
    LARGEST_PADDING,
    has_winograd,
    output_size,
    refused,
    winograd_conv2d,
    winograd_pooled,
)
from glassnet.training.pooling import QuickMaxPool2d
from glassnet.training.swapping import Substitute, is_ordinary, substituted

LEAST_CHANNELS = 24
"""With fewer, in or out, the transforms cost what the products save (`benchmarks/layers.py`)."""
LEAST_TILES = 64
"""4x4 parts of the outputs of a batch; with fewer, transforming the kernels does."""


@contextmanager
def minimal_filtering(model: nn.Module) -> Iterator[int]:
    """For a block, let the convolutions of `model` that gain by it take Winograd's way; yield how many may.

    Those are `nn.Conv2d` of 3x3 with stride 1 on a CPU, where gradients are computed: without, as in validation, each
    is torch's own. Sums are rounded otherwise than torch rounds them, by some millionths of the largest. Modules keep
    their places, names and hooks.
    """
    with substituted(model, _gains, has_winograd, _FilteredConv2d) as count:
        yield count


class _FilteredConv2d(Substitute, nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if is_ordinary(input, weight, bias) and _pays(input, weight, bias, padding_of(self)):
            return winograd_conv2d(input, weight, bias, padding_of(self))
        outputs: Tensor = super()._conv_forward(input, weight, bias)
        return outputs


def filtered_and_pooled(convolution: nn.Module, pooling: nn.Module, inputs: Tensor) -> Tensor | None:
    """Return what two layers that follow each other make of `inputs`; None where they do it one after the other.

    They do it at once if `minimal_filtering` and `quick_pooling` suit them.
    """
    if type(convolution) is not _FilteredConv2d or type(pooling) is not QuickMaxPool2d:
        return None
    weight, bias, padding = convolution.weight, convolution.bias, padding_of(convolution)
    is_short = is_ordinary(inputs, weight, bias) and _pays(inputs, weight, bias, padding)
    if not is_short or min(output_size(inputs, padding)) < SIZE:
        return None
    return winograd_pooled(inputs, weight, bias, padding)


def is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a module is a convolution as it is in the books, with stride 1, in fp32 on a CPU."""
    return (
        type(module) is nn.Conv2d
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )


def padding_of(convolution: nn.Conv2d) -> int:
    """Return the padding of a convolution on each side; -1 where the sides differ."""
    if convolution.padding == "valid":
        return 0
    if isinstance(convolution.padding, str):
        height, width = ((side - 1) / 2 for side in convolution.kernel_size)
    else:
        height, width = convolution.padding
    return int(height) if height == width == int(height) else -1


def _gains(module: nn.Module) -> bool:
    return (
        is_plain(module)
        and module.kernel_size == KERNEL_SIZE
        and 0 <= padding_of(module) <= LARGEST_PADDING
        and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS
        and module.in_channels % CHANNELS_STEP == module.out_channels % CHANNELS_STEP == 0
    )


def _pays(images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> bool:
    if refused(images, kernels, bias, padding) is not None:
        return False
    height, width = output_size(images, padding)
    return len(images) * -(-height // 4) * -(-width // 4) >= LEAST_TILES
