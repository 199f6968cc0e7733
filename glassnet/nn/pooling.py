"""Max pooling of 2x2 with the bits of torch's and a third of its time, in training.

torch keeps the place of each maximum in eight bytes, and fills the gradient with zeros before it writes the slopes into
it. `pooling.c` keeps it in one byte and writes the gradient once.
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
from glassnet.nn.own_kernels import present

SOURCE = Path(__file__).with_name("pooling.c")
SIZE = 2
"""Height, width and stride of a window."""


def has_max_pool() -> bool:
    """Return whether this machine pools so: Linux, a C compiler, and an OpenMP that torch brought."""
    return _library() is not None and _agrees_with_torch()


def max_pool2d(images: Tensor) -> Tensor:
    """Return `functional.max_pool2d(images, 2)`, bit for bit, and so are its gradients.

    `images` `(N, C, H, W)` -> `(N, C, H // 2, W // 2)`, channels innermost; float32 on a CPU, 2x2 or more.

    Raises `ValueError` for other images, `RuntimeError` where the machine has no `has_max_pool()`.
    """
    if not takes(images):
        raise ValueError(
            "max_pool2d expects images (N, C, H, W) of float32 on a CPU, 2x2 or more; "
            f"got {tuple(images.shape)} of {images.dtype} on {images.device}."
        )
    if not has_max_pool():
        raise RuntimeError("This machine has no C compiler that compiles pooling.c. Use torch's max_pool2d.")
    result: Tensor = MaxPooling.apply(images)
    return result


def takes(images: Tensor) -> bool:
    """Return whether `max_pool2d` takes these images."""
    is_plain = images.dtype == torch.float32 and images.device.type == "cpu"
    return is_plain and images.ndim == 4 and min(images.shape) >= 1 and min(images.shape[2:]) >= SIZE


class MaxPooling(torch.autograd.Function):
    """The operation as autograd sees it; `max_pool2d` checks its argument."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        """Return the outputs."""
        outputs, places = _pooled(images)
        ctx.save_for_backward(places)
        ctx.shape = images.shape
        return outputs

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        """Return the gradient of the images."""
        (places,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted, which torch's operations have
            return spread(slopes[0], places, ctx.shape)
        return pooling_gradient(slopes[0], places, ctx.shape)


def _pooled(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs and, uint8, the number of the largest in its window for each."""
    images = images.contiguous(memory_format=torch.channels_last)
    num_images, channels, height, width = images.shape
    shape = num_images, channels, height // SIZE, width // SIZE
    outputs, places = (
        torch.empty(shape, dtype=kind, device=images.device, memory_format=torch.channels_last)
        for kind in (images.dtype, torch.uint8)
    )
    pointers = images.data_ptr(), outputs.data_ptr(), places.data_ptr()
    present(_library()).max_pool(*pointers, num_images, height, width, channels, torch.get_num_threads())
    return outputs, places


def pooling_gradient(slopes: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Return the slopes of all pixels of images of `shape`, from those of the windows' largest and their places."""
    slopes, places = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (slopes, places))
    num_images, channels, height, width = shape
    gradient = torch.empty(shape, dtype=slopes.dtype, device=slopes.device, memory_format=torch.channels_last)
    pointers = slopes.data_ptr(), places.data_ptr(), gradient.data_ptr()
    present(_library()).max_pool_gradient(*pointers, num_images, height, width, channels, torch.get_num_threads())
    return gradient


def spread(slopes: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Return what `pooling_gradient` does, by operations that have gradients."""
    parts = torch.stack([slopes * (places == number) for number in range(SIZE**2)])
    windows = parts.view(SIZE, SIZE, *slopes.shape).permute(2, 3, 4, 0, 5, 1)  # N, C, row, its half, column, its half
    spread = windows.reshape(*shape[:2], SIZE * slopes.shape[2], SIZE * slopes.shape[3])
    return functional.pad(spread, (0, shape[3] % SIZE, 0, shape[2] % SIZE))


@cache
def _library() -> ctypes.CDLL | None:
    arguments = [*[ctypes.c_void_p] * 3, *[ctypes.c_ssize_t] * 4, ctypes.c_int]
    return load_native(SOURCE, {"max_pool": (None, arguments), "max_pool_gradient": (None, arguments)})


@cache
def _agrees_with_torch() -> bool:
    """Return whether the library computes what torch computes: a compiler is not ours."""
    with torch.inference_mode():
        images = torch.sin(torch.arange(2 * 11 * 7 * 6, dtype=torch.float32, device="cpu").view(2, 11, 7, 6))
        images[0] = images[0].round()  # with ties
        images = images.contiguous(memory_format=torch.channels_last)
        expected, indices = functional.max_pool2d(images, SIZE, return_indices=True)
        outputs, places = _pooled(images)
        slopes = torch.cos(expected)
        arguments = [SIZE, SIZE], [SIZE, SIZE], [0, 0], [1, 1], False, indices
        gradient = torch.ops.aten.max_pool2d_with_indices_backward(slopes, images, *arguments)
        return torch.equal(outputs, expected) and torch.equal(pooling_gradient(slopes, places, images.shape), gradient)
