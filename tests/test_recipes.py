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
from glassnet.data.transforms import RandomHorizontalFlip
from glassnet.models import build_model
from glassnet.recipes import (
    NAMED_RECIPES,
    RECIPES,
    default_recipe,
    named_recipe,
    recipe,
    with_usual_augmentation,
)
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
    own_arrays = replace(cifar, source="/home/me/cifar10.npz")
    assert with_usual_augmentation(TrainConfig(), own_arrays).augment == ""


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
    changes = parse_augmentation(found.config.augment)
    changes.check(shape)
    mirrors = [isinstance(change, RandomHorizontalFlip) for change in changes] + [found.config.alternating_flip]
    assert sum(mirrors) == (data_name == "cifar10")  # one of them, for things; none for digits
    assert found.config.resolved().optimizer == "muon"


def test_the_data_sets_of_the_recipes_get_theirs_and_other_images_what_is_nearest(small_data: Dataset) -> None:
    for (data_name, name), found in NAMED_RECIPES.items():
        assert named_recipe(name, replace(small_data, name=data_name)) is found
    grey, colour = named_recipe("fast", small_data), named_recipe("fast", photos())
    assert (grey.model, colour.model) == ("speednet", "airbench94")
    assert (grey.config.augment, colour.config.augment) == ("", "default")
    assert named_recipe("accurate", photos()).config.alternating_flip
    assert 16 <= grey.config.batch_size < len(small_data.train)
    assert colour.config.batch_size == len(photos().train)


@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_images_get_more_epochs_of_smaller_batches(channels: int) -> None:
    meant, model_data = {1: (54_000, "mnist"), 3: (45_000, "cifar10")}[channels]
    base = NAMED_RECIPES[model_data, "accurate"].config
    assert isinstance(base.batch_size, int)
    configs = [
        named_recipe("accurate", images_of(count, channels)).config for count in (meant // 10, meant // 2, meant, 10**6)
    ]
    assert [config.epochs for config in configs[2:]] == [round(base.epochs)] * 2
    assert [config.batch_size for config in configs[2:]] == [base.batch_size] * 2
    tenth, half = configs[:2]
    assert tenth.epochs == pytest.approx(4 * base.epochs, rel=0.05)
    assert tenth.batch_size == pytest.approx(base.batch_size / 2, rel=0.01)
    assert base.epochs < half.epochs < tenth.epochs
    assert all(config.keep == "last" for config in configs)
    if base.first_layer_epochs is not None:
        share = base.first_layer_epochs / base.epochs
        assert [config.first_layer_epochs for config in configs] == [share * config.epochs for config in configs]
    if base.output_learning_rate is not None:
        for config in configs:
            part = config.batch_size / base.batch_size
            assert config.output_learning_rate == pytest.approx(part * base.output_learning_rate)
            assert config.other_learning_rate == pytest.approx(part * base.other_learning_rate)


def test_a_handful_of_images_is_a_batch() -> None:
    config = named_recipe("fast", images_of(7, 3)).config
    assert (config.batch_size, config.epochs, config.validate_every) == (7, 100, 5)


def images_of(count: int, channels: int) -> Dataset:
    inputs = torch.zeros(1, dtype=torch.uint8).expand(count, channels, 8, 8)
    examples = ExampleSet(inputs, torch.arange(count) % 2, ("no", "yes"))
    return Dataset("other", examples, examples, examples, seed=0)


def test_what_is_trained_without_a_named_network(small_data: Dataset) -> None:
    assert default_recipe(replace(small_data, name="mnist")) is NAMED_RECIPES["mnist", "fast"]
    assert default_recipe(replace(small_data, name="digits")) is None  # it has a config of its own for LeNet-5
    assert default_recipe(small_data) == named_recipe("fast", small_data)
    numbers = ExampleSet(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), ("no", "yes"))
    assert default_recipe(Dataset("moons", numbers, numbers, numbers, seed=0)) is None
    values = ExampleSet(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4), ())
    assert default_recipe(Dataset("ages", values, values, values, seed=0)) is None


def test_a_folder_called_like_a_standard_set_is_not_taken_for_it(small_data: Dataset) -> None:
    for name in ("mnist", "digits"):
        folder = replace(small_data, name=name, source=f"/home/me/{name}")
        found = default_recipe(folder)
        assert found == named_recipe("fast", folder) == named_recipe("fast", small_data)


def test_a_torch_without_muon_trains_other_images_as_before(
    small_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    assert default_recipe(small_data) is None


def test_blank_images_do_not_blow_a_recipe_for_other_images_up() -> None:
    inputs, largest = torch.zeros(8, 3, 32, 32), {}
    for options in (NAMED_RECIPES["cifar10", "fast"].options, named_recipe("fast", images_of(40, 3)).options):
        model = build_model("airbench94", num_classes=2, **options)
        model.initialise_from(inputs)  # type: ignore[operator]
        torch.nn.functional.cross_entropy(model(inputs), torch.arange(8) % 2).backward()
        gradients = [parameter.grad.abs().max() for parameter in model.parameters() if parameter.grad is not None]
        largest[options.get("epsilon")] = float(torch.stack(gradients).max())
    assert largest[1e-5] < 1e6 < 1e12 < largest[None]


def test_a_recipe_for_what_is_no_image_and_an_unknown_one_are_refused() -> None:
    numbers = ExampleSet(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), ("no", "yes"))
    with pytest.raises(UsageError, match=r"classifies images.*'moons' has numbers.*--model"):
        named_recipe("fast", Dataset("moons", numbers, numbers, numbers, seed=0))
    with pytest.raises(UsageError, match=r"recipe 'quick'.*accurate, fast"):
        named_recipe("quick", Dataset("moons", numbers, numbers, numbers, seed=0))
