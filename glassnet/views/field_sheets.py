"""Pictures of receptive fields, of the images that excite a unit, and of an ablation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glassnet._types import by
from glassnet.arithmetic import Sides
from glassnet.inspection.ablation import Ablation, Silenced
from glassnet.inspection.receptive_field import LayerReceptiveField
from glassnet.inspection.top_images import TopImage, TopImages
from glassnet.inspection.units import UnitArg, resolve_unit
from glassnet.views.charts import number, percent
from glassnet.views.map_sheets import SERIES
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
    hatched,
    heat,
    image_of,
    legend,
    plain,
    row,
    sheet,
    text,
)

FIELD_SIDE = 400
TOP_SIDE = 160


def field_sheet(
    field: LayerReceptiveField, *, unit: UnitArg = None, image: NDArray[np.generic] | None = None
) -> Image.Image:
    """Return one unit's box on the image, or on a blank one, padding included; and how much each pixel counts."""
    if field.effective is not None and unit is None:
        unit = field.effective.unit
    box, seen = _planar(field.box(unit)), _planar(field.seen(unit))
    height, width = _image_size(field)
    chosen = resolve_unit(unit, field.layer, field.output_shape)
    picture = Image.new("RGB", (width, height), (244, 246, 248)) if image is None else image_of(image)
    parts = [captioned(_boxed(picture, box, seen), [f"unit {chosen}", _where(field, unit)])]
    if field.effective is not None:
        weights = field.effective.weights.numpy()
        weights = weights[None] if weights.ndim == 1 else weights
        shown = heat(np.asarray(weights[-height:], np.float64), 1.0, is_signed=False)
        parts.append(captioned(_boxed(shown, box, seen), ["how much each pixel counts", field.effective.source]))
    foot = [_key(is_padded=box != seen)]
    if field.effective is not None:
        foot.append(legend(1.0, is_signed=False, label="gradient, as a share of the largest"))
    title = f"Receptive field of {field.layer}: {by(field.size)} pixels"
    return sheet(title, str(field), [row(parts, 2 * GAP), *foot])


def _planar(box: tuple[Sides, ...]) -> tuple[Sides, Sides]:
    """Return the box in the last two axes; signals have one row."""
    return (box[-2], box[-1]) if len(box) > 1 else ((0, 1), box[-1])


def _image_size(field: LayerReceptiveField) -> tuple[int, int]:
    sizes = field.input_shape[1:] or field.input_shape
    return (sizes[-2], sizes[-1]) if len(sizes) > 1 else (1, sizes[-1])


def _boxed(picture: Image.Image, box: tuple[Sides, Sides], seen: tuple[Sides, Sides]) -> Image.Image:
    """Return the picture with room for what of the box lies outside, hatched, and lines around box and pixels seen."""
    (top, bottom), (left, right) = box
    before = max(-left, 0), max(-top, 0)
    after = max(right - picture.width, 0), max(bottom - picture.height, 0)
    whole = picture.width + before[0] + after[0], picture.height + before[1] + after[1]
    factor = FIELD_SIDE / max(whole)
    factor = float(int(factor)) if factor >= 3 else factor

    def at(x: int, y: int) -> tuple[int, int]:
        return round((x + before[0]) * factor), round((y + before[1]) * factor)

    paper = hatched((round(whole[0] * factor), max(round(whole[1] * factor), 12)))
    start, stop = at(0, 0), at(picture.width, picture.height)
    size = max(stop[0] - start[0], 1), paper.height if picture.height == 1 else max(stop[1] - start[1], 1)
    paper.paste(picture.resize(size, Image.Resampling.NEAREST), start)
    draw = ImageDraw.Draw(paper)
    draw.rectangle((*start, stop[0] - 1, start[1] + size[1] - 1), outline=LINE)
    for (rows, columns), colour, line in ((box, INK, 2), (seen, ACCENT, 3)):
        first, last = at(columns[0], rows[0]), at(columns[1], rows[1])
        if last[0] > first[0]:
            draw.rectangle((*first, last[0] - 1, max(last[1] - 1, first[1] + 8)), outline=colour, width=line)
    return framed(paper)


def _where(field: LayerReceptiveField, unit: UnitArg) -> str:
    (top, bottom), (left, right) = _planar(field.seen(unit))
    if len(field.size) == 1:
        return f"{left} to {right - 1} of the {field.input_shape[-1]} values of a signal"
    if len(field.size) == 3:
        first, last = field.seen(unit)[0]
        return f"slices {first} to {last - 1}, rows {top} to {bottom - 1}, columns {left} to {right - 1} of the volume"
    return f"rows {top} to {bottom - 1}, columns {left} to {right - 1} of the image"


def _key(*, is_padded: bool) -> Image.Image:
    marks = []
    signs = [(ACCENT, "pixels of the image that the unit sees"), (INK, "its field with padding")]
    for colour, said in signs if is_padded else signs[:1]:
        swatch = framed(Image.new("RGB", (20, 12), PAPER), colour, 3)
        marks.append(row([swatch, text(said, SMALL, MUTED)], 6, middle=True))
    if is_padded:
        marks.append(row([framed(hatched((24, 16))), text("outside the image", SMALL, MUTED)], 6, middle=True))
    return row(marks, 2 * GAP)


def top_sheet(found: TopImages) -> Image.Image:
    """Return the images with the box of the unit in each, and the patches in it on their own."""
    tiles = [_top_tile(place, entry) for place, entry in enumerate(found.rows)]
    columns = max(1, min(len(tiles), 3 if len(tiles) <= 9 else 5))
    title = f"What excites {found.unit} most"
    note = f"Left the image with the {by(found.field.size)} pixels around the strongest unit, right these alone."
    return sheet(title, str(found), [grid(tiles, columns, 2 * GAP), text(note, SMALL, MUTED)])


def _top_tile(place: int, entry: TopImage) -> Image.Image:
    picture = image_of(entry.image.numpy())
    (top, bottom), (left, right) = _planar(entry.box)
    shown = enlarged(picture, TOP_SIDE)
    factor = shown.width / picture.width, shown.height / picture.height
    draw = ImageDraw.Draw(shown)
    corners = left * factor[0], top * factor[1], right * factor[0] - 1, bottom * factor[1] - 1
    draw.rectangle([round(corner) for corner in corners], outline=ACCENT, width=2)
    patch = picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    both = row([framed(shown), framed(enlarged(patch, TOP_SIDE))], 4)
    name = f" · {entry.class_name}" if entry.class_name else ""
    return captioned(
        both, [f"{place + 1}. {number(entry.activation)}{name}", f"example {entry.position}, {_at(entry)}"]
    )


def _at(entry: TopImage) -> str:
    position = entry.unit.position
    return f"unit at {', '.join(map(str, position))}" if position else f"feature {entry.unit.channel}"


def ablation_sheet(found: Ablation, *, most: int = 64) -> Image.Image:
    """Return a bar for each channel, the one that matters most first: points of accuracy lost without it."""
    rows = [found.whole_layer, *found.most_important(most)]
    losses = [row.drop for row in found.rows] or [found.whole_layer.drop]
    reach = max(max((abs(drop) for drop in losses), default=0.0), 1e-9)
    most_gained = max((-entry.drop for entry in rows), default=0.0)
    bars = [_bar(entry, reach, min(max(most_gained, 0.0) / reach, 1.0)) for entry in rows]
    half = math.ceil(len(bars) / 2) if len(bars) > 20 else len(bars)
    body = row([column(bars[:half], 4), *([column(bars[half:], 4)] if half < len(bars) else [])], 3 * GAP)
    left_out = len(found.rows) - (len(rows) - 1)
    note = "To the right: points of accuracy lost without the channel, then the class that loses most of its right "
    note += "answers. To the left: gained. The bar of the whole layer is cut off at the longest of a channel."
    if left_out:
        note += f" {left_out} channels that matter less are left out."
    title = f"Without a channel of {found.layer} ({found.kind}), on {found.num_examples:,} examples"
    return sheet(title, str(found), [body, text(note, SMALL, MUTED, max(body.width, 560))])


def _bar(entry: Silenced, reach: float, gained: float) -> Image.Image:
    """Return one bar, full where `reach` is lost; to the left there is room for the share `gained` of that."""
    width, height, room = 240, 18, 44
    zero = room + round(gained * width)
    paper = Image.new("RGB", (zero + width + 1, height), PAPER)
    draw = ImageDraw.Draw(paper)
    end = zero + round(max(min(entry.drop / reach, 1.0), -1.0) * width)
    colour = ACCENT if entry.channel is None else SERIES
    draw.text((0, 0), "all" if entry.channel is None else str(entry.channel), INK, font(SMALL))
    draw.rectangle((min(zero, end), 3, max(zero, end), height - 4), fill=colour)
    draw.line((zero, 0, zero, height), fill=LINE)
    change = Image.new("RGB", (64, height), PAPER)
    said = plain(f"{-100 * entry.drop:+.2f}") if entry.drop else "0"
    ImageDraw.Draw(change).text((58 - font(SMALL).getlength(said), 0), said, INK, font(SMALL))
    worst = f"class {entry.worst_class}: {percent(-entry.worst_class_drop)}" if entry.worst_class else ""
    return row([paper, change, text(worst, SMALL, MUTED)], 6)
