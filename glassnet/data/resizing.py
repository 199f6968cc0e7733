"""Resizing pictures of 8 bits a channel, with the same pixels on every machine.

Shrinking averages over what falls into a pixel, so that no detail turns into a pattern that is not there. Pillow and
torch both compute this in integers. Torch's bilinear form does it with vector instructions, and gives the same bits
with and without them: by `benchmarks/decoding.py` it takes two thirds of Pillow's time, conversions included, and
resizing is half the work on a photograph. It knows whole pixels only, and bilinear; all else is Pillow's. The two
differ by at most one level of 255.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MOST_PIXELS = 1 << 22
"""Larger boxes are left to Pillow, which needs no second copy of them."""
LEAST_ROUNDED = 128
"""Width and height from which a crop is rounded to whole pixels: half a pixel is then 0.4 % at most."""

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""


def resized(image: Image.Image, size: tuple[int, int], interpolation: str, box: Box) -> np.ndarray:
    """Return what lies in the `box` of an `L` or `RGB` image as `uint8` `(H, W, C)`; `size` is width and height."""
    width, height = box[2] - box[0], box[3] - box[1]
    if is_whole(box) and width == size[0] and height == size[1]:
        return _array(image, box)
    if interpolation == "bilinear" and is_whole(box) and width * height <= MOST_PIXELS:
        pixels = torch.from_numpy(_array(image, box)).permute(2, 0, 1).unsqueeze(0)
        small = torch.nn.functional.interpolate(pixels, size[::-1], mode="bilinear", antialias=True)
        return small[0].permute(1, 2, 0).numpy()
    return _channels(np.array(image.resize(size, INTERPOLATIONS[interpolation], box=box)))


def centre(box: Box, width: float, height: float, unit: float = 1) -> Box:
    """Return the middle of a box, `width` and `height` or less; where these are large, whole pixels of the original.

    `unit` is what such a pixel measures in the picture, which may have been decoded reduced.
    """
    left, upper, right, lower = box
    width, height = min(width, right - left), min(height, lower - upper)
    cut_x, cut_y = (right - left - width) / 2, (lower - upper - height) / 2
    if min(width, height) >= LEAST_ROUNDED * unit:
        width, height = unit * round(width / unit), unit * round(height / unit)
        cut_x, cut_y = unit * int(cut_x / unit), unit * int(cut_y / unit)
    return left + cut_x, upper + cut_y, left + cut_x + width, upper + cut_y + height


def is_whole(box: Box) -> bool:
    """Return whether every edge of a box lies between pixels."""
    return all(edge == int(edge) for edge in box)


def _array(image: Image.Image, box: Box) -> np.ndarray:
    """Return the pixels in a whole box as `uint8` `(H, W, C)`, writable."""
    left, upper, right, lower = map(int, box)
    part = image if (left, upper, right, lower) == (0, 0, *image.size) else image.crop((left, upper, right, lower))
    return _channels(np.array(part))


def _channels(array: np.ndarray) -> np.ndarray:
    return array if array.ndim == 3 else array[:, :, None]
