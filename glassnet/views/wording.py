"""A report's findings in sentences and key figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glassnet.data.overview import LEAST_CROPPED, MUCH_CROPPED
from glassnet.evaluation.metrics import ClassMetrics
from glassnet.views.charts import Series, number, percent
from glassnet.views.contents import DataLosses, ReportContents


def headline(contents: ReportContents) -> str:
    """Return the answer in one sentence: how much of what the network names right."""
    model, data, test = contents.model_name, contents.data_name, contents.test
    if test is not None and test.num_errors == 0:
        return f"{model} names all {plural(test.num_examples, 'test image')} of {data} right."
    if test is not None:
        images, errors = plural(test.num_examples, "test image"), plural(test.num_errors, "error")
        return f"{model} names {percent(test.accuracy)} of {images} of {data} right ({errors})."
    if contents.values is not None:
        examples, error = plural(contents.values.num_examples, "test example"), contents.values.root_mean_squared_error
        return f"{model} predicts the values of {examples} of {data} with a typical error of {number(error)}."
    accuracy = at_best(contents, "validation_accuracy")
    if math.isfinite(accuracy):
        return f"{model} names {percent(accuracy)} of the validation images of {data} right."
    return f"{model} was trained on {data}; how well it names new images was not measured."


def _place(contents: ReportContents) -> str:
    """Say which of several epochs is the one kept: the best by its hold-out loss, or the last and not the best."""
    losses = [loss for loss in column(contents.history, "validation_loss") if math.isfinite(loss)]
    is_last = contents.best_epoch == column(contents.history, "epoch")[-1]
    return "last" if is_last and losses and at_best(contents, "validation_loss") != min(losses) else "best"


def lead(contents: ReportContents) -> list[str]:
    """Return the sentences below the headline: the training, and what to know about the answer."""
    history, test, sentences = contents.history, contents.test, []
    if history:
        which = f", the {_place(contents)}" if len(history) > 1 and has_validation(contents) else ""
        time = duration(sum(column(history, "epoch_s")))
        spent = f" in {time}" if time else ""
        epochs = plural(len(history), "epoch")
        sentences.append(
            f"Trained for {epochs}{spent}; the weights kept are those of epoch {contents.best_epoch}{which}."
        )
    if contents.stop_reason:
        sentences.append(f"Training stopped: {contents.stop_reason.rstrip('.')}.")
    if contents.values is not None:
        return sentences
    if test is None and has_validation(contents):
        sentences.append(
            "No test images were set aside. The validation images helped to choose the weights, so expect somewhat "
            "less on images that played no part in training."
        )
    elif test is None:
        sentences.append("Neither test nor validation images were set aside.")
    elif (pairs := confused_pairs(test.counts, contents.class_names)) and pairs[0].count > 1:
        worst = pairs[0]
        names = f"“{worst.true_class}” called “{worst.said_class}”"
        sentences.append(f"The most frequent confusion is {names} ({times(worst.count)}).")
    return sentences


def losses_sentences(losses: DataLosses | None) -> list[str]:
    """Return what of the data did not reach the network, in sentences; nothing where all of it did."""
    sentences = []
    if losses is not None and losses.cropped_share >= LEAST_CROPPED:
        remedy = "; training with --fit pad keeps them" if losses.cropped_share > MUCH_CROPPED else ""
        sentences.append(
            f"Cropping the images to the proportions of the network's input left out "
            f"{percent(losses.cropped_share)} of their pixels{remedy}."
        )
    if losses is not None and losses.num_set_aside:
        noun = "part of the data" if losses.num_set_aside == 1 else "parts of the data"
        sentences.append(f"{losses.num_set_aside:,} {noun} could not be used and played no part in any figure.")
    return sentences


def has_validation(contents: ReportContents) -> bool:
    """Tell whether any epoch was judged on a hold-out split."""
    columns = (column(contents.history, key) for key in ("validation_loss", "validation_accuracy"))
    return any(math.isfinite(value) for values in columns for value in values)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 error`, `1,024 classes`."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def times(count: int) -> str:
    """Return how often: `once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,}\N{NO-BREAK SPACE}times")


def share(part: float, whole: float) -> float:
    """Return the part of the whole, 0 to 1; nan where there is no whole."""
    return part / whole if whole else math.nan


def duration(seconds: float) -> str:
    """Return a time as two units at most, `3 min 12 s`; nothing for what is no number."""
    if not math.isfinite(seconds):
        return ""
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _magnitude(count: int) -> str:
    """Return a count as one reads it: `61,706`, `11.7 million`, `1.81 billion`."""
    for size, word in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{number(count / size)} {word}"
    return f"{count:,}"


def wilson_interval(num_right: int, num_examples: int) -> tuple[float, float]:
    """Return the 95 % interval of a share that was measured on `num_examples` images: Wilson (1927).

    It says how far chance in the choice of the test images alone may have moved the result.
    """
    z = 1.959964
    share, weight = num_right / num_examples, z**2 / num_examples
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / num_examples + weight / (4 * num_examples))
    return max(0.0, centre - half), min(1.0, centre + half)


def key_figures(contents: ReportContents) -> list[tuple[str, str, str]]:
    """Return name, number and remark of each key figure, the answer first."""
    figures = _test_figures(contents) + _value_figures(contents)
    validation = at_best(contents, "validation_accuracy")
    if math.isfinite(validation):
        figures.append(("Validation accuracy", percent(validation), f"at epoch {contents.best_epoch}, the one kept"))
    figures += [
        ("Parameters", _magnitude(contents.num_parameters), "numbers that were learned"),
        ("Multiplications", _magnitude(contents.num_multiplications), "for one input"),
    ]
    return figures


def _value_figures(contents: ReportContents) -> list[tuple[str, str, str]]:
    values = contents.values
    if values is None:
        return []
    figures = [
        ("Root mean squared error", number(values.root_mean_squared_error), "in the unit of the values"),
        ("Mean absolute error", number(values.mean_absolute_error), "likewise"),
        ("Test examples", f"{values.num_examples:,}", "that played no part in training"),
    ]
    if values.r2 is not None:
        figures.insert(1, ("R\N{SUPERSCRIPT TWO}", number(values.r2), "share of the variance that is explained"))
    return figures


def _test_figures(contents: ReportContents) -> list[tuple[str, str, str]]:
    test = contents.test
    if test is None:
        return []
    low, high = wilson_interval(test.num_right, test.num_examples)
    supports = test.counts.sum(axis=1)
    commonest = contents.class_names[int(supports.argmax())]
    figures = [
        ("Test accuracy", percent(test.accuracy), f"95 % interval {percent(low)} to {percent(high)} (Wilson)"),
        ("Errors", f"{test.num_errors:,}", f"of {plural(test.num_examples, 'test image')}"),
        (
            "Baseline",
            percent(supports.max() / test.num_examples),
            f"for always saying “{commonest}”, the commonest class",
        ),
    ]
    if not math.isnan(test.loss):  # of a loss of the user's own that is not at hand
        figures.append(("Test loss", number(test.loss), "mean per image"))
    if test.top5_accuracy is not None:
        figures.insert(1, ("Top-5 accuracy", percent(test.top5_accuracy), "the true class is among the five likeliest"))
    return figures


def column(history: Sequence[Mapping[str, float | int | str]], key: str) -> list[float]:
    """Return one number per epoch; nan where it is absent, empty or no number."""
    values = []
    for row in history:
        try:
            values.append(float(row.get(key, math.nan)))
        except (TypeError, ValueError):
            values.append(math.nan)
    return values


def at_best(contents: ReportContents, key: str) -> float:
    """Return the number of the best epoch, nan where the history has none."""
    epochs = column(contents.history, "epoch")
    return (
        column(contents.history, key)[epochs.index(contents.best_epoch)] if contents.best_epoch in epochs else math.nan
    )


def curve_sentence(
    noun: str, epochs: Sequence[float], lines: Sequence[Series], best_epoch: int, form: Callable[[float], str]
) -> str:
    """Return where each line starts and ends, and how many of its numbers are missing."""
    parts, gaps = [], []
    for line in lines:
        name = noun if line.name == noun else f"{line.name} {noun}"
        finite = [value for value in line.values if math.isfinite(value)]
        ends = f"is {form(finite[0])}" if len(finite) == 1 else f"goes from {form(finite[0])} to {form(finite[-1])}"
        parts.append(f"the {name} {ends}")
        if len(finite) < len(epochs):
            gaps.append(f"; the {name} has no finite value in {len(epochs) - len(finite)} of {len(epochs)} epochs")
    start = "After" if len(epochs) == 1 else "Over"
    return f"{start} {plural(len(epochs), 'epoch')} {' and '.join(parts)}{''.join(gaps)}."


def speed_sentence(history: Sequence[Mapping[str, float | int | str]]) -> str:
    """Return the learning rate if it never changed, and the speed, as far as they were recorded."""
    rates = set(column(history, "learning_rate"))
    speeds = [value for value in column(history, "images_per_s") if math.isfinite(value)]
    parts = []
    if len(rates) == 1 and math.isfinite(min(rates)):
        parts.append(f"The learning rate was {number(min(rates))} throughout.")
    if speeds:
        parts.append(
            f"Training took in {number(float(np.median(speeds)))} examples per second (median over the epochs)."
        )
    return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """How often images of one class were called another."""

    true_class: str
    said_class: str
    count: int
    support: int
    """Number of test images of the true class."""


def confused_pairs(confusion: NDArray[np.int64], class_names: Sequence[str]) -> list[ConfusedPair]:
    """Return every pair of classes that was confused, most frequent first, then by share of the true class.

    `confusion` is `(K, K)` counts, rows the true classes.
    """
    supports = confusion.sum(axis=1)
    places = [(int(true), int(said)) for true, said in zip(*np.nonzero(confusion), strict=True) if true != said]
    places.sort(key=lambda place: (-confusion[place], supports[place[0]]))
    return [
        ConfusedPair(
            true_class=class_names[true],
            said_class=class_names[said],
            count=int(confusion[true, said]),
            support=int(supports[true]),
        )
        for true, said in places
    ]


def classes_sentence(scores: Sequence[ClassMetrics]) -> str:
    """Return which class fares worst, and which have no test image."""
    measured = [score for score in scores if score.support and math.isfinite(score.f1)]
    absent = [score.class_name for score in scores if not score.support]
    parts = []
    if measured:
        worst = min(measured, key=lambda score: score.f1)
        rates = f"recall {percent(worst.recall)}, precision {percent(worst.precision)}"
        is_perfect = worst.f1 == 1
        parts.append("No class has an error." if is_perfect else f"The weakest class is “{worst.class_name}”: {rates}.")
    if absent:
        names = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
        parts.append(f"Without any test image, so not measured: {names}.")
    return " ".join(parts)
