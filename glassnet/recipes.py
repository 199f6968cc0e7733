"""Configs that are known to work, by data set and model.

The accuracies are measured by `benchmarks/recipes.py`, which prints hardware, versions and spread.
"""

from __future__ import annotations

from dataclasses import replace

from glassnet.data.augmentation import DEFAULT
from glassnet.data.examples import Dataset
from glassnet.data.image_files import ImageFiles
from glassnet.training.config import TrainConfig

RECIPES: dict[tuple[str, str], TrainConfig] = {
    ("digits", "lenet5"): TrainConfig(epochs=30, batch_size=32, max_shift=3, label_smoothing=0.1),
    ("mnist", "lenet5"): TrainConfig(epochs=10, batch_size=128, max_shift=2),
}
"""Configs chosen on the validation split. What is not listed gets `TrainConfig()`."""

AUGMENTED = frozenset({"cifar10"})
"""Standard sets of photographs."""


def recipe(data_name: str, model_name: str | None) -> TrainConfig:
    """Return the config for training `model_name` on `data_name`: a listed one, or the defaults."""
    return RECIPES.get((data_name, model_name or ""), TrainConfig())


def with_usual_augmentation(config: TrainConfig, data: Dataset) -> TrainConfig:
    """Return `config` with the default augmentation where it is usual, for one that nobody asked for by name.

    That is for photographs: files of images, and the sets in `AUGMENTED`. What a recipe says stays.
    """
    if config.augment or not (isinstance(data.train.inputs, ImageFiles) or data.name in AUGMENTED):
        return config
    return replace(config, augment=DEFAULT)


def with_fitting_batch(config: TrainConfig, num_examples: int) -> TrainConfig:
    """Return `config` with a batch of at most `num_examples`, for a batch size that nobody asked for by name."""
    return replace(config, batch_size=max(1, min(config.batch_size, num_examples)))
