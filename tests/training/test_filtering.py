from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import glassnet as gn
from glassnet.nn import winograd
from glassnet.nn.winograd import has_winograd
from glassnet.training.filtering import LEAST_TILES, minimal_filtering
from glassnet.training.shortening import shortened

needs_library = pytest.mark.skipif(not has_winograd(), reason="no C compiler here that compiles winograd.c")

CONFIG = gn.TrainConfig(epochs=1, batch_size=64, optimizer="sgd", learning_rate=0.05, seed=3, precision="fp32")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 24, 3, padding=1)
        self.middle = nn.Conv2d(24, 32, 3, padding="same")
        self.wide = nn.Conv2d(32, 24, 5, padding=2)
        self.last = nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.wide(self.middle(self.first(images).relu()).relu()).mean((2, 3)))


def images(count: int = LEAST_TILES) -> Tensor:
    return torch.randn(count, 24, 4, 4, generator=torch.Generator().manual_seed(0))


@needs_library
def test_what_gains_takes_the_short_way_for_a_block() -> None:
    model = nn.Sequential(nn.Conv2d(24, 32, 3, padding=1), nn.Conv2d(32, 24, 3, bias=False))
    expected = model(images())
    with minimal_filtering(model) as count:
        assert count == 2
        outputs = model(images())
        assert "Winograd" in outputs.grad_fn.name()
        assert torch.allclose(outputs, expected, rtol=0, atol=1e-5)
        with torch.no_grad():
            assert torch.equal(model(images()), expected)  # torch's own
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Conv2d]
    assert torch.equal(model(images()), expected)


@needs_library
def test_what_does_not_gain_is_left_alone() -> None:
    class Own(nn.Conv2d):
        """A user's own layer may do anything."""

    model = nn.ModuleList(
        [
            Own(24, 24, 3),
            nn.Conv2d(24, 24, 5),
            nn.Conv2d(24, 24, 3, stride=2),
            nn.Conv2d(24, 24, 3, dilation=2),
            nn.Conv2d(48, 48, 3, groups=2),
            nn.Conv2d(24, 24, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(24, 24, 3, padding=(0, 1)),
            nn.Conv2d(24, 24, 3, padding=3),
            nn.Conv2d(3, 24, 3),
            nn.Conv2d(24, 10, 3),
            nn.Conv2d(25, 30, 3),
            nn.Conv2d(24, 24, 3).double(),
            nn.Conv2d(24, 24, 3, device="meta"),
        ]
    )
    with minimal_filtering(model) as count:
        assert count == 0
        assert all(type(layer) in (nn.Conv2d, Own) for layer in model)


@needs_library
@pytest.mark.parametrize(
    "inputs", [images(LEAST_TILES - 1), images().double(), images()[0]], ids=["few tiles", "float64", "one image"]
)
def test_inputs_that_do_not_gain_go_torchs_way(inputs: Tensor) -> None:
    model = nn.Conv2d(24, 24, 3, padding=1).to(inputs.dtype)
    with minimal_filtering(model):
        outputs = model(inputs)
        assert "Winograd" not in outputs.grad_fn.name()
        assert outputs.shape == inputs.shape


@needs_library
def test_hooks_copies_and_pickles_see_a_plain_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(24, 24, 3))
    seen: list[str] = []
    model[0].register_forward_hook(lambda module, inputs, outputs: seen.append(outputs.grad_fn.name()))
    with minimal_filtering(model):
        model(images())
        copied = copy.deepcopy(model)
        del model[0]._forward_hooks
        model[0]._forward_hooks = {}
        restored = pickle.loads(pickle.dumps(model))
    assert "Winograd" in seen[0]
    assert type(copied[0]) is type(restored[0]) is nn.Conv2d
    assert torch.equal(restored(images()), model(images()))
    assert repr(restored) == repr(model)


@needs_library
def test_the_modules_come_back_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(24, 24, 3))
    with pytest.raises(RuntimeError, match="lost"), minimal_filtering(model):
        raise RuntimeError("lost")
    assert type(model[0]) is nn.Conv2d


def test_without_a_library_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_library", lambda: None)
    model = nn.Sequential(nn.Conv2d(24, 24, 3))
    with minimal_filtering(model) as count:
        assert count == 0
        assert type(model[0]) is nn.Conv2d


def weights_of(run: gn.Run) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


@needs_library
def test_training_is_the_same_but_for_rounding_and_repeats_to_the_bit(tmp_path: Path) -> None:
    data = gn.load_data("digits")

    def trained(name: str, **changes: object) -> gn.Run:
        torch.manual_seed(0)
        config = replace(CONFIG, **changes)
        return gn.train(Net(), data, config, out=tmp_path / name, progress=False)

    direct = trained("direct", convolution="direct")
    filtered, again = trained("filtered"), trained("again")
    assert direct.record["result"]["filtered_convolutions"] == 0
    assert filtered.record["result"]["filtered_convolutions"] == 1
    assert torch.equal(weights_of(filtered), weights_of(again))
    difference = (weights_of(filtered) - weights_of(direct)).abs().max()
    assert 0 < difference < 1e-3


@needs_library
@pytest.mark.parametrize("changes", [{"convolution": "direct"}, {"compile": True}])
def test_direct_and_compiled_trainings_are_torchs(changes: dict[str, object]) -> None:
    model = nn.Sequential(nn.Conv2d(24, 24, 3))
    with shortened(model, replace(CONFIG, **changes), True) as count:
        assert count == 0
        assert type(model[0]) is nn.Conv2d
    with shortened(model, CONFIG, False) as count:
        assert count == 0
    with shortened(model, CONFIG, True) as count:
        assert count == 1


@needs_library
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, of its forward mode
def test_what_torch_does_with_a_call_it_does_with_these_too() -> None:
    model = nn.Conv2d(24, 24, 3, padding=1)
    with minimal_filtering(model):
        assert repr(model) == "Conv2d(24, 24, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))"
        with torch.autocast("cpu", torch.bfloat16):
            assert model(images()).dtype == torch.bfloat16
        mapped = torch.func.vmap(model)(images()[None])
        assert torch.allclose(mapped[0], model(images()), atol=1e-5)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(images(), torch.ones_like(images()))
            assert forward_ad.unpack_dual(model(dual)).tangent is not None


@needs_library
def test_a_layer_that_is_made_another_meanwhile_stays_so() -> None:
    model = nn.Sequential(nn.Conv2d(24, 24, 3))
    with minimal_filtering(model):
        nn.utils.parametrizations.weight_norm(model[0])
        outputs = model(images())
    assert "Parametrized" in type(model[0]).__name__
    assert torch.allclose(model(images()), outputs, atol=1e-5)


@needs_library
def test_validation_is_computed_as_the_opened_run_computes_it(tmp_path: Path) -> None:
    data = gn.load_data("digits")
    run = gn.train(Net(), data, CONFIG, out=tmp_path / "run", progress=False)
    assert run.record["result"]["filtered_convolutions"] == 1
    assert run.history[-1].validation_loss == pytest.approx(run.evaluate(data.validation).loss, rel=1e-6)


@needs_library
def test_before_training_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gn.train(Net(), gn.load_data("digits"), replace(CONFIG, epochs=0.1), out=tmp_path / "run")
    assert "in fp32, 1 convolution by minimal filtering" in capsys.readouterr().err


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(gn.UsageError, match="convolution 'winograd'.*auto, direct"):
        gn.TrainConfig(convolution="winograd")
