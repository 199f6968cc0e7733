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
from glassnet.training.muon import has_muon

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
    size: int | None = None
    """Side in pixels of the network's input; None for its usual one."""
    validation_share: float | None = None
    """Of the training examples that are held out; None for the usual share."""
    config: TrainConfig


_DIGITS = TrainConfig(
    epochs=0.7,
    batch_size=192,
    optimizer="muon",
    learning_rate=0.2,
    momentum=0.8,
    newton_schulz_steps=3,
    other_learning_rate=0.08,
    weight_decay=0.0,
    schedule="linear",
    label_smoothing=0.1,
    max_shift=1,
    keep="last",
)
_PHOTOGRAPHS = TrainConfig(
    epochs=3,
    batch_size=500,
    optimizer="muon",
    learning_rate=0.12,
    momentum=0.6,
    other_learning_rate=20.0,
    weight_decay=0.1,
    schedule="linear",
    label_smoothing=0.2,
    alternating_flip=True,
    augment="RandomCrop(padding=2, padding_mode=reflect)",
    keep="last",
)
"""As Jordan 2024 (section 3, and the repository's Muon form), for a few epochs: batches of a quarter, and one rate for
all that is no kernel. `accurate` below has the published rates, for batches of half the size."""

NAMED_RECIPES: dict[tuple[str, str], Recipe] = {
    ("mnist", "fast"): Recipe(model="speednet", config=_DIGITS),
    ("mnist", "accurate"): Recipe(
        model="airbench94",
        options={"widths": (16, 48, 64)},
        size=28,  # padded to its usual 32, channels at the border are constant, which its normalisation does not bear
        config=replace(
            _DIGITS,
            epochs=4,
            batch_size=128,
            learning_rate=0.1,
            momentum=0.6,
            newton_schulz_steps=None,
            other_learning_rate=0.05,
            max_shift=0,
            augment="RandomAffine(degrees=10, translate=[0.07, 0.07], scale=[0.9, 1.1], shear=5)",
        ),
    ),
    ("cifar10", "fast"): Recipe(model="airbench94", options={"widths": (32, 96, 96)}, config=_PHOTOGRAPHS),
    ("cifar10", "accurate"): Recipe(
        model="airbench94",
        validation_share=0.02,  # all the rest trains, as in the paper
        config=replace(
            _PHOTOGRAPHS,
            epochs=10,
            batch_size=1000,
            learning_rate=0.24,
            other_learning_rate=53.0,
            output_learning_rate=670.0,
            other_momentum=0.85,
            other_weight_decay=3.8e-5,
            fixed_norm=True,
            weight_decay=0.0,
            first_layer_epochs=3.0,
            newton_schulz_steps=3,
        ),
    ),
}
"""Recipes by data set and name, chosen on the validation split."""
MODEL_DATA = {1: "mnist", 3: "cifar10"}
"""Whose recipes other images get, by their channels."""
NUM_EXAMPLES = {"mnist": 54_000, "cifar10": 45_000}
"""Of the training splits that those recipes were chosen on."""
MOST_EPOCHS, MOST_VALIDATIONS, LEAST_BATCH = 100, 20, 16
"""Of a recipe on other images, where there are few."""
LEAST_EPOCHS = 3
"""Of a recipe on other images, where there are many: hardly any are as easy as MNIST's."""
EPOCHS_POWER, BATCH_POWER = -0.6, 0.3
"""Of the share that other images are of those a recipe was made for: a tenth of them get 4 times the epochs, with
batches of half the size."""

AUGMENTED = frozenset({"cifar10"})
"""Standard sets of photographs."""


def recipe(data_name: str, model_name: str | None) -> TrainConfig:
    """Return the config for training `model_name` on `data_name`: a listed one, or the defaults."""
    return RECIPES.get((data_name, model_name or ""), TrainConfig())


def with_usual_augmentation(config: TrainConfig, data: Dataset) -> TrainConfig:
    """Return `config` with the default augmentation where it is usual, for one that nobody asked for by name.

    That is for photographs: files of images, and the sets in `AUGMENTED`. What a recipe says stays.
    """
    if config.augment or not (isinstance(data.train.inputs, ImageFiles) or known_as(data) in AUGMENTED):
        return config
    return replace(config, augment=DEFAULT)


def listed_recipe(data_name: str, name: str) -> Recipe | None:
    """Return a data set's own recipe `name`, if it has one. Raises `UsageError` for a name that no recipe has."""
    if name not in RECIPE_NAMES:
        raise unknown_name("recipe", name, RECIPE_NAMES)
    return NAMED_RECIPES.get((data_name, name))


def named_recipe(name: str, data: Dataset) -> Recipe:
    """Return the recipe `name` for a data set: its own, or what MNIST's or CIFAR-10's makes of other images.

    Grey images get MNIST's, others CIFAR-10's, with the augmentation that suits them; fewer images are seen in more
    epochs of smaller batches.

    Raises `UsageError` for an unknown name, and for data that are no images of one or three channels.
    """
    found = listed_recipe(known_as(data), name)
    if found is not None:
        return found
    if not has_recipes(data):
        has = "values to predict" if not data.train.num_classes else "images of other kinds"
        raise UsageError(
            f"Recipe '{name}' classifies images of one or three channels; '{data.name}' has "
            f"{has if data.train.is_image else 'numbers'}. Name a network with --model instead."
        )
    model_data = MODEL_DATA[data.train.input_shape[0]]
    found = NAMED_RECIPES[model_data, name]
    options = {**found.options, **({"epsilon": 1e-5} if found.model == "airbench94" else {})}  # borders may be blank
    return replace(
        found,
        options=options,
        validation_share=None,
        config=_for_other_images(found.config, len(data.train), model_data),
    )


def known_as(data: Dataset) -> str:
    """Return the name that a data set's recipes are listed by; a folder that is called as a standard set is none."""
    return data.name if data.source is None else data.source


def has_recipes(data: Dataset) -> bool:
    """Return whether `named_recipe` has any for a data set: for images of one or three channels, in classes."""
    examples = data.train
    return examples.is_image and examples.num_classes > 0 and examples.input_shape[0] in MODEL_DATA


def _for_other_images(config: TrainConfig, num_examples: int, model_data: str) -> TrainConfig:
    """Return a config that was made for `model_data` for so many other examples."""
    assert isinstance(config.batch_size, int)
    share = min(1.0, max(num_examples, 1) / NUM_EXAMPLES[model_data])
    epochs = round(min(MOST_EPOCHS, max(LEAST_EPOCHS, config.epochs) * share**EPOCHS_POWER))
    batch_size = max(1, min(max(LEAST_BATCH, round(config.batch_size * share**BATCH_POWER)), num_examples))
    if config.output_learning_rate is not None:
        # As published, where the loss is a sum: the rates of what sgd has are in proportion to the batch.
        assert config.other_learning_rate is not None
        part = batch_size / config.batch_size
        config = replace(
            config,
            other_learning_rate=config.other_learning_rate * part,
            output_learning_rate=config.output_learning_rate * part,
        )
    first_epochs = config.first_layer_epochs
    return replace(
        config,
        epochs=epochs,
        batch_size=batch_size,
        first_layer_epochs=None if first_epochs is None else first_epochs * epochs / config.epochs,
        validate_every=max(1, round(epochs / MOST_VALIDATIONS)),
        augment=DEFAULT if config.augment else "",
    )


def default_recipe(data: Dataset) -> Recipe | None:
    """Return what a data set is trained by where neither network nor recipe is named: `fast`, where there is one.

    None for digits, which have a config for LeNet-5, for all that are no images or have no classes, and with a torch
    that has no Muon.
    """
    known = known_as(data)
    is_lenets = any(known == data_name for data_name, _ in RECIPES) and listed_recipe(known, "fast") is None
    return named_recipe("fast", data) if has_muon() and has_recipes(data) and not is_lenets else None


def with_fitting_batch(config: TrainConfig, num_examples: int) -> TrainConfig:
    """Return `config` with a batch of at most `num_examples`, for a batch size that nobody asked for by name."""
    if isinstance(config.batch_size, str):
        return config
    return replace(config, batch_size=max(1, min(config.batch_size, num_examples)))
