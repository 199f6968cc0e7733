from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet.nn import narrow
from glassnet.nn.narrow import has_narrow
from glassnet.training.narrow import LEAST_IMAGES, narrow_convolutions
from glassnet.training.shortening import shortened

from .test_filtering import CONFIG

needs_library = pytest.mark.skipif(not has_narrow(), reason="no C compiler here that compiles narrow.c")


def images(*shape: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return values.to(memory_format=torch.channels_last) if len(shape) == 4 else values


@needs_library
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_lenets_convolutions_take_their_own_ways_for_a_block(layout: torch.memory_format) -> None:
    model = gn.build_model("lenet5", seed=0).to(memory_format=layout)
    inputs = images(LEAST_IMAGES, 1, 32, 32)
    taken: list[str] = []
    for name in ("c1", "c3", "c5"):
        getattr(model, name).register_forward_hook(
            lambda module, inputs, outputs: taken.append("" if outputs.grad_fn is None else outputs.grad_fn.name())
        )
    expected = model(inputs)
    assert taken == ["ConvolutionBackward0"] * 3
    taken.clear()
    with narrow_convolutions(model):
        outputs = model(inputs)
        assert torch.allclose(outputs, expected, rtol=0, atol=1e-5)
        assert [name.removesuffix("Backward") for name in taken[:2]] == ["NarrowConvolution"] * 2
        assert "Convolution" not in taken[2], "a matrix product"
        with torch.no_grad():
            assert torch.equal(model(inputs), expected)  # torch's own
        (slopes,) = torch.autograd.grad(outputs.square().sum(), model.c5.weight)
    assert type(model.c1) is type(model.c5) is nn.Conv2d
    (theirs,) = torch.autograd.grad(model(inputs).square().sum(), model.c5.weight)
    assert torch.allclose(slopes, theirs, rtol=1e-3, atol=1e-5)


@needs_library
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(24, 24, 3), (9, 24, 8, 8)),
        (nn.Conv2d(12, 24, 3), (9, 12, 8, 8)),
        (nn.Conv2d(3, 8, 3, stride=2), (9, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3, dilation=2), (9, 3, 8, 8)),
        (nn.Conv2d(4, 8, 3, groups=2), (9, 4, 8, 8)),
        (nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), (9, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3, padding=(0, 1)), (9, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3, padding=3), (9, 3, 8, 8)),
        pytest.param(
            nn.Conv2d(3, 8, 4, padding="same"),
            (9, 3, 8, 8),
            marks=pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
        ),
        (nn.Conv2d(3, 8, (3, 5)), (9, 3, 8, 8)),
        (nn.Conv2d(3, 8, 1), (9, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3).double(), (9, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3), (LEAST_IMAGES - 1, 3, 8, 8)),
        (nn.Conv2d(3, 8, 3), (3, 8, 8)),
        (nn.Conv2d(24, 8, 4), (9, 24, 8, 8)),
    ],
)
def test_what_does_not_gain_goes_torchs_way(layer: nn.Conv2d, shape: tuple[int, ...]) -> None:
    inputs = images(*shape).to(layer.weight.dtype)
    expected = layer(inputs)
    with narrow_convolutions(layer):
        outputs = layer(inputs)
    assert "Narrow" not in outputs.grad_fn.name()
    assert torch.equal(outputs, expected)


@needs_library
@pytest.mark.parametrize("padding", [0, 1, "same", "valid"])
def test_paddings_are_the_layers(padding: int | str) -> None:
    layer, inputs = nn.Conv2d(3, 8, 3, padding=padding), images(9, 3, 8, 8)
    expected = layer(inputs)
    with narrow_convolutions(layer):
        outputs = layer(inputs)
    assert "Narrow" in outputs.grad_fn.name()
    assert torch.allclose(outputs, expected, atol=1e-5)


def test_without_a_library_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "_library", lambda: None)
    layer = nn.Conv2d(1, 6, 5)
    with narrow_convolutions(layer):
        assert type(layer) is nn.Conv2d


@needs_library
@pytest.mark.parametrize("changes", [{"convolution": "direct"}, {"compile": True}])
def test_direct_and_compiled_trainings_are_torchs(changes: dict[str, object]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 5))
    with shortened(model, replace(CONFIG, **changes), True):
        assert type(model[0]) is nn.Conv2d
    with shortened(model, CONFIG, False):
        assert type(model[0]) is nn.Conv2d
    with shortened(model, CONFIG, True):
        assert type(model[0]) is not nn.Conv2d


@needs_library
def test_training_is_the_same_but_for_rounding_and_repeats_to_the_bit(tmp_path: Path) -> None:
    data = gn.load_data("digits")

    def trained(name: str, **changes: object) -> Tensor:
        run = gn.train(
            gn.build_model("lenet5", seed=0), data, replace(CONFIG, **changes), out=tmp_path / name, progress=False
        )
        return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])

    direct, own, again = trained("direct", convolution="direct"), trained("own"), trained("again")
    assert torch.equal(own, again)
    assert 0 < (own - direct).abs().max() < 1e-3
