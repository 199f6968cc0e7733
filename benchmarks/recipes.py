"""Accuracy and time of every recipe: `python benchmarks/recipes.py [--seeds 5] [--curve] [cifar10/accurate ...]`.

Seeds vary the validation split, the first weights and the training. Data sets are read as `load_data` reads them
(`$GLASSNET_DATA`). `training` is what the epochs took, evaluation of the hold-out split included; `whole` is all of
`gn.train`, with its checks, the test split and the report. The first training of a process also pays for torch's first
calls; the median over seeds is that of a warm one. The test split is only reported: recipes are chosen on the
validation split. `--command` also times `glassnet train DATA --recipe NAME` in new processes. `--curve` prints seconds
and hold-out accuracy after each epoch, and the share of the machine's peak that the epochs came to, as `training.py`
has it. The device is the one that `gn.train` takes: a GPU where there is one.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from training import operations_of, peak

import glassnet as gn
from glassnet._device import describe_device, resolve_device, resolve_precision
from glassnet.models import ARCHITECTURES
from glassnet.recipes import NAMED_RECIPES, RECIPE_NAMES, RECIPES, Recipe


def recipe_of(name: str) -> tuple[str, Recipe]:
    """Return the data set's name and the recipe of `data/recipe` or `data/model`."""
    data_name, part = name.split("/")
    if part in RECIPE_NAMES:
        return data_name, NAMED_RECIPES[data_name, part]
    return data_name, Recipe(model=part, config=RECIPES[data_name, part])


def print_curve(run: gn.Run, top: float) -> None:
    """Print a line for each epoch, and the share of `top` FLOP/s over all of them."""
    elapsed = 0.0
    for row in run.history:
        elapsed += row.epoch_s
        print(f"  epoch {row.epoch:3} after {elapsed:7.1f} s: held out {row.validation_accuracy:.2%}", flush=True)
    num_examples = sum(row.num_examples for row in run.history)
    operations = operations_of(run.model, run.preprocessing.input_shape, num_examples)
    print(f"  {operations / 1e12:,.1f} TFLOP, {operations / elapsed / top:.0%} of the peak of {top / 1e9:,.0f} GFLOP/s")


def measure(name: str, seed: int, top: float | None) -> dict[str, float]:
    """Train one recipe with one seed; return accuracies (shares) and seconds. `top` is for the curve, if any."""
    data_name, recipe = recipe_of(name)
    share = {} if recipe.validation_share is None else {"validation_share": recipe.validation_share}
    data = gn.load_data(data_name, seed=seed, **share)
    channels, *size = data.train.input_shape
    entry = ARCHITECTURES[recipe.model]
    if recipe.size is not None or not entry.any_size:
        size = [recipe.size] * 2 if recipe.size is not None else list(entry.input_shape[1:])
    options = {"num_classes": data.train.num_classes, "input_shape": (channels, *size), **recipe.options}
    model = gn.build_model(recipe.model, seed=seed, **options)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = gn.train(
            model, data, dataclasses.replace(recipe.config, seed=seed), out=Path(folder) / "run", progress=False
        )
        seconds = time.perf_counter() - started
        if top is not None:
            print_curve(run, top)
        with_tta = gn.open_run(run.path, tta="mirror-shift").evaluate(data.test).accuracy
    return {
        "validation": run.history[run.epoch - 1].validation_accuracy,
        "test": run.record["result"]["test_accuracy"],
        "test, mirror-shift": with_tta,
        "training": sum(row.epoch_s for row in run.history),
        "whole": seconds,
    }


def command_seconds(name: str) -> float:
    """Return the seconds of the whole command in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "glassnet", "train", name.split("/")[0], "--recipe", name.split("/")[1]]
        started = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/run"], check=True, capture_output=True)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "recipes", nargs="*", default=["/".join(key) for key in (*RECIPES, *NAMED_RECIPES)], metavar="DATA/NAME"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--command", action="store_true", help="also time the command in new processes")
    parser.add_argument("--curve", action="store_true", help="also print the epochs, and the share of peak")
    arguments = parser.parse_args()
    device = resolve_device()
    top = peak(device, resolve_precision("auto", device)) if arguments.curve else None
    machine = platform.processor() or platform.machine()
    print(f"{describe_device(device)}, {machine}, torch {torch.__version__}, n = {arguments.seeds}")
    for name in arguments.recipes:
        rows = [measure(name, seed, top) for seed in range(arguments.seeds)]
        if arguments.command and name.split("/")[1] in RECIPE_NAMES:
            for row in rows:
                row["command"] = command_seconds(name)
        figures = []
        for key in rows[0]:
            form = "{:.1f} s" if key in ("training", "whole", "command") else "{:.2%}"
            values = [row[key] for row in rows]
            median, low, high = (form.format(f(values)) for f in (statistics.median, min, max))
            figures.append(f"{key} {median} ({low} to {high})")
        print(f"{name:16} " + "   ".join(figures), flush=True)


if __name__ == "__main__":
    main()
