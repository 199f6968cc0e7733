"""Pictures of an attribution, and of images made to excite a unit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from glassnet._types import PathArg
from glassnet.data.images import open_image
from glassnet.inspection.attribution import Attribution
from glassnet.inspection.attribution.result import TITLES
from glassnet.inspection.visualisation import Visualisation
from glassnet.views.charts import number
from glassnet.views.paper import (
    ACCENT,
    GAP,
    INK,
    LINE,
    MUTED,
    PAPER,
    SMALL,
    captioned,
    column,
    enlarged,
    font,
    framed,
    grid,
    heat,
    image_of,
    legend,
    plain,
    plane,
    row,
    sheet,
    text,
)
from glassnet.views.pictures import POSITIVE, Colour

SIDE = 256
"""Pixels of an image's longer side, about."""
PHOTO_SIDE = 900
STRONGEST = 0.995
"""Quantile of the scores' sizes at which the colours are at full strength: single peaks would pale the rest."""

FAINT = 0.1
"""Probability that curves must reach for their axis to go up to 1; those of a class among many lie on the ground."""

Line = tuple[tuple[float, ...], tuple[float, ...], Colour]
"""Places across, values up, and the colour of a curve."""
DASH = 6
"""Pixels of a dash, and of the gap behind it."""


def attribution_sheet(found: Attribution) -> Image.Image:
    """Return the image, its scores, the scores over the image, and the curves of deletion and insertion."""
    scores = plane(found.map[None].numpy())[0].astype(np.float64)
    is_signed = bool((scores < 0).any())
    limit = _limit(scores)
    picture = image_of(found.image.numpy())
    colours = heat(scores, limit, is_signed=is_signed)
    over = _laid_over(picture, scores)
    tiles = [
        captioned(framed(enlarged(part, SIDE)), [said])
        for part, said in ((picture, "the image"), (colours, "scores"), (over, "scores over the image"))
    ]
    name = f"'{found.class_name}'" if found.class_name else f"output {found.target}"
    what = "for (blue) and against (orange) " if is_signed else "importance for "
    foot = [legend(limit, is_signed=is_signed, label=what + name), _curves(found)]
    if found.notes:
        foot.append(text("; ".join(found.notes), SMALL, MUTED, 3 * SIDE))
    return sheet(f"{TITLES[found.method]} for {name}", str(found), [row(tiles, 2 * GAP), *foot])


def _curves(found: Attribution) -> Image.Image:
    faith = found.faithfulness
    values = (*faith.deletion, *faith.insertion)
    is_share = 0 <= min(values) and max(values) <= 1
    low, high = (0.0, 1.0 if max(values) > FAINT else max(values)) if is_share else (min(values), max(values))
    charts = []
    for said, curve, colour, score in (
        ("taken out, the highest first (deletion)", faith.deletion, ACCENT, faith.deletion_score),
        ("put in, the highest first (insertion)", faith.insertion, POSITIVE, faith.insertion_score),
    ):
        chart = line_chart([(faith.shares, curve, colour)], (0.0, 1.0), (low, high), (340, 130))
        charts.append(captioned(chart, [f"places {said}", f"area {number(score)}"]))
    return row(charts, 3 * GAP)


def line_chart(
    lines: Sequence[Line],
    across: tuple[float, float],
    up: tuple[float, float],
    size: tuple[int, int],
    dashed: Sequence[Line] = (),
) -> Image.Image:
    """Return curves in a frame whose ends are said in numbers; those that are `dashed` lie below the others."""
    width, height = size
    left, bottom = 60, 20
    paper = Image.new("RGB", (width + left + 24, height + bottom + 8), PAPER)
    draw = ImageDraw.Draw(paper)
    draw.rectangle((left, 4, left + width, 4 + height), outline=LINE)
    spans = (across[1] - across[0]) or 1.0, (up[1] - up[0]) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x - across[0]) / spans[0] * width, 4 + height - (y - up[0]) / spans[1] * height

    for xs, ys, colour in dashed:
        points = [at(x, y) for x, y in zip(xs, ys, strict=True)]
        for start, end in itertools.pairwise(points):
            _draw_dashes(draw, start, end, colour)
    for xs, ys, colour in lines:
        points = [at(x, y) for x, y in zip(xs, ys, strict=True)]
        draw.line(points, fill=colour, width=3, joint="curve")
        for x, y in points if len(points) <= 12 else []:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    for value, place in ((up[1], 0), (up[0], height - SMALL + 2)):
        said = plain(number(value))
        draw.text((left - 6 - font(SMALL).getlength(said), place), said, MUTED, font(SMALL))
    for value in across:
        said = plain(number(value))
        draw.text((at(value, up[0])[0] - font(SMALL).getlength(said) / 2, height + 7), said, MUTED, font(SMALL))
    return paper


def _draw_dashes(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: Colour
) -> None:
    length = math.dist(start, end)
    steps = np.arange(0, length, 2 * DASH)
    for first, last in zip(steps, np.minimum(steps + DASH, length), strict=True):
        shares = [place / (length or 1.0) for place in (first, last)]
        ends = [(start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])) for share in shares]
        draw.line(ends, fill=colour, width=2)


def visualisation_sheet(found: Visualisation) -> Image.Image:
    """Return the images, each with what it was climbed from and to."""
    tiles = []
    for image, before, after in zip(found.images, found.before, found.after, strict=True):
        pixels = (image.numpy() * 255).round().astype(np.uint8)
        tile = framed(enlarged(image_of(pixels), SIDE))
        tiles.append(captioned(tile, [f"{number(before)} to {number(after)}"], INK))
    name = f"{found.subject}" + (f", '{found.class_name}'" if found.class_name else "")
    note = "Made by climbing the gradient from grey; not an image that the network was shown."
    body = column([grid(tiles, min(len(tiles), 4), 2 * GAP), text(note, SMALL, MUTED)])
    return sheet(f"What excites {name}", str(found), [body])


def photo_sheet(found: Attribution, on_photo: Tensor, photo: PathArg) -> Image.Image:
    """Return a photo, and its scores from `map_to_photo` laid over it; what the network never saw is left pale."""
    picture = open_image(photo, "RGB", 255)
    factor = max(1.0, max(picture.size) / PHOTO_SIDE)
    size = max(1, round(picture.width / factor)), max(1, round(picture.height / factor))
    scores = Image.fromarray(on_photo.nan_to_num(0.0).numpy()).resize(size, Image.Resampling.BILINEAR)
    is_unseen = np.asarray(Image.fromarray(on_photo.isnan().numpy()).resize(size))
    name = f"'{found.class_name}'" if found.class_name else f"output {found.target}"
    shown = _laid_over(picture.resize(size), np.asarray(scores, np.float64))
    pixels = np.asarray(shown).copy()
    pixels[is_unseen] = (pixels[is_unseen] * 0.25 + 190).astype(np.uint8)
    both = [framed(enlarged(part, SIDE)) for part in (picture.resize(size), Image.fromarray(pixels))]
    return sheet(f"{TITLES[found.method]} for {name}, on the photo", str(found), [row(both, 2 * GAP)])


def _laid_over(picture: Image.Image, scores: NDArray[np.float64]) -> Image.Image:
    limit = _limit(scores)
    colours = heat(scores, limit, is_signed=bool((scores < 0).any()))
    shares = np.clip(np.abs(scores) / (limit or 1.0), 0, 1)[..., None] * 0.85
    grey = np.asarray(picture.convert("L").convert("RGB").resize(colours.size)) * 0.6 + 80
    return Image.fromarray((grey * (1 - shares) + np.asarray(colours) * shares).astype(np.uint8))


def _limit(scores: NDArray[np.float64]) -> float:
    return float(np.quantile(np.abs(scores), STRONGEST)) or float(np.abs(scores).max())
