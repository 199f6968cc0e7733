"""Giving back the memory of mapped images: which tensors it is done to, and what is left of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from glassnet.data.pixel_file import PixelLayout, PixelWriter, open_pixels, release_pages


def written(folder: Path) -> tuple[PixelLayout, torch.Tensor]:
    rows = np.random.default_rng(0).integers(1, 256, (6, 3, 40, 40), dtype=np.uint8)
    layout = PixelLayout(key="0" * 32, num_images=6, image_shape=(3, 40, 40))
    with PixelWriter(folder, layout) as writer:
        writer.add(rows, {})
        writer.finish()
    return layout, torch.from_numpy(rows)


def test_released_images_are_read_anew_from_a_part_as_from_the_whole(tmp_path: Path) -> None:
    layout, rows = written(tmp_path)
    for part in (slice(None), slice(2, 4)):
        opened = open_pixels(tmp_path, layout)
        assert opened is not None
        pixels, _ = opened
        pixels.zero_()  # in memory only, so that it shows what was released
        release_pages(pixels[part])
        assert torch.equal(pixels, rows)


def test_a_tensor_that_is_not_mapped_keeps_its_values(tmp_path: Path) -> None:
    layout, rows = written(tmp_path)
    opened = open_pixels(tmp_path, layout)
    assert opened is not None
    pixels = opened[0]
    pixels.zero_()
    copies = rows.clone()
    for tensor in (copies, copies[1:], pixels.clone(), torch.zeros(0)):
        release_pages(tensor)
    assert torch.equal(copies, rows)
    assert not pixels.any()
