"""Opening an image no larger than its use needs: a large JPEG is decoded at a half, a quarter or an eighth.

A JPEG stores blocks of 8x8 pixels as frequencies, and libjpeg can turn a block into 4x4, 2x2 or 1 pixel without
computing the others (Pillow's `draft`). By `benchmarks/decoding.py`, 500x375 to 128x128 takes 0.6 of the time and
2000x1500 to 224x224 a fifth; after fitting, a pixel differs by 0.3 to 0.6 levels of 255 on average from that of a full
decode, where the JPEG's own loss has moved it by 0.3 to 1.2. Every path by which a file comes in decodes it this way.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from glassnet._types import PathArg
from glassnet.data.content import Content
from glassnet.data.images import exif_orientation, open_image, pillow_warnings
from glassnet.data.resizing import Box

SPARE = 2**0.5
"""How many pixels a reduced JPEG must keep for each pixel it is fitted to, along an axis: two by area."""

REDUCTIONS = (8, 4, 2)
LARGEST_READ_BYTES = 1 << 26
"""A longer file is read in pieces, as it is decoded."""
JPEG_BEGINNING = b"\xff\xd8\xff"


class Opened(NamedTuple):
    """An image, perhaps decoded reduced."""

    image: Image.Image
    box: Box
    """What the picture fills of it."""
    reduction: int
    """How many pixels of the file became one, along an axis."""


def open_reduced(
    source: PathArg | Content | Image.Image, mode: str, background: int, shrinkage: Callable[[int, int], float]
) -> Opened:
    """Return what `open_image` returns, perhaps reduced, and the box in it that the picture fills.

    `shrinkage(width, height)` says how many pixels of an upright image of that size become one, along an axis. Where
    this allows, a JPEG is decoded reduced: from a file, or from a Pillow image of one that is still unread, which
    stays so. An image that is already decoded is taken as it is. The last column and row of a reduced image may be
    filled only in part, so that the box can end within a pixel.

    Raises `UnreadableImageError` as `open_image` does.
    """
    opened = _opened(source)
    if opened is None:  # open_image takes it, or says why not
        return _whole(open_image(source, mode, background))
    with opened:
        reduced = _reduce(opened, shrinkage)
        image = open_image(opened, mode, background)
    return Opened(image, *reduced) if reduced else _whole(image)


def _whole(image: Image.Image) -> Opened:
    return Opened(image, (0, 0, *image.size), 1)


def _opened(source: PathArg | Content | Image.Image) -> Image.Image | None:
    """Open a JPEG file, content, or a second time what an unread JPEG was opened from; None for everything else."""
    try:
        with pillow_warnings():
            if isinstance(source, Content):
                return Image.open(io.BytesIO(source.read()))
            if not isinstance(source, Image.Image):
                return _opened_jpeg(source) if os.path.isfile(source) else None
            is_unread = isinstance(source, JpegImageFile) and source.tile and not source.decoderconfig
            if not is_unread or source.fp is None:  # type: ignore[attr-defined]
                return None
            return Image.open(io.BytesIO(_whole_content(source.fp)))  # type: ignore[attr-defined]
    except Exception:  # a hostile file makes Pillow raise almost anything
        return None


def _opened_jpeg(path: PathArg) -> Image.Image | None:
    with open(path, "rb") as stream:
        if stream.read(len(JPEG_BEGINNING)) != JPEG_BEGINNING:
            return None
        if os.fstat(stream.fileno()).st_size > LARGEST_READ_BYTES:
            return Image.open(path)
        stream.seek(0)
        return Image.open(io.BytesIO(stream.read()))


def _whole_content(stream: io.BufferedIOBase) -> bytes:
    position = stream.tell()
    try:
        stream.seek(0)
        return stream.read()
    finally:
        stream.seek(position)


def _reduce(opened: Image.Image, shrinkage: Callable[[int, int], float]) -> tuple[Box, int] | None:
    """Have a JPEG decoded reduced where it may be; return the box of the upright picture, and the reduction."""
    if not isinstance(opened, JpegImageFile):
        return None
    try:
        orientation = exif_orientation(opened)
    except Exception:  # open_image meets the same damage, and says so
        return None
    width, height = opened.size
    is_turned = orientation in (5, 6, 7, 8)
    allowed = shrinkage(height, width) if is_turned else shrinkage(width, height)
    reduction = next((factor for factor in REDUCTIONS if factor * SPARE <= allowed), None)
    if reduction is None:
        return None
    drafted = opened.draft(None, (max(1, width // reduction), max(1, height // reduction)))
    if drafted is None:
        return None
    # What lies beyond the picture is at its right and lower edge as stored; EXIF says where that is when upright.
    inner, outer = drafted[1][2:], opened.size
    if is_turned:
        inner, outer = inner[::-1], outer[::-1]
    left = outer[0] - inner[0] if orientation in (2, 3, 6, 7) else 0.0
    upper = outer[1] - inner[1] if orientation in (3, 4, 7, 8) else 0.0
    return (left, upper, left + inner[0], upper + inner[1]), reduction
