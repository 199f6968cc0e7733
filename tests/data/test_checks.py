"""Checks of files and examples: what was planted is found, and nothing else."""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from glassnet.data import checks
from glassnet.data.checks import CheckReport, check_dataset, each_file, examine_image, near_groups
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.folders import load_folder
from glassnet.data.images import UnreadableImageError
from glassnet.data.tables import load_table

CLASSES = ("a", "b")


def photo(seed: int, height: int = 90, width: int = 120) -> Image.Image:
    """Return something as smooth and as varied as a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(count: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 12, 12), generator=generator, dtype=torch.uint8)


def dataset(train: Any, validation: Any, test: Any) -> Dataset:
    """Return a data set of three inputs, with labels that take turns, or of three pairs with labels."""
    splits = []
    for part in (train, validation, test):
        inputs, labels = part if isinstance(part, tuple) else (part, torch.arange(len(part)) % 2)
        splits.append(ExampleSet(inputs, torch.as_tensor(labels), CLASSES))
    return Dataset("made", *splits, seed=0)


def found(report: CheckReport) -> dict[str, tuple[str, tuple[tuple[str, ...], ...]]]:
    assert len({finding.kind for finding in report.findings}) == len(report.findings)
    return {finding.kind: (finding.severity, finding.groups) for finding in report.findings}


# Files


def test_what_a_file_is_is_found_by_decoding_it(tmp_path: Path) -> None:
    photo(0, 90, 120).save(tmp_path / "a.jpg")
    facts = examine_image(tmp_path / "a.jpg")
    assert (facts.size, facts.mode, facts.is_grey, facts.has_more_pages) == ((90, 120), "RGB", False, False)
    for cut in (0.5, 0.9, 0.99):
        content = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "cut.jpg").write_bytes(content[: int(len(content) * cut)])
        with pytest.raises(UnreadableImageError, match="damaged: image file is truncated"):
            examine_image(tmp_path / "cut.jpg")


def test_files_are_worked_on_in_threads_and_answered_in_order(tmp_path: Path) -> None:
    def work(path: Path) -> str:
        time.sleep(0.02 if path.name == "0" else 0)
        if path.name == "3":
            raise UnreadableImageError("third")
        if path.name == "4":
            raise OSError(116, "Stale file handle")
        return path.name

    results = each_file([tmp_path / str(index) for index in range(50)], work, "Working")
    assert [str(result) for result in results[3:5]] == ["third", "the file cannot be reached (Stale file handle)"]
    assert results[:3] + results[5:] == [str(index) for index in range(50) if index not in (3, 4)]


def test_an_interrupt_does_not_wait_for_files_that_were_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def work(path: Path) -> None:
        begun.append(path)
        time.sleep(0.001)

    @contextmanager
    def interrupted(what: str, total: int) -> Iterator[Callable[[], None]]:
        def advance() -> None:
            raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(checks, "_progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        each_file([tmp_path / str(index) for index in range(5000)], work, "Working")
    assert len(begun) < 2500


def test_warning_filters_are_as_they_were_after_many_threads(tmp_path: Path) -> None:
    photo(0).save(tmp_path / "a.png")
    before = list(warnings.filters)
    each_file([tmp_path / "a.png"] * 200, examine_image, "Examining")
    assert list(warnings.filters) == before


# Copies


def test_a_clean_data_set_has_no_findings() -> None:
    report = check_dataset(dataset(pixels(30), pixels(10, 1), pixels(10, 2)))
    assert report.findings == ()
    assert report.lines() == ["50 examples checked: nothing found"]


def test_copies_across_splits_come_first_and_are_told_from_copies_within() -> None:
    train, validation, test = pixels(20), pixels(6, 1), pixels(6, 2)
    test[4] = train[2]
    validation[0] = train[2]
    train[11] = train[9]
    report = check_dataset(dataset(train, validation, test))
    assert report.findings[0].kind == "leakage"
    assert found(report) == {
        "leakage": ("error", (("train[2]", "validation[0]", "test[4]"),)),
        "duplicates": ("warning", (("train[9]", "train[11]"),)),
    }
    assert report.findings[0].files == ("train[2]", "validation[0]", "test[4]")
    assert report.findings[0].text.endswith("Keep each once (3 examples in 1 group).")


def test_the_same_content_under_two_labels_is_an_error_with_both() -> None:
    train, test = pixels(20), pixels(6, 2)
    train[3] = train[0]
    test[1] = train[6]
    report = check_dataset(dataset(train, pixels(4, 1), test))
    assert found(report)["conflicting labels"] == (
        "error",
        (("train[0] ('a')", "train[3] ('b')"), ("train[6] ('a')", "test[1] ('b')")),
    )
    assert found(report)["leakage"][1] == (("train[6]", "test[1]"),)
    assert "duplicates" not in found(report)


def test_copies_among_files_are_found_by_content_and_named_by_path(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("val", 20), ("test", 40)):
        for index in range(4):
            folder = tmp_path / split / CLASSES[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            photo(seed + index).save(folder / f"{index}.png")
    content = (tmp_path / "train" / "a" / "0.png").read_bytes()
    (tmp_path / "test" / "a" / "again.png").write_bytes(content)
    (tmp_path / "test" / "b" / "and again.png").write_bytes(content)
    report = check_dataset(load_folder(tmp_path, seed=0).dataset)
    names = ("train/a/0.png", "test/a/again.png", "test/b/and again.png")
    assert found(report) == {
        "leakage": ("error", (names,)),
        "conflicting labels": ("error", (tuple(f"{name} ('{name.split('/')[1]}')" for name in names),)),
    }


# Look-alikes


def variants(picture: Image.Image) -> dict[str, Image.Image]:
    """Return the same picture as people pass it on."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return {
        "recompressed": Image.open(buffer),
        "half": picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS),
        "double": picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.BICUBIC),
        "grey": picture.convert("L"),
        "dimmed": ImageEnhance.Brightness(picture).enhance(0.8),
        "flat": ImageEnhance.Contrast(picture).enhance(0.7),
    }


def test_pictures_that_were_passed_on_look_alike_and_others_do_not(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
    for seed in range(40):
        folder = tmp_path / ("train", "val")[seed % 2] / CLASSES[seed // 2 % 2]
        photo(seed).save(folder / f"{seed}.jpg", quality=95)
    for name, picture in variants(photo(0)).items():
        picture.save(tmp_path / "test" / "a" / f"{name}.png")
    ImageEnhance.Brightness(photo(4)).enhance(0.9).save(tmp_path / "train" / "a" / "4 dimmed.webp")
    report = check_dataset(load_folder(tmp_path, seed=0).dataset)
    copies = tuple(f"test/a/{name}.png" for name in sorted(variants(photo(0))))
    assert found(report) == {
        "near leakage": ("warning", (("train/a/0.jpg", *copies),)),
        "near duplicates": ("note", (("train/a/4 dimmed.webp", "train/a/4.jpg"),)),
    }


def test_look_alikes_are_found_among_tensors() -> None:
    train, test = pixels(60), pixels(20, 1)
    test[7] = (train[5].float() * 0.9).byte()
    report = check_dataset(dataset(train, pixels(4, 2), test))
    assert found(report) == {"near leakage": ("warning", (("train[5]", "test[7]"),))}


def test_within_a_severity_what_concerns_several_splits_comes_first() -> None:
    train, test = pixels(60), pixels(20, 1)
    train[10] = train[8]
    train[20] = 7
    test[7] = (train[5].float() * 0.9).byte()
    report = check_dataset(dataset(train, pixels(4, 2), test))
    assert [finding.kind for finding in report.findings] == ["near leakage", "blank", "duplicates"]


def all_pairs(hashed: np.ndarray, grey: np.ndarray) -> list[list[int]]:
    """Return the groups by comparing every image with every other."""
    bits = [(picture[:, 1:] > picture[:, :-1]).flatten() for picture in hashed]
    groups = [{index} for index in range(len(hashed))]
    for first in range(len(hashed)):
        for second in range(first):
            differing = int((bits[first] != bits[second]).sum())
            if differing <= 4 and np.corrcoef(grey[first].flatten(), grey[second].flatten())[0, 1] >= 0.99:
                groups[second] |= groups[first]
                for member in groups[second]:
                    groups[member] = groups[second]
    return sorted({tuple(sorted(group)) for group in groups if len(group) > 1})


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_groups_equal_those_of_comparing_all_pairs(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PAIRS_AT_ONCE", at_once)
    monkeypatch.setattr(checks, "ROWS_AT_ONCE", at_once)
    generator = np.random.default_rng(0)
    originals = generator.integers(0, 200, (40, 16, 18)).astype(np.float32)
    copies = originals[generator.integers(0, 40, 120)] + generator.normal(0, 5.5, (120, 16, 18)).astype(np.float32)
    hashed = copies.reshape(120, 8, 2, 9, 2).mean((2, 4)).round()
    grey = np.ascontiguousarray(copies[:, :, 1:17])
    expected = all_pairs(hashed, grey)
    assert 10 < len(expected) < 40
    assert sorted(map(tuple, near_groups(hashed, grey))) == expected


def test_hashes_may_differ_in_four_bits_and_not_in_five() -> None:
    grey = np.random.default_rng(0).random((16, 16), dtype=np.float32)
    hashed = np.tile(np.arange(9, dtype=np.float32) * 10, (8, 1))
    for differing, expected in ((4, [[0, 1]]), (5, [])):
        other = hashed.copy()
        other[:differing, -1] = 0  # the last of eight steps in a row goes down instead of up
        assert near_groups(np.stack([hashed, other]), np.stack([grey, grey])) == expected


def test_equal_hashes_of_unlike_pictures_are_no_pair() -> None:
    generator = np.random.default_rng(0)
    hashed = np.zeros((30, 8, 9), dtype=np.float32)
    assert near_groups(hashed, generator.random((30, 16, 16), dtype=np.float32)) == []


def test_a_film_of_many_still_frames_is_one_group_and_quick() -> None:
    generator = np.random.default_rng(0)
    still = generator.integers(0, 256, (16, 18)).astype(np.float32)
    frames = still + generator.normal(0, 0.3, (6000, 16, 18)).astype(np.float32)
    began = time.perf_counter()
    groups = near_groups(frames.reshape(6000, 8, 2, 9, 2).mean((2, 4)), np.ascontiguousarray(frames[:, :, :16]))
    assert groups == [list(range(6000))]
    assert time.perf_counter() - began < 5


def test_ten_thousand_images_are_compared_in_seconds() -> None:
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (10_000, 16, 18)).astype(np.float32)
    pictures[9000:9100] = pictures[:100] * 0.9 + 3
    began = time.perf_counter()
    groups = near_groups(pictures.reshape(-1, 8, 2, 9, 2).mean((2, 4)), np.ascontiguousarray(pictures[:, :, :16]))
    assert groups == [[index, 9000 + index] for index in range(100)]
    assert time.perf_counter() - began < 8


# Single images, classes, numbers


def test_blank_images_are_found_and_do_not_look_alike(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for seed in range(3):
            photo(seed + 10 * CLASSES.index(name)).save(tmp_path / name / f"{seed}.png")
    Image.new("RGB", (100, 100), (9, 80, 200)).save(tmp_path / "a" / "blue.jpg")
    Image.new("L", (30, 30), 0).save(tmp_path / "b" / "black.png")
    speck = Image.new("L", (800, 800), 255)
    speck.putpixel((3, 3), 250)
    speck.save(tmp_path / "b" / "speck.png")
    equally_bright = Image.new("RGB", (8, 8), (255, 0, 0))
    equally_bright.paste((0, 130, 0), (0, 0, 4, 8))  # 0.299 * 255 = 0.587 * 130: grey is 76 on both sides
    equally_bright.save(tmp_path / "b" / "two colours.png")
    report = check_dataset(load_folder(tmp_path, seed=0, test_share=0, validation_share=0).dataset)
    assert found(report) == {"blank": ("warning", (("a/blue.jpg",), ("b/black.png",)))}


def test_blank_images_are_found_among_tensors() -> None:
    train = pixels(6)
    train[1] = 7
    train[2] = torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]
    train[3, :2] = 5
    report = check_dataset(dataset(train, pixels(2, 1), pixels(2, 2)))
    assert found(report)["blank"] == ("warning", (("train[1]",), ("train[2]",)))


def test_a_file_that_went_bad_meanwhile_is_named(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
        for seed in range(3):
            photo(seed + 10 * CLASSES.index(name)).save(tmp_path / name / f"{seed}.png")
    data = load_folder(tmp_path, seed=0).dataset
    (tmp_path / "a" / "1.png").write_bytes(b"")
    report = check_dataset(data)
    assert found(report) == {"unreadable": ("error", (("a/1.png",),))}
    assert "1 file can no longer be read, the first: expected an image, got an empty file" in report.findings[0].text


@pytest.mark.parametrize(("count", "severity", "ratio"), [(3, "note", "3"), (25, "warning", "25"), (2, None, "")])
def test_imbalance_is_stated_as_a_ratio(count: int, severity: str | None, ratio: str) -> None:
    train = (pixels(4 * count + 4), [0] * 4 * count + [1] * 4)
    report = check_dataset(dataset(train, pixels(2, 1), pixels(2, 2)))
    assert [finding.severity for finding in report.findings] == ([severity] if severity else [])
    if severity:
        text = f"{ratio} to 1 between the largest class to train on, 'a' ({4 * count:,}), and the smallest, 'b' (4)."
        assert report.findings[0].text == text


def test_a_class_without_an_example_is_said() -> None:
    report = check_dataset(dataset((pixels(3), [0, 0, 0]), pixels(0), pixels(0)))
    assert [finding.text for finding in report.findings] == ["1 class without an example to train on: 'b'."]


def test_a_data_set_without_examples_has_classes_without_any() -> None:
    report = check_dataset(dataset(pixels(0), pixels(0), pixels(0)))
    assert [finding.text for finding in report.findings] == ["2 classes without an example to train on: 'a', 'b'."]


def test_numbers_are_checked_for_nan_and_constant_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(count, 9, generator=generator) for count in (20, 5, 5)]
    rows[0][:, 3] = 2.5
    rows[0][:, 8] = 0
    rows[1][2, 4] = torch.nan
    rows[2][0, 1] = torch.inf
    report = check_dataset(dataset(*rows))
    assert found(report) == {
        "not finite": ("error", (("validation[2]",), ("test[0]",))),
        "constant columns": ("warning", ()),
    }
    assert "nan or infinity in 2 examples, columns 1, 4." in report.findings[0].text
    assert report.findings[1].text.startswith("columns 3, 8: the same value")


def test_constant_columns_of_a_table_are_called_by_their_names(tmp_path: Path) -> None:
    lines = [f"{'ab'[row % 2]},{row * 1.5},7,{'xy'[row % 3 == 0]}" for row in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join(["letter,size,floor,kind", *lines]))
    report = check_dataset(load_table(tmp_path / "rows.csv", seed=0).dataset)
    assert [finding.text for finding in report.findings if finding.kind == "constant columns"] == [
        "column 'floor': the same value in every training example, which tells nothing."
    ]


def test_equal_rows_of_numbers_are_no_more_than_a_note() -> None:
    gate = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    report = check_dataset(dataset(gate, gate[:2], gate[:0]))
    assert found(report) == {
        "leakage": ("note", (("train[0]", "validation[0]"), ("train[1]", "validation[1]"))),
    }


def test_signals_are_checked_by_channel_and_regression_without_classes() -> None:
    signals = torch.randn(10, 2, 5, generator=torch.Generator().manual_seed(0))
    signals[:, 1] = 4
    splits = [
        ExampleSet(signals[part], torch.zeros(len(signals[part])), ()) for part in (slice(6), slice(6, 8), slice(8, 10))
    ]
    report = check_dataset(Dataset("made", *splits, seed=0))
    assert [finding.text for finding in report.findings] == [
        "column 1: the same value in every training example, which tells nothing."
    ]


def test_the_report_is_short_in_lines_and_whole_in_json() -> None:
    train = pixels(24)
    for index in range(8):
        train[8 + index] = train[16 + index] = train[index]
    report = check_dataset(dataset(train, pixels(2, 1), pixels(2, 2)))
    assert report.lines()[:3] == [
        "28 examples checked",
        "warning  duplicates: Content occurs more than once in a split. "
        "One of each is enough (24 examples in 8 groups).",
        "           train[0] = train[8] = train[16]",
    ]
    assert report.lines()[-1] == "           and 3 more"
    stored = json.loads(json.dumps(report.to_dict()))
    assert len(stored["findings"][0]["groups"]) == 8
    assert stored["num_examples"] == 28
