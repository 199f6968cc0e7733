"""Augmentation of a whole batch at once, on the device, while it is still `uint8`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def random_shift(pixels: Tensor, max_shift: int, fill: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to `max_shift` pixels up, down, left and right; what becomes free gets `fill`.

    `pixels` `(N, C, H, W)` -> `(N, C, H, W)`. The shifts are whole pixels, uniform and independent for each image and
    axis, drawn from `generator` (a CPU generator, so that every device sees the same shifts).
    """
    num_images, _, height, width = pixels.shape
    padded = F.pad(pixels, (max_shift,) * 4, value=fill)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2s+1, 2s+1, H, W), a view
    down, right = torch.randint(0, 2 * max_shift + 1, (2, num_images), device="cpu", generator=generator).to(
        pixels.device
    )
    return windows[torch.arange(num_images, device=pixels.device), :, down, right]
