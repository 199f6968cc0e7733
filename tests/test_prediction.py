"""From a file to a run to a prediction: what training learned of a table or of arrays holds for ever after."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import glassnet as gn
from glassnet import UsageError, WorkError, cli
from glassnet.evaluation.value_prediction import ValuePredictions
from glassnet.runs import Run

CONFIG = gn.TrainConfig(epochs=2, batch_size=8, seed=0, precision="fp32", device="cpu")
HEADER = ("size", "colour", "site", "weight")


def call_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path
) -> tuple[int, str, str]:
    """Run a command in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["glassnet", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def table_rows(target: str) -> list[dict[str, str]]:
    chance = np.random.default_rng(0)
    rows = []
    for index in range(60):
        size, colour = chance.normal(), ("red", "white", "")[index % 3]
        shown = "" if index % 10 == 4 else f"{size:.3f}"
        answer = {"value": f"{3 * size + 1:.4f}", "class": "big" if size > 0 else "small"}[target]
        rows.append(
            {"size": shown, "colour": colour, "site": "ab"[index % 2], "weight": str(index / 7), "answer": answer}
        )
    return rows


def write_table(path: Path, rows: Sequence[dict[str, str]], columns: Sequence[str]) -> Path:
    path.write_text("\n".join([",".join(columns), *(",".join(row[name] for name in columns) for row in rows)]))
    return path


def train_on(source: Path, name: str, out: Path, **options: object) -> Run:
    data = gn.load_data(source, **options)  # type: ignore[arg-type]
    shape = data.train.input_shape
    model = gn.build_model(name, num_classes=data.train.num_outputs, input_shape=shape)
    return gn.train(model, data, CONFIG, out=out, progress=False)


@pytest.fixture(scope="module", params=["value", "class"])
def table_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp(request.param)
    path = write_table(folder / "t.csv", table_rows(request.param), (*HEADER, "answer"))
    return train_on(path, "mlp", folder / "run")


def rows_of_test_split(run: Run) -> list[dict[str, str]]:
    """The rows of the file that make the test split, found by their encoding."""
    rows = table_rows("value" if not run.class_names else "class")
    encoding = run.preprocessing.encoding  # type: ignore[union-attr]
    assert encoding is not None
    inputs = encoding.encode(rows)[0]
    wanted = run.load_data().test.inputs
    assert isinstance(wanted, torch.Tensor)
    return [rows[int((inputs == row).all(1).nonzero()[0])] for row in wanted]


PREDICT = """
import json, sys
import glassnet as gn
run = gn.open_run(sys.argv[1], device="cpu")
for path in sys.argv[2:]:
    answers = run.predict(path, top_k=2)
    print(json.dumps([row.values if hasattr(row, "values") else row.top for row in answers]))
"""


def test_a_fresh_process_predicts_the_rows_of_the_table_bit_for_bit(table_run: Run, tmp_path: Path) -> None:
    rows = rows_of_test_split(table_run)
    same = write_table(tmp_path / "same.csv", rows, HEADER)
    other = write_table(tmp_path / "other.csv", rows, ("answer", *reversed(HEADER)))
    words = [sys.executable, "-c", PREDICT, str(table_run.path), str(same), str(other)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found, in_other_order = (json.loads(line) for line in done.stdout.splitlines())
    outputs, _ = table_run.outputs(table_run.load_data().test)
    if table_run.class_names:
        shares, classes = table_run.objective.logits(outputs).softmax(1).topk(2, dim=1)
        expected: object = [
            [[table_run.class_names[label], share] for label, share in zip(labels, row, strict=True)]
            for labels, row in zip(classes.tolist(), shares.tolist(), strict=True)
        ]
    else:
        expected = outputs.tolist()
    assert found == expected
    assert in_other_order == expected


def test_every_row_of_the_table_has_the_inputs_of_training(table_run: Run) -> None:
    data = table_run.load_data()
    encoding = gn.open_run(table_run.path).preprocessing.encoding  # type: ignore[union-attr]
    assert encoding is not None
    inputs, set_aside = encoding.encode(table_rows("value"))
    splits = torch.cat([data.train.inputs, data.validation.inputs, data.test.inputs])  # type: ignore[list-item]
    assert sorted(inputs.tolist()) == sorted(splits.tolist())
    assert set_aside == ()
    assert encoding.target == "answer"


def test_rows_in_python_and_arrays_are_answered_alike(table_run: Run, tmp_path: Path) -> None:
    rows = rows_of_test_split(table_run)
    from_file = table_run.predict(write_table(tmp_path / "t.csv", rows, HEADER))
    from_rows = table_run.predict(rows)
    from_array = table_run.predict(table_run.load_data().test.inputs)  # type: ignore[arg-type]

    def answers(found: object) -> list[object]:
        return [getattr(row, "values", None) or row.top for row in found]  # type: ignore[attr-defined]

    assert answers(from_file) == answers(from_rows) == answers(from_array)
    assert [row.source for row in from_rows] == [f"row {index}" for index in range(len(rows))]
    assert len(table_run.predict(rows[0])) == 1


def test_unknown_categories_are_told_and_bad_rows_set_aside(table_run: Run) -> None:
    found = table_run.predict(
        [
            {"size": 1, "colour": "mauve", "site": "a", "weight": 2},
            {"size": "x", "colour": "red", "site": "a", "weight": 2},
            {"size": 1, "colour": "red", "site": "a"},
        ]
    )
    assert len(found) == 1
    assert found.notes == ("column 'colour': categories that no training row has become zeros: 'mauve' (1)",)
    assert [(item.source, item.reason) for item in found.set_aside] == [
        ("row 1", "column 'size': expected a number, got 'x'"),
        ("row 2", "expected a cell for column 'weight'; the row has none"),
    ]


def test_a_file_among_several_that_cannot_be_used_is_set_aside(table_run: Run, tmp_path: Path) -> None:
    good = write_table(tmp_path / "good.csv", table_rows("value")[:3], HEADER)
    bad = write_table(tmp_path / "bad.csv", table_rows("value")[:3], HEADER[:3])
    found = table_run.predict([good, bad, tmp_path / "absent.csv", tmp_path / "photo.jpg"])
    assert len(found) == 3
    assert [Path(item.source).name for item in found.set_aside] == ["bad.csv", "absent.csv", "photo.jpg"]
    assert found.set_aside[0].reason.startswith("Expected the column 'weight'")
    with pytest.raises(UsageError, match="Expected the column 'weight'"):
        table_run.predict(bad)


def test_another_table_is_judged_by_the_runs_own_encoding(table_run: Run, tmp_path: Path) -> None:
    target = "class" if table_run.class_names else "value"
    rows = table_rows(target)[:20]
    for row in rows:
        row["weight"] = str(1000 + float(row["weight"]))  # another median, if one were taken
        row["colour"] = "red"
    other = write_table(tmp_path / "other.csv", rows, ("answer", "site", "weight", "size", "colour"))
    data = table_run.load_other(other)
    assert len(data.test) == 20
    encoding = table_run.preprocessing.encoding  # type: ignore[union-attr]
    assert encoding is not None
    assert torch.equal(data.test.inputs, encoding.encode(rows)[0])  # type: ignore[arg-type]
    assert table_run.evaluate(data.test).num_examples == 20
    with pytest.raises(UsageError, match="Expected the column 'colour'"):
        table_run.load_other(write_table(tmp_path / "bad.csv", rows, ("answer", "site", "weight", "size")))


def test_the_runs_own_table_is_judged_on_its_own_test_split(table_run: Run) -> None:
    path = table_run.record["data"]["source"]
    assert table_run.load_other(path).fingerprint() == table_run.load_data().fingerprint()


def test_a_run_from_before_encodings_opens_and_says_what_it_lacks(table_run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(table_run.path, tmp_path / "old"))
    values = json.loads((folder / "preprocessing.json").read_text())
    del values["encoding"]
    (folder / "preprocessing.json").write_text(json.dumps(values))
    record = yaml.safe_load((folder / "config.yaml").read_text())
    del record["data"]["options"], record["data"]["task"]
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    old = gn.open_run(folder)
    assert old.evaluate() == table_run.evaluate()
    with pytest.raises(UsageError, match="no encoding of one is stored with the run.*train again on the table"):
        old.predict("new.csv")


@pytest.fixture(scope="module")
def series_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("series")
    x = np.random.default_rng(0).random((40, 1, 30), np.float32)
    np.savez(folder / "s.npz", x=x, y=np.arange(40) % 2)
    return train_on(folder / "s.npz", "cnn1d", folder / "run")


def test_a_file_of_arrays_is_predicted_as_its_inputs_are(series_run: Run, tmp_path: Path) -> None:
    test = series_run.load_data().test
    np.save(tmp_path / "new.npy", test.inputs.numpy())  # type: ignore[union-attr]
    found = series_run.predict(tmp_path / "new.npy", top_k=1)
    shares, classes = series_run.logits(test)[0].softmax(1).max(1)
    assert [row.probability for row in found] == shares.tolist()  # type: ignore[union-attr]
    assert [row.class_name for row in found] == [series_run.class_names[label] for label in classes]  # type: ignore[union-attr]


def test_arrays_of_another_shape_and_rows_that_are_not_finite_are_named(series_run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.ones((4, 1, 29), np.float32))
    with pytest.raises(UsageError, match=r"short\.npy: Expected inputs of shape \(N, 1, 30\).*got \(4, 1, 29\). Bring"):
        series_run.predict(tmp_path / "short.npy")
    values = np.ones((3, 1, 30))
    values[1, 0, 5] = np.nan
    np.save(tmp_path / "gap.npy", values)
    for given, name in ((tmp_path / "gap.npy", f"{tmp_path / 'gap.npy'}[1]"), (values, "image 1")):
        found = series_run.predict(given)
        assert len(found) == 2
        assert [item.source for item in found.set_aside] == [name]
    with pytest.raises(WorkError, match="no such file"):
        series_run.predict(tmp_path / "absent.npz")


def test_arrays_of_images_are_predicted_from_a_file_beside_images(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8))
    levels[::2] //= 4
    np.savez(tmp_path / "i.npz", x=levels.astype(np.float32) / 255, y=np.arange(40) % 2)
    run = train_on(tmp_path / "i.npz", "softmax", tmp_path / "run")
    assert run.preprocessing.array_scale == 255  # type: ignore[union-attr]
    Image.fromarray(levels[0, 0].astype(np.uint8)).save(tmp_path / "0.png")
    np.save(tmp_path / "new.npy", levels[:2].astype(np.float32) / np.float32(255))
    found = run.predict([tmp_path / "0.png", tmp_path / "new.npy"])
    assert len(found) == 3
    assert found[0].top == found[1].top


def test_values_beside_images_are_learned_and_predicted(tmp_path: Path) -> None:
    lines = ["filename,age"]
    for index in range(40):
        Image.fromarray(np.full((12, 12), 5 * index, np.uint8)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{index / 10}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = gn.load_data(tmp_path)
    model = gn.build_model("cnn2d", num_classes=1, input_shape=(1, 12, 12))
    run = gn.train(model, data, CONFIG, out=tmp_path / "run", progress=False)
    assert run.evaluate().num_examples == 4
    found = run.predict([tmp_path / "0.png", tmp_path / "39.png", tmp_path / "labels.jpg"])
    assert isinstance(found, ValuePredictions)
    assert [len(row.values) for row in found] == [1, 1]
    assert found[0].values != found[1].values
    assert len(found.set_aside) == 1


def test_what_was_passed_to_load_data_is_loaded_again(tmp_path: Path) -> None:
    data = gn.load_data("spiral", noise=0.3, num_examples=60, test_share=0.4, validation_share=0.2, seed=5)
    model = gn.build_model("mlp", num_classes=2, input_shape=(2,))
    run = gn.open_run(gn.train(model, data, CONFIG, out=tmp_path / "toy", progress=False).path)
    assert run.load_data().fingerprint() == data.fingerprint()
    path = write_table(tmp_path / "t.csv", table_rows("class"), (*HEADER, "answer"))
    run = train_on(path, "mlp", tmp_path / "table", test_share=0.4, target="site", task="classification")
    assert run.load_data().test.num_classes == 2
    assert len(run.load_data().test) == 24
    assert gn.open_run(run.path).record["data"]["options"] == {"test_share": 0.4}


def test_the_command_line_predicts_and_judges_tables(
    table_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def glassnet(*words: str | Path) -> tuple[int, str, str]:
        return call_here(monkeypatch, capsys, *words)

    rows = table_rows("class" if table_run.class_names else "value")[:4]
    rows[1]["size"] = "x"
    rows[2]["colour"] = "mauve"
    path = write_table(tmp_path / "new.csv", rows, (*HEADER, "answer"))
    code, out, err = glassnet("predict", table_run.path, path)
    assert code == 1
    assert len(out.splitlines()) == 4
    assert ("class" if table_run.class_names else "answer") in out.splitlines()[0]
    assert "line 3: column 'size': expected a number, got 'x'" in err
    assert "'mauve' (1)" in err
    code, out, _ = glassnet("predict", table_run.path, path, "--json")
    found = json.loads(out)
    assert [Path(row["source"]).name for row in found["predictions"]] == [f"new.csv, line {line}" for line in (2, 4, 5)]
    assert len(found["set_aside"]) == len(found["notes"]) == 1
    code, out, err = glassnet("evaluate", table_run.path, "--data", path, "--json")
    assert (code, json.loads(out)["num_examples"]) == (0, 3)
    assert "Set aside: line 3" in err
    code, _, err = glassnet("evaluate", table_run.path, "--data", write_table(tmp_path / "b.csv", rows, HEADER))
    assert (code, "Expected the column 'answer'" in err) == (2, True)


def test_the_next_step_that_training_names_fits_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_table(tmp_path / "t.csv", table_rows("class"), (*HEADER, "answer"))
    for source, options, expected in (
        (path, ("--task", "classification", "--set", "data.test_share=0.5"), "new.csv"),
        ("circle", ("--set", "data.num_examples=50", "--set", "data.noise=0.1"), "new.npz"),
        ("digits", ("--model", "softmax"), "IMAGE..."),
    ):
        words = ("train", source, "--epochs", "1", "--quiet", "--out", tmp_path / "run", *options)
        code, out, err = call_here(monkeypatch, capsys, *words)
        assert code == 0, err
        assert out.splitlines()[-1].startswith("Next ")
        assert out.splitlines()[-1].endswith(expected)
    record = yaml.safe_load((tmp_path / "run-2" / "config.yaml").read_text())["data"]
    assert record["options"] == {"num_examples": 50, "noise": 0.1}
    for words, told in (
        (("train", "circle", "--set", "data.nois=1"), "Unknown option of 'circle' 'nois'"),
        (("train", "circle", "--set", "data.seed=1"), "--set data.seed is said by --seed"),
        (("train", "circle", "--set", "data.record=1"), "--set data.record is no option of data"),
        (("data", "circle", "--set", "epochs=1"), "--set takes data.OPTION=VALUE here"),
        (("data", "circle", "--set", "data.noise=9"), "must lie in 0.."),
    ):
        code, _, err = call_here(monkeypatch, capsys, *words)
        assert (code, told in err) == (2, True), err
