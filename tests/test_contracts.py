"""What every member of a family must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import glassnet as gn
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.models import ARCHITECTURES


def matching_data(name: str) -> Dataset:
    """Return eight random images of the network's published shape, as every split."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (8, *ARCHITECTURES[name].input_shape), dtype=torch.uint8, generator=generator)
    examples = ExampleSet(inputs, torch.arange(8) % 4, tuple("abcd"))
    return Dataset("random", examples, examples, examples, seed=0)


@pytest.mark.parametrize("name", gn.list_models())
def test_every_model_builds_trains_saves_and_loads(name: str, tmp_path: Path) -> None:
    data = matching_data(name)
    model = gn.build_model(name, num_classes=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = gn.TrainConfig(epochs=1, batch_size=4, precision="fp32", device="cpu")
    run = gn.train(model, data, config, out=tmp_path / name, progress=False)
    assert any(not torch.equal(value, before[key]) for key, value in run.model.state_dict().items())
    opened = gn.open_run(run.path, device="cpu")
    assert torch.equal(opened.logits(data.test)[0], run.logits(data.test)[0])
    assert opened.predict(data.test.inputs)[0].class_name in data.class_names


@pytest.mark.parametrize("name", gn.list_models())
def test_every_model_is_summed_up_and_left_as_it_was(name: str) -> None:
    model = gn.build_model(name)
    modes = [module.training for module in model.modules()]
    result = gn.summary(model, ARCHITECTURES[name].input_shape)
    assert result.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert result.rows[-1].output_shape == (10,)
    assert [module.training for module in model.modules()] == modes
    assert all(not module._forward_hooks for module in model.modules())


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
