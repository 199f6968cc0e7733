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
    found, shape = named_recipe(data_name, name), {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[data_name]
    model = build_model(found.model, num_classes=10, input_shape=shape, **found.options)
    assert model(torch.zeros(2, *shape)).shape == (2, 10)
    parse_augmentation(found.config.augment).check(shape)
    assert found.config.resolved().optimizer == "muon"


def test_a_recipe_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"no recipe 'fast' for 'digits'.*fast for mnist.*accurate for cifar10"):
        named_recipe("digits", "fast")
    with pytest.raises(UsageError, match=r"recipe 'quick'.*accurate, fast"):
        named_recipe("mnist", "quick")
