"""Runs that are killed at random moments against one that is not: `python benchmarks/kills.py [--kills 50]`.

A process trains a small convolutional network on the digits and gets SIGKILL after a random time, anywhere from its
first line to its last file; then it is resumed, and killed again, until it comes to its end. Then the next run is
begun, until all kills are spent. Every run must end with the weights, the history and the figures of the one that was
left alone, bit for bit. Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path

import torch
import torch._dynamo
import torchmetrics.classification

import glassnet as gn
from glassnet._device import describe_device
from glassnet.experiments import resume, train

PRELOADED = (torch._dynamo, torchmetrics.classification)
"""What a training would import when it needs it; imported once, before the forks."""
DIGITS = gn.load_data("digits")
CONFIG = gn.TrainConfig(epochs=4, batch_size=32, max_shift=1, ema=0.9, checkpoint_s=0.05, precision="fp32")


def start(path: Path) -> int:
    """Begin the run at `path`, or go on with it, in a process of its own; return its number."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        if (path / "last.ckpt").exists():
            resume(path, progress=False)
        else:  # killed before there was anything to resume
            shutil.rmtree(path, ignore_errors=True)
            model = gn.build_model("cnn2d", input_shape=(1, 8, 8), channels=(8, 16), batch_norm=True, dropout=0.3)
            train(model, DIGITS, CONFIG, out=path, progress=False)
        code = 0
    except gn.UsageError as error:
        code = 0 if "is complete" in str(error) else 2  # killed after it had come to its end
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end_of(path: Path) -> tuple[bytes, list[tuple[object, ...]], object]:
    """Return the best weights, the history without times, and the result of a run."""
    run = gn.open_run(path)
    rows = [
        tuple(value for name, value in asdict(row).items() if name not in ("images_per_s", "epoch_s"))
        for row in run.history
    ]
    return (path / "model.safetensors").read_bytes(), rows, run.record["result"]


def end_by_force(path: Path, draw: random.Random, longest_s: float) -> tuple[int, int]:
    """Train to the end, killing again and again; return how often, and how often before the first state was saved."""
    num_kills = num_early = 0
    while True:
        child = start(path)
        time.sleep(draw.uniform(0, longest_s))
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return num_kills, num_early
        if code != -signal.SIGKILL:
            raise SystemExit(f"{path}: a process ended with {code}")
        num_kills += 1
        num_early += not (path / "last.ckpt").exists()
        longest_s *= 1.1  # so that a slow moment of the machine does not keep a run from its end for ever


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{describe_device(torch.device('cpu'))}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        os.waitpid(start(folder / "whole"), 0)
        duration_s = time.perf_counter() - started
        expected = end_of(folder / "whole")
        draw, num_kills, num_early, num_runs, num_wrong = random.Random(arguments.seed), 0, 0, 0, 0
        while num_kills < arguments.kills:
            path = folder / f"run-{num_runs}"
            kills, early = end_by_force(path, draw, 0.7 * duration_s)
            num_runs, num_kills, num_early = num_runs + 1, num_kills + kills, num_early + early
            is_equal = end_of(path) == expected
            num_wrong += not is_equal
            print(f"run {num_runs}: {kills} kills, {'bit-equal' if is_equal else 'ANOTHER END'}", flush=True)
    print(
        f"{num_kills} kills ({num_early} before the first state) over {num_runs} runs of {duration_s:.1f} s: "
        f"{num_runs - num_wrong} ended bit-equal to the run that was not killed, {num_wrong} did not"
    )
    sys.exit(1 if num_wrong else 0)


if __name__ == "__main__":
    main()
