"""Pictures of how alike images are to a layer, and of how layers bear a transform."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from glassnet.inspection.equivariance import Equivariance, said_amount
from glassnet.inspection.neighbours import Nearest
from glassnet.inspection.projection import Projection
from glassnet.inspection.similarity import Similarity
from glassnet.views.attribution_sheets import line_chart
from glassnet.views.charts import number, percent
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
    heat,
    image_of,
    legend,
    row,
    sheet,
    text,
)
from glassnet.views.pictures import POSITIVE, Colour

CLASS_COLOURS: tuple[Colour, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (90, 90, 90),
    (150, 120, 0), (120, 60, 160), (0, 0, 0),
)  # fmt: skip
"""Okabe and Ito's colours, and three more; classes are also told by their names on the plane."""
MOST_SHOWN = 24
"""Images of a matrix that are shown beside it."""


def similarity_sheet(found: Similarity) -> Image.Image:
    """Return the matrix as colours, with the images along its sides where they are few."""
    count = len(found.matrix)
    cell = max(4, min(48, 640 // count))
    values = found.matrix.numpy().copy()
    is_signed = bool((values < 0).any())
    limit = float(np.abs(values).max())
    matrix = heat(values, limit, is_signed=is_signed).resize((count * cell, count * cell), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(matrix)
    if cell >= 40:
        for (i, j), value in np.ndenumerate(values):
            is_dark = abs(value) > 0.55 * limit
            draw.text(
                (j * cell + 6, i * cell + cell // 2 - 8),
                f"{value:.2f}" if abs(value) < 9.995 else f"{value:.0f}",
                PAPER if is_dark else INK,
                font(SMALL),
            )
    body = matrix
    if count <= MOST_SHOWN:
        small = [image_of(image.numpy()).resize((cell - 2, cell - 2)) for image in found.images]
        top = Image.new("RGB", (cell + 4, cell), PAPER)
        body = column(
            [
                row([top, *(framed(image) for image in small)], 0),
                row([column([framed(i) for i in small], 0), matrix], 4),
            ],
            4,
        )
    what = {"cosine": "cosine", "euclidean": "Euclidean distance", "cka": "linear CKA"}[found.measure]
    title = f"How alike {count} images are to {found.layer}: {what}"
    return sheet(title, str(found), [body, legend(limit, is_signed=is_signed, label=what)])


def nearest_sheet(found: Nearest) -> Image.Image:
    """Return the image, and the examples nearest to it."""
    own = captioned(framed(enlarged(image_of(found.image.numpy()), 176), ACCENT, 3), ["the image"])
    tiles = [
        captioned(
            framed(enlarged(image_of(entry.image.numpy()), 144)),
            [f"{number(entry.value)}  {entry.class_name}", f"example {entry.position}"],
        )
        for entry in found.rows
    ]
    body = row([own, grid(tiles, min(len(tiles), 5), 2 * GAP)], 3 * GAP)
    return sheet(f"Nearest to it in {found.layer}, by {found.measure}", str(found), [body])


def projection_sheet(found: Projection) -> Image.Image:
    """Return the points in the colours of their classes, each class named at its middle."""
    side, edge = 640, 24
    paper = Image.new("RGB", (side, side), PAPER)
    draw = ImageDraw.Draw(paper)
    points = found.points.numpy()
    middle = (points.max(0) + points.min(0)) / 2
    reach = float((points.max(0) - points.min(0)).max()) or 1.0
    places = (points - middle) / reach * (side - 2 * edge) * [1, -1] + side / 2
    for (x, y), label in zip(places, found.labels, strict=True):
        colour = POSITIVE if label is None else CLASS_COLOURS[label % len(CLASS_COLOURS)]
        draw.ellipse((x - 3.5, y - 3.5, x + 3.5, y + 3.5), fill=colour)
    for label in sorted({label for label in found.labels if label is not None}):
        x, y = np.median(places[[own == label for own in found.labels]], axis=0)
        name = found.class_names[label] if label < len(found.class_names) else str(label)
        length = font(BODY).getlength(name)
        draw.rectangle((x - length / 2 - 3, y - 11, x + length / 2 + 3, y + 11), fill=PAPER, outline=LINE)
        draw.text((x - length / 2, y - 11), name, CLASS_COLOURS[label % len(CLASS_COLOURS)], font(BODY))
    note = "t-SNE keeps neighbours together; distances between groups mean nothing." if found.explained is None else ""
    if found.explained is not None:
        note = f"Across: {percent(found.explained[0])} of the variance, up: {percent(found.explained[1])}."
    title = f"Images as {found.layer} sees them ({'PCA' if found.method == 'pca' else 't-SNE'})"
    return sheet(title, str(found), [framed(paper), text(note, SMALL, MUTED)])


def equivariance_sheet(found: Equivariance) -> Image.Image:
    """Return for each layer the relative error by amount, on the whole map and inside, and what becomes of classes."""
    tiles = [_layer_tile(found, layer) for layer in found.layers[:12]]
    keys = row(
        [
            text("whole map", SMALL, ACCENT),
            text("inside the border", SMALL, POSITIVE),
            text("dashed: of the average over positions, f(t(x)) against f(x)", SMALL, MUTED),
        ],
        2 * GAP,
    )
    said = [
        f"{said_amount(found.transform, amount)}: {percent(share)}"
        for amount, share in zip(found.amounts, found.agreement, strict=True)
    ]
    parts = [
        text("Relative error |f(t(x)) - t(f(x))| / |t(f(x))| by the amount:", SMALL, MUTED),
        keys,
        grid(tiles, min(len(tiles), 3), 2 * GAP),
        text("Images that keep their class - " + ", ".join(said) + ".", SMALL, INK, 700),
    ]
    if len(found.layers) > 12:
        parts.append(text(f"{len(found.layers) - 12} more layers are in the numbers.", SMALL, MUTED))
    title = {
        "translate": "a shift",
        "translate-down": "a shift down",
        "rotate": "a turn",
        "scale": "scaling",
        "flip": "a flip",
    }[found.transform]
    return sheet(f"How the layers bear {title} ({found.num_images:,} images)", str(found), parts)


def _layer_tile(found: Equivariance, layer: str) -> Image.Image:
    entries = sorted(found.of(layer), key=lambda entry: entry.amount)
    errors = [entry.error for entry in entries]
    pooled = [entry.pooled_change for entry in entries]
    highest = max([e for e in (*errors, *pooled) if math.isfinite(e)], default=1.0) or 1.0
    across = (entries[0].amount, entries[-1].amount)
    whole = tuple(min(e, highest) for e in errors)
    lines = [(tuple(entry.amount for entry in entries), whole, ACCENT)]
    inside = [(entry.amount, entry.inside_error) for entry in entries if entry.inside_error is not None]
    if inside:
        lines.append((tuple(a for a, _ in inside), tuple(min(e, highest) for _, e in inside), POSITIVE))
    dashed = (tuple(entry.amount for entry in entries), tuple(min(p, highest) for p in pooled), MUTED)
    chart = line_chart(lines, across, (0.0, highest), (200, 90), [dashed])
    reason = next((entry.reason for entry in entries if (entry.inside_error or 0) > 1e-5), entries[-1].reason)
    said = text(reason or "equivariant everywhere", SMALL, INK, chart.width)
    return column([captioned(chart, [layer], INK), said], 3)
