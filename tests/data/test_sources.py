"""`load_data`: what was asked for is what comes, and is kept, so that it can be asked for again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glassnet import UsageError, load_data
from glassnet.data.toys import load_toy


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder of 40 images with a CSV that gives an age to each."""
    (tmp_path / "faces").mkdir()
    lines = ["filename,age"]
    for index in range(40):
        level = 20 + 5 * index
        Image.fromarray(np.full((12, 12), level, np.uint8)).save(tmp_path / "faces" / f"{index}.png")
        lines.append(f"{index}.png,{level / 10}")
    (tmp_path / "faces" / "labels.csv").write_text("\n".join(lines))
    return tmp_path / "faces"


def test_the_options_of_a_toy_reach_it_and_are_kept() -> None:
    data = load_data("spiral", seed=3, noise=0.2, num_examples=50, test_share=0.4)
    toy = load_toy("spiral", seed=3, noise=0.2, num_examples=50, test_share=0.4)
    assert data.fingerprint() == toy.fingerprint()
    assert data.options == {"noise": 0.2, "num_examples": 50, "test_share": 0.4}
    assert len(data.test) == 20


def test_the_dials_of_the_shapes_are_options_and_others_stay_halfway() -> None:
    plain = load_data("shapes", num_examples=24, size=16)
    dark = load_data("shapes", num_examples=24, size=16, clutter=0)
    assert dark.train.inputs.shape[1:] == (3, 16, 16)
    assert dark.fingerprint() != plain.fingerprint()
    assert load_data("shapes", num_examples=24, size=16, clutter=0.5).fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("spiral", {"nois": 0.1}, "Unknown option of 'spiral' 'nois'. Did you mean 'noise'"),
        ("digits", {"noise": 0.1}, "Unknown option of 'digits' 'noise'"),
        ("spiral", {"noise": "much"}, "The option noise of 'spiral' must be a number; got 'much'"),
        ("spiral", {"num_examples": 10.5}, "num_examples of 'spiral' must be a whole number; got 10.5"),
        ("spiral", {"validation_share": None}, "validation_share of 'spiral' must be a number; got None"),
        ("digits", {"task": "regression"}, "task is for tables, labels of images and arrays; got 'digits'"),
        ("digits", {"task": "classify"}, "Unknown task 'classify'. Did you mean 'classification'"),
        ("circle", {"target": "x"}, "target is for tables"),
    ],
)
def test_an_option_that_the_data_has_not_is_refused(source: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_data(source, **options)  # type: ignore[arg-type]


def test_numbers_beside_images_are_values_to_predict(faces: Path) -> None:
    for source in (faces, faces / "labels.csv"):
        data = load_data(source)
        assert data.train.is_regression
        assert (len(data.train), len(data.validation), len(data.test)) == (32, 4, 4)
        assert {round(value, 1) for value in data.train.labels.tolist()} <= {2 + index / 2 for index in range(40)}
        assert any(
            note.startswith("Regression, as the target has 40 different numbers, not all") for note in data.notes
        )
        assert "Values to predict from" in " ".join(data.notes)


def test_each_value_stays_with_its_image(faces: Path) -> None:
    train = load_data(faces).train
    for path, age in zip(train.inputs.paths, train.labels.tolist(), strict=True):  # type: ignore[union-attr]
        assert age == pytest.approx(2 + int(path.stem) / 2)


def test_few_whole_numbers_beside_images_stay_classes_unless_values_are_asked_for(faces: Path) -> None:
    lines = [f"{index}.png,{index % 3}" for index in range(40)]
    (faces / "labels.csv").write_text("\n".join(["filename,label", *lines]))
    assert load_data(faces).class_names == ("0", "1", "2")
    asked = load_data(faces, task="regression")
    assert asked.train.is_regression
    assert asked.task == "regression"
    (faces / "labels.csv").write_text("filename,label\n0.png,a\n1.png,a\n")
    with pytest.raises(UsageError, match="Expected numbers as labels in .* for regression; got 'a'"):
        load_data(faces, task="regression")


def test_a_column_of_labels_is_named_by_target(faces: Path) -> None:
    lines = [f"{index}.png,{'ab'[index % 2]},{index / 3}" for index in range(40)]
    (faces / "labels.csv").write_text("\n".join(["filename,label,height", *lines]))
    assert load_data(faces).class_names == ("a", "b")
    data = load_data(faces, target="height")
    assert data.train.is_regression
    assert data.target == "height"
    with pytest.raises(UsageError, match="Expected a CSV with a column 'hight' for the images"):
        load_data(faces, target="hight")


def test_a_label_that_is_no_number_among_values_is_set_aside(faces: Path) -> None:
    text = (faces / "labels.csv").read_text().replace("7.png,5.5", "7.png,old")
    (faces / "labels.csv").write_text(text)
    data = load_data(faces)
    assert [(item.source, item.reason) for item in data.set_aside] == [("7.png", "expected a number, got 'old'")]
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 39


def test_folders_that_are_classes_are_not_relabelled_by_a_table_beside_them(faces: Path) -> None:
    for index in range(40):
        folder = faces / "ab"[index % 2]
        folder.mkdir(exist_ok=True)
        (faces / f"{index}.png").rename(folder / f"{index}.png")
    assert load_data(faces).class_names == ("a", "b")


def test_a_table_with_a_column_of_paths_is_a_table_where_they_are_no_images(tmp_path: Path) -> None:
    rows = [f"{'ab'[index % 2]},{index * 1.5}" for index in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["path,y", *rows]))
    assert load_data(tmp_path / "t.csv").train.input_shape == (2,)


def test_labels_of_arrays_are_classes_or_values_as_asked(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((30, 2), np.float32), y=np.arange(30) % 3)
    assert load_data(tmp_path / "a.npz").class_names == ("0", "1", "2")
    assert load_data(tmp_path / "a.npz", task="regression").train.is_regression
    np.savez(tmp_path / "b.npz", x=np.ones((30, 2), np.float32), y=(np.arange(30) % 3).astype(np.float32))
    assert load_data(tmp_path / "b.npz", task="classification").class_names == ("0", "1", "2")
    np.savez(tmp_path / "c.npz", x=np.ones((30, 2), np.float32), y=np.arange(30) / 4)
    with pytest.raises(UsageError, match="whole numbers for classification"):
        load_data(tmp_path / "c.npz", task="classification")
