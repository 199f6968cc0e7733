from __future__ import annotations

import dataclasses
import math
import re

import pytest

from glassnet.training.learning_rate_range import LearningRateRange
from glassnet.views.learning_rate_range import WIDTH, curve_lines, render_range, suggestion_sentence

RATES = tuple(10 ** (-5 + 6 * step / 99) for step in range(100))
SMOOTHED = tuple(2 - math.tanh(step / 10 - 5) + max(0, step / 10 - 7) ** 2 for step in range(100))
RESULT = LearningRateRange(
    learning_rates=RATES,
    losses=SMOOTHED,
    smoothed_losses=SMOOTHED,
    suggestion=RATES[50],
    tenth_of_lowest=RATES[70] / 10,
    lowest=RATES[70],
    stop_reason="all steps done",
    optimizer="sgd",
    batch_size=64,
)
NOTHING = dataclasses.replace(RESULT, suggestion=None, tenth_of_lowest=None, lowest=None)


def test_the_sentence_says_what_to_try_and_where_it_rises() -> None:
    assert suggestion_sentence(RESULT) == "Try --lr 0.011: the loss falls fastest there; above 0.17 it rises."


def test_a_loss_that_stays_at_its_minimum_does_not_rise() -> None:
    losses = (*SMOOTHED[:71], *(SMOOTHED[70] + 0.05 for _ in SMOOTHED[71:]))
    flat = dataclasses.replace(RESULT, losses=losses, smoothed_losses=losses)
    assert suggestion_sentence(flat) == "Try --lr 0.011: the loss falls fastest there; above 0.17 it falls no further."


def test_a_minimum_at_the_end_is_no_rise_unless_the_test_was_cut_short_there() -> None:
    falling = dataclasses.replace(RESULT, lowest=RATES[96])
    assert "it still falls at 10, so a test up to a higher rate may find more" in suggestion_sentence(falling)
    cut = dataclasses.replace(falling, stop_reason="the loss was not finite at 10")
    assert "above 6.6 it rises" in suggestion_sentence(cut)


def test_without_a_fall_there_is_no_rate_to_try() -> None:
    assert suggestion_sentence(NOTHING).startswith("No rate to suggest: between 1e-05 and 10 the loss does not fall")
    assert not any("<-" in line for line in curve_lines(NOTHING))


def test_the_terminals_curve_has_the_ends_and_the_marked_rates_and_a_point_further_right_for_a_higher_loss() -> None:
    head, *lines = curve_lines(RESULT)
    assert head.split() == ["learning", "rate", "loss"]
    assert len(lines) == 24
    rates = [float(line.split()[0]) for line in lines]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (1e-5, 10)
    marks = {line.split("<- ")[1]: float(line.split()[0]) for line in lines if "<-" in line}
    assert marks == {"falls fastest": 0.011, "lowest": 0.17}
    points = [(float(line.split()[1]), max(line.find("*"), line.find(">"))) for line in lines]
    assert [place for _, place in sorted(points)] == sorted(place for _, place in points)
    assert max(place for _, place in points) - min(place for _, place in points) == WIDTH
    assert [line.split()[2] for line in lines[-1:]] == [">"], "the last loss is above four times the minimum"


def test_of_few_steps_each_has_a_line() -> None:
    few = dataclasses.replace(
        NOTHING, learning_rates=RATES[:3], losses=(1.0, 1.0, 1.0), smoothed_losses=(1.0, 1.0, 1.0)
    )
    assert len(curve_lines(few)) == 4


def test_the_page_has_the_curve_on_powers_of_ten_and_every_step_in_its_table() -> None:
    page = render_range(RESULT, "<b>lenet5</b>", "digits")
    assert "<b>lenet5" not in page
    assert "&lt;b&gt;lenet5&lt;/b&gt; on digits" in page
    ticks = ["1e-05", "0.0001", "0.001", "0.01", "0.1", "1", "10"]
    assert re.findall(r">(1e-05|0\.0*1|1|10)</text>", page)[-7:] == ticks
    assert page.count('<th scope="row">') == 3 + 100
    assert "<script" not in page
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert SMOOTHED[0] + 1.5 * (SMOOTHED[0] - SMOOTHED[70]) == pytest.approx(5.95, abs=0.01)
    cut = sum(loss > 6 for loss in SMOOTHED)
    assert cut > 0
    assert f"Above 6 the chart is cut, over {cut} losses of single batches." in page


def test_the_page_without_a_suggestion_says_so() -> None:
    page = render_range(NOTHING, "lenet5", "digits")
    assert "No rate to suggest" in page
    assert page.count(">none</td>") == 3
