"""Convolution by Winograd's minimal filtering: the same sums with a quarter of the multiplications.

A tile of 4x4 outputs of a 3x3 kernel is a sum of 36 products instead of 144 (Winograd 1980; Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", 2016, section 4, F(4x4, 3x3)); where four does not divide the outputs,
some tiles are 3 high or wide. What it costs is a rounding error about ten times as large: some millionths of the
largest output in float32. `winograd.c` has the algorithm; torch has none.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from glassnet._native import load_native
from glassnet.nn.own_kernels import agree, number_refused, torchs_gradients

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
        return (
            # The gradient of the images is the convolution of the slopes with the kernels the other way round.
            _convolved(slopes, kernels.flip(2, 3).permute(2, 3, 0, 1), None, 2 - ctx.padding) if needs[0] else None,
            _kernel_gradient(images, slopes, ctx.padding).permute(3, 2, 0, 1) if needs[1] else None,
            slopes.sum((0, 2, 3)) if ctx.has_bias and needs[2] else None,
            None,
        )


def _convolved(images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Return the convolution of `images` `(N, C, H, W)` with `kernels` `(3, 3, C, K)`."""
    library, threads = _loaded(), torch.get_num_threads()
    images = images.contiguous(memory_format=torch.channels_last)
    num_images, in_channels, height, width = images.shape
    out_channels = kernels.shape[3]
    kernels = kernels.contiguous()
    panel = library.winograd_panel()
    transformed = images.new_empty(36, -(-out_channels // panel), in_channels, panel)
    library.winograd_kernels(kernels.data_ptr(), transformed.data_ptr(), in_channels, out_channels, threads)
    outputs = torch.empty(
        (num_images, out_channels, height + 2 * padding - 2, width + 2 * padding - 2),
        dtype=images.dtype,
        device=images.device,
        memory_format=torch.channels_last,
    )
    bias = None if bias is None else bias.contiguous()
    space = images.new_empty(library.winograd_convolve_space(in_channels, out_channels, CONVOLVE_TILES, threads))
    zeros = images.new_zeros(in_channels)
    library.winograd_convolve(
        images.data_ptr(), transformed.data_ptr(), None if bias is None else bias.data_ptr(), outputs.data_ptr(),
        space.data_ptr(), zeros.data_ptr(),
        num_images, height, width, in_channels, out_channels, padding, CONVOLVE_TILES, threads,
    )  # fmt: skip
    return outputs


def _kernel_gradient(images: Tensor, slopes: Tensor, padding: int) -> Tensor:
    """Return the gradient `(3, 3, C, K)` of the kernels."""
    library, threads = _loaded(), torch.get_num_threads()
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


def _loaded() -> ctypes.CDLL:
    library = _library()
    assert library is not None, "has_winograd() was asked"
    return library


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
            "winograd_convolve": (None, [*[pointer] * 6, *[size] * 7, number]),
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
        ours = _convolved(images, kernels.permute(2, 3, 1, 0), None, 1)
        our_gradient = _kernel_gradient(images, outputs, 1)
        return agree([(ours, outputs), (our_gradient.permute(3, 2, 0, 1), gradient)])
