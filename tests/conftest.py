"""What many tests share: small data, and one trained run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch

import glassnet as gn
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.runs import Run

# Decoded images and compiled libraries are cached; tests must not fill the user's own cache.
os.environ["GLASSNET_CACHE"] = tempfile.mkdtemp(prefix="glassnet-tests-")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="glassnet-tests-")

# Two threads that wait for each other on a busy machine are slower than one, and these networks are small.
torch.set_num_threads(1)


def make_examples(count: int, size: int = 8, channels: int = 1, num_classes: int = 3, seed: int = 0) -> ExampleSet:
    """Return images whose class can be learnt: a bright square at a place that tells the class, over noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % num_classes
    inputs = torch.randint(0, 60, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    width = size // num_classes
    for label in range(num_classes):
        inputs[labels == label, :, :, label * width : (label + 1) * width] += 150
    return ExampleSet(inputs, labels, tuple(f"class {label}" for label in range(num_classes)))


@pytest.fixture
def small_data() -> Dataset:
    """Three learnable classes of 8x8 grey images: 60 train, 15 validation, 15 test."""
    splits = (make_examples(count, seed=seed) for seed, count in enumerate((60, 15, 15)))
    return Dataset("squares", *splits, seed=0)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The digits of scikit-learn."""
    return gn.load_data("digits")


@pytest.fixture(scope="session")
def digits_run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """LeNet-5 after three epochs on the digits. Tests must not change its folder: copy it."""
    config = gn.TrainConfig(epochs=3, batch_size=32, seed=0, precision="fp32")
    out = tmp_path_factory.mktemp("runs") / "digits-lenet5"
    return gn.train(gn.build_model("lenet5"), digits, config, out=out, progress=False)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets, or a skip that says why."""
    root = os.environ.get("GLASSNET_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("GLASSNET_DATA does not name a folder with mnist/: the real data sets are not here")
    return Path(root)
