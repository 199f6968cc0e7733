"""Batch normalisation in training, as fast as memory is: torch's takes up to ten times as long where channels are few.

torch shares channels out among the threads. `normalising.c` shares pixels out, takes mean and variance of a block while
it is in the cache, and reads images twice and slopes twice in all.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassnet._native import load_native
from glassnet.nn.own_kernels import agree, present

SOURCE = Path(__file__).with_name("normalising.c")
CHANNELS_STEP = 8
"""Channels are a multiple of this."""


def has_batch_norm() -> bool:
    """Return whether this machine normalises so: Linux, a C compiler, and an OpenMP that torch brought."""
    return _library() is not None and _agrees_with_torch()


def batch_norm2d(
    images: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: float = 0.1,
    epsilon: float = 1e-5,
) -> Tensor:
    """Return `functional.batch_norm(..., training=True)`, but for rounding; it has gradients too.

    `images` `(N, C, H, W)`, the others `(C,)` -> like `images`, channels innermost; float32 on a CPU, C a multiple of
    8, two numbers or more of each channel. The running statistics are moved in place.

    Raises `ValueError` for other images, `RuntimeError` where the machine has no `has_batch_norm()`.
    """
    if not takes(images):
        raise ValueError(
            "batch_norm2d expects images (N, C, H, W) of float32 on a CPU, C a multiple of 8, two numbers or more of "
            f"each channel; got {tuple(images.shape)} of {images.dtype} on {images.device}."
        )
    for name, values in (
        ("running_mean", running_mean),
        ("running_variance", running_variance),
        ("weight", weight),
        ("bias", bias),
    ):
        is_plain = values.dtype == torch.float32 and values.device.type == "cpu" and values.is_contiguous()
        if values.shape != images.shape[1:2] or not is_plain:
            raise ValueError(
                f"batch_norm2d expects {name} ({images.shape[1]},) of float32 on a CPU, without gaps; "
                f"got {tuple(values.shape)} of {values.dtype} on {values.device}."
            )
    if not has_batch_norm():
        raise RuntimeError("This machine has no C compiler that compiles normalising.c. Use torch's batch_norm.")
    result: Tensor = BatchNormalisation.apply(images, running_mean, running_variance, weight, bias, momentum, epsilon)
    return result


def takes(images: Tensor) -> bool:
    """Return whether `batch_norm2d` takes these images."""
    is_plain = images.dtype == torch.float32 and images.device.type == "cpu" and images.ndim == 4
    return is_plain and images.shape[1] > 0 and images.shape[1] % CHANNELS_STEP == 0 and _num_pixels(images) > 1


class BatchNormalisation(torch.autograd.Function):
    """The operation as autograd sees it; `batch_norm2d` checks its arguments."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        weight: Tensor,
        bias: Tensor,
        momentum: float,
        epsilon: float,
    ) -> Tensor:
        """Return the outputs."""
        outputs, mean, scale = _normalised(images, running_mean, running_variance, weight, bias, momentum, epsilon)
        ctx.save_for_backward(images, weight, mean, scale)
        ctx.epsilon = epsilon
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of images, weight and bias."""
        images, weight, mean, scale = ctx.saved_tensors
        needs = ctx.needs_input_grad
        wanted = [needs[0], needs[3], needs[4]]
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which torch's own has
            of_images, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                gradients[0], images, weight, None, None, mean, scale, True, ctx.epsilon, wanted
            )
        else:
            of_images, of_weight, of_bias = _gradients(images, gradients[0], weight, mean, scale)
        received = (of_images, None, None, of_weight, of_bias, None, None)
        return tuple(value if is_needed else None for value, is_needed in zip(received, needs, strict=True))


def _num_pixels(images: Tensor) -> int:
    return len(images) * images.shape[2] * images.shape[3]


def _normalised(
    images: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: float,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the outputs, the mean of each channel, and one over its standard deviation."""
    library = present(_library())
    images = images.contiguous(memory_format=torch.channels_last)
    channels = images.shape[1]
    outputs = torch.empty_like(images)
    mean, scale = images.new_empty(channels), images.new_empty(channels)
    space = images.new_empty(library.batch_norm_space(channels))
    tensors = images, weight, bias, running_mean, running_variance, mean, scale, outputs, space
    pointers = [tensor.data_ptr() for tensor in tensors]
    library.batch_norm(*pointers, _num_pixels(images), channels, epsilon, momentum, torch.get_num_threads())
    return outputs, mean, scale


def _gradients(
    images: Tensor, slopes: Tensor, weight: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of images, weight and bias."""
    library = present(_library())
    images, slopes = (values.contiguous(memory_format=torch.channels_last) for values in (images, slopes))
    channels = images.shape[1]
    of_images = torch.empty_like(images)
    of_weight, of_bias = images.new_empty(channels), images.new_empty(channels)
    space = images.new_empty(library.batch_norm_space(channels))
    tensors = images, slopes, weight, mean, scale, of_images, of_weight, of_bias, space
    pointers = [tensor.data_ptr() for tensor in tensors]
    library.batch_norm_gradient(*pointers, _num_pixels(images), channels, torch.get_num_threads())
    return of_images, of_weight, of_bias


@cache
def _library() -> ctypes.CDLL | None:
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_double
    return load_native(
        SOURCE,
        {
            "batch_norm_space": (size, [size]),
            "batch_norm": (None, [*[pointer] * 9, size, size, real, real, number]),
            "batch_norm_gradient": (None, [*[pointer] * 9, size, size, number]),
        },
    )


@cache
def _agrees_with_torch() -> bool:
    """Return whether the library computes what torch computes: a compiler is not ours."""
    with torch.inference_mode():
        images = torch.sin(torch.arange(3 * 16 * 7 * 6, dtype=torch.float32, device="cpu").view(3, 16, 7, 6)) + 2
        images = images.contiguous(memory_format=torch.channels_last)
        weight, bias, slopes = images[0, :, 0, 0].contiguous(), images[0, :, 0, 1].contiguous(), torch.cos(3 * images)
        mean, variance, our_mean, our_variance = (values.clone() for values in (bias, weight, bias, weight))
        outputs, *found = torch.ops.aten.native_batch_norm(images, weight, bias, mean, variance, True, 0.1, 1e-5)
        theirs = torch.ops.aten.native_batch_norm_backward(
            slopes, images, weight, mean, variance, *found, True, 1e-5, [True] * 3
        )
        our_outputs, *our_found = _normalised(images, our_mean, our_variance, weight, bias, 0.1, 1e-5)
        ours = our_outputs, *our_found, *_gradients(images, slopes, weight, *our_found), our_mean, our_variance
        return agree(zip(ours, (outputs, *found, *theirs, mean, variance), strict=True))
