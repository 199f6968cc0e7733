"""Networks and configs that are known to work, by data set.

The accuracies are measured by `benchmarks/recipes.py`, which prints hardware, versions and spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from glassnet._errors import UsageError, unknown_name
from glassnet.data.augmentation import DEFAULT
from glassnet.data.examples import Dataset
from glassnet.data.image_files import ImageFiles
from glassnet.training.config import TrainConfig

RECIPES: dict[tuple[str, str], TrainConfig] = {
    ("digits", "lenet5"): TrainConfig(epochs=30, batch_size=32, max_shift=3, label_smoothing=0.1),
    ("mnist", "lenet5"): TrainConfig(epochs=10, batch_size=128, max_shift=2),
}
"""Configs by data set and model, chosen on the validation split. What is not listed gets `TrainConfig()`."""

RECIPE_NAMES = ("fast", "accurate")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training: the network, what it is built with, and the config."""

    model: str
    options: Mapping[str, object] = field(default_factory=dict)
    config: TrainConfig


_DIGITS = TrainConfig(
    epochs=0.8,
    batch_size=192,
    optimizer="muon",
    learning_rate=0.2,
    momentum=0.8,
    other_learning_rate=0.05,
    weight_decay=0.0,
    schedule="linear",
    label_smoothing=0.1,
    max_shift=1,
)
_PHOTOGRAPHS = TrainConfig(
    epochs=8,
    batch_size=500,
    optimizer="muon",
    learning_rate=0.24,
    momentum=0.6,
    other_learning_rate=20.0,
    weight_decay=0.2,
    schedule="linear",
    label_smoothing=0.2,
    augment="RandomCrop(padding=2, padding_mode=reflect),RandomHorizontalFlip",
)
"""As Jordan 2024 (section 3, and the repository's Muon form), with batches of a quarter, and one rate for all that is
no kernel."""

NAMED_RECIPES: dict[tuple[str, str], Recipe] = {
    ("mnist", "fast"): Recipe(model="speednet", config=_DIGITS),
    ("mnist", "accurate"): Recipe(
        model="speednet",
        options={"channels": (16, 48, 96)},
        config=replace(_DIGITS, epochs=4, batch_size=128, learning_rate=0.15, max_shift=2, ema=0.98),
    ),
    ("cifar10", "fast"): Recipe(
        model="airbench94", options={"widths": (32, 96, 96)}, config=replace(_PHOTOGRAPHS, epochs=3)
    ),
    ("cifar10", "accurate"): Recipe(model="airbench94", config=_PHOTOGRAPHS),
}
"""Recipes by data set and name, chosen on the validation split."""

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


def named_recipe(data_name: str, name: str) -> Recipe:
    """Return the recipe of a data set by name. Raises `UsageError` where there is none."""
    if name not in RECIPE_NAMES:
        raise unknown_name("recipe", name, RECIPE_NAMES)
    found = NAMED_RECIPES.get((data_name, name))
    if found is None:
        known = ", ".join(f"{one} for {data}" for data, one in NAMED_RECIPES)
        raise UsageError(
            f"There is no recipe '{name}' for '{data_name}'; there is {known}. Name a network with --model instead."
        )
    return found


def default_recipe(data_name: str) -> Recipe | None:
    """Return what a data set is trained by where neither network nor recipe is named, if it has a recipe `fast`."""
    return NAMED_RECIPES.get((data_name, "fast"))


def with_fitting_batch(config: TrainConfig, num_examples: int) -> TrainConfig:
    """Return `config` with a batch of at most `num_examples`, for a batch size that nobody asked for by name."""
    if isinstance(config.batch_size, str):
        return config
    return replace(config, batch_size=max(1, min(config.batch_size, num_examples)))
