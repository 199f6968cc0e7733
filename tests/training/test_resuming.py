"""Runs that are killed, or interrupted, go on and end as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml

import glassnet as gn
from glassnet import WorkError
from glassnet.runs import open_run
from glassnet.training.checkpoint import load_training_state
from glassnet.training.history import EpochRow
from glassnet.training.observer import SilentObserver

from .conftest import Forks

MODEL = {"channels": [4], "batch_norm": True, "dropout": 0.3}
CONFIG = {
    "epochs": 3,
    "first_layer_epochs": 1.5,
    "batch_size": 64,
    "max_shift": 1,
    "ema": 0.9,
    "checkpoint_s": 0.001,
    "precision": "fp32",
}
NUM_KILLS = 8
KEYBOARD_INTERRUPT = 98
"""How a child of the server ends that Ctrl-C ended."""


def timeless(row: EpochRow) -> dict[str, object]:
    return {name: repr(value) for name, value in vars(row).items() if name not in ("images_per_s", "epoch_s")}


def assert_same_end(path: Path, other: Path) -> None:
    """Two runs have the same weights, history and figures, to the last bit."""
    assert (path / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    runs = [open_run(folder) for folder in (path, other)]
    histories = [[timeless(row) for row in run.history] for run in runs]
    assert histories[0] == histories[1]
    assert runs[0].record["result"] == runs[1].record["result"]
    assert all(run.report_path.exists() for run in runs)


def train_job(out: Path) -> tuple[str, dict[str, object]]:
    return "train", {"out": str(out), "config": CONFIG, "model": MODEL}


@pytest.fixture(scope="module")
def whole(fork_server: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing happened to, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("whole")
    forks = Forks(fork_server, folder / "said.txt")  # type: ignore[arg-type]
    started = time.perf_counter()
    assert forks.run(*train_job(folder / "run")) == 0, forks.said()
    return folder / "run", time.perf_counter() - started


def end_by_force(forks: Forks, path: Path, draw: random.Random, longest_s: float) -> int:
    """Train to the end however often that takes, each time killing the process after a while; return how often."""
    num_kills = 0
    while True:
        is_begun = (path / "last.ckpt").exists()
        if not is_begun:  # killed before there was anything to resume
            shutil.rmtree(path, ignore_errors=True)
        child = forks.start(*(("resume", {"out": str(path)}) if is_begun else train_job(path)))
        time.sleep(draw.uniform(0, longest_s))
        os.kill(child, signal.SIGKILL)
        code = forks.wait(child)
        if code == 0 or (code == 2 and "is complete" in forks.said()):  # killed after it had come to its end
            return num_kills
        assert code == -signal.SIGKILL, forks.said()
        num_kills += 1
        longest_s *= 1.2  # so that a slow moment of the machine does not keep the run from its end for ever


def wait_for_second_epoch(path: Path) -> None:
    """Return when a step of the second epoch is saved; the rest of the epoch is then still to come."""
    while True:
        with contextlib.suppress(WorkError):
            state, _ = load_training_state(path / "last.ckpt")
            if len(state.history) == 1 and state.num_examples:
                return
        time.sleep(0.001)


def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not(
    forks: Forks, whole: tuple[Path, float], tmp_path: Path
) -> None:
    draw, num_kills, number = random.Random(0), 0, 0
    while num_kills < NUM_KILLS:
        path = tmp_path / f"run-{number}"
        num_kills += end_by_force(forks, path, draw, whole[1])
        assert_same_end(path, whole[0])
        assert not list(path.glob(".*")), "what was half written is removed"
        number += 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_end_saves_says_how_to_go_on_and_goes_on(
    forks: Forks, whole: tuple[Path, float], tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "run"
    job, arguments = train_job(path)
    child = forks.start(job, {**arguments, "progress": True, "pause_s": 0.03})
    while not (path / "metrics.csv").exists():  # then it is within its loop
        time.sleep(0.001)
    os.kill(child, number)
    assert forks.wait(child) == 0, forks.said()
    assert f"Stopped: interrupted\n`glassnet train --resume {path}` goes on from the last state" in forks.said()
    assert gn.open_run(path).record["result"]["stop_reason"] == "interrupted"
    assert (path / "previous-last.ckpt").exists(), "in case the last one is damaged before it is used"
    assert forks.run("resume", {"out": str(path)}) == 0, forks.said()
    assert_same_end(path, whole[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_request_ends_it_at_once_and_it_still_goes_on(
    forks: Forks, whole: tuple[Path, float], tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "run"
    job, arguments = train_job(path)
    child = forks.start(job, {**arguments, "is_deaf": True, "pause_s": 0.03})
    wait_for_second_epoch(path)
    os.kill(child, number)
    time.sleep(0.02)
    os.kill(child, number)
    assert forks.wait(child) == (KEYBOARD_INTERRUPT if number == signal.SIGINT else -signal.SIGTERM), forks.said()
    assert "result" not in yaml.safe_load((path / "config.yaml").read_text())
    assert forks.run("resume", {"out": str(path)}) == 0, forks.said()
    assert_same_end(path, whole[0])


def test_a_run_killed_before_its_report_was_written_is_not_complete(
    forks: Forks, whole: tuple[Path, float], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(whole[0], path)
    assert forks.run("resume", {"out": str(path)}) == 2
    assert f"The run in {path} is complete (all epochs done): there is nothing to resume." in forks.said()
    (path / "report.html").unlink()
    assert forks.run("resume", {"out": str(path)}) == 0, forks.said()
    assert_same_end(path, whole[0])


def test_two_processes_never_train_in_one_folder_and_a_killed_one_is_no_hindrance(
    fork_server: object, tmp_path: Path, whole: tuple[Path, float]
) -> None:
    forks, path = Forks(fork_server, tmp_path / "said.txt"), tmp_path / "run"  # type: ignore[arg-type]
    job, arguments = train_job(path)
    child = forks.start(job, {**arguments, "pause_s": 0.2})
    try:
        while not (path / "last.ckpt").exists():
            time.sleep(0.01)
        assert forks.run("resume", {"out": str(path)}) != 0
        assert f"Another process is training in {path}" in forks.said()
    finally:
        os.kill(child, signal.SIGKILL)
        forks.wait(child)
    assert forks.run("resume", {"out": str(path)}) == 0, forks.said()
    assert_same_end(path, whole[0])


class Interrupting(SilentObserver):
    """Presses Ctrl-C at the end of each epoch."""

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        (
            {"C compiler": "cc-7", "torch": "1.0"},
            r"Resumed elsewhere \(torch 1.0 then, .* now; C compiler cc-7 then, .* now",
        ),
    ],
)
def test_a_run_resumed_with_another_compiler_or_torch_says_what_its_last_bits_depend_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], said: str | None
) -> None:
    config = gn.TrainConfig(epochs=2, batch_size=500)
    gn.train(
        gn.build_model("softmax", input_shape=(1, 8, 8)),
        gn.load_data("digits"),
        config,
        out=tmp_path,
        observers=[Interrupting()],
    )
    record = yaml.safe_load((tmp_path / "config.yaml").read_text())
    record["glassnet"].update(changes)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(record))
    gn.resume(tmp_path)
    told = capsys.readouterr().err
    assert "Resumed elsewhere" not in told if said is None else re.search(said, told)
