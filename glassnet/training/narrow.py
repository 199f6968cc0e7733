"""The same network with its small convolutions where they are quick: those of few channels, and of one output pixel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional

from glassnet.nn.narrow import has_narrow, narrow_conv2d, refused
from glassnet.training.filtering import is_plain, padding_of
from glassnet.training.swapping import Substitute, is_ordinary, substituted

FEW, MORE = 8, 16
"""Channels: with up to `FEW` in, or up to `MORE` in and out, torch's own are slower (`benchmarks/layers.py`)."""
LEAST_IMAGES = 8
"""Of a batch: they are shared out among the threads as wholes."""
LEAST_WHOLE = 4
"""Side of a kernel that may be meant to see its whole image, as LeNet-5's last does."""


@contextmanager
def narrow_convolutions(model: nn.Module) -> Iterator[None]:
    """For a block, let the convolutions of `model` with few channels take `glassnet.nn.narrow`'s way.

    Those are `nn.Conv2d` with stride 1 on a CPU, where gradients are computed: without, as in validation, each is
    torch's own. One whose kernels are as large as the images, without padding, is a matrix product, and is computed as
    one. Sums are rounded otherwise than torch rounds them. Modules keep their places, names and hooks.
    """
    with substituted(model, _gains, has_narrow, _NarrowConv2d):
        yield


class _NarrowConv2d(Substitute, nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if is_ordinary(input, weight, bias) and refused(input, weight, bias, padding_of(self)) is None:
            if padding_of(self) == 0 and input.shape[2:] == weight.shape[2:]:
                return _product(input, weight, bias)
            if _is_narrow(self) and len(input) >= LEAST_IMAGES:
                return narrow_conv2d(input, weight, bias, padding_of(self))
        outputs: Tensor = super()._conv_forward(input, weight, bias)
        return outputs


def _product(images: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of images with kernels of their size, `(N, K, 1, 1)`."""
    rows, matrix = (tensor.permute(0, 2, 3, 1).flatten(1) for tensor in (images, kernels))
    return functional.linear(rows, matrix, bias)[:, :, None, None]


def _gains(module: nn.Module) -> bool:
    if not is_plain(module) or module.kernel_size[0] != module.kernel_size[1]:
        return False
    is_possible = 0 <= padding_of(module) < module.kernel_size[0]
    return is_possible and (_is_narrow(module) or module.kernel_size[0] >= LEAST_WHOLE)


def _is_narrow(convolution: nn.Conv2d) -> bool:
    fewest, most = convolution.in_channels, max(convolution.in_channels, convolution.out_channels)
    return convolution.kernel_size[0] > 1 and (fewest <= FEW or most <= MORE)
