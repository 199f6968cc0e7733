"""Colours and PNG pictures for a page: colour scales with ink that can be read on them, arrays as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glassnet._errors import UsageError

Colour = tuple[int, int, int]
"""Red, green and blue, each 0 to 255 (sRGB)."""

LONGEST_SIDE = 128
"""Pixels. Larger images are scaled down to this before they are embedded."""

STEPS_PER_SIDE = 126
"""Colours on each side of zero. With zero itself and two inks they fit the 256 entries of a PNG palette."""

NEGATIVE: Colour = (166, 79, 0)
ZERO: Colour = (247, 247, 247)
POSITIVE: Colour = (8, 81, 156)
"""Orange and blue stay apart for every common form of colour blindness; equal amounts look equally dark."""

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)


def relative_luminance(colour: Colour) -> float:
    """Return the light a colour gives off, 0 (black) to 1 (white): WCAG 2.2, "relative luminance"."""
    shares = np.array(colour) / 255
    red, green, blue = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def contrast(first: Colour, second: Colour) -> float:
    """Return the contrast ratio of two colours, 1 (equal) to 21 (black on white): WCAG 2.2, "contrast ratio"."""
    darker, lighter = sorted((relative_luminance(first), relative_luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever reads better on `colour`; the contrast is never below 4.5."""
    return max(BLACK, WHITE, key=lambda ink: contrast(ink, colour))


def mix(start: Colour, end: Colour, share: float) -> Colour:
    """Return the colour `share` (0 to 1) of the way from `start` to `end`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return red, green, blue


def hex_colour(colour: Colour) -> str:
    """Return a colour as CSS writes it, `#0851a3`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def diverging(position: float) -> Colour:
    """Return the colour of a number between -1 and 1, with zero in the middle of the scale."""
    end = POSITIVE if position > 0 else NEGATIVE
    return mix(ZERO, end, min(abs(position), 1.0))


# --- the scale of a confusion matrix

SHARE_EDGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0)
"""Upper ends of the steps in which the share of a true class is coloured. Close together where errors live."""

SHARE_ENDS: dict[str, tuple[tuple[Colour, Colour], tuple[Colour, Colour]]] = {
    "right": (((225, 237, 248), (11, 84, 146)), ((24, 44, 62), (122, 188, 240))),
    "wrong": (((253, 236, 217), (158, 62, 0)), ((58, 40, 24), (245, 158, 84))),
}
"""First and last colour by kind of cell, on a light and on a dark page."""


def share_step(share: float) -> int:
    """Return which step of `SHARE_EDGES` a share between 0 and 1 belongs to."""
    return next(step for step, edge in enumerate(SHARE_EDGES) if share <= edge + 1e-9)


def share_colours(kind: str, *, is_dark: bool) -> list[Colour]:
    """Return the colour of each step for `right` or `wrong` cells; the last step stands out most from the page."""
    first, last = SHARE_ENDS[kind][is_dark]
    return [mix(first, last, step / (len(SHARE_EDGES) - 1)) for step in range(len(SHARE_EDGES))]


def share_theme(*, is_dark: bool) -> str:
    """Return the CSS variables `--right-0`, `--right-0-ink` and so on, for a light or a dark page."""
    return "".join(
        f"--{kind}-{step}:{hex_colour(colour)};--{kind}-{step}-ink:{hex_colour(ink_on(colour))};"
        for kind in SHARE_ENDS
        for step, colour in enumerate(share_colours(kind, is_dark=is_dark))
    )


# --- arrays as PNG


def image_uri(image: NDArray[np.uint8]) -> str:
    """Return an image `(C, H, W)` of `uint8` as a PNG data URI, at most 128 pixels wide or high.

    One channel is shown as grey, three as red, green and blue, any other number as the grey of their mean.

    Raises `UsageError` for another type or number of axes.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise UsageError(
            f"An image to show must be uint8 (C, H, W) with no axis empty; got {image.dtype} {image.shape}."
        )
    if len(image) == 3:
        pixels = image.transpose(1, 2, 0)
    else:
        pixels = image.mean(axis=0).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return _png_uri(picture)


def weights_uri(weights: NDArray[np.floating], limit: float, cell: int) -> str:
    """Return weights `(H, W)` as a PNG data URI on the diverging scale from `-limit` to `limit`.

    Each weight is a square of `cell` pixels. A weight below zero carries a dash, so that the sign can be read
    without telling the colours apart. A weight that is no finite number is drawn as zero.
    """
    finite = np.nan_to_num(weights.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    steps = np.clip(np.rint(finite / limit * STEPS_PER_SIDE), -STEPS_PER_SIDE, STEPS_PER_SIDE).astype(np.int64)
    pixels = np.kron(steps + STEPS_PER_SIDE, np.ones((cell, cell), np.int64)).astype(np.uint8)
    _draw_dashes(pixels, steps, cell)
    picture = Image.fromarray(pixels)
    picture.putpalette([part for colour in _palette() for part in colour])
    return _png_uri(picture)


def _draw_dashes(pixels: NDArray[np.uint8], steps: NDArray[np.int64], cell: int) -> None:
    first_ink = 2 * STEPS_PER_SIDE + 1
    length = max(1, cell // 2 - 1)
    for row, column in zip(*np.nonzero(steps < 0), strict=True):
        is_white = ink_on(diverging(steps[row, column] / STEPS_PER_SIDE)) == WHITE
        start = column * cell + (cell - length) // 2
        pixels[row * cell + cell // 2, start : start + length] = first_ink + is_white


def _palette() -> list[Colour]:
    scale = [diverging(step / STEPS_PER_SIDE) for step in range(-STEPS_PER_SIDE, STEPS_PER_SIDE + 1)]
    return [*scale, BLACK, WHITE]


def _png_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
