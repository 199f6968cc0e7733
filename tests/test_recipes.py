"""Which config a data set gets where nobody said anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.image_files import ImageFiles
from glassnet.recipes import RECIPES, recipe, with_usual_augmentation
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
