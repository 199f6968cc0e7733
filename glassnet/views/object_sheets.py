"""Pictures of which layers know an object again, and of what they make of two objects in one image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image
from torch import Tensor

from glassnet.inspection.composition import ROLES, Composition
from glassnet.inspection.separation import Contrast, Separation
from glassnet.views.attribution_sheets import Line, line_chart
from glassnet.views.charts import number, percent
from glassnet.views.paper import (
    ACCENT,
    GAP,
    INK,
    MUTED,
    SMALL,
    captioned,
    column,
    enlarged,
    framed,
    image_of,
    row,
    sheet,
    text,
)
from glassnet.views.pictures import POSITIVE, Colour

MOST_ROWS = 32
"""Layers in the table; the chart has all of them."""
SIDE = 128
CHART = (360, 150)
ROLE_COLOURS: dict[str, Colour] = {"first": (0, 114, 178), "second": (230, 159, 0), "mean": (0, 158, 115),
                                   "maximum": (204, 121, 167)}  # fmt: skip
"""Okabe and Ito's."""
ROLE_NAMES = {"first": "first alone", "second": "second alone", "mean": "mean of both", "maximum": "larger of both"}


def separation_sheet(found: Separation) -> Image.Image:
    """Return the figures by layer as curves and as a table, and the pairs that are hardest for the best layer."""
    whole = [(place, entry.whole) for place, entry in enumerate(found.rows, 1)]
    pooled = [(place, entry.pooled) for place, entry in enumerate(found.rows, 1) if entry.pooled is not None]

    def curve(entries: Sequence[tuple[int, Contrast]], value: Callable[[Contrast], float], colour: Colour) -> Line:
        return tuple(float(place) for place, _ in entries), tuple(value(part) for _, part in entries), colour

    chances = curve(whole, lambda part: part.auc, INK), curve(pooled, lambda part: part.auc, INK)
    means = [
        (curve(entries, lambda part: part.same, POSITIVE), curve(entries, lambda part: part.different, ACCENT))
        for entries in (whole, pooled)
    ]
    across = (1.0, float(len(found.rows)))
    charts = [
        captioned(
            line_chart([chances[0]], across, _span([chances[0][1], chances[1][1]], 0.5, 1.0), CHART, [chances[1]]),
            ["probability that the same object is more alike, by layer"],
        ),
        captioned(
            line_chart(means[0], across, _span([line[1] for pair in means for line in pair]), CHART, means[1]),
            [f"mean {_measure(found)} of the same (blue) and of different objects (orange)"],
        ),
    ]
    body = [row(charts, 2 * GAP), text("Dashed: averaged over positions.", SMALL, MUTED), _separation_table(found)]
    return sheet(
        f"Which layers know {len(set(found.objects))} objects again ({len(found.objects):,} images)",
        str(found),
        [*body, _hardest(found)],
    )


def composition_sheet(found: Composition) -> Image.Image:
    """Return the three images, and the cosines by layer as curves and as a table."""
    said = ["the first", "the second", "both"]
    if found.answer is not None:
        numbers = (found.answer.first, found.answer.second, *found.answer.both)
        names = [name or f"class {place}" for name, place in zip(found.answer.names, numbers, strict=True)]
        classes = [f"'{names[0]}'", f"'{names[1]}'", f"'{names[2]}', then '{names[3]}'"]
        said = [f"{what}: {name}" for what, name in zip(said, classes, strict=True)]
    tiles = [_captioned(_tile(image), line) for image, line in zip(found.images, said, strict=True)]
    across = (1.0, float(len(found.rows)))
    charts = []
    for title, pick in (("whole output", "whole"), ("averaged over positions", "pooled")):
        entries = [(place, getattr(entry, pick)) for place, entry in enumerate(found.rows, 1)]
        entries = [(place, part) for place, part in entries if part is not None]
        lines = [
            (tuple(float(p) for p, _ in entries), tuple(getattr(part, role) for _, part in entries), ROLE_COLOURS[role])
            for role in ROLES
        ]
        if entries:
            chart = line_chart(lines, across, _span([line[1] for line in lines], 0.0, 1.0), CHART)
            charts.append(captioned(chart, [f"cosine with the output for both, by layer ({title})"]))
    keys = row([text(ROLE_NAMES[role], SMALL, ROLE_COLOURS[role]) for role in ROLES], 2 * GAP)
    return sheet(
        "What layers make of two objects in one image",
        str(found),
        [row(tiles, 2 * GAP), row(charts, 2 * GAP), keys, _composition_table(found)],
    )


def _span(lines: Sequence[tuple[float, ...]], low: float = 0.0, high: float = 0.0) -> tuple[float, float]:
    """Return ends that hold all the values, and `low` and `high`."""
    values = [value for line in lines for value in line]
    return min([*values, low]), max([*values, high])


def _measure(found: Separation) -> str:
    return "cosine" if found.measure == "cosine" else "distance"


def _separation_table(found: Separation) -> Image.Image:
    def cells(part: Contrast | None) -> list[str]:
        return ["", "", ""] if part is None else [number(part.same), number(part.different), percent(part.auc)]

    head = ["", "layer", "same", "different", "told apart", "same, pooled", "different, pooled", "told apart, pooled"]
    rows = [
        [str(place), entry.layer, *cells(entry.whole), *cells(entry.pooled)]
        for place, entry in enumerate(found.rows, 1)
    ]
    return _table(head, rows)


def _composition_table(found: Composition) -> Image.Image:
    head = ["", "layer", *(ROLE_NAMES[role] for role in ROLES), "most like", "dominant"]
    rows = []
    for place, entry in enumerate(found.rows, 1):
        cosines = (number(getattr(entry.whole, role)) for role in ROLES)
        said = ROLE_NAMES[entry.whole.nearest], entry.whole.dominant
        rows.append([str(place), entry.layer, *cosines, *said])
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Image.Image:
    shown = rows[:MOST_ROWS]
    columns = [
        column([text(title or " ", SMALL, MUTED), *(text(line[place] or " ", SMALL) for line in shown)], 1)
        for place, title in enumerate(head)
    ]
    table = row(columns, 2 * GAP)
    left_out = len(rows) - len(shown)
    return column([table, text(f"{left_out} more layers are in the numbers.", SMALL, MUTED)]) if left_out else table


def _hardest(found: Separation) -> Image.Image:
    best = found.best.whole
    pairs = []
    for said, pair, value in (
        ("least alike of the same object", best.furthest_same, best.furthest_value),
        ("most alike of different objects", best.closest_different, best.closest_value),
    ):
        names = " and ".join(dict.fromkeys(found.objects[place] for place in pair))
        tiles = row([_tile(found.images[place]) for place in pair])
        lines = [text(said, SMALL, INK), text(f"{_measure(found)} {number(value)}: {names}", SMALL, MUTED)]
        pairs.append(column([tiles, *lines], 3))
    return column([text(f"Hardest for {found.best.layer}:", SMALL, MUTED), row(pairs, 4 * GAP)])


def _tile(image: Tensor) -> Image.Image:
    return framed(enlarged(image_of(image.numpy()), SIDE))


def _captioned(tile: Image.Image, line: str) -> Image.Image:
    return column([tile, text(line, SMALL, INK)], 3)
