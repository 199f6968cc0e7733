"""Several processes that share a training end where one that does it alone ends."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import glassnet
from glassnet.training.checkpoint import load_training_state
from glassnet.training.processes import Processes
from glassnet.training.state import TrainingState

from .conftest import Forks, free_port

PLAIN = {"channels": [4]}
CONFIG = {"epochs": 2, "batch_size": 32, "optimizer": "sgd", "learning_rate": 0.1, "precision": "fp32"}
NUM_TRAIN = 105
"""Three batches of 32 and a last one of 9, which two processes cannot halve."""


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 13, 14, 64])
def test_a_batch_is_shared_without_overlap_or_loss(size: int, count: int) -> None:
    rows = torch.arange(size)
    parts = [Processes(rank, count).part(size) for rank in range(count)]
    assert torch.equal(torch.cat([rows[part] for part, weight in parts if weight]), rows)
    sizes = [len(rows[part]) for part, _ in parts]
    assert size == 1 or min(sizes) >= 2, "one row has no spread"
    values = torch.rand(size, generator=torch.Generator().manual_seed(size))
    means = sum(weight * values[part].mean() for part, weight in parts) / count
    assert means == pytest.approx(values.mean().item(), abs=1e-6)


def ends(forks: Forks, path: Path, config: dict[str, object], model: dict[str, object]) -> list[Path]:
    """Train alone and in two processes; return the run folders."""
    paths = [path / "alone", path / "together"]
    arguments = {"config": {**CONFIG, **config}, "model": model, "num_train": NUM_TRAIN}
    assert forks.run("train", {"out": str(paths[0]), **arguments}) == 0, forks.said()
    assert forks.run_together("train", {"out": str(paths[1]), **arguments}, 2) == [0, 0], forks.said()
    return paths


def state_of(path: Path) -> TrainingState:
    return load_training_state(path / "last.ckpt")[0]


def figures(path: Path) -> list[dict[str, float]]:
    rows = csv.DictReader((path / "metrics.csv").read_text().splitlines())
    return [
        {name: float(value) for name, value in row.items() if name not in ("images_per_s", "epoch_s")} for row in rows
    ]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"accumulate": 3, "batch_size": 11},
        {"weight_decay": 0.1, "ema": 0.8, "max_gradient_norm": 0.3, "momentum": 0.5},
        {"optimizer": "muon", "learning_rate": 0.02, "epochs": 1.5, "max_shift": 1, "label_smoothing": 0.1},
        {"alternating_flip": True, "epochs": 2},
        {"first_layer_epochs": 0.7, "epochs": 2},
    ],
    ids=["plain", "accumulated", "decayed, clipped and averaged", "muon, shifted", "mirrored", "first layer frozen"],
)
def test_two_processes_with_half_the_batch_each_end_where_one_does(
    config: dict[str, object], forks: Forks, tmp_path: Path
) -> None:
    alone, together = ends(forks, tmp_path, config, PLAIN)
    left, right = state_of(alone), state_of(together)
    for name, tensor in left.weights.items():
        torch.testing.assert_close(right.weights[name], tensor, rtol=1e-4, atol=1e-5)
    for name, tensor in left.average.items():
        torch.testing.assert_close(right.average[name], tensor, rtol=1e-4, atol=1e-5)
    for one, other in zip(figures(alone), figures(together), strict=True):
        assert one == pytest.approx(other, abs=2e-4, nan_ok=True)
    assert sorted(path.name for path in together.iterdir()) == sorted(path.name for path in alone.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["alone", "together"]


def test_the_hold_out_loss_of_two_processes_is_that_of_the_weights_that_are_saved(forks: Forks, tmp_path: Path) -> None:
    """Each process has statistics of its own half of a batch; those of the first count."""
    run_path = tmp_path / "run"
    arguments = {"out": str(run_path), "config": CONFIG, "model": {**PLAIN, "batch_norm": True}, "num_train": NUM_TRAIN}
    assert forks.run_together("train", arguments, 2) == [0, 0], forks.said()
    run = glassnet.open_run(run_path)
    found = run.evaluate(glassnet.load_data("digits").validation)
    assert found.loss == pytest.approx(run.history.best.validation_loss, rel=1e-5)
    assert found.accuracy == pytest.approx(run.history.best.validation_accuracy)


def test_synchronised_batch_normalisation_is_refused_without_gpus(forks: Forks, tmp_path: Path) -> None:
    config = {**CONFIG, "sync_batch_norm": True}
    arguments = {"out": str(tmp_path / "run"), "config": config, "model": {**PLAIN, "batch_norm": True}}
    assert forks.run_together("train", arguments, 2) == [2, 2], forks.said()
    assert "sync_batch_norm needs GPUs (torch's SyncBatchNorm); this training is on cpu" in forks.said()
    assert not (tmp_path / "run").exists()


def test_two_processes_that_are_killed_go_on_to_the_same_end(forks: Forks, tmp_path: Path) -> None:
    arguments = {"config": {**CONFIG, "epochs": 5, "checkpoint_s": 0.001}, "model": PLAIN, "num_train": NUM_TRAIN}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert forks.run_together("train", {"out": str(whole), **arguments}, 2) == [0, 0], forks.said()
    children = forks.start_together("train", {"out": str(killed), "pause_s": 0.03, **arguments}, 2)
    while not (killed / "metrics.csv").exists():
        time.sleep(0.001)
    os.kill(children[1], signal.SIGKILL)
    assert [forks.wait(child) for child in children] == [1, -signal.SIGKILL], forks.said()
    assert "Error: Another process of this training ended, or cannot be reached (" in forks.said()
    assert f"`glassnet train --resume {killed}` goes on" in forks.said()
    again = {"out": str(killed), "num_train": NUM_TRAIN}
    assert forks.run_together("resume", again, 2) == [0, 0], forks.said()
    left, right = state_of(whole), state_of(killed)
    assert left.step == right.step
    for name, tensor in left.weights.items():
        torch.testing.assert_close(right.weights[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_request_to_one_of_two_processes_ends_both(forks: Forks, tmp_path: Path) -> None:
    path = tmp_path / "run"
    arguments = {"out": str(path), "config": {**CONFIG, "epochs": 5000}, "model": PLAIN, "num_train": NUM_TRAIN}
    children = forks.start_together("train", arguments, 2)
    while not (path / "metrics.csv").exists():
        time.sleep(0.001)
    os.kill(children[1], signal.SIGTERM)
    assert [forks.wait(child) for child in children] == [0, 0], forks.said()
    assert yaml.safe_load((path / "config.yaml").read_text())["result"]["stop_reason"] == "interrupted"


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="torchrun's children are told by /proc, which is Linux's"
)
def test_torchrun_starts_a_dead_process_again_and_the_run_goes_on(tmp_path: Path) -> None:
    path, log = tmp_path / "run", tmp_path / "said.txt"
    words = ["--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "0.1", "--master-port", free_port()]
    words += ["-m", "glassnet", "train", "digits", "--model", "softmax", "--out", str(path), "--epochs", "25"]
    package = Path(glassnet.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with log.open("w") as said:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *words], env=environment, stdout=said, stderr=said
        )
    try:
        while not (path / "metrics.csv").exists():
            assert launcher.poll() is None, log.read_text()
            time.sleep(0.01)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert launcher.wait(timeout=100) == 0, log.read_text()
    finally:
        launcher.terminate()
        launcher.wait()
    assert log.read_text().count("Training on 1,295 examples") == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]
    history = glassnet.open_run(path).history
    assert [row.epoch for row in history] == list(range(1, 26))
    assert yaml.safe_load((path / "config.yaml").read_text())["result"]["stop_reason"] == "all epochs done"
