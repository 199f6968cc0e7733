"""What every member of a family must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import glassnet as gn
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.loader import to_device
from glassnet.data.records import make_record
from glassnet.models import ARCHITECTURES, spec_of
from glassnet.training.fit import fit

SMALL: dict[str, dict[str, object]] = {
    "alexnet": {"input_shape": (3, 67, 67), "hidden": 16},
    "alexnet-2012": {"input_shape": (3, 67, 67), "hidden": 16},
    "alexnet-torchvision": {"input_shape": (3, 63, 63), "hidden": 16},
    "zfnet": {"input_shape": (3, 67, 67), "hidden": 16},
    "googlenet": {"input_shape": (3, 79, 79)},
    "googlenet-torchvision": {"input_shape": (3, 33, 33)},
    **{name: {"input_shape": (3, 32, 32), "hidden": 16} for name in gn.list_models() if name.startswith("vgg")},
    **{f"resnet{d}": {"input_shape": (3, 33, 33)} for d in ("18", "34", "50", "101", "152", "18-lecture")},
    **{name: {"unit": "sigmoid"} for name in gn.list_models() if name.startswith("gate-")},
}
"""Options that make the larger networks small enough to be trained for a step in a test."""

SLOW_TO_SAVE = 6_000_000
"""Networks with more parameters are trained and not written to disk: the writing is the same for all."""


def small_model(name: str) -> nn.Module:
    return gn.build_model(name, num_classes=class_count(name), **SMALL.get(name, {}))


def class_count(name: str) -> int:
    if ARCHITECTURES[name].is_regression:
        return 1
    return 4 if ARCHITECTURES[name].num_classes > 2 else 2


def matching_data(name: str, input_shape: tuple[int, ...]) -> Dataset:
    """Return eight random inputs of the network's shape as every split, with labels or values that suit it."""
    generator = torch.Generator().manual_seed(0)
    if len(input_shape) == 3:
        inputs = torch.randint(0, 256, (8, *input_shape), dtype=torch.uint8, generator=generator)
    else:
        inputs = torch.rand(8, *input_shape, generator=generator)
    if ARCHITECTURES[name].is_regression:
        examples = ExampleSet(inputs, torch.rand(8, generator=generator), ())
    else:
        count = class_count(name)
        examples = ExampleSet(inputs, torch.arange(8) % count, tuple("abcd"[:count]))
    return Dataset("random", examples, examples, examples, seed=0)


@pytest.mark.parametrize("name", gn.list_models())
def test_every_model_builds_trains_a_step_saves_and_loads(name: str, tmp_path: Path) -> None:
    model = small_model(name)
    data = matching_data(name, spec_of(model).input_shape)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    # Plain gradient descent has no state of its own to be written for millions of parameters.
    config = gn.TrainConfig(
        epochs=1, batch_size=4, optimizer="sgd", momentum=0, learning_rate=1e-3, precision="fp32", device="cpu"
    )
    if sum(parameter.numel() for parameter in model.parameters()) > SLOW_TO_SAVE:
        record = make_record(data.train, spec_of(model).input_shape[1:], data.framing)
        examples = to_device(data.train, record, torch.device("cpu"))
        fit(model, examples, examples, record, config)
        assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
        return
    run = gn.train(model, data, config, out=tmp_path / name, progress=False)
    assert any(not torch.equal(value, before[key]) for key, value in run.model.state_dict().items())
    opened = gn.open_run(run.path, device="cpu")
    assert torch.equal(opened.outputs(data.test)[0], run.outputs(data.test)[0])
    assert opened.evaluate(data.test).num_examples == 8


@pytest.mark.parametrize("name", gn.list_models())
def test_every_model_is_summed_up_and_left_as_it_was(name: str) -> None:
    model = small_model(name)
    modes = [module.training for module in model.modules()]
    result = gn.summary(model, spec_of(model).input_shape)
    assert result.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert result.uncounted == ()
    assert [module.training for module in model.modules()] == modes
    assert all(not module._forward_hooks for module in model.modules())


PUBLISHED = {
    "lenet5": 61_706,
    "lenet5-1998": 60_000,
    "alexnet": 62_378_344,
    "alexnet-2012": 60_965_224,
    "alexnet-torchvision": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet18-lecture": 11_511_784,
    "resnet20": 269_722,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_of_the_published_form_are_as_many_as_published(name: str) -> None:
    with torch.device("meta"):
        model = gn.build_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]


def test_googlenet_without_its_extras_has_its_published_parameters() -> None:
    with torch.device("meta"):
        model = gn.build_model("googlenet", auxiliary=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_998_552


@pytest.mark.parametrize("name", gn.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(gn, name)
    assert name == "__version__" or value.__doc__


def test_an_absent_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        gn.trian  # noqa: B018


def test_importing_the_package_loads_no_heavy_library() -> None:
    import subprocess
    import sys

    code = "import sys, glassnet; print({'torch', 'numpy', 'PIL', 'sklearn', 'rich', 'typer'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
