"""Test-time augmentation: the mean of a network's outputs over changed copies of each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape

TEST_TIME = ("none", "mirror", "mirror-shift")
"""What is averaged over: the image alone; with its mirror image; and both also moved along the diagonal."""
SHIFT = 1
"""Pixels by which `mirror-shift` moves an image, up and left, and down and right."""


def over_views(model: nn.Module, tta: str, input_shape: Shape) -> nn.Module:
    """Return `model` as it answers with test-time augmentation `tta`: `(B, C, H, W)` -> mean outputs `(B, K)`.

    `mirror` is the mean over the image and its mirror image (Krizhevsky et al. 2012, section 4.1, with crops);
    `mirror-shift` gives that half the weight, and a quarter each to the same of the image moved by a pixel up and
    left, and down and right, what becomes free reflected (Jordan 2024, section 3.5). Outputs are averaged before any
    softmax. It takes two or six times as long.

    Raises `UsageError` for another word, and for inputs that are no images.
    """
    if tta not in TEST_TIME:
        raise unknown_name("tta", str(tta), TEST_TIME)
    if tta == "none":
        return model
    if len(input_shape) != 3:
        raise UsageError(f"tta mirrors images (C, H, W); this network takes {tuple(input_shape)}. Leave it out.")
    return _OverViews(model, is_moved=tta == "mirror-shift")


class _OverViews(nn.Module):
    def __init__(self, model: nn.Module, *, is_moved: bool) -> None:
        super().__init__()
        self.model, self.is_moved = model, is_moved

    def forward(self, images: Tensor) -> Tensor:
        outputs = self._mirrored(images)
        if not self.is_moved:
            return outputs
        height, width = images.shape[2:]
        padded, far = F.pad(images, (SHIFT,) * 4, "reflect"), 2 * SHIFT
        moved = [
            padded[:, :, start : start + height, start : start + width].contiguous(
                memory_format=torch.channels_last if _has_channels_last(images) else torch.contiguous_format
            )
            for start in (0, far)
        ]
        return 0.5 * outputs + 0.25 * self._mirrored(moved[0]) + 0.25 * self._mirrored(moved[1])

    def _mirrored(self, images: Tensor) -> Tensor:
        outputs: Tensor = 0.5 * self.model(images) + 0.5 * self.model(images.flip(-1))
        return outputs


def _has_channels_last(images: Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last)
