"""Results as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glassnet.data.label_files import printable
from glassnet.evaluation.metrics import Evaluation
from glassnet.evaluation.prediction import Predictions
from glassnet.evaluation.regression import ValueEvaluation
from glassnet.evaluation.value_prediction import ValuePredictions

MOST_CLASSES = 20
"""A wider confusion matrix does not fit a terminal; the report has it."""


def evaluation_view(evaluation: Evaluation | ValueEvaluation) -> RenderableType:
    """Return the figures of an evaluation: headline, a row per class, the confusion matrix."""
    if isinstance(evaluation, ValueEvaluation):
        return _value_view(evaluation)
    top5 = "" if evaluation.top5_accuracy is None else f"   top-5 {evaluation.top5_accuracy:.2%}"
    headline = Text(
        f"accuracy {evaluation.accuracy:.2%} ({evaluation.num_correct:,} of {evaluation.num_examples:,} right)"
        f"{top5}   loss {'not known' if math.isnan(evaluation.loss) else f'{evaluation.loss:.4f}'}"
    )
    table = plain_table("class", "precision", "recall", "F1", "support")
    for row in evaluation.per_class:
        table.add_row(
            _text(row.class_name), f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}", f"{row.support:,}"
        )
    parts: list[RenderableType] = [headline, Text(), table]
    if len(evaluation.class_names) <= MOST_CLASSES:
        parts += [Text(), Text("confusion: a row per true class, a column per predicted class"), _confusion(evaluation)]
    return Group(*parts)


def _value_view(evaluation: ValueEvaluation) -> RenderableType:
    rows = {name.replace("_", " "): value for name, value in evaluation.to_dict().items()}
    table = plain_table("figure", "value")
    for name, value in rows.items():
        table.add_row(name, f"{value:,.6g}" if isinstance(value, int | float) else "none")
    return table


def _confusion(evaluation: Evaluation) -> Table:
    table = plain_table("", *evaluation.class_names)
    for index, (name, counts) in enumerate(zip(evaluation.class_names, evaluation.confusion, strict=True)):
        cells = [
            Text(str(count) if count else ".", style="bold" if column == index else ("red" if count else "dim"))
            for column, count in enumerate(counts)
        ]
        table.add_row(_text(name), *cells)
    return table


def predictions_view(predictions: Predictions | ValuePredictions) -> RenderableType:
    """Return a row per input: the class, its probability, the runners-up; or the values."""
    if isinstance(predictions, ValuePredictions):
        return _values_view(predictions)
    table = plain_table("input", "class", "probability", "next", left=4, right={2})
    for row in predictions:
        runners_up = ", ".join(f"{name} {probability:.2%}" for name, probability in row.top[1:])
        table.add_row(
            _text(row.source), _text(row.class_name, style="bold"), f"{row.probability:.2%}", _text(runners_up)
        )
    return table


def _values_view(predictions: ValuePredictions) -> RenderableType:
    """Return a row per input with its values."""
    num_values = max((len(row.values) for row in predictions), default=1)
    name = predictions.target or "value"
    titles = [name] if num_values == 1 else [f"{name} {place}" for place in range(num_values)]
    table = plain_table("input", *titles)
    for row in predictions:
        table.add_row(_text(row.source), *(f"{value:,.6g}" for value in row.values))
    return table


def rows_view(header: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """Return words in columns, all set left."""
    table = plain_table(*header, left=len(header))
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    return table


def plain_table(*header: str, left: int = 1, right: Iterable[int] = ()) -> Table:
    """Return an empty table without rules, its first `left` columns set left except those in `right`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, title in enumerate(header):
        is_left = column < left and column not in right
        table.add_column(_text(title), justify="left" if is_left else "right", overflow="fold", no_wrap=not is_left)
    return table


def thinned(count: int, most: int) -> list[int]:
    """Return at most `most` positions out of `count`, evenly spaced, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]


def _text(words: str, style: str = "") -> Text:
    """Return words as they are, in one line: names of files and classes may hold anything."""
    return Text(printable(words), style=style)
