"""Accuracy and time of every recipe: `python benchmarks/recipes.py [--seeds 5] [digits/lenet5 ...]`.

Seeds vary the validation split, the first weights and the training. Data sets are read as `load_data` reads them
(`$GLASSNET_DATA`). The test split is only reported: recipes are chosen on the validation split.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

import glassnet as gn
from glassnet._device import describe_device, resolve_device
from glassnet.models import ARCHITECTURES
from glassnet.recipes import RECIPES


def measure(data_name: str, model_name: str, seed: int) -> dict[str, float]:
    """Train one recipe with one seed; return accuracies (shares) and seconds of `gn.train`."""
    data = gn.load_data(data_name, seed=seed)
    channels, *size = data.train.input_shape
    size = list(ARCHITECTURES[model_name].input_shape[1:]) if not ARCHITECTURES[model_name].any_size else size
    model = gn.build_model(model_name, num_classes=data.train.num_classes, input_shape=(channels, *size), seed=seed)
    config = dataclasses.replace(RECIPES[data_name, model_name], seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = gn.train(model, data, config, out=Path(folder) / "run", progress=False)
        seconds = time.perf_counter() - started
    return {
        "test": run.record["result"]["test_accuracy"],
        "validation": run.history.best.validation_accuracy,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=["/".join(key) for key in RECIPES], metavar="DATA/MODEL")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    device = describe_device(resolve_device())
    print(f"{device}, {platform.processor() or platform.machine()}, torch {torch.__version__}, n = {arguments.seeds}")
    for name in arguments.recipes:
        rows = [measure(*name.split("/"), seed) for seed in range(arguments.seeds)]
        figures = []
        for key, form in (("validation", "{:.2%}"), ("test", "{:.2%}"), ("seconds", "{:.1f}")):
            values = [row[key] for row in rows]
            median, low, high = (form.format(f(values)) for f in (statistics.median, min, max))
            figures.append(f"{key} {median} ({low} to {high})")
        print(f"{name:24} " + "   ".join(figures), flush=True)


if __name__ == "__main__":
    main()
