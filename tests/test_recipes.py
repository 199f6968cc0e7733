"""Which config a data set gets where nobody said anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassnet import UsageError
from glassnet.data.augmentation import parse_augmentation
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.image_files import ImageFiles
from glassnet.models import build_model
from glassnet.recipes import NAMED_RECIPES, RECIPES, named_recipe, recipe, with_usual_augmentation
from glassnet.training.config import TrainConfig


def photos() -> Dataset:
    files = ImageFiles((Path("a"), Path("b")), "RGB", torch.tensor([[8, 8], [9, 9]]), ("a", "b"))
    examples = ExampleSet(files, torch.tensor([0, 1]), ("ant", "bee"))
    return Dataset("holiday", examples, examples, examples, seed=0)


def test_photographs_are_augmented_and_what_a_recipe_says_stays(small_data: Dataset) -> None:
    cifar = replace(small_data, name="cifar10")
    for data in (photos(), cifar):
        assert with_usual_augmentation(TrainConfig(), data).augment == "default"
        given = TrainConfig(augment="RandomShift(max_shift=1)")
        assert with_usual_augmentation(given, data) == given


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion-mnist", "squares"])
def test_other_data_trains_as_its_recipe_says(name: str, small_data: Dataset) -> None:
    config = recipe(name, "lenet5")
    assert config == RECIPES.get((name, "lenet5"), TrainConfig())
    assert with_usual_augmentation(config, replace(small_data, name=name)) == config


@pytest.mark.parametrize(("data_name", "name"), NAMED_RECIPES)
def test_a_named_recipe_builds_its_network_and_names_transforms_that_fit_its_images(data_name: str, name: str) -> None:
    found, side = NAMED_RECIPES[data_name, name], {"mnist": 28, "cifar10": 32}[data_name]
    shape = (1 if data_name == "mnist" else 3, found.size or side, found.size or side)
    model = build_model(found.model, num_classes=10, input_shape=shape, **found.options)
    assert model(torch.zeros(2, *shape)).shape == (2, 10)
    parse_augmentation(found.config.augment).check(shape)
    assert found.config.resolved().optimizer == "muon"


def test_the_data_sets_of_the_recipes_get_theirs_and_other_images_what_is_nearest(small_data: Dataset) -> None:
    for (data_name, name), found in NAMED_RECIPES.items():
        assert named_recipe(name, replace(small_data, name=data_name)) is found
    grey, colour = named_recipe("fast", small_data), named_recipe("fast", photos())
    assert (grey.model, colour.model) == ("speednet", "airbench94")
    assert (grey.config.augment, colour.config.augment) == ("", "default")
    assert grey.config.batch_size == min(16, len(small_data.train))
    assert colour.config.batch_size == len(photos().train)
    assert grey.config.epochs == 100
    assert grey.config.validate_every == 5


def test_as_many_images_are_seen_as_the_recipe_was_measured_with() -> None:
    base = NAMED_RECIPES["mnist", "accurate"].config
    for count in (6_000, 20_000, 54_000, 500_000):
        inputs = torch.zeros(1, dtype=torch.uint8).expand(count, 1, 8, 8)
        examples = ExampleSet(inputs, torch.arange(count) % 2, ("no", "yes"))
        config = named_recipe("accurate", Dataset("other", examples, examples, examples, seed=0)).config
        assert config.epochs * count >= 0.95 * base.epochs * min(54_000, count)
        assert config.epochs == max(4, round(4 * 54_000 / count))
        assert config.batch_size == base.batch_size


def test_a_recipe_for_what_is_no_image_and_an_unknown_one_are_refused() -> None:
    numbers = ExampleSet(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), ("no", "yes"))
    with pytest.raises(UsageError, match=r"classifies images.*'moons' has numbers.*--model"):
        named_recipe("fast", Dataset("moons", numbers, numbers, numbers, seed=0))
    with pytest.raises(UsageError, match=r"recipe 'quick'.*accurate, fast"):
        named_recipe("quick", Dataset("moons", numbers, numbers, numbers, seed=0))
