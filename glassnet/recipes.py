"""Configs that are known to work, by data set and model.

The accuracies are measured by `benchmarks/recipes.py`, which prints hardware, versions and spread.
"""

from __future__ import annotations

from glassnet.training.config import TrainConfig

DEFAULT_MODELS = {"digits": "lenet5", "mnist": "lenet5", "fashion-mnist": "lenet5", "cifar10": "lenet5"}
"""The model that `glassnet train DATA` takes where none is named."""

RECIPES: dict[tuple[str, str], TrainConfig] = {
    ("digits", "lenet5"): TrainConfig(epochs=30, batch_size=32, max_shift=3, label_smoothing=0.1),
    ("mnist", "lenet5"): TrainConfig(epochs=10, batch_size=128, max_shift=2),
}
"""Configs chosen on the validation split. What is not listed gets `TrainConfig()`."""


def recipe(data_name: str, model_name: str | None) -> TrainConfig:
    """Return the config for training `model_name` on `data_name`: a listed one, or the defaults."""
    return RECIPES.get((data_name, model_name or ""), TrainConfig())
