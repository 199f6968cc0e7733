"""Reading an image file of any mode, size and depth into grey or RGB pixels."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from glassnet._errors import WorkError
from glassnet._types import PathArg
from glassnet.data.content import Content

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes with more than 8 bits a channel; its own conversion clips them instead of scaling."""


class UnreadableImageError(WorkError):
    """One image that cannot be read; the text says why, without the file's name."""


@dataclass(frozen=True)
class SetAside:
    """A file that was not used, and why."""

    source: str
    reason: str


def open_image(source: PathArg | Content | Image.Image, mode: str, background: int = 0) -> Image.Image:
    """Return an image file, its content, or a Pillow image, as `L` (grey) or `RGB`, 8 bits a channel, upright.

    EXIF rotation is applied; transparent pixels are laid over `background`; 16-bit values are scaled to 8 bits
    (`v / 257`); float images must lie in 0..1 or 0..255. Of an animation, the first frame is taken.

    Raises `UnreadableImageError` with the reason for anything that is not such an image.
    """
    if isinstance(source, Image.Image):
        return _guarded(lambda: _to_mode(source, mode, background))
    return _read(source, lambda image: _to_mode(image, mode, background))


def open_picture(source: PathArg | Content) -> Image.Image:
    """Return an image file as it is to be looked at: upright, `L`, `LA`, `RGB` or `RGBA`, 8 bits a channel.

    Raises `UnreadableImageError` as `open_image`.
    """
    return _read(source, _to_picture)


def _read(source: PathArg | Content, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Open `source` and return what `convert` makes of it; whatever fails is an `UnreadableImageError`."""

    def read() -> Image.Image:
        with Image.open(_opened(source)) as image:
            image.load()
            return convert(image)

    return _guarded(read)


def _opened(source: PathArg | Content) -> Path | io.BytesIO:
    opened: Path | io.BytesIO
    if isinstance(source, Content):
        opened = io.BytesIO(source.read())
        num_bytes = opened.getbuffer().nbytes
    else:
        opened = Path(source)
        if os.path.isdir(opened):
            raise UnreadableImageError("expected an image file, got a folder")
        if os.path.exists(opened) and not os.path.isfile(opened):  # to open a pipe is to wait for whoever writes it
            raise UnreadableImageError("expected an image file, got neither a file nor a folder")
        num_bytes = opened.stat().st_size
    if not num_bytes:
        raise UnreadableImageError("expected an image, got an empty file (0 bytes)")
    return opened


def _guarded(read: Callable[[], Image.Image]) -> Image.Image:
    """Run a decoder; whatever a hostile file makes it raise becomes an `UnreadableImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return read()
    except UnreadableImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise UnreadableImageError(f"more than {limit} million pixels: refused as a decompression bomb") from None
    except UnidentifiedImageError:
        raise UnreadableImageError("expected an image that Pillow can read, got another kind of file") from None
    except FileNotFoundError:
        raise UnreadableImageError("no such file") from None
    except PermissionError:
        raise UnreadableImageError("the file may not be read (permission denied)") from None
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file
        raise UnreadableImageError(f"the image is damaged: {error or type(error).__name__}") from None


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation and scale deep grey values to 8 bits."""
    is_png = image.format == "PNG"
    image = ImageOps.exif_transpose(image)
    return _to_8_bits(image, is_png) if image.mode in DEEP_MODES else image


def _to_picture(image: Image.Image) -> Image.Image:
    image = _upright(image)
    is_grey = image.mode in ("1", "L", "LA", "La")
    return image.convert(("L" if is_grey else "RGB") + ("A" if image.has_transparency_data else ""))


def _to_mode(image: Image.Image, mode: str, background: int) -> Image.Image:
    image = _upright(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(canvas, image)
    return image.convert(mode)


def _to_8_bits(image: Image.Image, is_png: bool) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey values to 0..255."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UnreadableImageError("the image has values that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and (is_png or high > 255))
    if is_16_bit and 0 <= low and high <= 65535:
        values = values / 257
    elif image.mode == "F" and 0 <= low and high <= 1:
        values = values * 255
    elif not (0 <= low and high <= 255):
        raise UnreadableImageError(
            f"expected grey values in 0..1, 0..255 or 0..65535, got {low:g}..{high:g}; rescale the image"
        )
    return Image.fromarray(np.rint(values).astype(np.uint8))
