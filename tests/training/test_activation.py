from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet.nn import gelu as own
from glassnet.nn.gelu import has_gelu
from glassnet.training.activation import LEAST_NUMBERS, quick_gelu
from glassnet.training.shortening import shortened

from .test_filtering import CONFIG
from .test_pooling import names

needs_library = pytest.mark.skipif(not has_gelu(), reason="no C compiler here that compiles gelu.c")


def inputs(count: int = LEAST_NUMBERS) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).requires_grad_()


@needs_library
def test_a_layer_takes_its_own_way_for_a_block() -> None:
    model = nn.Sequential(nn.GELU())
    expected = model(inputs())
    with quick_gelu(model):
        outputs = model(inputs())
        assert names(outputs) == "GeluBackward"
        assert torch.allclose(outputs, expected, atol=1e-6)
        assert names(model(inputs(LEAST_NUMBERS - 1))) == "GeluBackward0"
        with torch.no_grad():
            assert torch.equal(model(inputs()), expected)
        assert repr(model) == repr(nn.Sequential(nn.GELU()))
    assert type(model[0]) is nn.GELU


@needs_library
def test_the_approximation_by_tanh_and_other_numbers_are_torchs() -> None:
    model = nn.ModuleList([nn.GELU(approximate="tanh"), nn.GELU()])
    with quick_gelu(model):
        assert type(model[0]) is nn.GELU
        assert names(model[1](inputs().double())) == "GeluBackward0"


def test_without_a_library_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_library", lambda: None)
    model = nn.Sequential(nn.GELU())
    with quick_gelu(model):
        assert type(model[0]) is nn.GELU


@needs_library
@pytest.mark.parametrize("changes", [{"convolution": "direct"}, {"compile": True}])
def test_direct_and_compiled_trainings_are_torchs(changes: dict[str, object]) -> None:
    model = nn.Sequential(nn.GELU())
    with shortened(model, replace(CONFIG, **changes), True):
        assert type(model[0]) is nn.GELU
    with shortened(model, CONFIG, True):
        assert type(model[0]) is not nn.GELU


@needs_library
def test_training_is_the_same_but_for_rounding_and_repeats_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = gn.load_data("digits"), replace(CONFIG, batch_size=100)

    def trained(name: str) -> Tensor:
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(216, 10))
        run = gn.train(nn.Sequential(*layers), data, config, out=tmp_path / name, progress=False)
        return torch.cat([values.detach().flatten().double() for values in run.model.state_dict().values()])

    own_way, again = trained("own"), trained("again")
    monkeypatch.setattr(own, "_library", lambda: None)
    theirs = trained("theirs")
    assert torch.equal(own_way, again)
    assert 0 < (own_way - theirs).abs().max() < 1e-3
