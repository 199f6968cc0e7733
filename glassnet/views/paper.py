"""Pictures put together from pieces: text, tiles of numbers and images, rows and columns, a colour scale."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from glassnet.views.charts import number
from glassnet.views.pictures import Colour, diverging, mix

PAPER: Colour = (255, 255, 255)
INK: Colour = (28, 33, 38)
MUTED: Colour = (89, 98, 109)
LINE: Colour = (205, 211, 218)
ACCENT: Colour = (200, 60, 20)
QUIET: Colour = (232, 235, 239)
"""Behind what says nothing: a dead channel, padding."""

TITLE, BODY, SMALL = 24, 17, 14
"""Sizes of text in pixels."""
GAP = 12
MARGIN = 28

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def font(size: int) -> Font:
    """Return Pillow's own typeface, which every installation has."""
    return ImageFont.load_default(size)


def text(line: str, size: int = BODY, colour: Colour = INK, width: int | None = None) -> Image.Image:
    """Return a text on paper; with a `width` in pixels it is broken between words into as many lines as it takes."""
    line = plain(line)
    lines = [line] if width is None else _wrapped(line, size, width)
    height = round(size * 1.35)
    broadest = max((round(font(size).getlength(part)) for part in lines), default=0)
    paper = Image.new("RGB", (max(width or 0, broadest + 2), height * len(lines)), PAPER)
    draw = ImageDraw.Draw(paper)
    for index, part in enumerate(lines):
        draw.text((0, index * height), part, colour, font(size))
    return paper


def plain(line: str) -> str:
    """Return a text in the signs that the typeface has: it lacks the minus and the space that does not break."""
    return line.translate({0x2212: "-", 0xA0: " ", 0x202F: " "})


def _wrapped(line: str, size: int, width: int) -> list[str]:
    lines = [""]
    for word in line.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def shortened(line: str, size: int, width: int) -> str:
    """Return the text, or as much of it as fits `width` pixels, with an ellipsis."""
    line = plain(line)
    if font(size).getlength(line) <= width:
        return line
    while line and font(size).getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


def row(parts: Sequence[Image.Image], gap: int = GAP, *, middle: bool = False) -> Image.Image:
    """Return pictures side by side, their tops level or, if so, their middles."""
    height = max((part.height for part in parts), default=1)
    width = sum(part.width for part in parts) + gap * max(len(parts) - 1, 0)
    paper = Image.new("RGB", (max(width, 1), height), PAPER)
    left = 0
    for part in parts:
        paper.paste(part, (left, (height - part.height) // 2 if middle else 0))
        left += part.width + gap
    return paper


def column(parts: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Return pictures below each other, their left sides level."""
    width = max((part.width for part in parts), default=1)
    height = sum(part.height for part in parts) + gap * max(len(parts) - 1, 0)
    paper = Image.new("RGB", (width, max(height, 1)), PAPER)
    top = 0
    for part in parts:
        paper.paste(part, (0, top))
        top += part.height + gap
    return paper


def grid(tiles: Sequence[Image.Image], columns: int, gap: int = GAP) -> Image.Image:
    """Return tiles in rows of `columns`, each in a cell of the largest one's size."""
    width = max((tile.width for tile in tiles), default=1)
    cells = []
    for tile in tiles:
        cell = Image.new("RGB", (width, tile.height), PAPER)
        cell.paste(tile, (0, 0))
        cells.append(cell)
    rows = [row(cells[start : start + columns], gap) for start in range(0, len(cells), columns)]
    return column(rows, gap)


def sheet(title: str, finding: str, parts: Sequence[Image.Image]) -> Image.Image:
    """Return a whole picture: a title, one sentence, and the parts below each other, within a margin."""
    width = max([*(part.width for part in parts), 560])
    head = [text(title, TITLE, INK, width), text(finding, BODY, MUTED, width)]
    body = column([column(head, 2), *parts], GAP + 6)
    paper = Image.new("RGB", (body.width + 2 * MARGIN, body.height + 2 * MARGIN), PAPER)
    paper.paste(body, (MARGIN, MARGIN))
    return paper


def framed(picture: Image.Image, colour: Colour = LINE, width: int = 1) -> Image.Image:
    """Return a picture with a line around it."""
    paper = Image.new("RGB", (picture.width + 2 * width, picture.height + 2 * width), colour)
    paper.paste(picture, (width, width))
    return paper


def captioned(picture: Image.Image, lines: Sequence[str], colour: Colour = MUTED) -> Image.Image:
    """Return a picture with short lines of text below it, cut to its width."""
    captions = [text(shortened(line, SMALL, max(picture.width, 40)), SMALL, colour) for line in lines]
    return column([picture, *captions], 3)


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture with its longer side about `side` pixels; enlarged pixels keep their edges."""
    longer = max(picture.size)
    factor = max(side // longer, 1) if longer <= side else side / longer
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)


def image_of(values: NDArray[np.generic]) -> Image.Image:
    """Return an image `(C, H, W)` in colour for three channels, else the grey of their mean.

    `uint8` pixels as they are; other numbers from their least (black) to their largest (white). Signals `(C, L)` become
    one row, of volumes `(C, D, H, W)` the middle slice is shown, and numbers `(F,)` are one row.
    """
    maps = plane(values)
    if maps.dtype != np.uint8:
        finite = np.nan_to_num(maps.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(finite.min()), float(finite.max())
        maps = np.rint((finite - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    if len(maps) == 3:
        return Image.fromarray(np.ascontiguousarray(maps.transpose(1, 2, 0)))
    return Image.fromarray(maps.mean(axis=0).round().astype(np.uint8)).convert("RGB")


def plane(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return channels of numbers as channels of planes `(C, H, W)`."""
    if values.ndim == 1:
        return values[None, None]
    if values.ndim == 2:
        return values[:, None]
    while values.ndim > 3:
        values = values[:, values.shape[1] // 2]
    return values


@cache
def _scale(is_signed: bool) -> NDArray[np.uint8]:
    """Return 511 colours from -1 to 1; without a sign, darkening from paper to navy over the upper half."""
    positions = np.linspace(-1, 1, 511)
    if is_signed:
        colours = [diverging(float(position)) for position in positions]
    else:
        colours = [_sequential(max(float(position), 0.0)) for position in positions]
    return np.array(colours, np.uint8)


STEPS: tuple[Colour, ...] = ((250, 251, 253), (198, 219, 239), (107, 174, 214), (33, 113, 181), (5, 28, 74))
"""From nothing to the most, evenly darker."""


def _sequential(share: float) -> Colour:
    place = min(share, 1.0) * (len(STEPS) - 1)
    start = min(int(place), len(STEPS) - 2)
    return mix(STEPS[start], STEPS[start + 1], place - start)


def heat(values: NDArray[np.floating], limit: float, *, is_signed: bool) -> Image.Image:
    """Return numbers `(H, W)` as colours, full strength at `limit`; what is no number is grey."""
    shares = np.nan_to_num(values.astype(np.float64) / (limit or 1.0), nan=0.0, posinf=1.0, neginf=-1.0)
    colours = _scale(is_signed)[np.rint((np.clip(shares, -1, 1) + 1) * 255).astype(np.int64)]
    colours[np.isnan(values)] = QUIET
    return Image.fromarray(colours)


def legend(limit: float, *, is_signed: bool, label: str, width: int = 260) -> Image.Image:
    """Return a colour scale with its ends and zero in numbers."""
    shown = np.linspace(-1 if is_signed else 0, 1, width)[None].repeat(14, 0)
    bar = framed(heat(shown, 1.0, is_signed=is_signed))
    ticks = [(0, number(-limit)), (bar.width // 2, "0")] if is_signed else [(0, "0")]
    marks = Image.new("RGB", (bar.width, round(SMALL * 1.35)), PAPER)
    draw = ImageDraw.Draw(marks)
    for place, mark in [*ticks, (bar.width, number(limit))]:
        mark = plain(mark)
        length = font(SMALL).getlength(mark)
        left = 0 if place == 0 else bar.width - length if place == bar.width else place - length / 2
        draw.text((left, 0), mark, MUTED, font(SMALL))
    return row([column([bar, marks], 2), text(label, SMALL, MUTED)], GAP)


def hatched(size: tuple[int, int]) -> Image.Image:
    """Return a quiet tile with slanted lines: nothing to see here, and it is meant."""
    paper = Image.new("RGB", size, QUIET)
    draw = ImageDraw.Draw(paper)
    for start in range(-size[1], size[0], 8):
        draw.line((start, size[1], start + size[1], 0), fill=(208, 213, 219))
    return paper
