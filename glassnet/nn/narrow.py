"""Convolution with few channels: the sums as they are written, in the registers of the processor.

torch's kernels for a CPU are made for tens and hundreds of channels; with LeNet-5's 1, 6 and 16 they come to a tenth to
a quarter of what the processor multiplies. `narrow.c` keeps the sums of several neighbouring outputs in registers while
it goes through the kernels, and lays nothing out anew but the kernels.
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

SOURCE = Path(__file__).with_name("narrow.c")
LANES = 8
"""Outputs of a panel."""


def has_narrow() -> bool:
    """Return whether this machine computes convolutions so: Linux, a C compiler, and an OpenMP that torch brought."""
    return _library() is not None and _agrees_with_torch()


def narrow_conv2d(images: Tensor, kernels: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """Return `functional.conv2d(images, kernels, bias, padding=padding)`, but for rounding; it has gradients too.

    `images` `(N, C, H, W)`, `kernels` `(K, C, U, U)`, `bias` `(K,)` -> `(N, K, H + 2 padding - U + 1, W + 2 padding - U
    + 1)` with channels innermost; float32 on a CPU, `padding` below U. Meant for few channels.

    Raises `ValueError` for other arguments, `RuntimeError` where the machine has no `has_narrow()`.
    """
    refusal = refused(images, kernels, bias, padding)
    if refusal is not None:
        raise ValueError(refusal)
    if not has_narrow():
        raise RuntimeError("This machine has no C compiler that compiles narrow.c. Use torch's conv2d.")
    result: Tensor = NarrowConvolution.apply(images, kernels, bias, padding)
    return result


def refused(images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> str | None:
    """Return why `narrow_conv2d` does not take these arguments, or None where it does."""
    is_square = kernels.ndim == 4 and kernels.shape[2] == kernels.shape[3] and kernels.numel()
    if images.ndim != 4 or not is_square or kernels.shape[1] != images.shape[1]:
        return (
            "narrow_conv2d expects images (N, C, H, W) and kernels (K, C, U, U); "
            f"got {tuple(images.shape)} and {tuple(kernels.shape)}."
        )
    refusal = number_refused("narrow_conv2d", images, kernels, bias)
    if refusal is not None:
        return refusal
    side = kernels.shape[2]
    if not 0 <= padding < side:
        return f"narrow_conv2d expects a padding of 0 to {side - 1} with kernels of {side}x{side}; got {padding}."
    if min(images.shape) < 1 or min(images.shape[2:]) + 2 * padding < side:
        return (
            f"narrow_conv2d expects images that a padding of {padding} makes {side}x{side} or more; "
            f"got {tuple(images.shape)}."
        )
    return None


class NarrowConvolution(torch.autograd.Function):
    """The operation as autograd sees it; `narrow_conv2d` checks its arguments."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        """Return the outputs."""
        ctx.save_for_backward(images, kernels)
        ctx.padding, ctx.has_bias = padding, bias is not None
        return _convolved(images, kernels, bias, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Return the gradients of images, kernels and bias."""
        (slopes,) = gradients
        images, kernels = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which torch's own has
            return (*torchs_gradients(slopes, images, kernels, ctx.has_bias, ctx.padding, needs), None)
        of_kernels = of_bias = None
        if any(needs[1:3]):
            of_kernels, of_bias = _kernel_gradient(images, slopes, kernels, ctx.padding)
        return (
            _image_gradient(slopes, kernels, ctx.padding) if needs[0] else None,
            of_kernels if needs[1] else None,
            of_bias if ctx.has_bias and needs[2] else None,
            None,
        )


def _convolved(images: Tensor, kernels: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Return the convolution of `images` `(N, C, H, W)` with `kernels` `(K, C, U, U)`."""
    return _with_panels(images, kernels.data_ptr(), kernels.shape, kernels.stride(), bias, padding)


def _image_gradient(slopes: Tensor, kernels: Tensor, padding: int) -> Tensor:
    """Return the gradient of the images: the slopes convolved with the kernels the other way round.

    Those are the same numbers, read from the last row and column with the channels' axes exchanged.
    """
    out_channels, in_channels, side, _ = kernels.shape
    of_out, of_in, of_row, of_column = kernels.stride()
    last = kernels.data_ptr() + (side - 1) * (of_row + of_column) * kernels.element_size()
    shape, strides = (in_channels, out_channels, side, side), (of_in, of_out, -of_row, -of_column)
    return _with_panels(slopes, last, shape, strides, None, side - 1 - padding)


def _with_panels(
    images: Tensor, kernels: int, shape: Sequence[int], strides: Sequence[int], bias: Tensor | None, padding: int
) -> Tensor:
    """Return the convolution of `images` with the kernels that lie at `kernels`, `(K, C, U, U)` with these strides."""
    library, threads = present(_library()), torch.get_num_threads()
    images = images.contiguous(memory_format=torch.channels_last)
    out_channels, in_channels, side, _ = shape
    num_images, _, height, width = images.shape
    panels = images.new_empty(library.narrow_panels_size(in_channels, out_channels, side))
    library.narrow_panels(kernels, panels.data_ptr(), in_channels, out_channels, side, *strides)
    shifts = images.new_zeros(-(-out_channels // LANES) * LANES)
    if bias is not None:
        shifts[:out_channels] = bias
    outputs = torch.empty(
        (num_images, out_channels, height + 2 * padding - side + 1, width + 2 * padding - side + 1),
        dtype=images.dtype,
        device=images.device,
        memory_format=torch.channels_last,
    )
    sizes = (num_images, height, width, in_channels, out_channels, side, padding)
    space = images.new_empty(library.narrow_convolve_space(*sizes, threads))
    library.narrow_convolve(
        images.data_ptr(), panels.data_ptr(), shifts.data_ptr(), outputs.data_ptr(), space.data_ptr(), *sizes, threads
    )
    return outputs


def _kernel_gradient(images: Tensor, slopes: Tensor, kernels: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of the kernels `(K, C, U, U)` and of a bias `(K,)`."""
    library, threads = present(_library()), torch.get_num_threads()
    images, slopes = (values.contiguous(memory_format=torch.channels_last) for values in (images, slopes))
    num_images, in_channels, height, width = images.shape
    out_channels, _, side, _ = kernels.shape
    gradient = images.new_empty(side, side, in_channels, out_channels)
    bias_gradient = images.new_empty(out_channels)
    sizes = (num_images, height, width, in_channels, out_channels, side, padding)
    space = images.new_empty(library.narrow_kernel_gradient_space(*sizes, threads))
    library.narrow_kernel_gradient(
        images.data_ptr(), slopes.data_ptr(), gradient.data_ptr(), bias_gradient.data_ptr(), space.data_ptr(),
        *sizes, threads,
    )  # fmt: skip
    return gradient.permute(3, 2, 0, 1), bias_gradient


@cache
def _library() -> ctypes.CDLL | None:
    pointer, size, number = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    return load_native(
        SOURCE,
        {
            "narrow_panels_size": (size, [size] * 3),
            "narrow_panels": (None, [pointer, pointer, *[size] * 7]),
            "narrow_convolve_space": (size, [size] * 8),
            "narrow_convolve": (None, [*[pointer] * 5, *[size] * 7, number]),
            "narrow_kernel_gradient_space": (size, [size] * 8),
            "narrow_kernel_gradient": (None, [*[pointer] * 5, *[size] * 7, number]),
        },
    )


@cache
def _agrees_with_torch() -> bool:
    """Return whether the library computes what torch computes: a compiler is not ours."""
    with torch.inference_mode():
        images = torch.sin(torch.arange(2 * 3 * 9 * 8, dtype=torch.float32, device="cpu").view(2, 3, 9, 8))
        kernels = torch.cos(torch.arange(20 * 3 * 9, dtype=torch.float32, device="cpu").view(20, 3, 3, 3))
        images = images.contiguous(memory_format=torch.channels_last)
        outputs = functional.conv2d(images, kernels, padding=1).contiguous(memory_format=torch.channels_last)
        theirs = torchs_gradients(outputs, images, kernels, True, 1, (True, True, True))
        ours = (_image_gradient(outputs, kernels, 1), *_kernel_gradient(images, outputs, kernels, 1))
        return agree([(_convolved(images, kernels, None, 1), outputs), *zip(ours, theirs, strict=True)])
