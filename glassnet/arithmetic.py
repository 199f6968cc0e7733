"""Convolution arithmetic: sizes, parameters, multiplications. Integers only, no torch.

Relation numbers are those of Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from __future__ import annotations

import math

from glassnet._errors import UsageError
from glassnet._types import Shape


def output_size(input_size: int, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Return the output size of a convolution or pooling along one axis: `floor((i + 2p - k') / s) + 1`.

    `k' = k + (k - 1)(d - 1)` is the reach of a dilated kernel (relation 15; relation 6 for dilation 1).
    Raises `UsageError` where the kernel does not fit.
    """
    reach = dilation * (kernel_size - 1) + 1
    room = input_size + 2 * padding - reach
    if room < 0:
        raise UsageError(
            f"A kernel that reaches over {reach} does not fit an input of {input_size} with padding {padding}: "
            f"{input_size} + 2*{padding} - {reach} = {room} < 0. Use a larger input, a smaller kernel or more padding."
        )
    return room // stride + 1


def output_shape(
    input_shape: Shape, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Shape:
    """Return `output_size` along each axis of `input_shape` (without channels)."""
    return tuple(
        output_size(size, kernel_size, stride=stride, padding=padding, dilation=dilation) for size in input_shape
    )


def num_conv_multiplications(
    in_channels: int, out_channels: int, kernel_size: Shape, output_shape: Shape, *, groups: int = 1
) -> int:
    """Return the multiplications of a convolution on one image: one per weight and output position."""
    return in_channels // groups * out_channels * math.prod(kernel_size) * math.prod(output_shape)


def num_linear_multiplications(in_features: int, out_features: int) -> int:
    """Return the multiplications of a fully connected layer on one row: one per weight."""
    return in_features * out_features
