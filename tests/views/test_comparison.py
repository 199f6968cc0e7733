from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from glassnet.comparison import ComparedRun, Comparison, Difference
from glassnet.data.images import SetAside
from glassnet.training.history import EpochRow, History
from glassnet.views.comparison import DASHES, MANY, _shown, _style, comparison_view, headline, render_comparison
from glassnet.views.templates import STATIC

RATES = (0.1, 0.01, 0.001)


def run(name: str, losses: Sequence[float], rate: float, *, is_finished: bool = True) -> ComparedRun:
    rows = tuple(
        EpochRow(
            epoch=epoch,
            step=epoch,
            num_examples=100,
            learning_rate=rate,
            train_loss=loss + 0.1,
            train_accuracy=0.5,
            validation_loss=loss,
            validation_accuracy=1 - loss / 10,
            images_per_s=1000,
            epoch_s=61,
        )
        for epoch, loss in enumerate(losses, 1)
    )
    record: dict[str, object] = {"data": {"name": "digits"}, "model": {"name": "lenet5"}, "training": {"epochs": 3}}
    if is_finished:
        record["result"] = {"test_accuracy": 0.9, "test_loss": 0.5}
    return ComparedRun(path=Path("runs") / name, record=record, history=History(rows), class_names=("a", "b"))


def comparison(*runs: ComparedRun, num_fields: int = 1, **values: object) -> Comparison:
    differences = tuple(
        Difference(field=f"field{number}", values=tuple(RATES[: len(runs)])) for number in range(num_fields)
    )
    return Comparison(**{"runs": runs, "differences": differences, "warnings": (), "are_rankable": True} | values)  # type: ignore[arg-type]


def three(**values: object) -> Comparison:
    runs = [
        run(name, (loss, loss / 2, loss / 3), rate) for name, loss, rate in zip("xyz", (3, 0.9, 2), RATES, strict=True)
    ]
    return comparison(*runs, **values)  # type: ignore[arg-type]


def printed(value: Comparison) -> str:
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        console.print(comparison_view(value))
    return capture.get()


def test_the_terminal_has_the_curves_as_columns_with_a_star_at_each_runs_best_epoch() -> None:
    lines = printed(comparison(run("x", (3.0, 0.5, 0.75), 0.1), run("y", (2.0, 1.25), 0.01))).splitlines()
    start = lines.index("Hold-out loss by epoch; * is the epoch that a run keeps")
    assert [line.split() for line in lines[start + 1 : start + 5]] == [
        ["epoch", "A", "B"],
        ["1", "3.0000", "2.0000"],
        ["2", "0.5000*", "1.2500*"],
        ["3", "0.7500", "–"],
    ]


def test_of_many_epochs_some_are_in_the_terminal_and_the_best_always() -> None:
    losses = [2.0 - 0.01 * epoch for epoch in range(100)]
    losses[41] = 0.001
    lines = printed(comparison(run("x", losses, 0.1), run("y", losses[::-1], 0.01))).splitlines()
    start = lines.index("Hold-out loss by epoch; * is the epoch that a run keeps") + 2
    epochs = [int(line.split()[0]) for line in lines[start : lines.index("", start)]]
    assert (epochs[0], epochs[-1]) == (1, 100)
    assert {42, 59} <= set(epochs)
    assert len(epochs) <= 22


def test_without_a_hold_out_split_the_training_loss_is_in_the_terminal() -> None:
    text = printed(comparison(run("x", (math.nan, math.nan), 0.1), run("y", (math.nan,), 0.01)))
    assert "Training loss by epoch" not in text, "the training loss is not a number either"
    rows = run("z", (1.0,), 0.1).history.rows
    blind = dataclasses.replace(rows[0], validation_loss=math.nan, validation_accuracy=math.nan)
    runs = [dataclasses.replace(run(name, (1.0,), 0.1), history=History((blind,))) for name in "xy"]
    assert "Training loss by epoch" in printed(comparison(*runs))


def test_the_pages_legend_says_what_differs_unless_the_names_do() -> None:
    assert "A  x (field0 0.1)" in render_comparison(three())
    named = [run(f"rate-{rate}", (1.0,), rate) for rate in RATES]
    assert "A  rate-0.1<" in render_comparison(comparison(*named))
    assert "A  x<" in render_comparison(three(num_fields=3))


def test_the_terminals_table_has_what_differs_beside_the_figures_and_the_answer_below() -> None:
    lines = printed(three()).splitlines()
    assert lines[0].split() == (
        [
            "run",
            "field0",
            "epochs",
            "epoch",
            "kept",
            "hold-out",
            "loss",
            "hold-out",
            "accuracy",
            "test",
            "accuracy",
            "test",
            "loss",
            "time",
            "img/s",
        ]
    )
    assert " ".join(lines[2].split()).replace("\N{NO-BREAK SPACE}", " ") == (
        "B y 0.01 3 3 0.3 97.00 % 90.00 % 0.5 3 min 3 s 1,000"
    )
    assert lines[-1].startswith("B (y) has the lowest hold-out loss of 3 runs: 0.3 and an accuracy of 97.0")


def test_many_differing_fields_have_a_table_of_their_own() -> None:
    text = printed(three(num_fields=9))
    assert re.search(r"^field8 +0.1 +0.01 +0.001 *$", text, re.MULTILINE)
    assert "field0" not in text.splitlines()[0]


def test_runs_that_cannot_be_ranked_are_not() -> None:
    value = three(are_rankable=False, warnings=("The data differ (A: x; B: y): beware.",))
    assert headline(value) == "These 3 runs cannot be ranked: see what differs."
    assert "Beware: The data differ" in printed(value)


def test_without_any_hold_out_loss_nobody_is_best() -> None:
    value = comparison(run("x", (), 0.1), run("y", (math.nan,), 0.1))
    assert headline(value) == "None of these 2 runs has a hold-out loss to be ranked by."
    assert "hold-out loss" not in printed(value).splitlines()[0]


def test_an_unfinished_run_that_leads_leads_so_far() -> None:
    value = comparison(run("x", (2.0, 2.0, 2.0), 0.1), run("y", (1.0,), 0.1, is_finished=False))
    assert "of 2 runs, so far: 1" in headline(value)
    assert "1 of 3" in printed(value)


def test_the_page_overlays_the_curves_with_a_letter_at_each_end_and_names_under_the_pointer() -> None:
    page = render_comparison(three())
    assert re.findall(r"<h3>(.*?)</h3>", page) == [
        "Hold-out loss",
        "Training loss",
        "Hold-out accuracy",
        "Learning rate",
    ]
    assert page.count("<polyline") == 4 * 3
    assert page.count('font-weight="650">B</text>') == 4
    assert "<title>epoch 2: A 1.5, B 0.45, C 1</title>" in page
    assert "<bdi>A  x</bdi>" in page
    assert "<script" not in page


def test_losses_and_rates_that_are_far_apart_have_a_logarithmic_axis() -> None:
    said_twice = 2  # in the picture's label and below it
    tame = comparison(run("x", (2.0, 1.0), 0.1), run("y", (2.0, 0.5), 0.1))
    assert "logarithmic" not in render_comparison(tame)
    wild = comparison(run("x", (2e6, 3e7), 0.1), run("y", (2.0, 0.0), 0.1))
    assert render_comparison(wild).count("The axis is logarithmic") == said_twice, (
        "the training loss; the other is zero once"
    )
    rates = render_comparison(three())
    assert rates.count("The axis is logarithmic") == said_twice


def test_what_was_set_aside_and_too_many_runs_are_said() -> None:
    runs = [run(f"run{number}", (1.0, 0.5), 0.1) for number in range(14)]
    page = render_comparison(comparison(*runs, num_fields=0, set_aside=(SetAside("/tmp/<i>", "no run"),)))
    assert "Not compared: /tmp/&lt;i&gt;: no run" in page
    assert "The curves are those of the first 12 runs; 2 are in the tables only." in page
    assert page.count("<polyline") == 4 * 12
    assert "All entries of the configs are the same." in page


def test_no_two_lines_have_both_colour_and_dash_in_common() -> None:
    assert len({_style(index) for index in range(18)}) == 18
    assert {dash for _, dash in map(_style, range(18))} == set(DASHES)


# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0: linear RGB as seen with protanopia, deuteranopia,
# tritanopia.
SEEN = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(matrix @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(colour: str, ground: str) -> float:
    bright, dark = sorted(
        (float(np.array([0.2126, 0.7152, 0.0722]) @ linear(c)) for c in (colour, ground)), reverse=True
    )
    return (bright + 0.05) / (dark + 0.05)


def palettes() -> list[list[str]]:
    css = (STATIC / "report.css").read_text()
    return [re.findall(r"--many-\d: (#\w{6})", theme) for theme in css.split("@media screen")[:2]]


@pytest.mark.parametrize("vision", SEEN)
@pytest.mark.parametrize(("theme", "ground"), [(0, "#fbfbf9"), (1, "#14171a")])
def test_the_colours_of_lines_stay_apart_for_every_reader_and_stand_out(theme: int, ground: str, vision: str) -> None:
    colours = palettes()[theme]
    assert len(colours) == len(MANY)
    seen = [lab(np.array(SEEN[vision]) @ linear(colour)) for colour in colours]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 25
    assert all(contrast(colour, ground) > 3 for colour in colours), "WCAG 1.4.11"


def test_the_colours_without_a_style_sheet_are_those_of_the_light_theme() -> None:
    assert [re.findall(r"#\w{6}", entry)[0] for entry in MANY] == palettes()[0]


def test_the_end_of_a_schedule_is_left_out_of_the_chart_and_not_of_its_table() -> None:
    peaks = (0.1, 0.001)
    runs = []
    for name, peak in zip("xy", peaks, strict=True):
        found = run(name, (1.0, 0.5, 0.4), peak)
        rates = (peak, peak / 2, peak * 1e-6)
        rows = [dataclasses.replace(row, learning_rate=rate) for row, rate in zip(found.history, rates, strict=True)]
        runs.append(dataclasses.replace(found, history=History(tuple(rows))))
    page = render_comparison(comparison(*runs))
    assert "Rates below 1e−05 are not drawn." in page
    (chart,) = re.findall(r'aria-label="Learning rate at the end.*?</svg>', page)
    assert "1e-09" not in chart
    assert {"0.1", "1e-05"} <= set(re.findall(r'text-anchor="end">([^<]*)</text>', chart)) or "0.001" in chart
    assert page.count("1e−09") >= 1


def test_entries_of_a_config_are_shown_as_they_are_set() -> None:
    values = {None: "none", True: "true", 0.5: "0.5", "sgd": "sgd", "f" * 64: "f" * 12}
    assert {value: _shown(value) for value in values} == values
    assert _shown(0.0) == "0"
