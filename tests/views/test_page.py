from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from glassnet._errors import UsageError
from glassnet.evaluation.metrics import ClassMetrics
from glassnet.inspection.summary import LayerRow
from glassnet.views.contents import (
    EvaluationContents,
    FilterContents,
    ReportContents,
    WorstError,
)
from glassnet.views.page import render_report
from glassnet.views.wording import confused_pairs, headline, wilson_interval

NBSP = "\N{NO-BREAK SPACE}"
HOSTILE = "<script>alert('x')</script>"
CONFUSION = [[9, 1, 0], [0, 8, 2], [0, 0, 10]]


class Page(HTMLParser):
    """A page: its elements, its visible text with single plain spaces; each element was closed in turn."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack and "head" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def evaluation(confusion: list[list[int]], names: tuple[str, ...] | None = None) -> EvaluationContents:
    counts = np.array(confusion)
    names = names or tuple("abcdefghij"[: len(counts)])
    right, true, said = np.diag(counts), counts.sum(1), counts.sum(0)
    with np.errstate(invalid="ignore"):
        rates = zip(names, right / said, right / true, 2 * right / (true + said), true, strict=True)
    scores = [ClassMetrics(class_name=n, precision=p, recall=r, f1=f, support=int(s)) for n, p, r, f, s in rates]
    accuracy = float(right.sum() / counts.sum())
    return EvaluationContents(
        num_examples=int(counts.sum()), accuracy=accuracy, loss=0.5, confusion=confusion, per_class=scores
    )


def error(index: int, loss: float, image: np.ndarray | None = None, true: str = "a", said: str = "b") -> WorstError:
    if image is None:
        image = np.full((1, 4, 4), index, np.uint8)
    return WorstError(
        image=image,
        true_class=true,
        predicted_class=said,
        probability=0.75,
        true_probability=math.exp(-loss),
        loss=loss,
        index=index,
    )


def epochs(count: int) -> list[dict[str, float | int | str]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 2.0 / epoch,
            "train_accuracy": 1 - 0.5 / epoch,
            "validation_loss": 2.2 / epoch,
            "validation_accuracy": 1 - 0.6 / epoch,
            "learning_rate": 0.1 / epoch,
            "images_per_s": 1000.0 + epoch,
            "epoch_s": 2.0,
        }
        for epoch in range(1, count + 1)
    ]


FULL = ReportContents(
    title="runs/toys-net",
    data_name="toys",
    model_name="net",
    class_names=("a", "b", "c"),
    history=epochs(4),
    best_epoch=3,
    stop_reason="all 4 epochs were done",
    test=evaluation(CONFUSION),
    worst_errors=[error(7, 1.0), error(9, 3.0), error(8, 2.0)],
    filters=FilterContents(layer="conv1", weights=np.linspace(-1, 0.5, 27).reshape(3, 1, 3, 3)),
    layers=[
        LayerRow(
            name="conv1",
            kind="Conv2d",
            input_shape=(),
            output_shape=(3, 2, 2),
            num_parameters=30,
            num_multiplications=108,
        ),
        LayerRow(
            name="head", kind="Linear", input_shape=(), output_shape=(3,), num_parameters=39, num_multiplications=36
        ),
    ],
    num_parameters=69,
    num_multiplications=144,
    config={"run": {"seed": 0, "lr": 1e-05, "nesterov": True, "resume": None, "mean": [0.1, 0.2], "aug": {"crop": 4}}},
    created="2025-01-02 03:04",
    glassnet_version="9.9.9",
)


def page_with(**changes: object) -> Page:
    return Page(render_report(dataclasses.replace(FULL, **changes)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def full() -> Page:
    return Page(render_report(FULL))


def test_the_headline_is_the_answer() -> None:
    assert headline(FULL) == f"net names 90.0{NBSP}% of 30 test images of toys right (3 errors)."


def test_the_page_starts_from_the_answer_and_leads_down(full: Page) -> None:
    ids = [attributes["id"] for attributes in full.all("section") if "id" in attributes]
    assert ids == ["figures", "curves", "confusion", "worst", "classes", "filters", "layers", "config"]
    links = [attributes["href"] for attributes in full.all("a")]
    assert links == [f"#{name}" for name in ids[1:]]


def test_the_last_epoch_is_not_called_the_best_where_another_was() -> None:
    history = [row | {"validation_loss": loss} for row, loss in zip(epochs(3), (0.5, 0.2, 0.3), strict=True)]
    for kept, word in ((2, "best"), (3, "last")):
        assert f"those of epoch {kept}, the {word}." in page_with(history=history, best_epoch=kept).text


def test_the_text_below_the_headline_says_how_the_training_went(full: Page) -> None:
    assert "Trained for 4 epochs in 8 s; the weights kept are those of epoch 3, the best." in full.text
    assert "Training stopped: all 4 epochs were done." in full.text
    assert "The most frequent confusion is “b” called “c” (twice)." in full.text


def test_nothing_can_be_loaded_or_run(full: Page) -> None:
    policy = next(meta["content"] for meta in full.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert not full.all("script")
    sources = [
        value for _, attributes in full.elements for name, value in attributes.items() if name in {"src", "href"}
    ]
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert not any(name.startswith("on") for _, attributes in full.elements for name in attributes)
    html = render_report(FULL)
    assert "@import" not in html
    assert "url(" not in html


def test_every_picture_says_what_it_shows(full: Page) -> None:
    assert all(image["alt"] for image in full.all("img"))
    for tag in ("svg", "div"):
        for attributes in full.all(tag):
            if tag == "svg" and attributes.get("aria-hidden") == "true":
                continue
            if tag == "svg" or attributes.get("role") == "img":
                assert attributes["role"] == "img"
                assert attributes["aria-label"].rstrip(".")


def test_every_chart_has_a_table(full: Page) -> None:
    assert full.text.count("Show as table") == 5, "loss, accuracy, learning rate, confusion, filters"
    assert len(full.all("caption")) == len(full.all("table"))
    assert all(head["scope"] in {"col", "row"} for head in full.all("th"))


def test_the_curve_sentences_say_where_each_line_starts_and_ends(full: Page) -> None:
    assert (
        "Over 4 epochs the training loss goes from 2 to 0.5 and the validation loss goes from 2.2 to 0.55." in full.text
    )
    assert "the validation accuracy goes from 40.0 % to 85.0 %." in full.text
    assert "Training took in 1,002 examples per second" in full.text, "the median of 1001 to 1004 is 1002.5"


def test_a_constant_learning_rate_is_said_and_not_drawn() -> None:
    page = page_with(history=[row | {"learning_rate": 0.1} for row in epochs(4)])
    assert "The learning rate was 0.1 throughout." in page.text
    assert page.text.count("Show as table") == 4


def test_the_worst_errors_come_first_by_loss_with_their_numbers(full: Page) -> None:
    alts = [image["alt"] for image in full.all("img")]
    assert alts == [f"Test image {index}: true class a, said b" for index in (9, 8, 7)]
    text = full.text
    assert "true a 5.0 % said b 75.0 % loss 3 no. 9" in text, "exp(-3) is 0.0498"
    assert "All 3 errors, the most confident mistakes first" in text


def test_the_image_of_an_error_is_the_image_that_was_given(full: Page) -> None:
    source = full.all("img")[0]["src"].partition(",")[2]
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(source))))
    assert pixels.tolist() == [[9] * 4] * 4


def test_more_errors_than_fit_are_counted() -> None:
    page = page_with(
        test=evaluation([[1, 39, 0], [0, 8, 0], [0, 0, 2]]), worst_errors=[error(i, i / 9) for i in range(39)]
    )
    assert len(page.all("img")) == 24
    assert "The 24 of 39 errors with the highest loss" in page.text


def test_an_error_with_an_infinite_loss_comes_first_and_one_without_an_image_is_text() -> None:
    nameless = WorstError(
        image=None, true_class="c", predicted_class="a", probability=1.0, true_probability=0.0, loss=math.inf, index=5
    )
    page = page_with(worst_errors=[error(1, 2.0), nameless])
    assert len(page.all("img")) == 1
    assert page.text.index("no. 5") < page.text.index("no. 1")


def test_errors_without_records_are_said_to_be_missing() -> None:
    assert "The single errors were not recorded with this run." in page_with(worst_errors=[]).text


def test_confused_pairs_are_ordered_by_count_and_then_by_share() -> None:
    counts = np.array([[5, 1, 0], [1, 1, 0], [0, 4, 9]])
    pairs = confused_pairs(counts, ["x", "y", "z"])
    assert [(p.true_class, p.said_class, p.count, p.support) for p in pairs] == [
        ("z", "y", 4, 13),
        ("y", "x", 1, 2),
        ("x", "y", 1, 6),
    ]


def test_the_pairs_are_named_in_words(full: Page) -> None:
    text = full.text
    assert "b called c : twice, 20.0 % of 10 images" in text
    assert "a called b : once, 10.0 % of 10 images" in text
    assert "Of 30 test images, 27 are named right (the diagonal) and 3 wrong, in 2 pairs of classes." in text


def test_the_interval_of_the_accuracy_is_wilsons() -> None:
    # Worked by hand for 27 of 30 with z = 1.96: (0.9 + 0.0640 ± 0.1216) / 1.1280
    assert wilson_interval(27, 30) == pytest.approx((0.7438, 0.9654), abs=5e-4)
    assert wilson_interval(30, 30) == pytest.approx((0.8865, 1.0), abs=5e-4)
    assert wilson_interval(0, 30) == pytest.approx((0.0, 0.1135), abs=5e-4)


def test_key_figures_give_the_answer_its_interval_and_a_baseline(full: Page) -> None:
    text = full.text
    assert "Test accuracy 90.0 % 95 % interval 74.4 % to 96.5 % (Wilson)" in text
    assert "Baseline 33.3 % for always saying “a”, the commonest class" in text
    assert "Validation accuracy 80.0 % at epoch 3, the one kept" in text
    assert "Parameters 69" in text
    assert "Top-5" not in text


def test_top_five_and_large_counts_are_shown_where_they_exist() -> None:
    assert FULL.test is not None
    test = dataclasses.replace(FULL.test, top5_accuracy=0.97)
    page = page_with(test=test, num_parameters=999_999_999, num_multiplications=1_814_073_344)
    assert "Top-5 accuracy 97.0 %" in page.text
    assert "1,000 million" in page.text
    assert "1.81 billion" in page.text


def test_hostile_names_are_shown_as_text() -> None:
    names = ("a", HOSTILE, 'c"><img src=x onerror=y>')
    html = render_report(
        dataclasses.replace(
            FULL,
            title=HOSTILE,
            data_name=HOSTILE,
            model_name=HOSTILE,
            class_names=names,
            stop_reason=HOSTILE,
            test=evaluation(CONFUSION, names),
            worst_errors=[error(1, 1.0, true=names[1], said=names[2])],
            filters=FilterContents(layer=HOSTILE, weights=np.ones((1, 1, 3, 3))),
            layers=[
                LayerRow(
                    name=HOSTILE,
                    kind=HOSTILE,
                    input_shape=(),
                    output_shape=(1,),
                    num_parameters=0,
                    num_multiplications=0,
                )
            ],
            config={HOSTILE: {HOSTILE: HOSTILE}},
            created=HOSTILE,
            glassnet_version=HOSTILE,
        )
    )
    page = Page(html)
    assert "<script" not in html
    assert not [attributes for attributes in page.all("img") if "onerror" in attributes]
    assert page.text.count(HOSTILE) > 10
    assert page.all("img")[0]["alt"] == f"Test image 1: true class {HOSTILE}, said {names[2]}"


def test_a_name_that_is_no_valid_unicode_does_not_stop_the_report() -> None:
    assert "caf?" in render_report(dataclasses.replace(FULL, title="caf\udce9"))


def test_without_a_test_set_the_validation_answers_and_the_page_says_so() -> None:
    page = page_with(test=None, worst_errors=[])
    assert "net names 80.0 % of the validation images of toys right." in page.text
    assert "No test images were set aside." in page.text
    ids = [attributes.get("id") for attributes in page.all("section")]
    assert not {"confusion", "worst", "classes"} & set(ids)


def test_without_test_and_validation_nothing_is_claimed() -> None:
    history = [{key: value for key, value in row.items() if "validation" not in key} for row in epochs(2)]
    page = page_with(test=None, worst_errors=[], history=history, best_epoch=2)
    assert "net was trained on toys; how well it names new images was not measured." in page.text
    assert "Neither test nor validation images were set aside." in page.text
    assert "the best" not in page.text
    assert "Over 2 epochs the training loss goes from 2 to 1." in page.text


def test_without_an_error_the_page_says_so() -> None:
    page = page_with(test=evaluation([[9, 0, 0], [0, 8, 0], [0, 0, 10]]), worst_errors=[])
    assert "net names all 27 test images of toys right." in page.text
    assert "All 27 test images are named right: the diagonal holds every one." in page.text
    assert "No class has an error." in page.text
    assert "Most confused" not in page.text
    assert "worst" not in [attributes.get("id") for attributes in page.all("section")]


def test_one_epoch_one_image_and_one_error_are_singular() -> None:
    page = page_with(
        history=epochs(1),
        best_epoch=1,
        test=evaluation([[0, 1, 0], [0, 0, 0], [0, 0, 0]]),
        worst_errors=[error(0, 1.0)],
    )
    text = page.text
    assert "net names 0 % of 1 test image of toys right (1 error)." in text
    assert "Trained for 1 epoch in 2 s; the weights kept are those of epoch 1." in text
    assert "After 1 epoch the training loss is 2 and the validation loss is 2.2." in text
    assert "The only error, with the probability" in text
    assert "Without any test image, so not measured: b, c." in text


def test_a_class_without_images_has_no_rates_and_is_named() -> None:
    page = page_with(test=evaluation([[9, 1, 0], [0, 8, 0], [0, 0, 0]]))
    assert "c 0 – – –" in page.text
    assert "Without any test image, so not measured: c." in page.text


def test_epochs_without_a_number_are_counted_and_read_from_text() -> None:
    history = epochs(4)
    history[1]["validation_loss"], history[2]["validation_loss"], history[3]["train_loss"] = math.nan, "", "0.25"
    page = page_with(history=history)
    assert "the training loss goes from 2 to 0.25" in page.text
    assert "the validation loss has no finite value in 2 of 4 epochs." in page.text


def test_a_run_without_history_filters_layers_and_config_leaves_them_out() -> None:
    page = page_with(history=[], filters=None, layers=[], config={})
    ids = [attributes.get("id") for attributes in page.all("section")]
    assert ids == ["figures", "confusion", "worst", "classes"]
    assert "Trained for" not in page.text


@pytest.mark.parametrize("num_classes", [30, 31, 100])
def test_with_many_classes_the_confused_pairs_stand_in_for_the_matrix(num_classes: int) -> None:
    names = tuple(f"class {index}" for index in range(num_classes))
    confusion = (np.eye(num_classes, dtype=int) * 9 + np.eye(num_classes, k=1, dtype=int)).tolist()
    page = page_with(class_names=names, test=evaluation(confusion, names))
    has_matrix = "Confusion matrix" in page.text
    assert has_matrix == (num_classes <= 30)
    assert (f"Show all {num_classes} classes" in page.text) == (num_classes > 30)
    assert (f"With {num_classes} classes a confusion matrix cannot be read" in page.text) == (num_classes > 30)
    assert (f"The 30 most confused of {num_classes - 1} confused pairs" in page.text) == (num_classes > 31)
    assert page.text.count(f"class {num_classes - 1} 9 90.0 %") == 1, "the last class is in the table"


def test_a_thousand_classes_make_a_report_of_less_than_half_a_megabyte() -> None:
    names = tuple(f"n{index:08d} some words" for index in range(1000))
    confusion = (np.eye(1000, dtype=int) * 40 + np.eye(1000, k=1, dtype=int) * 10).tolist()
    html = render_report(dataclasses.replace(FULL, class_names=names, test=evaluation(confusion, names)))
    assert len(html.encode()) < 500_000


def test_a_report_like_that_of_digits_is_small() -> None:
    rng = np.random.default_rng(0)
    names = tuple(map(str, range(10)))
    confusion = (np.eye(10, dtype=int) * 30 + rng.integers(0, 3, (10, 10))).tolist()
    worst = [error(index, 1.0, rng.integers(0, 256, (1, 32, 32), np.uint8)) for index in range(24)]
    weights = FilterContents(layer="conv1", weights=rng.normal(size=(6, 1, 5, 5)))
    changes = {"class_names": names, "test": evaluation(confusion, names), "worst_errors": worst, "filters": weights}
    html = render_report(dataclasses.replace(FULL, history=epochs(100), **changes))  # type: ignore[arg-type]
    assert len(html.encode()) < 300_000


def test_the_filters_are_described_with_their_scale_and_a_table(full: Page) -> None:
    assert "conv1 has 3 kernels of 3 × 3 weights over 1 input channel, all on one scale that ends at ±1." in full.text
    channel = np.linspace(-1, 0.5, 27)[18:]
    row = f"2 {channel.min():.3g} {channel.max():.3g} {channel.mean():.3g} {np.linalg.norm(channel):.3g}"
    assert row in full.text


def test_what_is_not_drawn_of_the_filters_is_said() -> None:
    weights = np.ones((70, 5, 3, 3))
    weights[0, 0, 0, :2] = np.nan
    page = page_with(filters=FilterContents(layer="conv1", weights=weights))
    assert "Drawn are the first 64 channels over their first 4 input channels." in page.text
    assert "Drawn as zero: 2 weights without a finite value." in page.text


def test_the_layers_are_summed_and_a_long_list_is_folded(full: Page) -> None:
    assert "conv1 Conv2d 3 × 2 × 2 30 108" in full.text
    assert "in all 69 144" in full.text
    assert "Show all 41 layers" in page_with(layers=[FULL.layers[0]] * 41).text
    assert "Show all" not in full.text


def test_the_config_is_given_in_full(full: Page) -> None:
    assert "run seed 0 lr 1e-05 nesterov yes resume none mean 0.1, 0.2 aug crop: 4" in full.text
    assert "Written by glassnet 9.9.9 on 2025-01-02 03:04." in full.text


def test_an_image_of_five_channels_says_that_it_is_their_mean() -> None:
    page = page_with(worst_errors=[error(0, 1.0, np.zeros((5, 4, 4), np.uint8))])
    assert "mean of 5 channels" in page.text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.21, "0.21 s"), (59.9, "59.9 s"), (192, "3 min 12 s"), (7500, "2 h 5 min"), (math.nan, "")]
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    page = page_with(history=[row | {"epoch_s": seconds} for row in epochs(1)], best_epoch=1)
    expected = f"Trained for 1 epoch in {text};" if text else "Trained for 1 epoch;"
    assert expected in page.text


def test_the_same_contents_give_the_same_page() -> None:
    assert render_report(FULL) == render_report(FULL)


def test_ids_are_unique_and_labels_point_at_them(full: Page) -> None:
    ids = [attributes["id"] for _, attributes in full.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = [attributes["aria-labelledby"] for _, attributes in full.elements if "aria-labelledby" in attributes]
    assert set(labels) <= set(ids)
    levels = [int(tag[1]) for tag, _ in full.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_a_confusion_matrix_that_does_not_count_every_image_is_refused() -> None:
    with pytest.raises(UsageError, match=r"must be square and count each of the 30 .* got \(3, 3\) with 29 images"):
        dataclasses.replace(evaluation(CONFUSION), confusion=[[9, 1, 0], [0, 8, 1], [0, 0, 10]])


def test_an_accuracy_that_contradicts_the_confusion_matrix_is_refused() -> None:
    with pytest.raises(UsageError, match=r"diagonal of the confusion matrix, 27 of 30; got 0\.95"):
        dataclasses.replace(evaluation(CONFUSION), accuracy=0.95)


def test_a_confusion_matrix_of_other_classes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a row for each of the 2 class names; got 3"):
        dataclasses.replace(FULL, class_names=("a", "b"))


def test_weights_that_are_no_convolution_of_images_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(out, in, kh, kw\) with no axis empty; got \(3, 1, 5\)"):
        FilterContents(layer="conv1", weights=np.ones((3, 1, 5)))
