"""Pictures of feature maps and of filters: a tile for each channel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glassnet._types import by
from glassnet.inspection.feature_maps import Channel, FeatureMaps
from glassnet.inspection.filters import Filters, Histogram
from glassnet.views.charts import number
from glassnet.views.paper import (
    ACCENT,
    BODY,
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
    plane,
    row,
    sheet,
    text,
)
from glassnet.views.pictures import POSITIVE, mix

MAP_SIDE = 104
"""Pixels of a tile's longer side, about."""
COLUMNS = 8
SERIES = mix(POSITIVE, (255, 255, 255), 0.15)


def map_sheet(maps: FeatureMaps, *, image: int = 0, most: int = 64) -> Image.Image:
    """Return the maps of one of the kept images, `most` channels of them in the order they were sorted in."""
    shown = maps.order[:most]
    values = maps.maps[image].numpy()
    values = plane(values) if values.ndim > 1 else values[:, None, None]
    is_signed = any(channel.minimum < 0 for channel in maps.channels)
    tiles = [_map_tile(values[index], maps, index, is_signed) for index in shown]
    columns = min(COLUMNS, max(1, math.ceil(math.sqrt(len(tiles) * 1.6))))
    picture = framed(enlarged(image_of(maps.images[image].numpy()), 2 * MAP_SIDE + GAP))
    left = column([picture, text(f"image {image + 1} of {maps.num_images:,}", SMALL, MUTED)], 3)
    one = "channel" if maps.maps.ndim > 2 else "feature"
    scale = f"one scale for all {one}s" if maps.scale == "shared" else f"each {one} on a scale of its own"
    limit = maps.limit(0) if maps.scale == "shared" else 1.0
    label = scale if maps.scale == "shared" else f"share of the {one}'s largest value; {scale}"
    order = {"index": "in the layer's order", "activation": "largest value first", "variance": "largest spread first"}
    count = f"{len(shown)} of {len(maps.order)}" if len(shown) < len(maps.order) else f"{len(maps.order)}"
    what = f"channels of {by(tuple(maps.maps.shape[2:]))}" if maps.maps.ndim > 2 else "features"
    title = f"{maps.layer} ({maps.kind}): {count} {what}"
    body = row([left, grid(tiles, columns)], 2 * GAP)
    foot = legend(limit, is_signed=is_signed, label=f"{label}; {order[maps.sort]}")
    over = f"all {maps.num_images:,} images" if maps.num_images > 1 else "the image"
    note = text(f"Below: the {one}'s number, and its least and largest value over {over}.", SMALL, MUTED)
    return sheet(title, str(maps), [body, column([foot, note], 6)])


def _map_tile(values: NDArray[np.generic], maps: FeatureMaps, index: int, is_signed: bool) -> Image.Image:
    channel = maps.channels[index]
    picture = _tile(values, maps.limit(index), is_signed)
    if channel.is_dead:
        picture = hatched(picture.size)
    return captioned(framed(picture), [f"{index}", _said(channel)], ACCENT if channel.is_dead else MUTED)


def _tile(values: NDArray[np.generic], limit: float, is_signed: bool) -> Image.Image:
    """Return one map at a size to look at; a signal, which has one row, as a strip."""
    numbers = np.asarray(values, np.float64)
    if numbers.shape[0] == 1:
        wide = heat(numbers, limit, is_signed=is_signed)
        return wide.resize((MAP_SIDE, 28), Image.Resampling.NEAREST)
    return enlarged(heat(numbers, limit, is_signed=is_signed), MAP_SIDE)


def _said(channel: Channel) -> str:
    if channel.is_dead:
        return f"dead: {number(channel.maximum)}"
    if channel.is_saturated:
        return f"saturated {channel.saturated_share:.0%}"
    return f"{_short(channel.minimum)} … {_short(channel.maximum)}"


def _short(value: float) -> str:
    """Return a number in as many signs as have room below a tile."""
    said = number(value)
    return said if len(said) <= 7 else f"{value:.0e}"


def filter_sheet(filters: Filters, *, most: int = 64, most_inputs: int = 8) -> Image.Image:
    """Return the kernels: in colour where they read red, green and blue, else a tile for each input channel."""
    weights = np.nan_to_num(filters.weights.numpy(), nan=0.0, posinf=0.0, neginf=0.0)
    limit = float(np.abs(weights).max()) or 1.0
    is_colour = weights.ndim == 4 and weights.shape[1] == 3
    count = min(len(weights), most)
    num_inputs = 1 if is_colour else min(weights.shape[1], most_inputs)
    tiles = [
        _filter_tile(filters, weights[index], index, limit, is_colour=is_colour, num_inputs=num_inputs)
        for index in range(count)
    ]
    columns = (
        min(COLUMNS, max(1, math.ceil(math.sqrt(count * 1.6)))) if num_inputs == 1 else 8 // min(num_inputs, 8) + 1
    )
    inputs = f"{num_inputs} of {weights.shape[1]} input channels" if num_inputs < weights.shape[1] else ""
    shown = f"{count} of {len(weights)} filters" if count < len(weights) else f"{count} filters"
    title = f"{filters.layer} ({filters.kind}): {shown} of {by(tuple(weights.shape[1:]))}"
    if is_colour:
        foot = text(
            f"Grey is 0; each colour from {number(-limit)} (none of it) to {number(limit)} (all of it).", SMALL, MUTED
        )
    else:
        side = "left to right: " if num_inputs > 1 else ""
        label = "weight" + (f"; {side}{inputs or f'{num_inputs} input channels'}" if weights.shape[1] > 1 else "")
        foot = legend(limit, is_signed=True, label=label)
    return sheet(title, str(filters), [grid(tiles, columns, GAP + 4), foot, _spread(filters)])


def _filter_tile(
    filters: Filters, weights: NDArray[np.floating], index: int, limit: float, *, is_colour: bool, num_inputs: int
) -> Image.Image:
    side = 84 if num_inputs == 1 else 52
    if is_colour:
        levels = np.rint((weights / limit + 1) / 2 * 255).clip(0, 255).astype(np.uint8)
        picture = framed(enlarged(Image.fromarray(levels.transpose(1, 2, 0).copy()), side))
    else:
        planes = plane(weights)[:num_inputs]
        parts = [framed(enlarged(heat(np.asarray(part, np.float64), limit, is_signed=True), side)) for part in planes]
        picture = row(parts, 2)
    change = filters.change
    lines = [f"{index}", f"length {number(float(filters.norms[index]))}"]
    if change is not None:
        lines.append(f"moved {float(change[index]):.0%}")
    if num_inputs > 1:
        lines = [f"{lines[0]}   " + ", ".join(lines[1:])]
    return captioned(picture, lines)


def _spread(filters: Filters) -> Image.Image:
    """Return the histogram of all weights, and of the filters' changes where the start is known."""
    parts = [_histogram(filters.histogram, "all weights")]
    if filters.change is not None:
        parts.append(_bars([float(value) for value in filters.change], "how far each filter moved, by number"))
    return row(parts, 3 * GAP)


def _histogram(histogram: Histogram, title: str) -> Image.Image:
    chart = _columns([float(count) for count in histogram.counts])
    ends = Image.new("RGB", (chart.width, round(SMALL * 1.35)), PAPER)
    draw = ImageDraw.Draw(ends)
    low, high = (plain(number(edge)) for edge in (histogram.edges[0], histogram.edges[-1]))
    draw.text((0, 0), low, MUTED, font(SMALL))
    draw.text((chart.width / 2 - 4, 0), "0", MUTED, font(SMALL))
    draw.text((chart.width - font(SMALL).getlength(high), 0), high, MUTED, font(SMALL))
    return column([text(title, BODY, INK), chart, ends], 3)


def _bars(values: list[float], title: str) -> Image.Image:
    finite = [value if math.isfinite(value) else 0.0 for value in values]
    chart = _columns(finite)
    ends = text(f"0 to {len(values) - 1}; the highest {max(finite, default=0):.0%}", SMALL, MUTED)
    return column([text(title, BODY, INK), chart, ends], 3)


def _columns(values: list[float], height: int = 90) -> Image.Image:
    """Return bars from a common ground, the largest as high as there is room."""
    step = max(3, min(14, 420 // max(len(values), 1)))
    paper = Image.new("RGB", (step * len(values) + 1, height), PAPER)
    draw = ImageDraw.Draw(paper)
    largest = max(values, default=0.0) or 1.0
    for index, value in enumerate(values):
        top = height - 1 - round((height - 4) * value / largest)
        draw.rectangle((index * step, top, (index + 1) * step - 2, height - 1), fill=SERIES)
    draw.line((0, height - 1, paper.width, height - 1), fill=LINE)
    return paper
