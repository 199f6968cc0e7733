"""The overview of a data set: figures worked out by hand, lines that fit a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len

from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.image_files import ImageFiles
from glassnet.data.images import SetAside
from glassnet.data.overview import Overview, describe_dataset


def files(sizes: list[tuple[int, int]], mode: str = "RGB") -> ImageFiles:
    names = tuple(f"{index}.png" for index in range(len(sizes)))
    return ImageFiles(tuple(map(Path, names)), mode, torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2), names)


def split(labels: list[int], class_names: tuple[str, ...], sizes: list[tuple[int, int]] | None = None) -> ExampleSet:
    return ExampleSet(files(sizes or [(8, 8)] * len(labels)), torch.tensor(labels, dtype=torch.int64), class_names)


@pytest.fixture
def photos() -> Overview:
    names = ("cat", "dog", "日本語")
    train = split([0, 0, 0, 0, 1, 2], names, [(10, 30), (20, 40), (1500, 2000), (40, 60), (50, 70), (60, 80)])
    data = Dataset("photos", train, split([1], names, [(5, 90)]), split([0, 2, 2], names), seed=0)
    aside = [SetAside(f"cat/{index}.png", f"truncated ({index} bytes)") for index in range(5)] + [
        SetAside("x.txt", "text")
    ]
    return describe_dataset(data, layout="a folder for each class", notes=["One note."], set_aside=aside)


def test_figures_are_those_of_the_examples(photos: Overview) -> None:
    assert photos.num_examples == 10
    assert [(name, part.num_examples, part.class_counts) for name, part in photos.splits.items()] == [
        ("train", 6, (4, 1, 1)),
        ("validation", 1, (0, 1, 0)),
        ("test", 3, (1, 0, 2)),
    ]
    assert (photos.height.smallest, photos.height.median, photos.height.largest) == (5, 10, 1500)
    assert (photos.width.smallest, photos.width.median, photos.width.largest) == (8, 40, 2000)
    assert photos.imbalance == 4
    assert (photos.mode, photos.kind, photos.input_shape) == ("RGB", "images", (3, 40, 60))


def test_the_lines_are_aligned_also_with_wide_letters(photos: Overview) -> None:
    assert photos.lines() == [
        "photos: 10 images, 3 classes",
        "  layout     a folder for each class",
        "  read as    colour (RGB)",
        "  height     5 / 10 / 1,500  (smallest / median / largest)",
        "  width      8 / 40 / 2,000  (smallest / median / largest)",
        "  fit        stretch, bilinear",
        "  imbalance  4 to 1 between the largest and the smallest class in train",
        "",
        "  class   train  validation  test",
        "  cat         4           0     1",
        "  dog         1           1     0",
        "  日本語      1           0     2",
        "  all         6           1     3",
        "",
        "Notes",
        "  - One note.",
        "",
        "Set aside: 6",
        "  5  truncated (0 bytes): 'cat/0.png', 'cat/1.png', 'cat/2.png' and 2 more",
        "  1  text: 'x.txt'",
    ]


def test_it_is_stored_whole_as_json(photos: Overview) -> None:
    stored = json.loads(json.dumps(photos.to_dict()))
    assert stored["splits"]["test"] == {"num_examples": 3, "class_counts": [1, 0, 2]}
    assert stored["height"] == {"smallest": 5, "median": 10, "largest": 1500}
    assert stored["set_aside"][5] == {"source": "x.txt", "reason": "text"}
    assert stored["num_examples"] == 10


def test_of_thousands_of_classes_the_largest_and_the_smallest_are_shown() -> None:
    names = tuple(f"class {index:04}" for index in range(3000))
    labels = [label for label in range(3000) for _ in range(5 if label == 1234 else 1 if label == 77 else 3)]
    data = Dataset("many", split(labels, names), split([0], names), split([], names), seed=0)
    table = describe_dataset(data).lines()[7:]
    assert len(table) == 23
    assert table[0] == "  class, by size  train  validation  test"
    assert table[1].split() == ["class", "1234", "5", "0", "0"]
    assert table[2].split() == ["class", "0000", "3", "1", "0"]
    assert table[11] == "  ... 2,980 more"
    assert table[-2].split() == ["class", "0077", "1", "0", "0"]
    assert table[-1].split() == ["all", "9,000", "1", "0"]


def test_a_long_name_is_cut_and_one_with_control_letters_made_harmless() -> None:
    names = ("x\x1b[31m", "y" * 300, "字" * 60)
    lines = describe_dataset(Dataset("odd\n", *(split([0, 1, 2], names) for _ in range(3)), seed=0)).lines()
    assert lines[0] == "odd\ufffd: 9 images, 3 classes"
    rows = lines[-5:]
    assert len({cell_len(row) for row in rows}) == 1
    assert cell_len(rows[0]) < 80
    assert "\x1b" not in "".join(lines)


def test_images_in_memory_have_one_size_and_their_mode_by_channels() -> None:
    parts = (
        ExampleSet(torch.zeros(4, 1, 28, 20, dtype=torch.uint8), torch.arange(4) % 2, ("0", "1")) for _ in range(3)
    )
    found = describe_dataset(Dataset("digits", *parts, seed=0))
    assert (found.height.smallest, found.width.largest, found.mode) == (28, 20, "L")
    assert "  read as    grey" in found.lines()


def test_numbers_and_values_to_predict_are_summed_up() -> None:
    parts = [ExampleSet(torch.zeros(count, 7), torch.arange(count).float() / 2, ()) for count in (5, 0, 2)]
    found = describe_dataset(Dataset("table", *parts, seed=0))
    assert (found.imbalance, found.mode, found.height, found.kind) == (None, None, None, "numbers")
    assert found.lines() == [
        "table: 7 examples, values to predict",
        "  input   7",
        "  values  0 / 1 / 2  (smallest / median / largest)",
        "",
        "       train  validation  test",
        "  all      5           0     2",
    ]


def test_a_class_without_an_example_to_train_on_is_left_out_of_the_imbalance() -> None:
    names = ("a", "b", "c")
    data = Dataset("x", *(split(labels, names) for labels in ([0, 0, 0, 2, 2], [1], [])), seed=0)
    assert describe_dataset(data).imbalance == 1.5


def test_many_different_reasons_are_cut_short() -> None:
    aside = [SetAside(f"{letter}.png", f"reason {letter}") for letter in "abcdefghijklm"]
    data = Dataset("x", *(split([0, 1], ("a", "b")) for _ in range(3)), seed=0)
    lines = describe_dataset(data, set_aside=aside).lines()
    assert lines[-1] == "  3  for other reasons"
    assert len(lines) - lines.index("Set aside: 13") == 12


def test_what_a_crop_throws_away_is_said_for_the_input_or_for_a_square() -> None:
    def cropped(*sizes: tuple[int, int]) -> Dataset:
        train = split([0, 1, 0][: len(sizes)], ("ant", "bee"), list(sizes))
        return Dataset("photos", train, train[:0], train[:0], seed=0, framing=Framing("crop"))

    def line(found: Overview) -> str:
        return next(line for line in found.lines() if line.startswith("  fit "))

    data = cropped((100, 200), (100, 200), (100, 100))
    found = describe_dataset(data)
    assert (found.fit, found.interpolation, found.input_size) == ("crop", "bilinear", None)
    assert found.cropped_share == pytest.approx(0.4)
    assert line(found).endswith(
        "crop, bilinear; for a square input, 40.0% of the pixels lie outside and are thrown away (--fit pad keeps them)"
    )
    found = describe_dataset(data, input_size=(50, 100))
    assert found.to_dict()["cropped_share"] == pytest.approx(0.1)
    assert line(found).endswith("for an input of 50x100, 10.0% of the pixels lie outside and are thrown away")
    padded = describe_dataset(data.framed("pad", "lanczos"))
    assert padded.cropped_share == 0
    assert line(padded).endswith("pad, lanczos")
    assert line(describe_dataset(cropped((9, 9), (5, 5)))).endswith("for a square input, no pixel is thrown away")
