"""What layers with C of their own have in common: when it is trusted, what convolutions take, and second gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Of the largest number, in the comparison with torch before a library is trusted."""


def present(library: ctypes.CDLL | None) -> ctypes.CDLL:
    """Return a library that is there, because whether this machine has it was asked before."""
    assert library is not None, "whether there is one was to be asked"
    return library


def agree(pairs: Iterable[tuple[Tensor, Tensor | None]]) -> bool:
    """Return whether in each pair ours is torch's but for rounding."""
    return all(
        theirs is not None and bool((own - theirs).abs().max() < TOLERANCE * theirs.abs().max())
        for own, theirs in pairs
    )


def number_refused(name: str, images: Tensor, kernels: Tensor, bias: Tensor | None) -> str | None:
    """Return why the function `name` does not take these numbers, or None where it does.

    They are to be float32 on a CPU, and `bias` `(K,)` one number for each of the kernels.
    """
    if bias is not None and bias.shape != kernels.shape[:1]:
        return f"{name} expects a bias ({len(kernels)},), one number a kernel; got {tuple(bias.shape)}."
    for tensor in (images, kernels, *([] if bias is None else [bias])):
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            return f"{name} expects float32 on a CPU; got {tensor.dtype} on {tensor.device}."
    return None


def torchs_gradients(
    slopes: Tensor, images: Tensor, kernels: Tensor, has_bias: bool, padding: int, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of images, kernels and bias, as far as needed, by torch's own, which have gradients too."""
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        slopes, images, kernels, [len(kernels)] if has_bias else None,
        [1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, [*needs[:2], has_bias and needs[2]],
    )  # fmt: skip
    return gradients
