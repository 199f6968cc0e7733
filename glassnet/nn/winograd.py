"""Convolution by Winograd's minimal filtering: the same sums with a quarter of the multiplications.

A tile of 4x4 outputs of a 3x3 kernel is a sum of 36 products instead of 144 (Winograd 1980; Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", 2016, section 4, F(4x4, 3x3)); where four does not divide the outputs,
some tiles are 3 high or wide. What it costs is a rounding error about ten times as large: some millionths of the
largest output in float32. `winograd.c` has the algorithm; torch has none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from glassnet._native import load_native
from glassnet.nn.own_kernels import agree, number_refused, present, torchs_gradients
from glassnet.nn.pooling import SIZE, has_max_pool, pooling_gradient, spread

SOURCE = Path(__file__).with_name("winograd.c")
KERNEL_SIZE = (3, 3)
CHANNELS_STEP = 8
"""Input and output channels are a multiple of this."""
LARGEST_PADDING = 2
"""Above it, the gradient of the images would be a convolution with negative padding."""
CONVOLVE_TILES = 24
"""Tiles that a thread takes at once from images to outputs: few, so that they stay in its cache."""
GRADIENT_NUMBERS = 2**18
"""Transformed numbers for each thread that the gradient of the kernels has under way at once: 1 MiB."""
LEAST_GRADIENT_TILES, MOST_GRADIENT_TILES = 32, 1024


def has_winograd() -> bool:
    """Return whether this machine computes convolutions so: Linux, a C compiler, and an OpenMP that torch brought."""
    return _library() is not None and _agrees_with_torch()


def winograd_conv2d(images: Tensor, kernels: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
    """Return `functional.conv2d(images, kernels, bias, padding=padding)`, but for rounding; it has gradients too.

    `images` `(N, C, H, W)`, `kernels` `(K, C, 3, 3)`, `bias` `(K,)` -> `(N, K, H + 2 padding - 2, W + 2 padding - 2)`
    with channels innermost; float32 on a CPU, C and K multiples of 8, `padding` 0, 1 or 2. Where an input is infinite
    or nan, or near the largest float, all outputs of its tiles are nan.

    Raises `ValueError` for other arguments, `RuntimeError` where the machine has no `has_winograd()`.
    """
    refusal = refused(images, kernels, bias, padding)
    if refusal is not None:
        raise ValueError(refusal)
    if not has_winograd():
        raise RuntimeError("This machine has no C compiler that compiles winograd.c. Use torch's conv2d.")
    result: Tensor = WinogradConvolution.apply(images, kernels, bias, padding)
    return result


def winograd_pooled(images: Tensor, kernels: Tensor, bias: Tensor | None = None, padding: int = 1) -> Tensor:
    """Return `functional.max_pool2d(functional.conv2d(images, kernels, bias, padding=padding), 2)`, but for rounding.

    As `winograd_conv2d`, and half as high and wide; the outputs that are not the largest of their windows are written
    nowhere. Raises `ValueError` for outputs that no window of 2x2 fits in, too.
    """
    refusal = refused(images, kernels, bias, padding)
    if refusal is not None:
        raise ValueError(refusal)
    if min(output_size(images, padding)) < SIZE:
        raise ValueError(f"winograd_pooled expects 2x2 outputs or more; got images {tuple(images.shape)}.")
    if not (has_winograd() and has_max_pool()):
        raise RuntimeError(
            "This machine has no C compiler that compiles winograd.c and pooling.c. Use torch's conv2d and max_pool2d."
        )
    result: Tensor = PooledConvolution.apply(images, kernels, bias, padding)
    return result


def refused(images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> str | None:
    """Return why `winograd_conv2d` does not take these arguments, or None where it does."""
    if images.ndim != 4 or kernels.ndim != 4 or kernels.shape[1:] != (images.shape[1], *KERNEL_SIZE):
        return (
            "winograd_conv2d expects images (N, C, H, W) and kernels (K, C, 3, 3); "
            f"got {tuple(images.shape)} and {tuple(kernels.shape)}."
        )
    refusal = number_refused("winograd_conv2d", images, kernels, bias)
    if refusal is not None:
        return refusal
    if images.shape[1] % CHANNELS_STEP or kernels.shape[0] % CHANNELS_STEP:
        return f"winograd_conv2d expects channels in multiples of 8; got {images.shape[1]} and {kernels.shape[0]}."
    if not 0 <= padding <= LARGEST_PADDING:
        return f"winograd_conv2d expects a padding of 0, 1 or 2; got {padding}."
    if min(images.shape) < 1 or min(images.shape[2:]) + 2 * padding < KERNEL_SIZE[0]:
        return (
            f"winograd_conv2d expects images that a padding of {padding} makes 3x3 or more; got {tuple(images.shape)}."
        )
    return None


def output_size(images: Tensor, padding: int) -> list[int]:
    """Return height and width of the outputs."""
    return [side + 2 * padding - KERNEL_SIZE[0] + 1 for side in images.shape[2:]]


class WinogradConvolution(torch.autograd.Function):
    """The operation as autograd sees it; `winograd_conv2d` checks its arguments."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        """Return the outputs."""
        ctx.save_for_backward(images, kernels)
        ctx.padding, ctx.has_bias = padding, bias is not None
        return _convolved(images, kernels.permute(2, 3, 1, 0), bias, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Return the gradients of images, kernels and bias."""
        (slopes,) = gradients
        images, kernels = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which torch's own has
            return (*torchs_gradients(slopes, images, kernels, ctx.has_bias, ctx.padding, needs), None)
        return (*_gradients(slopes, images, kernels, ctx.has_bias, ctx.padding, needs), None)


class PooledConvolution(torch.autograd.Function):
    """Convolution and 2x2 max pooling as autograd sees them; `winograd_pooled` checks its arguments."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        """Return the outputs."""
        outputs, largest = _convolved_and_pooled(images, kernels.permute(2, 3, 1, 0), bias, padding)
        ctx.save_for_backward(images, kernels, largest)
        ctx.padding, ctx.has_bias = padding, bias is not None
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Return the gradients of images, kernels and bias."""
        (slopes,) = gradients
        images, kernels, largest = ctx.saved_tensors
        needs, padding = ctx.needs_input_grad, ctx.padding
        shape = torch.Size((len(images), len(kernels), *output_size(images, padding)))
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which torch's operations have
            slopes = spread(slopes, largest, shape)
            return (*torchs_gradients(slopes, images, kernels, ctx.has_bias, padding, needs), None)
        return (
            *_gradients(pooling_gradient(slopes, largest, shape), images, kernels, ctx.has_bias, padding, needs),
            None,
        )


def _gradients(
    slopes: Tensor, images: Tensor, kernels: Tensor, has_bias: bool, padding: int, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of images, kernels and bias, as far as needed."""
    # The gradient of the images is the convolution of the slopes with the kernels the other way round.
    turned = kernels.flip(2, 3).permute(2, 3, 0, 1)
    return (
        _convolved(slopes, turned, None, 2 - padding) if needs[0] else None,
        _kernel_gradient(images, slopes, padding).permute(3, 2, 0, 1) if needs[1] else None,
        slopes.sum((0, 2, 3)) if has_bias and needs[2] else None,
    )


def _convolved(images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Return the convolution of `images` `(N, C, H, W)` with `kernels` `(3, 3, C, K)`."""
    outputs = _empty(images, [len(images), kernels.shape[3], *output_size(images, padding)])
    _convolve(images, kernels, bias, padding, outputs, None)
    return outputs


def _convolved_and_pooled(images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> tuple[Tensor, Tensor]:
    """Return the largest outputs of 2x2 windows, and, uint8, which of its window each is: 0 to 3, row by row."""
    shape = [len(images), kernels.shape[3], *(side // SIZE for side in output_size(images, padding))]
    outputs, largest = _empty(images, shape), _empty(images, shape, torch.uint8)
    _convolve(images, kernels, bias, padding, outputs, largest)
    return outputs, largest


def _convolve(
    images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int, outputs: Tensor, largest: Tensor | None
) -> None:
    """Write the convolution to `outputs`, or with `largest` what pooling makes of it to both."""
    library, threads = present(_library()), torch.get_num_threads()
    images = images.contiguous(memory_format=torch.channels_last)
    num_images, in_channels, height, width = images.shape
    out_channels = kernels.shape[3]
    kernels = kernels.contiguous()
    panel = library.winograd_panel()
    transformed = images.new_empty(36, -(-out_channels // panel), in_channels, panel)
    library.winograd_kernels(kernels.data_ptr(), transformed.data_ptr(), in_channels, out_channels, threads)
    bias = None if bias is None else bias.contiguous()
    space = images.new_empty(library.winograd_convolve_space(in_channels, out_channels, CONVOLVE_TILES, threads))
    zeros = images.new_zeros(in_channels)
    library.winograd_convolve(
        images.data_ptr(), transformed.data_ptr(), None if bias is None else bias.data_ptr(), outputs.data_ptr(),
        None if largest is None else largest.data_ptr(), space.data_ptr(), zeros.data_ptr(),
        num_images, height, width, in_channels, out_channels, padding, CONVOLVE_TILES, threads,
    )  # fmt: skip


def _kernel_gradient(images: Tensor, slopes: Tensor, padding: int) -> Tensor:
    """Return the gradient `(3, 3, C, K)` of the kernels."""
    library, threads = present(_library()), torch.get_num_threads()
    images = images.contiguous(memory_format=torch.channels_last)
    slopes = slopes.contiguous(memory_format=torch.channels_last)
    num_images, in_channels, height, width = images.shape
    out_channels = slopes.shape[1]
    block = GRADIENT_NUMBERS * threads // (36 * (in_channels + out_channels))
    block = min(MOST_GRADIENT_TILES, max(LEAST_GRADIENT_TILES, block))
    gradient = images.new_empty(*KERNEL_SIZE, in_channels, out_channels)
    space = images.new_empty(library.winograd_kernel_gradient_space(in_channels, out_channels, block))
    zeros = images.new_zeros(max(in_channels, out_channels))
    library.winograd_kernel_gradient(
        images.data_ptr(), slopes.data_ptr(), gradient.data_ptr(), space.data_ptr(), zeros.data_ptr(),
        num_images, height, width, in_channels, out_channels, padding, block, threads,
    )  # fmt: skip
    return gradient


def _empty(images: Tensor, shape: Sequence[int], kind: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=kind, device=images.device, memory_format=torch.channels_last)


@cache
def _library() -> ctypes.CDLL | None:
    pointer, size, number = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    return load_native(
        SOURCE,
        {
            "winograd_panel": (size, []),
            "winograd_convolve_space": (size, [size] * 4),
            "winograd_kernel_gradient_space": (size, [size] * 3),
            "winograd_kernels": (None, [pointer, pointer, size, size, number]),
            "winograd_convolve": (None, [*[pointer] * 7, *[size] * 7, number]),
            "winograd_kernel_gradient": (None, [*[pointer] * 5, *[size] * 7, number]),
        },
    )


@cache
def _agrees_with_torch() -> bool:
    """Return whether the library computes what torch computes: a compiler is not ours."""
    with torch.inference_mode():
        images = torch.sin(torch.arange(2 * 16 * 7 * 6, dtype=torch.float32, device="cpu").view(2, 16, 7, 6))
        kernels = torch.cos(torch.arange(24 * 16 * 9, dtype=torch.float32, device="cpu").view(24, 16, 3, 3))
        images = images.contiguous(memory_format=torch.channels_last)
        outputs = functional.conv2d(images, kernels, padding=1)
        _, gradient, _ = torchs_gradients(outputs, images, kernels, False, 1, (False, True, False))
        laid_out = kernels.permute(2, 3, 1, 0)
        ours = _convolved(images, laid_out, None, 1), _kernel_gradient(images, outputs, 1).permute(3, 2, 0, 1)
        pooled, largest = _convolved_and_pooled(images, laid_out, None, 1)
        are_largest = spread(torch.ones_like(pooled), largest, outputs.shape)
        at_places = functional.avg_pool2d(are_largest * outputs, SIZE) * SIZE**2
        expected = functional.max_pool2d(outputs, SIZE)
        return agree(zip((*ours, pooled, at_places), (outputs, gradient, expected, expected), strict=True))
