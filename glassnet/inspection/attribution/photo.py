"""Scores of a network's input, mapped back onto the photo that it was made from."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import PathArg, by
from glassnet.data.images import open_image
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.resizing import Box, centre


def map_to_photo(
    scores: Tensor, preprocessing: Preprocessing, photo: PathArg | Image.Image | tuple[int, int]
) -> Tensor:
    """Return scores `(H, W)` of a network's input as scores of the photo's pixels, float32 `(height, width)`.

    `preprocessing` says how the photo was fitted; `photo` is the file, the Pillow image, or its height and width. What
    a crop threw away is nan, as the network never saw it; scores on padding and margin belong to no pixel and are left
    out. Scores are interpolated (bilinear), so that they are a density: not their sum but their height is kept.

    Raises `UsageError` for scores of another size than the network's input.
    """
    if not isinstance(preprocessing, Preprocessing):
        raise UsageError(f"Scores are mapped back by the preprocessing of images; got {type(preprocessing).__name__}.")
    if tuple(scores.shape) != tuple(preprocessing.size):
        raise UsageError(
            f"Expected a map of the network's input, {by(preprocessing.size)}; got {by(tuple(scores.shape))}. "
            "Pass attribution.map."
        )
    size = photo if isinstance(photo, tuple) else _size(photo, preprocessing)
    height, width = size
    rows, columns = _content(preprocessing, height, width)
    content = scores[rows[0] : rows[1], columns[0] : columns[1]].float().numpy()
    box = _kept(preprocessing, height, width)
    left, upper, right, lower = (round(edge) for edge in box)
    target = max(right - left, 1), max(lower - upper, 1)
    enlarged = Image.fromarray(np.ascontiguousarray(content)).resize(target, Image.Resampling.BILINEAR)
    found = torch.full((height, width), math.nan)
    found[upper : upper + target[1], left : left + target[0]] = torch.from_numpy(np.array(enlarged))
    return found


def _size(photo: PathArg | Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    image = open_image(photo, preprocessing.mode, preprocessing.fill)  # upright, as its EXIF data says
    return image.height, image.width


def _kept(preprocessing: Preprocessing, height: int, width: int) -> Box:
    """Return the box of the photo that the network saw, as `Preprocessing` cuts it."""
    whole: Box = (0, 0, width, height)
    if preprocessing.fit != "crop":
        return whole
    to_height, to_width = preprocessing.content_size
    scale = max(to_width / width, to_height / height)
    return centre(whole, to_width / scale, to_height / scale)


def _content(preprocessing: Preprocessing, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns of the input that the photo fills, as `Preprocessing` places it."""
    to_height, to_width = preprocessing.content_size
    if preprocessing.fit == "pad":
        scale = min(to_width / width, to_height / height)
        to_height, to_width = max(1, round(height * scale)), max(1, round(width * scale))
    row, column = (preprocessing.size[0] - to_height) // 2, (preprocessing.size[1] - to_width) // 2
    return (row, row + to_height), (column, column + to_width)
