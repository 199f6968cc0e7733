"""Seconds to 99.0 % on MNIST's test split: the recipe `fast` beside the MNIST script of pytorch/examples.

    python benchmarks/time_to_accuracy.py [--accuracy 0.99] [--seeds 3] [--most-epochs 14]

The script's network, loop and figures, as its repository has them: two 3x3 convolutions of 32 and 64 channels, pooling,
dropout, 128 hidden units; Adadelta at 1.0, times 0.7 after each epoch; batches of 64 from a DataLoader in the main
process; the test split after each epoch. It is run once, until an epoch ends at the accuracy. The recipe is trained as
`glassnet train mnist` trains it, in a warm process: its first seed, which also pays for torch's first calls, is not
counted. Its clock is that of `gn.train` whole, with checks, hold-out split, test split and report.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from training import PillowImages

import glassnet as gn
from glassnet._device import describe_device, resolve_device, resolve_precision
from glassnet.recipes import NAMED_RECIPES

SHAPE = (1, 28, 28)


class ExamplesNet(nn.Module):
    """The network of pytorch/examples' MNIST script."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = functional.relu(self.conv2(functional.relu(self.conv1(images))))
        features = torch.flatten(self.dropout1(functional.max_pool2d(maps, 2)), 1)
        return functional.log_softmax(self.fc2(self.dropout2(functional.relu(self.fc1(features)))), dim=1)


def examples_seconds(data, accuracy: float, most_epochs: int) -> tuple[float, float, int]:
    """Return seconds, test accuracy and epochs of the script, up to the end of the first epoch that is accurate."""
    torch.manual_seed(1)
    device, started = resolve_device(), time.perf_counter()
    model = ExamplesNet().to(device)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    train = DataLoader(PillowImages(data, SHAPE), 64, shuffle=True)
    test = DataLoader(PillowImages(dataclasses.replace(data, train=data.test), SHAPE), 1000)
    for epoch in range(1, most_epochs + 1):
        model.train()
        for images, labels in train:
            optimizer.zero_grad()
            functional.nll_loss(model(images.to(device)), labels.to(device)).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in test)
        reached = right / len(data.test)
        print(
            f"  pytorch/examples, epoch {epoch}: {reached:.2%} after {time.perf_counter() - started:.0f} s", flush=True
        )
        schedule.step()
        if reached >= accuracy:
            break
    return time.perf_counter() - started, reached, epoch


def recipe_seconds(seed: int) -> tuple[float, float, float]:
    """Return seconds of the epochs and of all of `gn.train`, and the test accuracy."""
    recipe, data = NAMED_RECIPES["mnist", "fast"], gn.load_data("mnist", seed=seed)
    model = gn.build_model(recipe.model, seed=seed, **recipe.options)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        config = dataclasses.replace(recipe.config, seed=seed)
        run = gn.train(model, data, config, out=Path(folder) / "run", progress=False)
        seconds = time.perf_counter() - started
    return sum(row.epoch_s for row in run.history), seconds, run.record["result"]["test_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accuracy", type=float, default=0.99)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most-epochs", type=int, default=14)
    arguments = parser.parse_args()
    device = resolve_device()
    print(f"{describe_device(device)}, {resolve_precision('auto', device)}, torch {torch.__version__}")
    rows = [recipe_seconds(seed) for seed in range(arguments.seeds + 1)][1:]
    epochs, whole, accuracy = (statistics.median(column) for column in zip(*rows, strict=True))
    print(
        f"  recipe fast: test {accuracy:.2%} ({min(row[2] for row in rows):.2%} at least), epochs {epochs:.2f} s, "
        f"gn.train {whole:.2f} s; medians, n = {len(rows)}",
        flush=True,
    )
    seconds, reached, count = examples_seconds(gn.load_data("mnist"), arguments.accuracy, arguments.most_epochs)
    print(
        f"  pytorch/examples: test {reached:.2%} in {seconds:.0f} s, {count} epochs, n = 1: "
        f"{seconds / epochs:.0f} times the recipe's epochs, {seconds / whole:.0f} times all of gn.train"
    )


if __name__ == "__main__":
    main()
