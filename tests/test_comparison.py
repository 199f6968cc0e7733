from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

import glassnet as gn
from glassnet import UsageError
from glassnet.comparison import ORDERS, compare, run_key
from glassnet.data.examples import Dataset
from glassnet.runs import Run
from glassnet.training.history import EpochRow, History

ROW = {
    "step": 10,
    "num_examples": 100,
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "validation_accuracy": 0.5,
}


def write_run(
    path: Path,
    losses: tuple[float, ...] = (1.0, 0.5),
    *,
    test_accuracy: float | None = 0.5,
    epoch_s: float = 1.0,
    names: tuple[str, ...] = ("a", "b"),
    **changes: object,
) -> Path:
    """Write the text files of a run by hand; `changes` are entries such as `training__seed=3`."""
    record: dict[str, dict[str, object]] = {
        "glassnet": {"version": "0.1.0", "created": str(path), "device": "cpu"},
        "data": {"name": "squares", "seed": 0, "validation_share": 0.1, "fingerprint": "f" * 64, "root": str(path)},
        "model": {"name": "mlp", "options": {"num_classes": 2}, "seed": 0},
        "training": {"epochs": 2, "learning_rate": 0.1, "seed": 0, "loss": "cross-entropy"},
    }
    if test_accuracy is not None:
        record["result"] = {"best_epoch": 1, "num_epochs": 2, "stop_reason": "", "test_accuracy": test_accuracy}
    for name, value in changes.items():
        section, _, entry = name.partition("__")
        record[section][entry] = value
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(record))
    values = {"epoch_s": epoch_s, "images_per_s": 100 / epoch_s, "learning_rate": record["training"]["learning_rate"]}
    rows = [EpochRow(epoch=epoch, validation_loss=loss, **ROW, **values) for epoch, loss in enumerate(losses, 1)]  # type: ignore[arg-type]
    if rows:
        (path / "metrics.csv").write_text(History(tuple(rows)).to_csv())
    kind = {"kind": "numbers", "class_names": list(names), "input_shape": [2], "mean": [0.0, 0.0], "std": [1.0, 1.0]}
    (path / "preprocessing.json").write_text(json.dumps(kind))
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """The course's exercise: one network at three learning rates."""
    runs = {"high": (0.1, (1.0, 0.9)), "middle": (0.01, (0.4, 0.2)), "low": (0.001, (0.9, 0.6))}
    return [
        write_run(tmp_path / name, losses, training__learning_rate=rate, test_accuracy=1 - losses[-1])
        for name, (rate, losses) in runs.items()
    ]


def test_only_what_differs_is_named_and_the_lowest_hold_out_loss_is_best(three: list[Path]) -> None:
    comparison = gn.compare(three)
    assert [(d.field, d.values) for d in comparison.differences] == [("learning_rate", (0.1, 0.01, 0.001))]
    assert comparison.warnings == ()
    assert comparison.best == 1
    figures = comparison.to_dict()["runs"][1]  # type: ignore[index]
    assert figures == {
        "key": "B",
        "run": str(three[1]),
        "is_finished": True,
        "num_epochs": 2,
        "best_epoch": 2,
        "validation_loss": 0.2,
        "validation_accuracy": 0.5,
        "test_accuracy": 0.8,
        "test_loss": None,
        "test_rmse": None,
        "test_r2": None,
        "time_s": 2.0,
        "images_per_s": 100.0,
    }


def test_a_run_that_keeps_its_last_weights_is_compared_by_its_last_epoch(tmp_path: Path) -> None:
    best = write_run(tmp_path / "best", (0.2, 0.4), training__keep="best")
    last = write_run(tmp_path / "last", (0.1, 0.3), training__keep="last")
    comparison = gn.compare([best, last])
    assert [(run.best.epoch, run.best.validation_loss) for run in comparison.runs if run.best] == [(1, 0.2), (2, 0.3)]
    assert comparison.best == 0


def test_an_option_that_one_run_names_and_another_leaves_at_its_usual_value_is_no_difference(tmp_path: Path) -> None:
    named = {"num_classes": 10, "input_shape": [1, 32, 32], "pooling": "average"}
    one = write_run(tmp_path / "one", model__name="lenet5", model__options=named)
    two = write_run(tmp_path / "two", model__name="lenet5", model__options={})
    differences = compare([one, two]).differences
    assert [(d.field, d.values) for d in differences] == [("model.pooling", ("average", "max"))]


def test_a_field_that_an_older_run_does_not_know_stands_at_its_usual_value(tmp_path: Path) -> None:
    new = write_run(tmp_path / "new", training__alternating_flip=False, training__augment="MixUp")
    old = write_run(tmp_path / "old")
    assert [(d.field, d.values) for d in compare([new, old]).differences] == [("augment", ("MixUp", ""))]


def test_trained_runs_opened_or_by_path_are_compared(small_data: Dataset, tmp_path: Path) -> None:
    runs = []
    for name in ("mlp", "softmax"):
        model = gn.build_model(name, input_shape=(1, 8, 8), num_classes=3)
        runs.append(
            gn.train(model, small_data, gn.TrainConfig(epochs=1, batch_size=20), out=tmp_path / name, progress=False)
        )
    comparison = compare([runs[0], runs[1].path])
    fields = {difference.field: difference.values for difference in comparison.differences}
    assert fields == {"model.name": ("mlp", "softmax")}
    for found, run in zip(comparison.runs, runs, strict=True):
        assert found.history == run.history
        assert found.test["test_accuracy"] == run.record["result"]["test_accuracy"]
        assert found.class_names == run.class_names
    assert repr(comparison) == "Comparison(2 runs, which differ in: model.name)"


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"data__name": "circles"}, r"The data differ \(A: squares; B: circles\)"),
        ({"data__seed": 1}, r"The splits differ \(A: seed 0, share 0.1; B: seed 1, share 0.1\)"),
        ({"data__fingerprint": "e" * 64}, r"different contents \(fingerprints A: ffffffff; B: eeeeeeee\)"),
        ({"training__loss": "hinge"}, r"The loss functions differ \(A: cross-entropy; B: hinge\)"),
        ({"names": ("a", "c")}, r"The classes differ \(A: a, b; B: a, c\)"),
    ],
)
def test_runs_whose_losses_do_not_mean_the_same_are_not_ranked(
    change: dict[str, object], warning: str, tmp_path: Path
) -> None:
    comparison = compare([write_run(tmp_path / "one"), write_run(tmp_path / "two", **change)])  # type: ignore[arg-type]
    (found,) = comparison.warnings
    assert re.search(warning, found)
    assert comparison.best is None


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"training__seed": 5}, "a part of the difference is chance"),
        ({"model__seed": 5}, "first weights 5"),
        ({"glassnet__device": "cuda"}, "times and img/s are not comparable"),
    ],
)
def test_chance_and_other_machines_are_said_and_do_not_prevent_a_ranking(
    change: dict[str, object], warning: str, tmp_path: Path
) -> None:
    comparison = compare([write_run(tmp_path / "one"), write_run(tmp_path / "two", (0.1,), **change)])  # type: ignore[arg-type]
    assert warning in comparison.warnings[0]
    assert comparison.best == 1


def test_a_run_in_training_is_compared_as_far_as_it_is(three: list[Path], tmp_path: Path) -> None:
    going = write_run(tmp_path / "going", (0.8,), test_accuracy=None, training__learning_rate=0.5)
    begun = write_run(tmp_path / "begun", (), test_accuracy=None, training__learning_rate=0.6)
    comparison = compare([*three, going, begun], sort="test")
    assert [run.name for run in comparison.runs] == ["middle", "low", "high", "going", "begun"]
    assert comparison.warnings == (
        "D (going) is still training or was cut off: 1 of 2 epochs are done, and there is no test result.",
        "E (begun) is still training or was cut off: no epoch is over, and there is no test result.",
    )
    assert comparison.runs[4].best is None
    assert comparison.best == 0


def test_a_run_that_was_interrupted_says_so_and_a_part_of_an_epoch_is_one(three: list[Path], tmp_path: Path) -> None:
    cut = write_run(tmp_path / "cut", (0.8,), result__stop_reason="interrupted")
    half = write_run(tmp_path / "half", (0.7,), training__epochs=0.5)
    comparison = compare([*three, cut, half])
    assert comparison.warnings == ("D (cut) was interrupted after 1 of 2 epochs.",)
    assert comparison.runs[4].num_epochs == 1


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("given", ["c", "a", "b", "none"]),
        ("name", ["a", "b", "c", "none"]),
        ("loss", ["b", "c", "a", "none"]),
        ("accuracy", ["c", "a", "b", "none"]),
        ("test", ["a", "c", "b", "none"]),
        ("time", ["b", "c", "a", "none"]),
        ("speed", ["b", "c", "a", "none"]),
    ],
)
def test_runs_are_ordered_with_the_best_first_and_those_without_a_figure_last(
    sort: str, names: list[str], tmp_path: Path
) -> None:
    runs = [
        write_run(tmp_path / "c", (0.5,), test_accuracy=0.8, epoch_s=2),
        write_run(tmp_path / "a", (0.6,), test_accuracy=0.9, epoch_s=3),
        write_run(tmp_path / "b", (0.4,), test_accuracy=0.7, epoch_s=1),
        write_run(tmp_path / "none", (), test_accuracy=None),
    ]
    assert [run.name for run in compare(runs, sort=sort).runs] == names
    assert sort in ORDERS


def test_what_is_no_run_is_set_aside_by_name_and_the_others_are_compared(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    damaged = write_run(tmp_path / "damaged")
    (damaged / "metrics.csv").write_text("epoch\n1\n")
    young = write_run(tmp_path / "young")
    (young / "config.yaml").write_text("")
    broken = write_run(tmp_path / "broken")
    (broken / "config.yaml").write_text("{")
    (tmp_path / "link").symlink_to(three[0])
    others = [tmp_path / name for name in ("nothing", "file", "empty", "damaged", "young", "broken", "link")]
    comparison = compare([*three, *others])
    assert len(comparison.runs) == 3
    reasons = {Path(failure.source).name: failure.reason for failure in comparison.set_aside}
    assert list(reasons) == [path.name for path in others]
    assert reasons["nothing"].endswith("there is nothing")
    assert reasons["file"].endswith("there is a file")
    assert reasons["empty"].endswith("a folder without config.yaml")
    assert "could not read metrics.csv: Expected the columns" in reasons["damaged"]
    assert "is the run just being made" in reasons["young"]
    assert "could not read config.yaml" in reasons["broken"]
    assert reasons["link"] == "named twice"


def test_fewer_than_two_runs_are_refused_with_what_was_set_aside(three: list[Path], digits_run: Run) -> None:
    with pytest.raises(UsageError, match="at least two runs.*got none"):
        compare([])
    with pytest.raises(UsageError, match="got .*high.* Set aside: .*high: named twice"):
        compare([three[0], three[0]])
    with pytest.raises(UsageError, match="at least two runs"):
        compare(three[0])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least two runs"):
        compare(digits_run)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Expected a run or the path of a run folder; got 3"):
        compare([three[0], 3])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="Unknown order 'los'. Did you mean 'loss'"):
        compare(three, sort="los")


def test_a_folder_that_was_moved_is_compared_where_it_is(three: list[Path], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(three[0], moved)
    assert compare([three[0], moved]).differences == ()


def test_a_folders_name_cannot_move_the_terminals_cursor(tmp_path: Path) -> None:
    comparison = compare([write_run(tmp_path / "a\x1b[2Jb\nc"), write_run(tmp_path / "d")])
    assert comparison.runs[0].name == "a\ufffd[2Jb\ufffdc"


def test_runs_have_letters_as_columns_of_a_sheet_have() -> None:
    assert [run_key(index) for index in (0, 1, 25, 26, 27, 701, 702)] == ["A", "B", "Z", "AA", "AB", "ZZ", "AAA"]
