from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassnet.views.charts import (
    LinearScale,
    LogScale,
    Series,
    below_top,
    decade_ticks,
    finite_runs,
    heat_legend,
    heat_map,
    kernel_grid,
    line_chart,
    nice_ticks,
    number,
    percent,
    shorten,
    text_width,
    tick_labels,
    weight_legend,
    weight_limit,
)
from glassnet.views.pictures import hex_colour, share_colours

NBSP = "\N{NO-BREAK SPACE}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in parsed(svg).iter("text")]


def titles(svg: str) -> list[str]:
    return [node.text or "" for node in parsed(svg).iter("title")]


def chart(*columns: list[float], xs: list[float] | None = None, **options: object) -> str:
    lines = [Series(name=name, values=ys) for name, ys in zip(("training", "validation"), columns, strict=False)]
    return line_chart(xs or list(range(1, len(columns[0]) + 1)), lines, summary="The loss falls.", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.02, "0.02"),
        (0.13041, "0.130"),
        (104.3, "104"),
        (999.7, "1,000"),
        (18312.4, "18,312"),
        (-0.5, "−0.5"),
        (0.1**3, "0.001"),
        (1.234e-5, "1.23e−05"),
        (2.5e12, "2.5e+12"),
        (math.nan, "–"),
        (math.inf, "–"),
        (0.0, "0"),
    ],
)
def test_a_number_is_written_with_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (356 / 360, "98.9"),
        (1.0, "100"),
        (0.0, "0"),
        (9999 / 10000, "99.99"),
        (0.00001, "0.001"),
        (0.5, "50.0"),
        (1 - 1e-16, "100"),
    ],
)
def test_a_share_is_rounded_to_none_or_all_only_where_it_is(share: float, text: str) -> None:
    assert percent(share) == f"{text}{NBSP}%"
    assert percent(math.nan) == "–"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.204, 0.891, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (-0.03, 0.07, [-0.04, -0.02, 0, 0.02, 0.04, 0.06, 0.08]),
        (2, 2, [1.9, 1.95, 2, 2.05, 2.1]),
        (0, 0, [-0.01, -0.005, 0, 0.005, 0.01]),
    ],
)
def test_ticks_are_round_numbers_around_the_data(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == ticks


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_the_data_and_are_few_and_even(low: float, span: float) -> None:
    high = low + span
    if high - low < abs(low) * 1e-6:
        return
    ticks = nice_ticks(low, high)
    steps = np.diff(ticks)
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= high - 1e-6 * span
    assert 2 <= len(ticks) <= 8
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)


def test_epochs_are_never_split() -> None:
    assert nice_ticks(1, 3, smallest_step=1) == [1, 2, 3]
    assert nice_ticks(1, 1, smallest_step=1) == [0, 1, 2]


def test_tick_labels_have_the_decimals_that_tell_them_apart() -> None:
    assert tick_labels([0.9, 0.95, 1.0], is_share=True) == [f"90{NBSP}%", f"95{NBSP}%", f"100{NBSP}%"]
    assert tick_labels([0.99, 0.995], is_share=True) == [f"99.0{NBSP}%", f"99.5{NBSP}%"]
    assert tick_labels([-0.5, 0, 0.5]) == ["−0.5", "0.0", "0.5"]
    assert tick_labels([0, 1000, 2000]) == ["0", "1,000", "2,000"]
    assert tick_labels([0, 1e-6, 2e-6]) == ["0", "1e−06", "2e−06"]


def test_a_scale_takes_ends_to_ends_and_a_single_number_to_the_middle() -> None:
    scale = LinearScale(low=1, high=3, start=100, end=0)
    assert [scale(1), scale(2), scale(3)] == [100, 50, 0]
    assert LinearScale(low=4, high=4, start=0, end=10)(4) == 5


def test_finite_numbers_are_grouped_into_stretches_without_a_gap() -> None:
    assert finite_runs([1.0, 2.0, math.nan, 3.0, math.inf, math.nan, 4.0, 5.0]) == [[0, 1], [3], [6, 7]]
    assert finite_runs([math.nan]) == []


def test_the_text_width_counts_wide_characters_double() -> None:
    assert text_width("abc", 10) == pytest.approx(18)
    assert text_width("日本", 10) == pytest.approx(20)
    assert shorten("a long class name", 8) == "a long…"
    assert shorten("short", 5) == "short"


def test_a_chart_is_a_picture_with_one_sentence() -> None:
    root = parsed(chart([3.0, 2.0, 1.0]))
    assert (root.get("role"), root.get("aria-label")) == ("img", "The loss falls.")


def test_a_line_goes_through_its_points_on_a_scale_of_round_numbers() -> None:
    root = parsed(chart([0.0, 1.0, 0.5]))
    (line,) = root.iter("polyline")
    points = [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]
    assert points == [(60, 230), (243, 46), (426, 138)], "60 to 426 across, 230 (zero) up to 46 (one)"


def test_the_legend_gives_the_numbers_at_the_marked_epoch() -> None:
    svg = chart([3.0, 2.0, 1.0], [4.0, 1.5, 2.5], marked_x=2, marked_label="epoch 2, kept")
    assert {"training 2", "validation 1.5", "epoch 2, kept"} <= set(texts(svg))
    unmarked = chart([3.0, 2.0, 1.0], [4.0, 1.5, 2.5], marked_x=9, marked_label="epoch 9, kept")
    assert {"training 1", "validation 2.5"} <= set(texts(unmarked))
    assert "epoch 9, kept" not in texts(unmarked)


def test_lines_are_told_apart_by_dashes_too() -> None:
    lines = list(parsed(chart([3.0, 2.0], [4.0, 1.5])).iter("polyline"))
    assert len({line.get("stroke") for line in lines}) == len({line.get("stroke-dasharray") for line in lines}) == 2


def test_a_line_has_a_gap_where_there_is_no_number_and_a_lone_point_is_a_dot() -> None:
    root = parsed(chart([5.0, 4.0, math.nan, 3.0, math.inf, 2.0, 1.0]))
    assert [len((line.get("points") or "").split()) for line in root.iter("polyline")] == [2, 2]
    assert len(list(root.iter("circle"))) == 1


def test_a_line_that_spans_gaps_goes_on_over_them() -> None:
    line = Series(name="hold-out", values=[5.0, math.nan, 4.0, math.nan, math.nan, 3.0, math.nan], spans_gaps=True)
    root = parsed(line_chart(range(7), [line], summary="Falls."))
    assert [len((line.get("points") or "").split()) for line in root.iter("polyline")] == [3]
    assert not list(root.iter("circle"))


def test_a_line_is_cut_where_it_crosses_the_top() -> None:
    places = [(0.0, 40.0), (10.0, 20.0), (20.0, 0.0), (30.0, 0.0), (40.0, 40.0)]
    (first, second) = below_top(places, 10.0)
    assert first == [(0, 40), (10, 20), (pytest.approx(15), pytest.approx(10))]
    assert second == [(pytest.approx(32.5), pytest.approx(10)), (40, 40)]
    assert below_top(places[2:4], 10.0) == []
    assert below_top(places, 0.0) == [places]


def test_what_is_far_above_the_rest_leaves_the_chart_at_its_top() -> None:
    line = Series(name="loss", values=[2.0, 1.0, 2.0, 100.0, 2.0])
    svg = line_chart(range(5), [line], summary="Rises.", highest=3)
    ys = [float(point.split(",")[1]) for drawn in parsed(svg).iter("polyline") for point in drawn.get("points").split()]
    assert min(ys) == 46, "the top of the plot"
    assert "3.0" in texts(svg)
    assert "100" not in texts(svg)


def test_one_epoch_is_one_dot_in_the_middle() -> None:
    (dot,) = parsed(chart([0.7])).iter("circle")
    assert (dot.get("cx"), dot.get("cy")) == ("243", "138")


def test_a_chart_without_any_number_says_so() -> None:
    assert texts(chart([math.nan, math.inf])) == ["no numbers to draw"]
    assert "no numbers to draw" in line_chart([], [], summary="None.")


def test_the_scale_of_shares_stays_within_none_and_all() -> None:
    labels = [text for text in texts(chart([1.0, 1.0], is_share=True)) if text[0].isdigit() and text.endswith("%")]
    assert labels == [f"{value}{NBSP}%" for value in (94, 96, 98, 100)]


def test_each_epoch_shows_its_numbers_under_the_pointer() -> None:
    assert titles(chart([3.0, 2.0], [4.0, 1.5])) == [
        "epoch 1: training 3, validation 4",
        "epoch 2: training 2, validation 1.5",
    ]
    assert titles(chart([float(x) for x in range(300)])) == []


def test_a_logarithmic_axis_gives_the_same_factor_the_same_distance() -> None:
    scale = LogScale(low=1e-3, high=10, start=0, end=400)
    assert [scale(value) for value in (1e-3, 1e-2, 1e-1, 1, 10)] == pytest.approx([0, 100, 200, 300, 400])
    assert LogScale(low=2, high=2, start=0, end=400)(2) == 200


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-5, 10, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10]),
        (0.02, 30, [0.01, 0.1, 1, 10, 100]),
        (2, 3, [1, 10]),
        (1, 1, [1, 10]),
        (1e-12, 1, [1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1]),
    ],
)
def test_decades_enclose_the_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert decade_ticks(low, high) == pytest.approx(ticks)


def test_on_logarithmic_axes_what_is_not_above_zero_is_a_gap() -> None:
    rates = [10.0**power for power in range(-4, 1)]
    line = Series(name="loss", values=[100.0, 10.0, 0.0, 1.0, 10.0])
    root = parsed(line_chart(rates, [line], summary="", is_log_x=True, is_log_y=True))
    places = [
        [tuple(map(float, place.split(","))) for place in (x.get("points") or "").split()]
        for x in root.iter("polyline")
    ]
    assert [len(stretch) for stretch in places] == [2, 2]
    xs = [x for stretch in places for x, _ in stretch]
    width = (xs[-1] - xs[0]) / 4
    assert xs == pytest.approx([xs[0] + width * step for step in (0, 1, 3, 4)], abs=0.02)
    (y100, y10), (y1, again) = ([y for _, y in stretch] for stretch in places)
    assert y10 == again
    assert y1 - y10 == pytest.approx(y10 - y100, abs=0.02)


def ends(*last: float) -> dict[str, float]:
    """Return the place of the label of each line that ends with `last`, as far down the page as it stands."""
    lines = [Series(name=f"{at}", values=[1.0, value], label="ABCDEFGH"[at]) for at, value in enumerate(last)]
    root = parsed(line_chart([1, 2], lines, summary="", has_legend=False))
    return {text.text: float(text.get("y")) for text in root.iter("text") if text.get("font-weight")}  # type: ignore


def test_labels_at_the_ends_of_lines_stand_in_their_order_and_never_on_each_other() -> None:
    assert list(ends(0.0, 1.0)) == ["B", "A"]
    close = ends(0.0, 0.01, 0.001, 1.0)
    assert list(close) == ["D", "B", "C", "A"]
    gaps = [below - above for above, below in itertools.pairwise(close.values())]
    assert min(gaps) >= 14
    assert max(close.values()) <= 272 - 42 + 5, "none is pushed into the axis"


def test_lines_that_end_at_different_places_leave_each_others_labels_alone() -> None:
    lines = [
        Series(name="one", values=[1.0, 0.5, math.nan], label="A"),
        Series(name="two", values=[1.0, 0.9, 0.5], label="B"),
    ]
    root = parsed(line_chart([1, 2, 3], lines, summary="", has_legend=False))
    labels = {text.text: text for text in root.iter("text") if text.get("font-weight")}
    assert labels["A"].get("y") == labels["B"].get("y")
    assert float(labels["A"].get("x") or 0) < float(labels["B"].get("x") or 0)
    assert titles(line_chart([1, 2, 3], lines, summary=""))[2] == "epoch 3: two 0.5", "a run that is over says nothing"


CONFUSION = np.array([[9, 1, 0], [0, 5, 5], [0, 0, 0]])


def test_the_confusion_matrix_shows_counts_on_the_colour_of_their_share() -> None:
    svg = heat_map(CONFUSION, ["cat", "dog", "owl"], summary="Three classes.")
    cells = {group.find("title").text: group for group in parsed(svg).iter("g")}  # type: ignore[union-attr]
    assert list(cells) == [
        f"true cat, said cat: 9 of 10 (90.0{NBSP}%)",
        f"true cat, said dog: 1 of 10 (10.0{NBSP}%)",
        f"true dog, said dog: 5 of 10 (50.0{NBSP}%)",
        f"true dog, said owl: 5 of 10 (50.0{NBSP}%)",
    ]
    fills = [group.find("rect").get("fill") for group in cells.values()]  # type: ignore[union-attr]
    right, wrong = share_colours("right", is_dark=False), share_colours("wrong", is_dark=False)
    expected = [("right", 7, right), ("wrong", 3, wrong), ("right", 5, right), ("wrong", 5, wrong)]
    assert fills == [f"var(--{kind}-{step}, {hex_colour(scale[step])})" for kind, step, scale in expected]


def test_a_cell_stands_in_the_row_of_the_true_and_the_column_of_the_predicted_class() -> None:
    groups = list(parsed(heat_map(CONFUSION, ["cat", "dog", "owl"], summary="")).iter("g"))
    places = [(float(g.find("rect").get("x")), float(g.find("rect").get("y"))) for g in groups]  # type: ignore
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = places
    assert y0 == y1 < y2 == y3
    assert x0 < x1 == x2 < x3


def test_a_class_name_is_text_whatever_it_says() -> None:
    names = ["<script>alert(1)</script>", 'a"b&c', "日本の花"]
    svg = heat_map(CONFUSION, names, summary='all "three" <b>')
    assert "<script" not in svg
    assert any(title.startswith(f"true {names[0]}, said {names[1]}") for title in titles(svg))
    assert parsed(svg).get("aria-label") == 'all "three" <b>'
    assert "<script>alert…" not in svg
    assert "<script>alert…" in texts(svg), "cut to fit, in full under the pointer"


def test_long_names_are_slanted_and_stay_inside_the_picture() -> None:
    short = heat_map(CONFUSION, ["0", "1", "2"], summary="")
    long = heat_map(CONFUSION, ["an espresso machine"] * 3, summary="")
    assert short.count("rotate(-45)") == 0
    assert long.count("rotate(-45)") == 3
    width, height = map(float, (parsed(long).get("viewBox") or "").split()[2:])
    for x, y in re.findall(r"translate\(([\d.]+) ([\d.]+)\) rotate\(-45\)", long):
        assert float(x) + 0.71 * text_width("an espresso m…") <= width + 13
        assert float(y) - 0.71 * text_width("an espresso m…") >= 14 - 4
        assert float(y) < height


def test_cells_grow_with_their_counts() -> None:
    narrow, wide = (parsed(heat_map(CONFUSION * factor, ["a", "b", "c"], summary="")) for factor in (1, 10**6))
    widths = [float(root.find("g/rect").get("width")) for root in (narrow, wide)]  # type: ignore[union-attr]
    assert widths == pytest.approx([24, text_width("9000000") + 6])


def test_the_heat_legend_names_the_ends_of_all_steps() -> None:
    assert texts(heat_legend())[2:11] == ["0", "1", "2", "5", "10", "20", "50", "80", "100"]


def test_kernels_are_one_tile_per_output_channel_on_one_scale() -> None:
    weights = np.zeros((3, 2, 5, 5))
    weights[0, 0, 0, 0], weights[2, 1, 4, 4] = -0.25, 0.5
    root = parsed(kernel_grid(weights, summary="Three kernels."))
    assert (root.get("role"), root.get("aria-label")) == ("img", "Three kernels.")
    assert [len(tile.findall("image")) for tile in root] == [2, 2, 2]
    assert [tile.find("title").text for tile in root] == [  # type: ignore[union-attr]
        "channel 0: weights from −0.25 to 0",
        "channel 1: weights from 0 to 0",
        "channel 2: weights from 0 to 0.5",
    ]
    assert weight_limit(weights) == 0.5


def test_of_many_kernels_the_first_are_drawn() -> None:
    root = parsed(kernel_grid(np.ones((100, 6, 3, 3)), summary=""))
    assert len(root) == 64
    assert len(root[0].findall("image")) == 4


def test_the_ends_of_the_weight_scale_are_the_largest_finite_magnitude() -> None:
    assert weight_limit(np.array([-2.0, 1.0, np.nan, np.inf])) == 2.0
    assert weight_limit(np.zeros(3)) == 1.0
    assert texts(weight_legend(0.873)) == ["−0.873", "0", "0.873"]
