from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.data.loader import to_device
from glassnet.data.records import make_record
from glassnet.training.fit import fit
from glassnet.training.history import History
from glassnet.views.tensorboard import SCALARS, TensorBoardObserver

CPU = torch.device("cpu")


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
        "result": {"best_epoch": 1, "test_accuracy": 0.75, "test_loss": 0.5, "stop_reason": "all epochs done"},
    }
    TensorBoardObserver(tmp_path).write_result(record)
    events = read(tmp_path)
    assert events.Scalars("test/accuracy")[0].value == 0.75
    assert events.Scalars("test/loss")[0].value == 0.5
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    parameters = HParamsPluginData.FromString(content).session_start_info.hparams
    assert parameters["model"].string_value == "Net"
    assert parameters["epochs"].number_value == 2
    assert parameters["learning_rate"].string_value == "None"


def test_without_the_package_the_remedy_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'glassnet\[tensorboard\]'"):
        TensorBoardObserver(tmp_path)
    assert list(tmp_path.iterdir()) == []
