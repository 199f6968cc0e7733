from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet.nn import normalising
from glassnet.nn.normalising import has_batch_norm
from glassnet.training.normalising import quick_normalisation
from glassnet.training.shortening import shortened

from .test_filtering import CONFIG
from .test_narrow import images

needs_library = pytest.mark.skipif(not has_batch_norm(), reason="no C compiler here that compiles normalising.c")


@needs_library
def test_a_layer_that_trains_takes_its_own_way_for_a_block_and_keeps_its_statistics() -> None:
    plain, layer = nn.BatchNorm2d(8, momentum=0.3), nn.BatchNorm2d(8, momentum=0.3)
    inputs = images(4, 8, 5, 5)
    with quick_normalisation(layer):
        for _ in range(3):
            outputs, expected = layer(inputs), plain(inputs)
        assert "BatchNormalisation" in outputs.grad_fn.name()
        assert torch.allclose(outputs, expected, atol=1e-5)
        layer.eval()
        assert "Normalisation" not in layer(inputs).grad_fn.name()
        assert repr(layer) == repr(plain)
    assert type(layer) is nn.BatchNorm2d
    assert layer.num_batches_tracked == plain.num_batches_tracked == 3
    for name, value in plain.state_dict().items():
        assert torch.allclose(layer.state_dict()[name], value, atol=1e-6)


@needs_library
@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.BatchNorm2d(6), images(4, 6, 5, 5)),
        (nn.BatchNorm2d(40), images(4, 40, 5, 5)),
        (nn.BatchNorm2d(8, affine=False), images(4, 8, 5, 5)),
        (nn.BatchNorm2d(8, track_running_stats=False), images(4, 8, 5, 5)),
        (nn.BatchNorm2d(8, momentum=None), images(4, 8, 5, 5)),
        (nn.BatchNorm2d(8).double(), images(4, 8, 5, 5).double()),
        (nn.BatchNorm2d(8), images(4, 8, 5, 5).contiguous()),
        (nn.BatchNorm1d(8), images(4, 8, 5)),
    ],
)
def test_what_it_does_not_suit_goes_torchs_way(layer: nn.Module, inputs: Tensor) -> None:
    inputs.requires_grad_()
    with quick_normalisation(layer):
        assert "Normalisation" not in layer(inputs).grad_fn.name()


def test_without_a_library_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalising, "_library", lambda: None)
    layer = nn.BatchNorm2d(8)
    with quick_normalisation(layer):
        assert type(layer) is nn.BatchNorm2d


@needs_library
@pytest.mark.parametrize("changes", [{"convolution": "direct"}, {"compile": True}])
def test_direct_and_compiled_trainings_are_torchs(changes: dict[str, object]) -> None:
    model = nn.Sequential(nn.BatchNorm2d(8))
    with shortened(model, replace(CONFIG, **changes), True):
        assert type(model[0]) is nn.BatchNorm2d
    with shortened(model, CONFIG, True):
        assert type(model[0]) is not nn.BatchNorm2d


@needs_library
def test_one_number_a_channel_is_refused_as_torch_refuses_it() -> None:
    layer = nn.BatchNorm2d(8)
    with quick_normalisation(layer), pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(images(1, 8, 1, 1))


@needs_library
def test_training_is_the_same_but_for_rounding_and_repeats_to_the_bit(tmp_path: Path) -> None:
    data = gn.load_data("digits")

    def trained(name: str, **changes: object) -> Tensor:
        model = gn.build_model("speednet", input_shape=(1, 20, 20), seed=0)
        run = gn.train(model, data, replace(CONFIG, **changes), out=tmp_path / name, progress=False)
        return torch.cat([values.detach().flatten().double() for values in run.model.state_dict().values()])

    direct, own, again = trained("direct", convolution="direct"), trained("own"), trained("again")
    assert torch.equal(own, again)
    assert 0 < (own - direct).abs().max() < 1e-3
