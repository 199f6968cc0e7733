from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.data.loader import to_device
from glassnet.data.records import make_record
from glassnet.experiments import resume
from glassnet.training.fit import fit
from glassnet.training.history import EpochRow, History
from glassnet.training.observer import FitPlan, SilentObserver
from glassnet.views.tensorboard import SCALARS, TensorBoardObserver

CPU = torch.device("cpu")
PLAN = FitPlan(num_epochs=4, num_steps=4, num_train=1, num_validation=0, device=CPU, precision="fp32")


def trained(data: Dataset, observer: TensorBoardObserver) -> History:
    model = gn.build_model("softmax", input_shape=(1, 8, 8), num_classes=3)
    record = make_record(data.train, (8, 8), data.framing)
    splits = [to_device(split, record, CPU) for split in (data.train, data.validation)]
    return fit(model, *splits, record, gn.TrainConfig(epochs=3, batch_size=20), observer=observer).history


def read(folder: Path):  # type: ignore[no-untyped-def]
    """Return TensorBoard's own reader of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_every_epochs_figures_read_back_as_the_history_has_them(small_data: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    history = trained(small_data, TensorBoardObserver(tmp_path / "tensorboard"))
    events = read(tmp_path / "tensorboard")
    assert set(events.Tags()["scalars"]) == set(SCALARS)
    for tag, name in SCALARS.items():
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        assert [scalar.value for scalar in scalars] == pytest.approx([asdict(row)[name] for row in history])


def test_what_is_no_number_is_left_out(small_data: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    nothing = small_data.validation[:0]
    data = Dataset("squares", small_data.train, nothing, small_data.test, seed=0)
    trained(data, TensorBoardObserver(tmp_path))
    assert "loss/train" in read(tmp_path).Tags()["scalars"]
    assert not {"loss/validation", "accuracy/validation"} & set(read(tmp_path).Tags()["scalars"])


def test_the_result_is_written_with_the_hyperparameters(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    record = {
        "model": {"name": None, "class": "Net"},
        "data": {"name": "digits"},
        "training": gn.TrainConfig(epochs=2).to_dict(),
        "result": {
            "best_epoch": 1,
            "num_epochs": 2,
            "test_accuracy": 0.75,
            "test_loss": 0.5,
            "stop_reason": "all epochs done",
        },
    }
    TensorBoardObserver(tmp_path).write_result(record)
    events = read(tmp_path)
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("test/accuracy")] == [(2, 0.75)]
    assert events.Scalars("test/loss")[0].value == 0.5
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    parameters = HParamsPluginData.FromString(content).session_start_info.hparams
    assert parameters["model"].string_value == "Net"
    assert parameters["epochs"].number_value == 2
    assert parameters["learning_rate"].string_value == "None"


def row(epoch: int, loss: float = 0.0) -> EpochRow:
    return EpochRow(
        epoch=epoch,
        step=epoch,
        num_examples=10,
        learning_rate=0.1,
        train_loss=loss or epoch,
        train_accuracy=0.5,
        validation_loss=math.nan,
        validation_accuracy=0.5,
        images_per_s=100,
        epoch_s=1,
    )


def log(folder: Path, rows: Sequence[EpochRow], done: Sequence[EpochRow] = ()) -> None:
    observer = TensorBoardObserver(folder, done)
    observer.started(PLAN)
    for one in rows:
        observer.epoch_ended(one, False)
    observer.stopped("all epochs done")


@pytest.mark.parametrize("num_logged", [0, 1, 2, 3])
def test_a_resumed_log_has_every_epoch_once_wherever_it_was_cut_off(num_logged: int, tmp_path: Path) -> None:
    """Two epochs are done and saved; the log of the first process holds fewer, as many, or one that is done again."""
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    log(tmp_path, [row(1), row(2), row(3, loss=30)][:num_logged])
    log(tmp_path, [row(3), row(4)], done=[row(1), row(2)])
    scalars = read(tmp_path).Scalars("loss/train")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_an_epoch_of_which_a_kill_left_a_part_is_written_anew(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    log(tmp_path, [row(1)])
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("loss/train", 2, 2)
    (file,) = [
        path for path in tmp_path.iterdir() if path.stat().st_size == max(p.stat().st_size for p in tmp_path.iterdir())
    ]
    file.write_bytes(file.read_bytes()[:-5])
    log(tmp_path, [row(3)], done=[row(1), row(2)])
    assert [scalar.step for scalar in read(tmp_path).Scalars("loss/train")] == [1, 2, 3]


class KilledError(Exception):
    pass


class Bomb(SilentObserver):
    """Ends the process' training as a kill does: after the second epoch is saved, before the log has it."""

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        if row.epoch == 2:
            raise KilledError("killed")


def test_a_run_that_is_resumed_goes_on_with_its_log(small_data: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    config = gn.TrainConfig(epochs=4, batch_size=20)
    model = gn.build_model("softmax", input_shape=(1, 8, 8), num_classes=3)
    with pytest.raises(KilledError):
        gn.train(model, small_data, config, out=tmp_path, progress=False, tensorboard=True, observers=[Bomb()])
    run = resume(tmp_path, data=small_data, progress=False)
    events = read(tmp_path / "tensorboard")
    for tag, name in SCALARS.items():
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [1, 2, 3, 4]
        assert [scalar.value for scalar in scalars] == pytest.approx([asdict(row)[name] for row in run.history])
    assert events.Scalars("test/accuracy")[0].value == pytest.approx(run.record["result"]["test_accuracy"])


def test_an_observer_whose_terminal_is_gone_does_not_silence_the_log(small_data: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")

    class Gone(SilentObserver):
        def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
            raise BrokenPipeError("gone")

    model = gn.build_model("softmax", input_shape=(1, 8, 8), num_classes=3)
    config = gn.TrainConfig(epochs=2, batch_size=20)
    run = gn.train(model, small_data, config, out=tmp_path, progress=False, tensorboard=True, observers=[Gone()])
    events = read(run.path / "tensorboard")
    assert [scalar.step for scalar in events.Scalars("loss/train")] == [1, 2]


def test_a_run_without_a_log_is_resumed_without_one(small_data: Dataset, tmp_path: Path) -> None:
    model = gn.build_model("softmax", input_shape=(1, 8, 8), num_classes=3)
    config = gn.TrainConfig(epochs=3, batch_size=20)
    with pytest.raises(KilledError):
        gn.train(model, small_data, config, out=tmp_path, progress=False, observers=[Bomb()])
    resume(tmp_path, data=small_data, progress=False)
    assert not (tmp_path / "tensorboard").exists()


def test_a_training_in_which_nothing_was_learnt_leaves_no_log(small_data: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")

    class Early(SilentObserver):
        def started(self, plan: FitPlan) -> None:
            raise KilledError("killed")

    model = gn.build_model("softmax", input_shape=(1, 8, 8), num_classes=3)
    with pytest.raises(KilledError):
        gn.train(model, small_data, out=tmp_path, progress=False, tensorboard=True, observers=[Early()])
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_remedy_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'glassnet\[tensorboard\]'"):
        TensorBoardObserver(tmp_path)
    with pytest.raises(UsageError, match="not installed"):
        gn.train(nn.Linear(1, 1), None, out=tmp_path, tensorboard=True)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
