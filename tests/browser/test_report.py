from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from glassnet.evaluation.metrics import ClassMetrics
from glassnet.inspection.summary import LayerRow
from glassnet.views.contents import (
    EvaluationContents,
    FilterContents,
    ReportContents,
    WorstError,
)
from glassnet.views.page import render_report

HOSTILE = "<script>document.title = 'taken over'</script>"
NAMES = ("ankle boot", HOSTILE, "a class name so long that no narrow screen can hold it in one line", "bag")
CONFUSION = [[20, 3, 0, 0], [1, 18, 4, 0], [0, 2, 25, 1], [0, 0, 0, 30]]


def contents() -> ReportContents:
    rng = np.random.default_rng(0)
    counts = np.array(CONFUSION)
    right, true, said = np.diag(counts), counts.sum(1), counts.sum(0)
    rates = zip(NAMES, right / said, right / true, 2 * right / (true + said), true, strict=True)
    test = EvaluationContents(
        num_examples=int(counts.sum()),
        accuracy=float(right.sum() / counts.sum()),
        loss=0.31,
        confusion=CONFUSION,
        per_class=[ClassMetrics(class_name=n, precision=p, recall=r, f1=f, support=int(s)) for n, p, r, f, s in rates],
    )
    worst = [
        WorstError(
            image=rng.integers(0, 256, (1, 28, 28), np.uint8),
            true_class=NAMES[index % 4],
            predicted_class=NAMES[(index + 1) % 4],
            probability=0.9,
            true_probability=0.05,
            loss=3.0 - index / 10,
            index=index,
        )
        for index in range(11)
    ]
    history = [
        {"epoch": epoch, "train_loss": 2 / epoch, "validation_loss": 2.1 / epoch, "train_accuracy": 1 - 0.5 / epoch}
        | {"validation_accuracy": 1 - 0.6 / epoch, "learning_rate": math.cos(epoch / 10), "epoch_s": 1.0}
        for epoch in range(1, 11)
    ]
    layer = LayerRow(
        name="features.conv1",
        kind="Conv2d 5×5",
        input_shape=(),
        output_shape=(16, 24, 24),
        num_parameters=416,
        num_multiplications=230400,
    )
    return ReportContents(
        title="runs/fashion-lenet5",
        data_name="fashion",
        model_name="lenet5",
        class_names=NAMES,
        history=history,
        best_epoch=10,
        test=test,
        worst_errors=worst,
        filters=FilterContents(layer="features.conv1", weights=rng.normal(size=(16, 3, 5, 5))),
        layers=[layer] * 4,
        num_parameters=1664,
        num_multiplications=921600,
        config={"data": {"fingerprint": "sha256:" + "0123456789abcdef" * 4, "seed": 0}},
        created="2025-01-02",
        glassnet_version="0.1.0",
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(contents()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def report(page: Page, context: BrowserContext, address: str) -> Page:
    context.set_offline(True)
    page.goto(address)
    return page


def test_the_report_opens_offline_from_a_file_and_shows_every_part(report: Page) -> None:
    expect(report.get_by_role("heading", level=1)).to_have_text(
        "lenet5 names 89.4 % of 104 test images of fashion right (11 errors)."
    )
    for start in (
        "Over 10 epochs the training loss",
        "Over 10 epochs the training accuracy",
        "Of 104 test images",
        "features.conv1 has",
    ):
        picture = report.get_by_role("img", name=start)
        expect(picture).to_be_visible()
        box = picture.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 100
    broken = report.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
    assert broken == 0
    assert report.locator(".kernels image").count() == 16 * 3


def test_a_hostile_class_name_is_text(report: Page) -> None:
    expect(report.get_by_role("rowheader", name=HOSTILE).first).to_be_attached()
    expect(report).to_have_title(
        "runs/fashion-lenet5: lenet5 names 89.4 % of 104 test images of fashion right (11 errors)."
    )
    assert report.locator("script").count() == 0


def test_the_policy_of_the_page_stops_a_script_and_a_request(
    page: Page, context: BrowserContext, address: str, guard: list[str], tmp_path: Path
) -> None:
    html = render_report(contents()).replace(
        "</body>", "<script>document.title = 'ran'</script><img alt='' src='http://127.0.0.1:9/x.png'></body>"
    )
    path = tmp_path / "changed.html"
    path.write_text(html, encoding="utf-8")
    page.goto(path.as_uri())
    assert page.title() != "ran"
    assert len(guard) >= 2
    assert all("Content Security Policy" in complaint for complaint in guard)
    guard.clear()


def test_the_keyboard_reaches_and_opens_every_table(report: Page) -> None:
    summaries = report.locator("summary")
    reached = set()
    for _ in range(60):
        report.keyboard.press("Tab")
        position = report.evaluate("[...document.querySelectorAll('summary')].indexOf(document.activeElement)")
        if position >= 0 and position not in reached:
            reached.add(position)
            ring = report.evaluate("getComputedStyle(document.activeElement).outline")
            assert "3px" in ring
            report.keyboard.press("Enter")
    assert reached == set(range(summaries.count()))
    expect(report.locator("details:not([open])")).to_have_count(0)
    table = report.get_by_role("table", name="Loss by epoch")
    expect(table).to_be_visible()
    expect(table.get_by_role("row")).to_have_count(11)
    expect(table.get_by_role("row").last).to_have_text("100.20.21")


@pytest.mark.parametrize("width", [360, 600, 1200])
def test_the_page_never_scrolls_sideways(report: Page, width: int) -> None:
    report.set_viewport_size({"width": width, "height": 740})
    report.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert report.evaluate("document.documentElement.scrollWidth") <= width
    hidden = report.evaluate(
        """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('.unseen')
           && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert hidden == []


def test_pictures_tables_and_regions_are_named(report: Page) -> None:
    report.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    nameless = report.evaluate(
        """[...document.querySelectorAll('img, [role=img], [role=region], nav')].filter(e =>
           !(e.getAttribute('alt') || e.getAttribute('aria-label'))).length"""
    )
    assert nameless == 0
    for table in report.get_by_role("table").all():
        assert table.get_by_role("columnheader").count() >= 2
        assert table.get_by_role("rowheader").count() >= 1
        assert table.locator("caption").count() == 1
    expect(report.get_by_role("main")).to_have_count(1)
    expect(report.get_by_role("navigation", name="Contents").get_by_role("link")).to_have_count(7)


CONTRASTS = """() => {
  const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (c !== 'rgba(0, 0, 0, 0)') return c; } };
  const seen = [...document.querySelectorAll('body *')].filter(e => !e.closest('.heat g') && !e.closest('.unseen')
    && e.tagName !== 'title' && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return seen.map(e => { const style = getComputedStyle(e);
    const [a, b] = [light(e.ownerSVGElement ? style.fill : style.color), light(ground(e))].sort((x, y) => x - y);
    return [(b + 0.05) / (a + 0.05), e.textContent]; });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(report: Page, scheme: str) -> None:
    report.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    ground = report.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 600) == (scheme == "light")
    contrasts = report.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert [text for ratio, text in contrasts if ratio < 4.5] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_ink_on_every_cell_can_be_read(report: Page, scheme: str) -> None:
    report.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    cells = report.evaluate(
        """[...document.querySelectorAll('.heat g')].map(g =>
           ['rect', 'text'].map(tag => getComputedStyle(g.querySelector(tag)).fill))"""
    )
    assert len(cells) == np.count_nonzero(CONFUSION)
    for square, ink in cells:
        assert contrast(square, ink) >= 4.5, (square, ink)


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours as the browser writes them, `rgb(1, 2, 3)`: WCAG 2.2."""
    shares = np.array([[int(part) / 255 for part in colour[4:-1].split(",")] for colour in (first, second)])
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    darker, lighter = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((lighter + 0.05) / (darker + 0.05))


def test_on_paper_the_page_is_light_and_folded_class_tables_are_open(page: Page, tmp_path: Path) -> None:
    names = tuple(f"class {index}" for index in range(31))
    counts = (np.eye(31, dtype=int) * 3).tolist()
    scores = [ClassMetrics(class_name=name, precision=1.0, recall=1.0, f1=1.0, support=3) for name in names]
    test = EvaluationContents(num_examples=93, accuracy=1.0, loss=0.0, confusion=counts, per_class=scores)
    path = tmp_path / "report.html"
    many = dataclasses.replace(contents(), class_names=names, test=test, worst_errors=[])
    path.write_text(render_report(many), encoding="utf-8")
    page.goto(path.as_uri())
    last = page.get_by_text("class 30", exact=True)
    expect(last).not_to_be_visible()
    page.emulate_media(media="print", color_scheme="dark")
    expect(last).to_be_visible()
    expect(page.get_by_text("Show as table").first).not_to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 33, 38)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
