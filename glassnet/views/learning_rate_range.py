"""A learning-rate range test in words, as a curve for the terminal, and as a page."""

from __future__ import annotations

from markupsafe import Markup

from glassnet.training.learning_rate_range import ALL_DONE, LearningRateRange
from glassnet.views.charts import SERIES, Series, line_chart, nice_ticks, number
from glassnet.views.curves import CurvesPage, Figure, render_curves
from glassnet.views.tables import thinned
from glassnet.views.wording import plural

NUM_ROWS, WIDTH = 24, 40
"""Rows of the terminal's curve at most, and the characters from its lowest loss to its highest."""

LEAST_RISE = 0.1
"""Of the fall of the loss: what counts as a rise from its minimum to the end."""

ROOM = 1.5
"""The curve is drawn up to so many times its fall above its start; what is above is left out."""

END_SHARE = 0.05
"""A minimum within this share of the last steps is no minimum yet: the loss has not been seen to rise."""


def suggestion_sentence(result: LearningRateRange) -> str:
    """Return what to do, and where the loss stops falling, in one sentence."""
    low, high = result.learning_rates[0], result.learning_rates[-1]
    if result.suggestion is None or result.lowest is None:
        return (
            f"No rate to suggest: between {low:.2g} and {high:.2g} the loss does not fall beyond its noise. "
            "Try more steps, other bounds, or look for what else keeps the network from learning."
        )
    losses = result.smoothed_losses
    bottom = losses[result.learning_rates.index(result.lowest)]
    does_rise = losses[-1] - bottom > LEAST_RISE * (losses[0] - bottom)
    above = f"above {result.lowest:.2g} it {'rises' if does_rise else 'falls no further'}"
    is_at_end = result.learning_rates.index(result.lowest) >= (1 - END_SHARE) * (len(result.learning_rates) - 1)
    if is_at_end and result.stop_reason == ALL_DONE:
        above = f"it still falls at {high:.2g}, so a test up to a higher rate may find more"
    return f"Try --lr {result.suggestion:.2g}: the loss falls fastest there; {above}."


def curve_lines(result: LearningRateRange) -> list[str]:
    """Return the smoothed loss over the rate for a terminal: a line for every few steps, a point further right for a
    higher loss; a `>` is for what is off the scale.

    The suggested rate and the one with the lowest loss have a line each, and say so.
    """
    rates, losses = result.learning_rates, result.smoothed_losses
    low, top = min(losses), _ceiling(result)
    positions = set(thinned(len(rates), NUM_ROWS))
    notes: dict[int, str] = {}
    for rate, words in ((result.lowest, "lowest"), (result.suggestion, "falls fastest")):
        if rate is not None:
            notes[rates.index(rate)] = words
    for position in notes:  # a marked row stands in for its neighbour, so that the spacing stays even
        nearest = min(positions - set(notes), key=lambda other: abs(other - position))
        positions = positions - {nearest} | {position} if position not in positions else positions
    lines = ["learning rate       loss"]
    for position in sorted(positions):
        loss = losses[position]
        place = round(WIDTH * (min(loss, top) - low) / (top - low)) if top > low else 0
        note = f"  <- {notes[position]}" if position in notes else ""
        lines.append(f"{rates[position]:>13.2g} {loss:>10.4g}  {' ' * place}{'>' if loss > top else '*'}{note}")
    return lines


def _ceiling(result: LearningRateRange) -> float:
    """Return the highest loss that is drawn: what is above would flatten the part that matters."""
    losses, highest = result.smoothed_losses, max(result.losses)
    if result.lowest is None:
        return highest
    bottom = result.learning_rates.index(result.lowest)
    return min(highest, max(losses[0] + ROOM * (losses[0] - losses[bottom]), *losses[: bottom + 1]))


def render_range(result: LearningRateRange, model_name: str, data_name: str) -> str:
    """Return the test as the text of one HTML file, with the curve on a logarithmic axis."""
    page = CurvesPage(
        kind="Learning-rate range test",
        title=f"{model_name} on {data_name}",
        headline=suggestion_sentence(result),
        lead=[
            f"The learning rate rose from {result.learning_rates[0]:.2g} to {result.learning_rates[-1]:.2g} in "
            f"{len(result.losses)} steps of {result.optimizer}, {result.batch_size} examples each; {_ended(result)}."
        ],
        tables=[("Rates to try", ("rule", "learning rate"), _suggestions(result))],
        figures_title="The loss at each rate",
        figures=[_figure(result)],
        remarks=[
            "Smith (2017), section 3.3: a copy of the network is trained with a rate that rises by the same factor at "
            "each step. While it is too low the loss hardly moves; where it suits, the loss falls; above, it rises.",
            "The suggestion is the rate at which a straight line through the losses of neighbouring steps falls most "
            "steeply over the logarithm of the rate. A tenth of the rate with the lowest loss is the more careful "
            "rule of Howard and Gugger (2020).",
            "The result is that of one batch size, optimizer and seed, from the weights that the network began with. "
            "A schedule that starts low may peak above it.",
        ],
    )
    return render_curves(page)


def _ended(result: LearningRateRange) -> str:
    return "all steps were done" if result.stop_reason == ALL_DONE else f"it ended there because {result.stop_reason}"


def _suggestions(result: LearningRateRange) -> list[list[str]]:
    rows = (
        ("steepest descent of the loss", result.suggestion),
        ("a tenth of the rate with the lowest loss", result.tenth_of_lowest),
        ("lowest loss", result.lowest),
    )
    return [[words, "none" if rate is None else f"{rate:.2g}"] for words, rate in rows]


def _figure(result: LearningRateRange) -> Figure:
    ceiling = _ceiling(result)
    top = nice_ticks(min(result.losses), ceiling)[-1]
    num_above = sum(loss > top for loss in result.losses)
    lines = [
        Series(name="each batch", values=result.losses, style=("var(--thin, #9aa3ad)", "")),
        Series(name="smoothed", values=result.smoothed_losses, style=SERIES[0]),
    ]
    lowest = ""
    if result.lowest is not None:
        at_lowest = result.smoothed_losses[result.learning_rates.index(result.lowest)]
        lowest = f", is lowest, {number(at_lowest)}, at {result.lowest:.2g},"
    start, end = number(result.smoothed_losses[0]), number(result.smoothed_losses[-1])
    summary = f"The smoothed loss starts at {start}{lowest} and ends at {end}."
    if num_above:
        summary += f" Above {number(top)} the chart is cut, over {plural(num_above, 'loss')} of single batches."
    svg = line_chart(
        result.learning_rates,
        lines,
        summary=summary,
        x_name="learning rate",
        is_log_x=True,
        highest=ceiling,
        marked_x=result.suggestion,
        marked_label="" if result.suggestion is None else f"{result.suggestion:.2g}, falls fastest",
    )
    columns = zip(result.learning_rates, result.losses, result.smoothed_losses, strict=True)
    rows = [[f"{rate:.3g}", number(loss), number(mean)] for rate, loss, mean in columns]
    head = ("learning rate", "loss of the batch", "smoothed")
    return Figure(title="Loss", summary=summary, svg=Markup(svg), head=head, rows=rows)
