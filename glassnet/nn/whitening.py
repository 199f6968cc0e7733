"""Kernels that whiten patches of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from glassnet._errors import UsageError

CHUNK = 250
"""Images whose patches are laid out at a time; bounds the memory, and hardly changes the sums."""


def whitening_kernels(images: Tensor, kernel_size: int, *, epsilon: float = 5e-4) -> Tensor:
    """Return kernels `(D, C, k, k)`, `D = C * k * k`, whose outputs on patches of `images` are nearly white.

    `images` `(N, C, H, W)`, normalised; `k` is `kernel_size`. With the patches as rows of `P` and the eigenvalues
    `l` and eigenvectors `v` of the second moment `P^T P / n`, kernel i is `v_i / sqrt(l_i + epsilon)`: the largest
    eigenvalue first, the largest entry of each `v_i` positive. The outputs have the second moment `l_i / (l_i +
    epsilon)` and products of mean zero; `epsilon`, a squared pixel value, keeps directions without contrast from being
    blown up. The mean is not taken off: normalised images have nearly none. Computed in float64 on the CPU, so that
    every device gets the same kernels. Page, "How to train your ResNet" (2019), part 8; Jordan, "94% on CIFAR-10 in
    3.29 seconds on a single GPU" (2024), section 3.1.

    Raises `UsageError` for what is no batch of images, for images smaller than a kernel, fewer patches than a patch
    has numbers, and numbers that are not finite.
    """
    moment = _second_moment(images, kernel_size)
    values, vectors = torch.linalg.eigh(moment)
    kernels = (vectors / (values.clamp(min=0) + epsilon).sqrt()).T.flip(0)
    largest = kernels.gather(1, kernels.abs().argmax(dim=1, keepdim=True))
    kernels = kernels * torch.where(largest < 0, -1.0, 1.0)
    shape = (len(kernels), images.shape[1], kernel_size, kernel_size)
    return torch.as_tensor(kernels.reshape(shape), dtype=torch.float32)


def _second_moment(images: Tensor, kernel_size: int) -> Tensor:
    """Return the mean of `p p^T` `(D, D)` over all patches `p`, in float64 on the CPU."""
    if images.ndim != 4 or not len(images) or min(images.shape[2:]) < kernel_size:
        raise UsageError(
            f"Whitening needs images (N, C, H, W) of at least {kernel_size}x{kernel_size} pixels; "
            f"got {tuple(images.shape)}. Pass a few hundred training images, normalised as for training."
        )
    size = images.shape[1] * kernel_size**2
    count = len(images) * (images.shape[2] - kernel_size + 1) * (images.shape[3] - kernel_size + 1)
    if count < size:
        raise UsageError(f"Whitening needs at least {size} patches; the images have {count}. Pass more images.")
    moment = torch.zeros(size, size, dtype=torch.float64)
    for chunk in images.detach().split(CHUNK):
        patches = functional.unfold(chunk.to("cpu", torch.float64), kernel_size)
        patches = patches.transpose(1, 2).reshape(-1, size)
        moment += patches.T @ patches / count
    if not bool(moment.isfinite().all()):
        raise UsageError("Whitening needs finite images; got some that are not (nan or infinite). Leave them out.")
    return moment
