"""Charts as SVG text: curves by epoch or by learning rate, a confusion matrix, the kernels of a layer.

A chart is one picture with one sentence (`role="img"` and its label); whoever cannot see it reads the table that the
page puts beside it. Colours are CSS variables with a default, so that a page can give them a dark theme.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from glassnet.views.pictures import (
    SHARE_EDGES,
    diverging,
    hex_colour,
    ink_on,
    share_colours,
    share_step,
    weights_uri,
)

INK, MUTED, LINE = "var(--ink, #1c2126)", "var(--muted, #59626d)", "var(--line, #d9dde2)"
SERIES = (("var(--series-1, #0b62a8)", ""), ("var(--series-2, #b45309)", "7 4"), ("var(--series-3, #4d7c0f)", "2 3"))
"""Colour and dash of each line, in order: the dash tells them apart in grey."""


def number(value: float) -> str:
    """Return three significant digits, or the whole number from a thousand to a billion; `–` for what is no number.

    Zeros at the end are kept where digits were rounded off: 0.02 is `0.02`, and 0.13041 is `0.130`.
    """
    if not math.isfinite(value):
        return "–"
    text = f"{value:.3g}"
    if 999.5 <= abs(value) < 1e9:
        text = f"{value:,.0f}"
    elif not math.isclose(float(text), value, rel_tol=1e-6):
        text = f"{value:#.3g}".removesuffix(".")
    return text.replace("-", "−")


def percent(share: float, digits: int = 1) -> str:
    """Return `0.9889` as `98.9 %`. What is not quite none or not quite all is never rounded to 0 or 100 %."""
    if not math.isfinite(share):
        return "–"
    share = round(share, 12)  # what floating point adds to a whole is not part of it
    text = f"{100 * share:.{digits}f}"
    if float(text) in (0.0, 100.0) and share not in (0.0, 1.0) and digits < 9:
        return percent(share, digits + 1)
    return f"{text.removesuffix('.0') if share in (0.0, 1.0) else text}\N{NO-BREAK SPACE}%"


# --- scales


def nice_ticks(low: float, high: float, count: int = 5, smallest_step: float = 0.0) -> list[float]:
    """Return about `count` round numbers (1, 2 or 5 times a power of ten apart) that enclose `low` to `high`."""
    if high <= low:
        margin = abs(low) * 0.05 or 0.01
        low, high = low - margin, low + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999), smallest_step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def tick_labels(ticks: Sequence[float], *, is_share: bool = False) -> list[str]:
    """Return the ticks with just as many decimals as tell them apart, as percentages where they are shares.

    Very small and very large ones are written with an exponent.
    """
    shown = [100 * tick for tick in ticks] if is_share else list(ticks)
    step = min((b - a for a, b in pairwise(shown)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    form = "g" if decimals > 4 or step >= 1e4 else f",.{decimals}f"
    unit = "\N{NO-BREAK SPACE}%" if is_share else ""
    return [f"{value:{form}}{unit}".replace("-", "−") for value in shown]


@dataclass(frozen=True, kw_only=True)
class LinearScale:
    """The straight line that takes numbers between `low` and `high` to places between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of `value`; where all numbers are one, it is the middle."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True, kw_only=True)
class LogScale:
    """As `LinearScale`, over the logarithm: the same factor is the same distance. All numbers are above zero."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of `value`; where all numbers are one, it is the middle."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        return self.start + math.log(value / self.low) / math.log(self.high / self.low) * (self.end - self.start)


def decade_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten that enclose `low` to `high`, at most about six: every one, every second, ..."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    step = max(1, math.ceil((last - first) / 6))
    return [10.0**power for power in range(first, max(last, first + 1) + step, step)]


# --- SVG text


def _element(tag: str, content: str = "", /, **attributes: object) -> str:
    """Return one element around `content`, which is markup already. Attribute values are escaped here."""
    parts = [f' {name.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"' for name, value in attributes.items()]
    return f"<{tag}{''.join(parts)}>{content}</{tag}>" if content else f"<{tag}{''.join(parts)}/>"


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _text(words: str, x: float, y: float, **attributes: object) -> str:
    return _element("text", escape(words), x=x, y=y, **({"fill": INK} | attributes))


def _svg(parts: Sequence[str], width: float, height: float, label: str, kind: str, top: float = 0.0) -> str:
    """Return the picture from `top` down to `top + height`."""
    box = " ".join(_plain(float(value)) for value in (0.0, top, width, height))
    size = {"viewBox": box, "style": f"--width:{width:.0f}px"}
    font = {"font_size": 13, "font_family": "system-ui, sans-serif"}
    return _element("svg", "".join(parts), class_=f"chart {kind}", role="img", aria_label=label, **size, **font)


def text_width(words: str, font_size: float = 13) -> float:
    """Return about how wide a text is, in the units of `font_size`; East Asian wide characters count double."""
    return sum(1.0 if unicodedata.east_asian_width(mark) in "WF" else 0.6 for mark in words) * font_size


def shorten(words: str, length: int) -> str:
    """Return `words` cut to `length` characters, the last one an ellipsis where something was cut off."""
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


# --- curves

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440.0, 272.0, 60.0, 14.0, 46.0, 42.0
"""Units of the picture: its size, and the margins around the plot that hold ticks, legend and marker label."""

LABEL_WIDTH, LABEL_HEIGHT = 22.0, 14.0
"""Room for the labels at the ends of lines, and the least distance between two."""

MOST_HOVERED = 120
"""Up to so many x the numbers are shown under the pointer as well; the table has them in any case."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    values: Sequence[float]
    """One number per x; nan where there is none, and the line has a gap there."""
    style: tuple[str, str] | None = None
    """Colour and dash; None takes those of `SERIES` by position."""
    spans_gaps: bool = False
    """Whether the line goes on over places without a number."""
    label: str = ""
    """What stands at the line's end, in a word of at most three letters; nothing where it is empty."""


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What the parts of one line chart share: the lines, the scales of both axes, how a number is written."""

    xs: Sequence[float]
    series: Sequence[Series]
    x_name: str
    is_share: bool
    x: LinearScale | LogScale
    y: LinearScale | LogScale
    y_ticks: Sequence[float]

    def written(self, line: Series, index: int) -> str:
        form = percent if self.is_share else number
        return f"{line.name} {form(line.values[index])}"

    def styled(self) -> list[tuple[Series, str, str]]:
        return [(line, *(line.style or SERIES[index % len(SERIES)])) for index, line in enumerate(self.series)]


def line_chart(
    xs: Sequence[float],
    series: Sequence[Series],
    *,
    summary: str,
    x_name: str = "epoch",
    is_share: bool = False,
    is_log_x: bool = False,
    is_log_y: bool = False,
    has_legend: bool = True,
    highest: float = math.inf,
    marked_x: float | None = None,
    marked_label: str = "",
) -> str:
    """Return the SVG of lines over `xs`; the legend gives each line's number at `marked_x` (or at the last x).

    `is_share` shows 0.5 as 50 % and keeps the scale within 0 to 100 %. `is_log_x` and `is_log_y` space an axis by
    factors; what is not above zero is then a gap. Lines leave the chart at the top where they are above the tick that
    follows `highest`. `has_legend=False` is for a page with one legend for several charts.
    A point between two gaps is drawn as a dot, and so is a single one; without any finite number the chart says so.
    """
    if is_log_y:
        series = [replace(line, values=[y if y > 0 else math.nan for y in line.values]) for line in series]
    values = [value for line in series for value in line.values if math.isfinite(value)]
    if not values:
        return _svg([_text("no numbers to draw", WIDTH / 2, 40, text_anchor="middle")], WIDTH, 80, summary, "curves")
    find_ticks, make_scale = (decade_ticks, LogScale) if is_log_y else (nice_ticks, LinearScale)
    y_ticks = [tick for tick in find_ticks(min(values), min(max(values), highest)) if not is_share or 0 <= tick <= 1]
    right = WIDTH - RIGHT - (LABEL_WIDTH if any(line.label for line in series) else 0)
    frame = _Frame(
        xs=xs,
        series=series,
        x_name=x_name,
        is_share=is_share,
        x=(LogScale if is_log_x else LinearScale)(low=min(xs), high=max(xs), start=LEFT, end=right),
        y=make_scale(low=y_ticks[0], high=y_ticks[-1], start=HEIGHT - BOTTOM, end=TOP),
        y_ticks=y_ticks,
    )
    parts = [_grid(frame), _x_axis(frame)]
    if has_legend:
        parts.append(_legend(frame, xs.index(marked_x) if marked_x in xs else len(xs) - 1))
    if marked_x is not None and marked_x in xs:
        parts.append(_marker(frame.x(marked_x), marked_label))
    parts += [_line(frame, line, colour, dash) for line, colour, dash in frame.styled()]
    parts.append(_end_labels(frame))
    if len(xs) <= MOST_HOVERED:
        parts += [_hover_band(frame, index) for index in range(len(xs))]
    top = 0.0 if has_legend or marked_x is not None else TOP - LABEL_HEIGHT
    return _svg(parts, WIDTH, HEIGHT - top, summary, "curves", top)


def _grid(frame: _Frame) -> str:
    rows = []
    is_log = isinstance(frame.y, LogScale)
    labels = [f"{tick:g}" for tick in frame.y_ticks] if is_log else tick_labels(frame.y_ticks, is_share=frame.is_share)
    for tick, label in zip(frame.y_ticks, labels, strict=True):
        y = frame.y(tick)
        rows.append(_element("line", x1=LEFT, x2=frame.x.end, y1=y, y2=y, stroke=LINE))
        rows.append(_text(label, LEFT - 8, y + 4.5, fill=MUTED, text_anchor="end"))
    return "".join(rows)


def _x_axis(frame: _Frame) -> str:
    low, high, y = frame.x.low, frame.x.high, HEIGHT - BOTTOM + 18
    is_log = isinstance(frame.x, LogScale)
    found = decade_ticks(low, high) if is_log else nice_ticks(low, high, smallest_step=1)
    ticks = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)] or [low]
    places = zip(ticks, [f"{tick:g}" for tick in ticks] if is_log else tick_labels(ticks), strict=True)
    marks = [_text(label, frame.x(tick), y, fill=MUTED, text_anchor="middle") for tick, label in places]
    return "".join(marks) + _text(frame.x_name, (LEFT + frame.x.end) / 2, y + 19, fill=MUTED, text_anchor="middle")


def _legend(frame: _Frame, index: int) -> str:
    x, parts = LEFT, []
    for line, colour, dash in frame.styled():
        words = frame.written(line, index)
        parts.append(_element("line", x1=x, x2=x + 26, y1=10, y2=10, **_stroke(colour, dash)))
        parts.append(_text(words, x + 32, 14.5))
        x += 32 + text_width(words, 15) + 16
    return "".join(parts)


def _marker(x: float, label: str) -> str:
    anchor, shift = ("end", -6) if x > WIDTH / 2 else ("start", 6)
    rule = _element("line", x1=x, x2=x, y1=TOP - 16, y2=HEIGHT - BOTTOM, stroke=MUTED, stroke_dasharray="1 3")
    return rule + _text(label, x + shift, TOP - 7, fill=MUTED, text_anchor=anchor)


def _stroke(colour: str, dash: str) -> dict[str, object]:
    look = {"fill": "none", "stroke": colour, "stroke_width": 2.25, "stroke_linejoin": "round"}
    return look | ({"stroke_dasharray": dash} if dash else {})


def line_sample(colour: str, dash: str) -> str:
    """Return a piece of a line as an SVG of its own, for a legend outside the charts."""
    line = _element("line", x1=0, x2=30, y1=6, y2=6, **_stroke(colour, dash))
    return _element("svg", line, width=30, height=12, aria_hidden="true")


def _line(frame: _Frame, line: Series, colour: str, dash: str) -> str:
    ys, parts = line.values, []
    stretches = finite_runs(ys)
    if line.spans_gaps and stretches:
        stretches = [[index for stretch in stretches for index in stretch]]
    for run in stretches:
        for places in below_top([(frame.x(frame.xs[index]), frame.y(ys[index])) for index in run], frame.y.end):
            if len(places) == 1:
                parts.append(_element("circle", cx=places[0][0], cy=places[0][1], r=4, fill=colour))
            else:
                points = " ".join(f"{_plain(x)},{_plain(y)}" for x, y in places)
                parts.append(_element("polyline", points=points, **_stroke(colour, dash)))
    return "".join(parts)


def below_top(places: Sequence[tuple[float, float]], top: float) -> list[list[tuple[float, float]]]:
    """Return the pieces of the line through `places` that lie below `top`, cut where it crosses; y grows downwards."""
    top -= 1e-6  # what lies on it is within
    pieces: list[list[tuple[float, float]]] = []
    before: tuple[float, float] | None = None
    for x, y in places:
        is_in = y >= top
        if before is None or (before[1] >= top) == is_in:
            if is_in and before is None:
                pieces.append([])
        else:
            share = (top - before[1]) / (y - before[1])
            crossing = (before[0] + share * (x - before[0]), top)
            if is_in:
                pieces.append([crossing])
            else:
                pieces[-1].append(crossing)
        if is_in:
            pieces[-1].append((x, y))
        before = (x, y)
    return pieces


def _end_labels(frame: _Frame) -> str:
    """Return each line's label beside its last number, moved apart where ends lie close together."""
    ends = []
    for line in frame.series:
        finite = [index for index, value in enumerate(line.values) if math.isfinite(value)]
        if line.label and finite:
            ends.append((frame.x(frame.xs[finite[-1]]), frame.y(line.values[finite[-1]]), line.label))
    parts = []
    for x, group in groupby(sorted(ends), key=lambda end: end[0]):
        placed = list(group)
        for y, (_, _, label) in zip(_apart([y for _, y, *_ in placed], HEIGHT - BOTTOM), placed, strict=True):
            parts.append(_text(label, x + 6, y + 4.5, font_weight=650))
    return "".join(parts)


def _apart(ys: Sequence[float], bottom: float) -> list[float]:
    """Return ascending places moved just so far that neighbours are a label's height apart and none is below."""
    moved: list[float] = []
    for y in ys:
        moved.append(max(y, moved[-1] + LABEL_HEIGHT if moved else y))
    for index in range(len(moved) - 1, -1, -1):
        moved[index] = min(moved[index], bottom - LABEL_HEIGHT * (len(moved) - 1 - index))
    return moved


def _hover_band(frame: _Frame, index: int) -> str:
    xs, places = frame.xs, [frame.x(x) for x in frame.xs[max(0, index - 1) : index + 2]]
    start = (places[0] + places[1]) / 2 if index else LEFT
    end = (places[-2] + places[-1]) / 2 if index + 1 < len(xs) else frame.x.end
    lines = [line for line in frame.series if not line.label or math.isfinite(line.values[index])]
    words = f"{frame.x_name} {xs[index]:.3g}: " + ", ".join(frame.written(line, index) for line in lines)
    size = {"x": start, "y": TOP, "width": end - start, "height": HEIGHT - BOTTOM - TOP}
    return _element("rect", _element("title", escape(words)), **size, fill="transparent")


def finite_runs(values: Sequence[float]) -> list[list[int]]:
    """Return the positions of the finite numbers, in stretches without a gap."""
    stretches = groupby(range(len(values)), key=lambda index: math.isfinite(values[index]))
    return [list(stretch) for is_finite, stretch in stretches if is_finite]


# --- confusion matrix


@dataclass(frozen=True, kw_only=True)
class _Board:
    """Sizes of a confusion matrix: where its first cell starts, how large a cell is, whether column names slant."""

    names: Sequence[str]
    left: float
    top: float
    cell: float
    is_slanted: bool

    @property
    def side(self) -> float:
        return self.cell * len(self.names)

    @property
    def overhang(self) -> float:
        """Return how far the last slanted name reaches beyond the board."""
        return 0.71 * text_width(self.names[-1]) if self.is_slanted else 0.0


def heat_map(confusion: NDArray[np.int64], class_names: Sequence[str], *, summary: str) -> str:
    """Return the SVG of a confusion matrix `(K, K)`, rows the true classes: counts on the colour of their row's share.

    Right answers (the diagonal) and errors have a colour scale each, see `heat_legend`; a cell without images stays
    empty. The last column is the number of images of the class.
    """
    names = [shorten(name, 14) for name in class_names]
    longest = max(text_width(name) for name in names)
    cell = max(26.0, text_width(str(confusion.max())) + 8)
    is_slanted = longest > cell - 4
    top = 30 + (0.71 * longest + 8 if is_slanted else 16)
    board = _Board(names=names, left=26 + longest + 8, top=top, cell=cell, is_slanted=is_slanted)
    parts = [_board_names(board), _board_totals(board, confusion), _lattice(board)]
    for true, said in zip(*np.nonzero(confusion), strict=True):
        parts.append(_cell(board, confusion, class_names, int(true), int(said)))
    totals = text_width(f"{confusion.sum(axis=1).max():,}") + 12
    return _svg(parts, board.left + board.side + max(totals, 64, board.overhang), top + board.side + 2, summary, "heat")


def _board_names(board: _Board) -> str:
    parts = [_text("said", board.left, 14, fill=MUTED)]
    parts.append(_text("true", 0, 0, fill=MUTED, transform=f"translate(14 {board.top + 30:.0f}) rotate(-90)"))
    for index, name in enumerate(board.names):
        middle = board.cell * (index + 0.5)
        parts.append(_text(name, board.left - 8, board.top + middle + 4.5, text_anchor="end"))
        x, y = board.left + middle, board.top - 8
        if board.is_slanted:
            parts.append(_text(name, 0, 0, transform=f"translate({x:.1f} {y:.1f}) rotate(-45)"))
        else:
            parts.append(_text(name, x, y, text_anchor="middle"))
    return "".join(parts)


def _board_totals(board: _Board, confusion: NDArray[np.int64]) -> str:
    x = board.left + board.side + 10
    head = "" if board.is_slanted else _text("images", x, board.top - 8, fill=MUTED)
    rows = enumerate(confusion.sum(axis=1))
    return head + "".join(
        _text(f"{total:,}", x, board.top + board.cell * (row + 0.5) + 4.5, fill=MUTED) for row, total in rows
    )


def _lattice(board: _Board) -> str:
    steps = [board.cell * index for index in range(len(board.names) + 1)]
    rows = [f"M{_plain(board.left)} {_plain(board.top + step)}h{_plain(board.side)}" for step in steps]
    columns = [f"M{_plain(board.left + step)} {_plain(board.top)}v{_plain(board.side)}" for step in steps]
    return _element("path", d="".join(rows + columns), stroke=LINE, fill="none")


def _cell(board: _Board, confusion: NDArray[np.int64], class_names: Sequence[str], true: int, said: int) -> str:
    count, total = int(confusion[true, said]), int(confusion[true].sum())
    kind, step = "right" if true == said else "wrong", share_step(count / total)
    words = f"true {class_names[true]}, said {class_names[said]}: {count:,} of {total:,} ({percent(count / total)})"
    x, y = board.left + board.cell * said, board.top + board.cell * true
    size = {"x": x + 1, "y": y + 1, "width": board.cell - 2, "height": board.cell - 2, "rx": 3}
    square = _element("rect", **size, fill=_share_fill(kind, step))
    ink = _share_ink(kind, step)
    label = _text(str(count), x + board.cell / 2, y + board.cell / 2 + 4.5, fill=ink, text_anchor="middle")
    return _element("g", _element("title", escape(words)) + square + label)


def _share_fill(kind: str, step: int) -> str:
    return f"var(--{kind}-{step}, {hex_colour(share_colours(kind, is_dark=False)[step])})"


def _share_ink(kind: str, step: int) -> str:
    return f"var(--{kind}-{step}-ink, {hex_colour(ink_on(share_colours(kind, is_dark=False)[step]))})"


def heat_legend() -> str:
    """Return the SVG that says which colour stands for which share of a true class."""
    left, step_width, parts = 62, 34, []
    for row, kind in enumerate(("right", "wrong")):
        parts.append(_text(kind, 0, 22 * row + 15))
        for step in range(len(SHARE_EDGES)):
            size = {"x": left + step_width * step, "y": 22 * row + 1, "width": step_width - 2, "height": 19, "rx": 3}
            parts.append(_element("rect", **size, fill=_share_fill(kind, step)))
    for step, edge in enumerate((0.0, *SHARE_EDGES)):
        parts.append(_text(f"{100 * edge:g}", left - 1 + step_width * step, 62, fill=MUTED, text_anchor="middle"))
    parts.append(_text("% of the true class", left - 5, 80, fill=MUTED))
    label = "Colour scale: blue for right answers, orange for errors, stronger for a larger share of the true class."
    return _svg(parts, left + step_width * len(SHARE_EDGES) + 20, 86, label, "legend")


# --- kernels

MOST_KERNELS, MOST_INPUTS = 64, 4
"""Output and input channels drawn at most."""


def kernel_grid(weights: NDArray[np.floating], *, summary: str) -> str:
    """Return the kernels of a convolution `(out, in, kh, kw)` as one picture that wraps with the page.

    A tile is one output channel with its input channels side by side, on one diverging scale for all tiles. At most
    the first 64 output and 4 input channels are drawn.
    """
    shown = weights[:MOST_KERNELS, :MOST_INPUTS]
    limit, cell = weight_limit(weights), max(5, (88 if shown.shape[0] * shown.shape[1] <= 24 else 36) // shown.shape[3])
    tiles = "".join(_kernel_tile(kernel, index, limit, cell) for index, kernel in enumerate(shown))
    return _element("div", tiles, class_="kernels", role="img", aria_label=summary)


def weight_limit(weights: NDArray[np.floating]) -> float:
    """Return the largest finite magnitude: both ends of the colour scale. It is 1 where every weight is zero."""
    finite = weights[np.isfinite(weights)]
    return float(np.abs(finite).max(initial=0.0)) or 1.0


def _kernel_tile(kernel: NDArray[np.floating], index: int, limit: float, cell: int) -> str:
    inputs, height, width = kernel.shape
    step = width * cell + 3
    words = f"channel {index}: weights from {number(float(kernel.min()))} to {number(float(kernel.max()))}"
    parts = [_element("title", words)]
    for position, plane in enumerate(kernel):
        size = {"x": step * position, "y": 0, "width": width * cell, "height": height * cell}
        parts.append(_element("image", href=weights_uri(plane, limit, cell), **size))
    parts.append(_text(str(index), 0, height * cell + 14, fill=MUTED, font_size=12))
    box = {"width": max(step * inputs - 3, 20), "height": height * cell + 18}
    return _element("svg", "".join(parts), **box, font_family="system-ui, sans-serif", aria_hidden="true")


def weight_legend(limit: float) -> str:
    """Return the SVG of the diverging scale from `-limit` through zero to `limit`."""
    left, width, count = 28, 260, 13
    parts = []
    for index in range(count):
        position = 2 * index / (count - 1) - 1
        colour, x = diverging(position), left + width / count * index
        parts.append(_element("rect", x=x, y=1, width=width / count, height=16, fill=hex_colour(colour)))
        if position < 0:
            ink = hex_colour(ink_on(colour))
            parts.append(_element("line", x1=x + 6, x2=x + width / count - 6, y1=9, y2=9, stroke=ink))
    for place, value in ((0.0, -limit), (0.5, 0.0), (1.0, limit)):
        parts.append(_text(number(value), left + width * place, 34, fill=MUTED, text_anchor="middle"))
    ends = f"down to {number(-limit)}; blue for weights above it, up to {number(limit)}"
    label = f"Colour scale: orange with a dash for weights below zero, {ends}."
    return _svg(parts, width + 2 * left, 40, label, "legend")
