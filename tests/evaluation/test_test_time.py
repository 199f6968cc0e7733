"""Outputs averaged over changed copies of an image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from glassnet import UsageError
from glassnet.evaluation.test_time import over_views


class Corner(nn.Module):
    """Gives the two upper corner pixels and the lower right one, so that outputs tell how the image lay."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, 0, 0, 0], images[:, 0, 0, -1], images[:, 0, -1, -1]], 1)


IMAGE = torch.arange(1.0, 17.0).view(1, 1, 4, 4)


def test_the_mirror_image_counts_as_much_as_the_image() -> None:
    assert over_views(Corner(), "mirror", (1, 4, 4))(IMAGE).tolist() == [[2.5, 2.5, 14.5]]


def test_moved_images_reflect_at_the_border_and_count_a_quarter_each() -> None:
    # Moved by one pixel, up and left shows row and column 1 first, down and right their reflection: both are pixel 6.
    up, down = IMAGE[..., [1, 2, 3, 2], :][..., [1, 2, 3, 2]], IMAGE[..., [1, 0, 1, 2], :][..., [1, 0, 1, 2]]
    plain = over_views(Corner(), "mirror", (1, 4, 4))
    expected = 0.5 * plain(IMAGE) + 0.25 * plain(up) + 0.25 * plain(down)
    for images in (IMAGE, IMAGE.to(memory_format=torch.channels_last)):
        assert torch.equal(over_views(Corner(), "mirror-shift", (1, 4, 4))(images), expected)


def test_without_it_the_model_is_what_it_was() -> None:
    model = Corner()
    assert over_views(model, "none", (1, 4, 4)) is model


def test_what_is_no_image_and_an_unknown_word_are_refused() -> None:
    with pytest.raises(UsageError, match=r"mirrors images.*\(2,\)"):
        over_views(nn.Linear(2, 2), "mirror", (2,))
    with pytest.raises(UsageError, match=r"tta 'flip'.*mirror"):
        over_views(Corner(), "flip", (1, 4, 4))
