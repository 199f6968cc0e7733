"""A comparison of runs as a table for the terminal and as a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.text import Text

from glassnet.comparison import ComparedRun, Comparison
from glassnet.data.label_files import printable
from glassnet.views.charts import Series, line_chart, line_sample, number, percent
from glassnet.views.curves import CurvesPage, Figure, render_curves
from glassnet.views.tables import plain_table, thinned
from glassnet.views.wording import duration, plural

MANY = tuple(
    f"var(--many-{number}, {colour})"
    for number, colour in enumerate(("#0b62a8", "#b45309", "#b11ff9", "#f91f68", "#3b1111", "#021a4b"), start=1)
)
"""Colours that stay apart for colour-blind readers too: see the test."""

DASHES = ("", "7 4", "2 3")

MOST_FIELDS_BESIDE = 3
"""Up to so many differing fields stand in the table of the terminal; above it they have one of their own."""

MOST_FIELDS_IN_LEGEND = 2

MOST_EPOCHS = 20
"""Lines of the terminal's curves, beside those of the best epochs."""

MOST_DRAWN = 12
"""More lines in one chart cannot be told apart; the tables have every run."""

LOG_LOSSES_FROM, LOG_RATES_FROM = 50.0, 5.0
"""Losses whose greatest value is so many times the least are drawn on a logarithmic axis; likewise the runs' highest
learning rates."""

RATES_DRAWN_BELOW_PEAK = 100.0
"""Of rates on a logarithmic axis, those are drawn that lie at most so many times below the lowest of the peaks."""

CHARTS = (
    ("Hold-out loss", "validation_loss"),
    ("Training loss", "train_loss"),
    ("Hold-out accuracy", "validation_accuracy"),
    ("Learning rate", "learning_rate"),
)


def comparison_view(comparison: Comparison) -> RenderableType:
    """Return a row per run with its figures, what differs, the answer in a sentence, and what to beware of."""
    is_beside = len(comparison.differences) <= MOST_FIELDS_BESIDE
    beside = [difference.field for difference in comparison.differences] if is_beside else []
    head, rows = _figures_table(comparison)
    table = plain_table(*head[:2], *beside, *head[2:], left=2 + len(beside))
    for index, row in enumerate(rows):
        fields = [_shown(difference.values[index]) for difference in comparison.differences] if is_beside else []
        table.add_row(*(Text(cell) for cell in (*row[:2], *fields, *row[2:])))
    parts: list[RenderableType] = [table, Text(), *_curves_table(comparison)]
    if not is_beside:
        _, fields_head, fields_rows = _differences_table(comparison)
        fields_table = plain_table(*fields_head, left=len(fields_head))
        for row in fields_rows:
            fields_table.add_row(*(Text(cell) for cell in row))
        parts += [fields_table, Text()]
    parts.append(Text(headline(comparison)))
    parts += [Text(f"Beware: {warning}") for warning in comparison.warnings]
    return Group(*parts)


def _curves_table(comparison: Comparison) -> list[RenderableType]:
    """Return the curves as columns under a heading, a line an epoch or, of many, for some; nothing without any."""
    curves = {title: [_curve(run, name) for run in comparison.runs] for title, name in CHARTS}
    title = next((title for title, columns in curves.items() if any(columns)), None)
    if title is None:
        return []
    columns = curves[title]
    measured = sorted({epoch for column in columns for epoch in column})
    best = [run.best.epoch if run.best else None for run in comparison.runs]
    shown = {measured[at] for at in thinned(len(measured), MOST_EPOCHS)} | {epoch for epoch in best if epoch}
    table = plain_table("epoch", *comparison.keys, left=0)
    for epoch in sorted(shown):
        cells = [_loss(column.get(epoch, math.nan)) for column in columns]
        stars = ["*" if epoch == at else " " for at in best]
        table.add_row(str(epoch), *(Text(cell + star) for cell, star in zip(cells, stars, strict=True)))
    return [Text(f"{title} by epoch; * is the epoch that a run keeps"), table, Text()]


def _loss(value: float) -> str:
    """Return a number with as many decimals as the others of its column."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 10_000 else number(value)


def _curve(run: ComparedRun, name: str) -> dict[int, float]:
    """Return one figure by epoch, where it is a number."""
    return {row.epoch: getattr(row, name) for row in run.history if _is_number(getattr(row, name))}


def headline(comparison: Comparison) -> str:
    """Return which run is best, in one sentence; or that there is no telling."""
    best = comparison.best
    count = plural(len(comparison.runs), "run")
    if not comparison.are_rankable:
        return f"These {count} cannot be ranked: see what differs."
    if best is None:
        return f"None of these {count} has a hold-out loss to be ranked by."
    run, row = comparison.runs[best], comparison.runs[best].best
    assert row is not None
    accuracy = f" and an accuracy of {percent(row.validation_accuracy)}" if _is_number(row.validation_accuracy) else ""
    unfinished = "" if run.is_finished else ", so far"
    return (
        f"{comparison.keys[best]} ({run.name}) has the lowest hold-out loss of {count}{unfinished}: "
        f"{number(row.validation_loss)}{accuracy} at epoch {row.epoch}."
    )


def _figures_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the figures; a column that no run has a number for is left out."""
    columns = {
        "": comparison.keys,
        "run": [run.name for run in comparison.runs],
        "epochs": [_epochs(run) for run in comparison.runs],
        "epoch kept": [str(run.best.epoch) if run.best else "–" for run in comparison.runs],
        "hold-out loss": [number(run.best.validation_loss) if run.best else "–" for run in comparison.runs],
        "hold-out accuracy": [percent(run.best.validation_accuracy, 2) if run.best else "–" for run in comparison.runs],
        "test accuracy": [percent(run.test.get("test_accuracy", math.nan), 2) for run in comparison.runs],
        "test loss": [number(run.test.get("test_loss", math.nan)) for run in comparison.runs],
        "test RMSE": [number(run.test.get("test_rmse", math.nan)) for run in comparison.runs],
        "test R²": [number(run.test.get("test_r2", math.nan)) for run in comparison.runs],
        "time": [duration(run.time_s) or "–" for run in comparison.runs],
        "img/s": [number(run.images_per_s) for run in comparison.runs],
    }
    kept = {name: cells for name, cells in columns.items() if any(cell != "–" for cell in cells)}
    return list(kept), [list(row) for row in zip(*kept.values(), strict=True)]


def _epochs(run: ComparedRun) -> str:
    return str(len(run.history)) if len(run.history) == run.num_epochs else f"{len(run.history)} of {run.num_epochs}"


def _differences_table(comparison: Comparison) -> tuple[str, list[str], list[list[str]]]:
    rows = [[difference.field, *map(_shown, difference.values)] for difference in comparison.differences]
    return "What differs", ["field", *comparison.keys], rows


def _shown(value: object) -> str:
    """Return one entry of a config as `--set` takes it; a fingerprint by its first figures, which tell it apart."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    is_digest = len(text) == 64 and all(figure in "0123456789abcdef" for figure in text)
    return text[:12] if is_digest else printable(text)


def _is_number(value: float) -> bool:
    return math.isfinite(value)


def render_comparison(comparison: Comparison) -> str:
    """Return the comparison as the text of one HTML file: overlaid curves, figures, what differs."""
    drawn = list(zip(comparison.keys, comparison.runs, strict=True))[:MOST_DRAWN]
    (_, *head), rows = _figures_table(comparison)
    named = [[f"{key}  {name}", *cells] for key, name, *cells in rows]
    differences = _differences_table(comparison)
    alike = "All entries of the configs are the same." if not comparison.differences else ""
    left_out = len(comparison.runs) - len(drawn)
    page = CurvesPage(
        kind="Comparison of runs",
        title=", ".join(run.name for run in comparison.runs[:4]) + (" ..." if len(comparison.runs) > 4 else ""),
        headline=headline(comparison).replace("hold-out", "hold\N{NON-BREAKING HYPHEN}out"),
        lead=[alike] if alike else [],
        warnings=[
            *comparison.warnings,
            *(f"Not compared: {failure.source}: {failure.reason}" for failure in comparison.set_aside),
            *(
                [f"The curves are those of the first {MOST_DRAWN} runs; {left_out} are in the tables only."]
                * bool(left_out)
            ),
        ],
        figures_title="How they learned",
        keys=[
            (Markup(line_sample(*_style(index))), f"{key}  {run.name}{_told_apart(comparison, index)}")
            for index, (key, run) in enumerate(drawn)
        ],
        figures=[figure for title, name in CHARTS if (figure := _figure(title, name, drawn)) is not None],
        tables=[("Figures", head, named), *([differences] if comparison.differences else [])],
        remarks=[
            "Hold-out figures are those of the epoch that each run keeps, of the lowest hold-out loss or the last "
            "as its config says; test figures are those of its weights. The time is the sum over the "
            "epochs, img/s their median."
        ],
    )
    return render_curves(page)


def _told_apart(comparison: Comparison, index: int) -> str:
    """Return what differs in a run, where it is little and its name does not say it."""
    run = comparison.runs[index]
    entries = [(difference.field, _shown(difference.values[index])) for difference in comparison.differences]
    if len(entries) > MOST_FIELDS_IN_LEGEND or all(value in run.name for _, value in entries):
        return ""
    return f" ({', '.join(f'{field} {value}' for field, value in entries)})"


def _style(index: int) -> tuple[str, str]:
    """Return colour and dash of a line: no two of the first eighteen have both in common."""
    return MANY[index % len(MANY)], DASHES[(index + index // len(MANY)) % len(DASHES)]


def _figure(title: str, name: str, drawn: Sequence[tuple[str, ComparedRun]]) -> Figure | None:
    """Return one overlaid chart; None where no run has a number for it."""
    epochs = sorted({row.epoch for _, run in drawn for row in run.history})
    lines = []
    for index, (key, run) in enumerate(drawn):
        values = _curve(run, name)
        ys = [values.get(epoch, math.nan) for epoch in epochs]
        lines.append(Series(name=key, values=ys, style=_style(index), label=key, spans_gaps=True))
    shown = [line for line in lines if any(map(_is_number, line.values))]
    if not shown:
        return None
    is_share = name.endswith("accuracy")
    form = percent if is_share else number
    is_log = _is_log(name, shown)
    summary = _sentence(title, shown, epochs, form) + (" The axis is logarithmic." if is_log else "")
    rows = [[str(epoch), *(form(line.values[at]) for line in shown)] for at, epoch in enumerate(epochs)]
    if is_log and name == "learning_rate" and (floor := _floor(shown)) > min(map(_least, shown)):
        shown = [replace(line, values=[y if y >= floor else math.nan for y in line.values]) for line in shown]
        summary += f" Rates below {number(floor)} are not drawn."
    svg = line_chart(epochs, shown, summary=summary, is_share=is_share, is_log_y=is_log, has_legend=False)
    return Figure(title=title, summary=summary, svg=Markup(svg), head=["epoch", *(x.name for x in shown)], rows=rows)


def _is_log(name: str, lines: Sequence[Series]) -> bool:
    """Tell whether the lines are too far apart for one linear axis: a loss that blew up, rates of 0.1 and 0.001."""
    if name.endswith("accuracy"):
        return False
    finite = [[value for value in line.values if _is_number(value)] for line in lines]
    is_loss = name.endswith("loss")
    values = [value for line in finite for value in (line if is_loss else [max(line)])]
    return min(values) > 0 and max(values) / min(values) > (LOG_LOSSES_FROM if is_loss else LOG_RATES_FROM)


def _floor(lines: Sequence[Series]) -> float:
    """Return the least rate worth drawing: the last steps of a schedule would take half of a logarithmic axis."""
    return min(max(filter(_is_number, line.values)) for line in lines) / RATES_DRAWN_BELOW_PEAK


def _least(line: Series) -> float:
    return min(filter(_is_number, line.values))


def _sentence(title: str, lines: Sequence[Series], epochs: Sequence[int], form: Callable[[float], str]) -> str:
    parts = []
    for line in lines:
        last = max(at for at, value in enumerate(line.values) if _is_number(value))
        when = "" if last == len(epochs) - 1 else f" (epoch {epochs[last]})"
        parts.append(f"{line.name}\N{NO-BREAK SPACE}{form(line.values[last])}{when}")
    return f"{title} at the end, epoch {epochs[-1]}: {', '.join(parts)}."
