from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet.nn import pooling
from glassnet.nn.pooling import has_max_pool
from glassnet.training.pooling import quick_pooling
from glassnet.training.reordering import pooled_first

needs_library = pytest.mark.skipif(not has_max_pool(), reason="no C compiler here that compiles pooling.c")


def images(channels: int = 6) -> Tensor:
    drawn = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return drawn.to(memory_format=torch.channels_last).requires_grad_()


def names(outputs: Tensor) -> str:
    """Return the name of the operation that made `outputs`."""
    assert outputs.grad_fn is not None
    return outputs.grad_fn.name()


@needs_library
@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.MaxPool2d((2, 2), (2, 2), dilation=(1, 1))])
def test_pooling_takes_the_short_way_for_a_block(layer: nn.MaxPool2d) -> None:
    model = nn.Sequential(layer)
    expected = model(images())
    with quick_pooling(model):
        outputs = model(images())
        assert names(outputs) == "MaxPoolingBackward"
        assert torch.equal(outputs, expected)
        assert type(copy.deepcopy(model)[0]) is nn.MaxPool2d
        with torch.no_grad():
            assert torch.equal(model(images()), expected)
        assert "MaxPooling" not in names(model(images().contiguous()))  # another layout is torch's
    assert type(model[0]) is nn.MaxPool2d
    assert "MaxPooling" not in names(model(images()))


@needs_library
def test_other_pooling_is_torchs() -> None:
    class Own(nn.MaxPool2d):
        """A user's own layer may do anything."""

    model = nn.ModuleList(
        [
            Own(2),
            nn.MaxPool2d(3, 2),
            nn.MaxPool2d(2, 1),
            nn.MaxPool2d(2, padding=1),
            nn.MaxPool2d(2, dilation=2),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.MaxPool2d(2, return_indices=True),
            nn.AvgPool2d(2),
        ]
    )
    before = [type(layer) for layer in model]
    with quick_pooling(model):
        assert [type(layer) for layer in model] == before


@needs_library
def test_it_goes_before_a_relu_too() -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
    expected = model(images())
    with pooled_first(model), quick_pooling(model):
        outputs = model(images())
        assert names(outputs) == "ReluBackward0"
        assert torch.equal(outputs, expected)
        assert outputs.grad_fn.next_functions[0][0].name() == "MaxPoolingBackward"


def test_without_a_library_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "_library", lambda: None)
    model = nn.Sequential(nn.MaxPool2d(2))
    with quick_pooling(model):
        assert type(model[0]) is nn.MaxPool2d


@needs_library
def test_weights_are_those_of_a_training_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = gn.TrainConfig(epochs=1, batch_size=64, seed=1, precision="fp32")

    def trained(name: str) -> list[Tensor]:
        model = gn.build_model("cnn2d", input_shape=(1, 8, 8), seed=0)
        assert any(type(layer) is nn.MaxPool2d for layer in model.modules())
        run = gn.train(model, gn.load_data("digits"), replace(config), out=tmp_path / name, progress=False)
        return list(run.model.parameters())

    quick = trained("quick")
    monkeypatch.setattr(pooling, "_library", lambda: None)
    assert all(torch.equal(one, other) for one, other in zip(quick, trained("plain"), strict=True))
