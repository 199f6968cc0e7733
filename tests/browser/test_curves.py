"""The pages of a learning-rate range test and of a comparison in a browser."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from glassnet.comparison import ComparedRun, Comparison, Difference
from glassnet.data.images import SetAside
from glassnet.training.history import EpochRow, History
from glassnet.training.learning_rate_range import LearningRateRange
from glassnet.views.comparison import render_comparison
from glassnet.views.learning_rate_range import render_range

HOSTILE = "<script>document.title = 'taken over'</script>"
LONG = "a-run-whose-name-is-so-long-that-no-narrow-screen-can-hold-it-in-one-line-of-text"


def range_page() -> str:
    rates = tuple(10 ** (-5 + 6 * step / 99) for step in range(100))
    losses = tuple(2 - math.tanh(step / 10 - 5) + max(0, step / 10 - 7) ** 2 for step in range(100))
    result = LearningRateRange(
        learning_rates=rates,
        losses=losses,
        smoothed_losses=losses,
        suggestion=rates[50],
        tenth_of_lowest=rates[70] / 10,
        lowest=rates[70],
        stop_reason="all steps done",
        optimizer="sgd",
        batch_size=64,
    )
    return render_range(result, "lenet5", HOSTILE)


def run(name: str, scale: float, num_epochs: int) -> ComparedRun:
    rows = tuple(
        EpochRow(
            epoch=epoch,
            step=epoch,
            num_examples=100,
            learning_rate=scale / epoch,
            train_loss=scale / epoch,
            train_accuracy=0.5,
            validation_loss=scale / epoch,
            validation_accuracy=1 - 0.5 / epoch,
            images_per_s=1000,
            epoch_s=1,
        )
        for epoch in range(1, num_epochs + 1)
    )
    record = {"data": {"name": "digits"}, "model": {"name": "lenet5"}, "training": {"epochs": 9}, "result": {}}
    return ComparedRun(path=Path(name), record=record, history=History(rows), class_names=("a", "b"))


def comparison_page() -> str:
    names = (HOSTILE.replace("/", ""), LONG, *"abcd")
    runs = tuple(run(name, 1 + 0.1 * at, 9 - at) for at, name in enumerate(names))
    differences = (Difference(field="learning_rate", values=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),)
    warnings = ("The seeds differ.",)
    failures = (SetAside(LONG, "no run"),)
    return render_comparison(
        Comparison(runs=runs, differences=differences, warnings=warnings, are_rankable=True, set_aside=failures)
    )


PAGES = {"range": (range_page, 1), "comparison": (comparison_page, 4)}


@pytest.fixture(params=PAGES)
def opened(request: pytest.FixtureRequest, page: Page, context: BrowserContext, tmp_path: Path) -> tuple[Page, int]:
    render, num_charts = PAGES[request.param]
    path = tmp_path / "page.html"
    path.write_text(render(), encoding="utf-8")
    context.set_offline(True)
    page.goto(path.as_uri())
    return page, num_charts


def test_the_page_opens_offline_with_its_charts_and_runs_nothing(opened: tuple[Page, int]) -> None:
    page, num_charts = opened
    expect(page.get_by_role("img")).to_have_count(num_charts)
    for picture in page.get_by_role("img").all():
        box = picture.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 150
    assert page.locator("script").count() == 0
    assert "taken over" != page.title()
    assert "Content-Security-Policy" in page.content()


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_never_scrolls_sideways(opened: tuple[Page, int], width: int) -> None:
    page, _ = opened
    page.set_viewport_size({"width": width, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_and_legend_are_of_the_pages_ink(opened: tuple[Page, int], scheme: str) -> None:
    page, _ = opened
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    ink = page.evaluate("getComputedStyle(document.body).color")
    labels = page.evaluate(
        "[...document.querySelectorAll('.curves text[font-weight]')].map(e => getComputedStyle(e).fill)"
    )
    assert set(labels) <= {ink}
    strokes = page.evaluate("[...document.querySelectorAll('.curves polyline')].map(e => getComputedStyle(e).stroke)")
    keys = page.evaluate("[...document.querySelectorAll('.keys line')].map(e => getComputedStyle(e).stroke)")
    assert strokes
    assert not keys or set(keys) == set(strokes)
