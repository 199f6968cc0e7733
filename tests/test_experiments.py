"""One whole experiment through `gn.train`: what it refuses before any work, what it leaves behind."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.training.fit import Progress, SilentObserver
from glassnet.training.history import EpochRow
from glassnet.training.step import NonFiniteLossError

QUICK = gn.TrainConfig(epochs=2, batch_size=16, precision="fp32")


def network(num_classes: int = 3) -> nn.Module:
    return gn.build_model("softmax", num_classes=num_classes, input_shape=(1, 8, 8))


def test_the_same_arguments_give_the_same_run_bit_for_bit(small_data: Dataset, tmp_path: Path) -> None:
    paths = [gn.train(network(), small_data, QUICK, out=tmp_path / n, progress=n == "a").path for n in ("a", "b")]
    first, second = ((path / "model.safetensors").read_bytes() for path in paths)
    assert first == second
    timeless = [[dataclasses.replace(row, images_per_s=0, epoch_s=0) for row in gn.open_run(p).history] for p in paths]
    assert timeless[0] == timeless[1]


def test_the_config_file_says_everything_to_repeat_the_run(small_data: Dataset, tmp_path: Path) -> None:
    run = gn.train(network(), small_data, QUICK, out=tmp_path / "run", progress=False)
    record = yaml.safe_load((run.path / "config.yaml").read_text())
    assert gn.TrainConfig.from_dict(record["training"]) == run.config == QUICK.resolved()
    assert record["model"] == {"name": "softmax", "options": {"num_classes": 3, "input_shape": [1, 8, 8]}}
    assert record["data"]["fingerprint"] == small_data.fingerprint()
    assert record["glassnet"]["torch"] == torch.__version__
    assert record["glassnet"]["version"] == gn.__version__
    assert record["result"]["test_accuracy"] == run.evaluate(small_data.test).accuracy


def test_the_model_given_ends_with_the_best_weights(small_data: Dataset, tmp_path: Path) -> None:
    model = network()
    run = gn.train(model, small_data, QUICK, out=tmp_path / "run", progress=False)
    assert run.model is model
    assert run.evaluate(small_data.validation).loss == pytest.approx(run.history.best.validation_loss, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        ("lenet5", QUICK, "Expected a model .*got str. gn.build_model makes one"),
        (network(4), QUICK, "The data has 3 classes, and the model has 4 outputs. Build it with num_classes=3"),
        (
            gn.build_model("softmax", num_classes=3, input_shape=(3, 8, 8)),
            QUICK,
            r"built for inputs of \(3, 8, 8\).*Build it with input_shape=\(1, 8, 8\)",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(63, 3)), QUICK, "does not take images of 1x8x8"),
        (nn.Sequential(nn.Conv2d(1, 3, 3)), QUICK, r"one input this gave \(1, 3, 6, 6\)"),
        (network(), gn.TrainConfig(batch_size=61), "at most the 60 training examples; got 61"),
        (network(), gn.TrainConfig(device="cuda:7", batch_size=16), "Device 'cuda:7' was asked for"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3).requires_grad_(False)), QUICK, "nothing to train"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(
    model: nn.Module, config: gn.TrainConfig, message: str, small_data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        gn.train(model, small_data, config, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_split_alone_is_no_data_set(small_data: Dataset) -> None:
    with pytest.raises(UsageError, match="Expected a data set from gn.load_data, with its splits; got ExampleSet"):
        gn.train(network(), small_data.train)  # type: ignore[arg-type]


def test_a_run_that_fails_before_its_first_epoch_leaves_nothing_behind(small_data: Dataset, tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="epoch 1 at step 0"):
        gn.train(model, small_data, QUICK, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_a_run_that_opens(small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupter(SilentObserver):
        def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        def progressed(self, progress: Progress) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("glassnet.experiments.make_observer", lambda is_wanted: Interrupter())
    config = dataclasses.replace(QUICK, epochs=1000)
    run = gn.train(network(), small_data, config, out=tmp_path / "run")
    assert run.record["result"]["stop_reason"] == "interrupted"
    opened = gn.open_run(run.path)
    assert len(opened.history) == opened.record["result"]["num_epochs"] < 1000
    assert opened.report_path.exists()


def test_without_a_test_split_there_is_a_run_and_a_report_without_figures(small_data: Dataset, tmp_path: Path) -> None:
    data = dataclasses.replace(small_data, test=small_data.test[:0])
    run = gn.train(network(), data, QUICK, out=tmp_path / "run", progress=False)
    assert "test_accuracy" not in run.record["result"]
    assert run.report_path.exists()


def test_digits_reach_98_percent_with_the_recipe(digits: Dataset, tmp_path: Path) -> None:
    """The promise of `make demo`, at the default seed."""
    run = gn.train(gn.build_model("lenet5"), digits, out=tmp_path / "run", progress=False)
    assert run.evaluate().accuracy >= 0.98


def test_mnist_reaches_99_percent_with_the_defaults(data_root: Path, tmp_path: Path) -> None:
    data = gn.load_data("mnist", root=data_root)
    run = gn.train(gn.build_model("lenet5"), data, out=tmp_path / "run", progress=False)
    assert run.evaluate().accuracy >= 0.99
