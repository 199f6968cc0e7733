"""Reading an image file of any mode, size and depth into grey or RGB pixels."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from glassnet._errors import WorkError
from glassnet._types import PathArg
from glassnet.data.content import Content

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes with more than 8 bits a channel; its own conversion clips them instead of scaling."""
ORIENTATION_KEYS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
"""Where Pillow looks for an orientation in what it keeps of a JPEG's header."""


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

    What is such an image already is returned itself, not copied.

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


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image: 1, or 2 to 8 for one that is to be flipped or turned."""
    if isinstance(image, JpegImageFile) and not any(key in image.info for key in ORIENTATION_KEYS):
        return 1  # without the parsing of EXIF
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return next((number for number in range(2, 9) if number == orientation), 1)


class _Filters:
    """Pillow's filters for warnings, put in place by the first who needs them and taken away after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_users = 0
        self._context = warnings.catch_warnings()

    def enter(self) -> None:
        with self._lock:
            self._num_users += 1
            if self._num_users == 1:
                self._context = warnings.catch_warnings()
                self._context.__enter__()
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)

    def leave(self) -> None:
        with self._lock:
            self._num_users -= 1
            if not self._num_users:
                self._context.__exit__(None, None, None)


_filters = _Filters()


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about odd files, and make an error of the one about a decompression bomb.

    Python keeps its filters for all threads in common, so that all threads share this context: the last to leave it
    puts the filters back. Whoever decodes many images opens it around all of them, which makes it free for each.
    """
    _filters.enter()
    try:
        yield
    finally:
        _filters.leave()


def _read(source: PathArg | Content, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Open `source` and return what `convert` makes of it; whatever fails is an `UnreadableImageError`."""

    def read() -> Image.Image:
        with _stream(source) as stream, Image.open(stream) as image:
            image.load()
            return convert(image)

    return _guarded(read)


def _emptiness(folder: PathArg) -> str:
    """Return, to be put behind the word folder, that no file in it is named like an image, where that is so."""
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    names = os.listdir(folder) if os.access(folder, os.R_OK | os.X_OK) else None
    is_empty = names is not None and not any(os.path.splitext(os.fsdecode(n))[1].lower() in known for n in names)
    return " without images" if is_empty else ""


def _stream(source: PathArg | Content) -> IO[bytes]:
    """Open `source`. By a path, Pillow would map a file of plain values, and show what lies beyond its pixels."""
    if isinstance(source, Content):
        content = source.read()
        num_bytes = len(content)
    else:
        if os.path.isdir(source):
            raise UnreadableImageError(f"expected an image file, got a folder{_emptiness(source)}")
        if os.path.exists(source) and not os.path.isfile(source):  # to open a pipe is to wait for whoever writes it
            raise UnreadableImageError("expected an image file, got neither a file nor a folder")
        num_bytes = os.stat(source).st_size
    if not num_bytes:
        raise UnreadableImageError("expected an image, got an empty file (0 bytes)")
    return io.BytesIO(content) if isinstance(source, Content) else open(source, "rb")


def _guarded(read: Callable[[], Image.Image]) -> Image.Image:
    """Run a decoder; whatever a hostile file makes it raise becomes an `UnreadableImageError`."""
    try:
        with pillow_warnings():
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
    image.load()
    if image.mode == "LAB":  # which Pillow opens and does not convert
        raise UnreadableImageError("expected grey, RGB or CMYK, got LAB; convert the image to RGB")
    if exif_orientation(image) != 1:
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
    return image if image.mode == mode else image.convert(mode)


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
