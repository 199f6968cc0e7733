"""Opening an image no larger than its use needs: a large JPEG is decoded at a half, a quarter or an eighth.

A JPEG stores blocks of 8x8 pixels as frequencies, and libjpeg can turn a block into 4x4, 2x2 or 1 pixel without
computing the others (Pillow's `draft`). By `benchmarks/decoding.py`, 500x375 to 128x128 takes 0.6 of the time and
2000x1500 to 224x224 a fifth; after fitting, a pixel differs by 0.3 to 0.6 levels of 255 on average from that of a full
decode, where the JPEG's own loss has moved it by 0.3 to 1.2. Every path by which a file comes in decodes it this way.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from glassnet._types import PathArg
from glassnet.data.content import Content
from glassnet.data.images import open_image

SPARE = 2**0.5
"""How many pixels a reduced JPEG must keep for each pixel it is fitted to, along an axis: two by area."""

REDUCTIONS = (8, 4, 2)

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""


def open_reduced(
    source: PathArg | Content | Image.Image, mode: str, background: int, shrinkage: Callable[[int, int], float]
) -> tuple[Image.Image, Box]:
    """Return what `open_image` returns, perhaps reduced, and the box in it that the picture fills.

    `shrinkage(width, height)` says how many pixels of an upright image of that size become one, along an axis. Where
    this allows, a JPEG is decoded reduced: from a file, or from a Pillow image of one that is still unread, which
    stays so. An image that is already decoded is taken as it is. The last column and row of a reduced image may be
    filled only in part, so that the box can end within a pixel.

    Raises `UnreadableImageError` as `open_image` does.
    """
    opened = _opened(source)
    if opened is None:  # not to be opened or already decoded: open_image says why, or takes it
        image = open_image(source, mode, background)
        return image, (0, 0, *image.size)
    with opened:
        box = _reduce(opened, shrinkage)
        image = open_image(opened, mode, background)
    return image, box or (0, 0, *image.size)


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about odd files, and make an error of the one about a decompression bomb.

    Python keeps its filters for all threads in common: one that leaves such a context can take away the filters of
    another. Whoever decodes in threads opens this context around all of them, so that it makes no difference.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _opened(source: PathArg | Content | Image.Image) -> Image.Image | None:
    """Open a file, or a second time what an unread JPEG was opened from; None where there is nothing to open."""
    try:
        with pillow_warnings():
            if isinstance(source, Content):
                return Image.open(io.BytesIO(source.read()))
            if not isinstance(source, Image.Image):
                return Image.open(source) if os.path.isfile(source) else None
            is_unread = isinstance(source, JpegImageFile) and source.tile and not source.decoderconfig
            if not is_unread or source.fp is None:  # type: ignore[attr-defined]
                return None
            return Image.open(io.BytesIO(_whole_content(source.fp)))  # type: ignore[attr-defined]
    except Exception:  # a hostile file makes Pillow raise almost anything
        return None


def _whole_content(stream: io.BufferedIOBase) -> bytes:
    position = stream.tell()
    try:
        stream.seek(0)
        return stream.read()
    finally:
        stream.seek(position)


def _reduce(opened: Image.Image, shrinkage: Callable[[int, int], float]) -> Box | None:
    """Have a JPEG decoded reduced where it may be; return the box of the picture once it stands upright."""
    if not isinstance(opened, JpegImageFile):
        return None
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
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
    return left, upper, left + inner[0], upper + inner[1]
