"""The run folder: what it holds, what it takes to open it, and what it refuses."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import glassnet as gn
from glassnet import UsageError, WorkError
from glassnet.data.examples import Dataset
from glassnet.run_folder import create_run
from glassnet.runs import Run, load_stored, open_run
from glassnet.training.checkpoint import save_weights


@pytest.fixture
def folder(digits_run: Run, tmp_path: Path) -> Path:
    """A copy of a run folder that a test may damage."""
    return Path(shutil.copytree(digits_run.path, tmp_path / "digits-lenet5"))


def test_the_folder_holds_what_the_design_says(digits_run: Run) -> None:
    assert {path.name for path in digits_run.path.iterdir()} == {
        "config.yaml",
        "model.safetensors",
        "last.ckpt",
        "preprocessing.json",
        "metrics.csv",
        "report.html",
    }


def test_an_opened_run_is_the_run_that_was_trained(digits_run: Run, folder: Path, digits: Dataset) -> None:
    opened = open_run(folder, device="cpu")
    assert opened.config == digits_run.config
    assert opened.preprocessing == digits_run.preprocessing
    assert opened.history == digits_run.history
    assert opened.class_names == digits.class_names
    assert torch.equal(opened.logits(digits.test)[0], digits_run.logits(digits.test)[0])
    assert not opened.model.training


def test_evaluating_without_data_uses_the_runs_own_test_split(digits_run: Run, digits: Dataset) -> None:
    assert digits_run.evaluate() == digits_run.evaluate(digits.test)
    assert digits_run.evaluate().accuracy == digits_run.record["result"]["test_accuracy"]
    assert digits_run.evaluate().num_examples == len(digits.test)


def test_the_stored_weights_are_those_of_the_best_epoch(digits_run: Run, digits: Dataset) -> None:
    held_out = digits_run.evaluate(digits.validation)
    assert held_out.loss == pytest.approx(digits_run.history.best.validation_loss, abs=1e-6)
    assert held_out.accuracy == digits_run.history.best.validation_accuracy


def test_data_with_its_classes_in_another_order_is_scored_right(digits_run: Run, digits: Dataset) -> None:
    order = tuple(reversed(digits.class_names))
    assert digits_run.evaluate(digits.test.aligned_to(order)) == digits_run.evaluate(digits.test)


def test_a_class_that_the_run_does_not_know_is_named(digits_run: Run, digits: Dataset) -> None:
    foreign = dataclasses.replace(digits.test, class_names=("zero", *digits.class_names[1:]))
    with pytest.raises(UsageError, match="Unknown class 'zero'"):
        digits_run.evaluate(foreign)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "preprocessing.json", "metrics.csv"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WorkError, match=f"incomplete: {name} is missing. Copy the whole folder"):
        open_run(folder)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "preprocessing.json", "metrics.csv"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00 nonsense", b"[1, 2", b"a: b"])
def test_a_damaged_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(WorkError, match=name):
        open_run(folder)


def test_files_of_another_run_are_refused(folder: Path, digits_run: Run) -> None:
    text = (folder / "preprocessing.json").read_text().replace('    "9"\n', '    "9",\n    "ten"\n')
    (folder / "preprocessing.json").write_text(text)
    with pytest.raises(
        WorkError,
        match=r"preprocessing.json and the model do not belong together: The data has 11 classes, and the model has 10",
    ):
        open_run(folder)


def test_a_config_that_asks_for_another_model_is_refused(folder: Path) -> None:
    record = yaml.safe_load((folder / "config.yaml").read_text())
    for section, message in (
        ({"name": "mlp", "options": {"input_shape": [1, 32, 32]}}, "are not those of this model"),
        ({"name": "mlp", "options": {}}, r"makes inputs of \(1, 32, 32\), and the model takes \(1, 28, 28\)"),
        ({"name": "lenet5", "optons": {}}, "section model"),
        ({"name": "lenet6", "options": {}}, "config.yaml: section model: Unknown model 'lenet6'"),
        ({"name": "lenet5", "options": {"num_classes": 11}}, r"'output.bias' must be \(11,\)|'output.weight'"),
        ({"name": "lenet5", "options": {"depth": 3}}, "Unknown option"),
    ):
        (folder / "config.yaml").write_text(yaml.safe_dump({**record, "model": section}))
        with pytest.raises(WorkError, match=message):
            open_run(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump({**record, "training": {"epoch": 1}}))
    with pytest.raises(WorkError, match="section training: Unknown config field 'epoch'"):
        open_run(folder)


def test_nothing_in_the_folder_is_executed(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    (folder / "config.yaml").write_text(f"!!python/object/apply:os.system ['touch {mark}']")
    with pytest.raises(WorkError, match="config.yaml: expected YAML"):
        open_run(folder)
    (folder / "model.py").write_text(f"open({str(mark)!r}, 'w')")
    assert not mark.exists()


def test_a_path_that_is_no_run_says_what_is_there_and_what_is_near(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"there is nothing. Near it: .*digits-lenet5"):
        open_run(folder.parent / "digits-lenet")
    with pytest.raises(UsageError, match="there is a file"):
        open_run(folder / "config.yaml")
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="is not a run folder: it has none of"):
        open_run(folder / "empty")


def test_data_that_has_changed_since_is_refused(folder: Path) -> None:
    record = yaml.safe_load((folder / "config.yaml").read_text())
    record["data"]["fingerprint"] = "0" * 64
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(WorkError, match="The data 'digits' is not what this run was trained on"):
        open_run(folder).evaluate()


def test_a_taken_name_gets_a_number_and_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = create_run(None, "a-b").path
    (first / "config.yaml").write_text("mine")
    second = create_run(None, "a-b").path
    (second / "x").write_text("")
    third = create_run("runs/a-b", "ignored").path
    assert [str(path) for path in (first, second, third)] == ["runs/a-b", "runs/a-b-2", "runs/a-b-3"]
    assert (first / "config.yaml").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match=r"Could not make the run folder .*file/run: .*--out"):
        create_run(tmp_path / "file" / "run", "x")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(WorkError, match="Permission denied"):
            create_run(tmp_path / "closed" / "run", "x")


class OwnNetwork(nn.Module):
    """A user's network: any code in `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3)
        self.output = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.output(torch.relu(self.convolution(images)).amax((2, 3)))


def test_a_users_own_module_trains_and_its_run_opens_with_an_instance(small_data: Dataset, tmp_path: Path) -> None:
    config = gn.TrainConfig(epochs=2, batch_size=16)
    run = gn.train(OwnNetwork(), small_data, config, out=tmp_path / "own", progress=False)
    assert (tmp_path / "own" / "model.py").read_text() == Path(__file__).read_text()
    with pytest.raises(UsageError, match=r"class OwnNetwork, which is not glassnet's; its source is in .*model.py"):
        gn.open_run(tmp_path / "own")
    again = gn.open_run(tmp_path / "own", model=OwnNetwork())
    assert torch.equal(again.logits(small_data.test)[0], run.logits(small_data.test)[0])
    with pytest.raises(UsageError, match=r"data given in Python \('squares'\).*run.evaluate\(data.test\)"):
        again.evaluate()
    assert again.evaluate(small_data.test).num_examples == 15


def test_two_processes_never_share_a_folder_and_a_users_empty_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    first, second = (create_run(tmp_path / "mine", "x") for _ in range(2))
    assert (first.path.name, second.path.name) == ("mine", "mine-2")
    first.discard()
    second.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_place_given_as_a_dot_is_a_folder_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert create_run(".", "x").path.resolve() == tmp_path / "here"
    assert create_run(".", "x").path.resolve() == tmp_path / "here-2"


def test_weights_of_a_later_epoch_than_the_metrics_say_so(digits_run: Run, folder: Path) -> None:
    weights = digits_run.model.state_dict()
    save_weights(folder / "model.safetensors", weights, 2)
    assert open_run(folder).epoch == 2
    assert digits_run.epoch == digits_run.history.best.epoch


def test_the_record_says_seed_and_published_weights(small_data: Dataset, tmp_path: Path) -> None:
    torch.save(gn.build_model("softmax", num_classes=3, input_shape=(1, 8, 8)).state_dict(), tmp_path / "w.pth")
    model = gn.build_model("softmax", num_classes=3, input_shape=(1, 8, 8), seed=7)
    gn.load_weights(model, tmp_path / "w.pth")
    config = gn.TrainConfig(epochs=1, batch_size=16)
    run = gn.train(model, small_data, config, out=tmp_path / "run", progress=False)
    stored = gn.open_run(run.path).record["model"]
    assert stored["seed"] == 7
    assert stored["weights"]["path"] == str(tmp_path / "w.pth")
    assert len(stored["weights"]["sha256"]) == 64


def test_what_the_network_is_given_is_prepared_as_for_prediction(digits_run: Run, tmp_path: Path) -> None:
    pixels = digits_run.load_data().test.inputs[:2]
    prepared = digits_run.prepare(pixels)
    assert prepared.shape == (2, *digits_run.preprocessing.input_shape)
    with torch.no_grad():
        outputs = digits_run.model(prepared)
    assert [answer.class_name for answer in digits_run.predict(pixels)] == [
        digits_run.class_names[index] for index in outputs.argmax(1).tolist()
    ]
    (tmp_path / "broken.png").write_text("no image")
    Image.fromarray(pixels[0, 0].numpy()).save(tmp_path / "whole.png")
    with pytest.raises(WorkError, match=r"1 cannot, such as .*broken\.png.*Leave them out"):
        digits_run.prepare([tmp_path / "whole.png", tmp_path / "broken.png"])


def test_a_run_answers_in_other_number_formats_and_compiled_as_it_does_in_its_own(
    digits_run: Run, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    compile_ = torch.compile

    def counted(model: nn.Module, options: dict[str, bool] | None = None) -> object:
        calls.append(bool(options and options["freezing"]))
        return compile_(model, backend="eager")  # what writes and compiles C++ takes half a minute and is torch's own

    monkeypatch.setattr(torch, "compile", counted)
    plain, _ = open_run(digits_run.path).outputs(digits.test)
    half, _ = open_run(digits_run.path, precision="bf16").outputs(digits.test)
    compiled, _ = open_run(digits_run.path, compile=True).outputs(digits.test)
    assert calls == [True]
    torch.testing.assert_close(half, plain, rtol=0.05, atol=0.05)
    assert not torch.equal(half, plain)
    torch.testing.assert_close(compiled, plain)
    assert open_run(digits_run.path).evaluate(digits.test) == open_run(digits_run.path, compile=True).evaluate(
        digits.test
    )
    with pytest.raises(UsageError, match=r"precision 'fp8'.*fp32"):
        open_run(digits_run.path, precision="fp8")


def test_data_that_lie_elsewhere_are_not_fetched_where_that_is_not_wanted(digits_run: Run) -> None:
    record = {**digits_run.record, "data": {**digits_run.record["data"], "source": "hf:owner/name"}}
    with pytest.raises(WorkError, match="'hf:owner/name' lies on another machine"):
        load_stored(record, download=False)
    assert len(digits_run.load_data(download=False).test) == len(digits_run.load_data().test)
