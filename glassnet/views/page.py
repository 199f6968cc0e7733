"""The report's page: one HTML file that opens anywhere, offline, and asks nothing of any other host.

It starts from the answer and leads down: the headline, key figures, the curves, where the network errs, its worst
errors as images, every class, the kernels of the first layer, the layers, and what is needed to repeat the run. The
order and the look stand in `static/report.html.j2` and `static/report.css`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from glassnet.views.charts import (
    MOST_INPUTS,
    MOST_KERNELS,
    Series,
    heat_legend,
    heat_map,
    kernel_grid,
    line_chart,
    number,
    percent,
    text_width,
    weight_legend,
    weight_limit,
)
from glassnet.views.contents import EvaluationContents, FilterContents, ReportContents, WorstError
from glassnet.views.curves import Figure
from glassnet.views.templates import template
from glassnet.views.wording import (
    classes_sentence,
    column,
    confused_pairs,
    curve_sentence,
    headline,
    key_figures,
    lead,
    losses_sentences,
    plural,
    speed_sentence,
)

MOST_CLASSES_IN_MATRIX = 30
"""Above it a confusion matrix can no longer be read, and the most confused pairs stand in for it."""

MOST_CLASSES_BESIDE = 12
"""Up to so many classes the pairs have room beside the matrix; above it they stand below."""

MOST_PAIRS, MOST_PAIRS_IN_TABLE = 5, 30
"""Confused pairs named beside the matrix, and instead of it."""

MOST_ERRORS_SHOWN = 24
"""Images of errors; more would be a wall of pictures."""

CONTROLS = {code: "\ufffd" for code in (*range(32), 127) if chr(code) not in "\t\n\r"}

MOST_LAYERS_OPEN = 40
"""Longer layer tables start folded."""


def render_report(contents: ReportContents) -> str:
    """Return the report as the text of one HTML file without scripts, which may load nothing from anywhere.

    Every name is escaped. Text that is no valid Unicode (a folder name in an old encoding) shows as question marks, and
    a control character as U+FFFD: HTML has no way to write one.
    """
    page = template("report.html.j2").render(
        contents=contents,
        headline=headline(contents),
        lead=lead(contents),
        key_figures=key_figures(contents),
        curves=_curves(contents),
        speed=speed_sentence(contents.history),
        errors=None if contents.test is None else _error_parts(contents.test, contents.class_names),
        worst=_worst_errors(contents),
        has_long_names=any(text_width(name, 1) > 7 for name in contents.class_names),
        filters=None if contents.filters is None else _filter_parts(contents.filters),
        losses=losses_sentences(contents.data_losses),
        config={name: _entries(section) for name, section in contents.config.items()},
        most_layers_open=MOST_LAYERS_OPEN,
    )
    return page.encode("utf-8", "replace").decode("utf-8").translate(CONTROLS)


def _curves(contents: ReportContents) -> list[Figure]:
    figures = [
        _curve(contents, "Loss", {"training": "train_loss", "validation": "validation_loss"}, is_share=False),
        _curve(
            contents, "Accuracy", {"training": "train_accuracy", "validation": "validation_accuracy"}, is_share=True
        ),
    ]
    if len(set(column(contents.history, "learning_rate"))) > 1:
        figures.append(_curve(contents, "Learning rate", {"learning rate": "learning_rate"}, is_share=False))
    return [figure for figure in figures if figure is not None]


def _curve(contents: ReportContents, title: str, keys: Mapping[str, str], *, is_share: bool) -> Figure | None:
    epochs = column(contents.history, "epoch")
    columns = {name: column(contents.history, key) for name, key in keys.items()}
    lines = [Series(name=name, values=ys) for name, ys in columns.items() if any(map(math.isfinite, ys))]
    if not lines:
        return None
    form = percent if is_share else number
    summary = curve_sentence(title.lower(), epochs, lines, contents.best_epoch, form)
    svg = line_chart(
        epochs,
        lines,
        summary=summary,
        is_share=is_share,
        marked_x=contents.best_epoch,
        marked_label=f"epoch {contents.best_epoch}, kept",
    )
    rows = [[f"{epoch:g}", *(form(line.values[at]) for line in lines)] for at, epoch in enumerate(epochs)]
    return Figure(title=title, summary=summary, svg=Markup(svg), head=["epoch", *(x.name for x in lines)], rows=rows)


def _error_parts(test: EvaluationContents, class_names: Sequence[str]) -> dict[str, object]:
    """Return what the page says about the errors: the matrix or why there is none, the pairs, the classes."""
    counts, has_matrix = test.counts, len(class_names) <= MOST_CLASSES_IN_MATRIX
    pairs = confused_pairs(counts, class_names)
    summary = (
        f"Of {plural(test.num_examples, 'test image')}, {test.num_right:,} are named right (the diagonal) and "
        f"{test.num_errors:,} wrong, in {plural(len(pairs), 'pair')} of classes."
    )
    if not pairs:
        summary = f"All {plural(test.num_examples, 'test image')} are named right: the diagonal holds every one."
    return {
        "summary": summary,
        "matrix": Markup(heat_map(counts, class_names, summary=summary)) if has_matrix else None,
        "legend": Markup(heat_legend()),
        "counts": counts.tolist(),
        "pairs": pairs[: MOST_PAIRS if has_matrix else MOST_PAIRS_IN_TABLE],
        "num_pairs": len(pairs),
        "classes": classes_sentence(test.per_class),
        "are_classes_open": has_matrix,
        "is_narrow": len(class_names) <= MOST_CLASSES_BESIDE,
    }


def _worst_errors(contents: ReportContents) -> list[WorstError]:
    losses = {id(error): error.loss if math.isfinite(error.loss) else math.inf for error in contents.worst_errors}
    return sorted(contents.worst_errors, key=lambda error: -losses[id(error)])[:MOST_ERRORS_SHOWN]


def _filter_parts(filters: FilterContents) -> dict[str, object]:
    """Return the picture of the kernels, its legend, its sentence and the table that says the same."""
    weights = filters.weights
    num_outputs, num_inputs, height, width = weights.shape
    limit = weight_limit(weights)
    summary = (
        f"{filters.layer} has {plural(num_outputs, 'kernel')} of {height} × {width} weights over "
        f"{plural(num_inputs, 'input channel')}, all on one scale that ends at ±{number(limit)}."
    )
    if num_outputs > MOST_KERNELS or num_inputs > MOST_INPUTS:
        drawn = f"first {min(num_outputs, MOST_KERNELS)} channels over their first {min(num_inputs, MOST_INPUTS)}"
        summary += f" Drawn are the {drawn} input channels."
    if lost := int((~np.isfinite(weights)).sum()):
        summary += f" Drawn as zero: {plural(lost, 'weight')} without a finite value."
    return {
        "summary": summary,
        "svg": Markup(kernel_grid(weights, summary=summary)),
        "legend": Markup(weight_legend(limit)),
        "rows": [
            [str(channel), *(number(float(value)) for value in (k.min(), k.max(), k.mean(), np.linalg.norm(k)))]
            for channel, k in enumerate(weights)
        ],
    }


def _entries(section: Mapping[str, object]) -> dict[str, str]:
    return {name: _entry(value) for name, value in section.items()}


def _entry(value: object) -> str:
    """Return one value of the config in full: a float with all its digits, a list or mapping by its parts."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_entry(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_entry, value)) or "none"
    return str(value)
