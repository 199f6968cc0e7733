from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import glassnet as gn
from glassnet import UsageError
from glassnet.data.examples import Dataset
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.inspection.activation_statistics import SATURATION
from glassnet.runs import Run


def half_dead() -> nn.Module:
    """Four channels: one negative everywhere before the ReLU, one constant, two alive."""
    conv = nn.Conv2d(1, 4, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 0.0, 0.0, -2.0]).reshape(4, 1, 1, 1))
        conv.bias.copy_(torch.tensor([0.0, -1.0, 3.0, 2.0]))
    return nn.Sequential(OrderedDict(conv=conv, act=nn.ReLU(), squash=nn.Tanh()))


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, 6, 5, generator=torch.Generator().manual_seed(seed))


def test_maps_and_statistics_are_those_of_the_layer() -> None:
    model, batch = half_dead(), images(40)
    found = gn.feature_maps(model, batch, "act", keep=3, batch_size=7)
    with torch.no_grad():
        expected = model.act(model.conv(batch))
    assert torch.equal(found.maps, expected[:3])
    assert torch.equal(found.images, batch[:3])
    assert found.num_images == 40
    for index, channel in enumerate(found.channels):
        values = expected[:, index].double()
        assert channel.mean == pytest.approx(float(values.mean()), abs=1e-6)
        assert channel.spread == pytest.approx(float(values.std(correction=0)), abs=1e-5)
        assert (channel.minimum, channel.maximum) == (float(values.min()), float(values.max()))


def test_dead_channels_are_those_with_one_value_everywhere() -> None:
    found = gn.feature_maps(half_dead(), images(100), "act")
    assert found.dead == (1, 2)
    assert str(found) == "2 of 4 channels of act are dead on these 100 images."
    with torch.no_grad():
        one = half_dead()
        one.conv.weight[1] = 1.0
        one.conv.bias[1] = 0.0
    assert str(gn.feature_maps(one, images(100), "act")) == "1 of 4 channels of act is dead on these 100 images."
    assert gn.feature_maps(half_dead(), images(1)[0], "conv").dead == (1, 2)
    assert "on this image" in str(gn.feature_maps(half_dead(), images(1)[0], "conv"))


def test_a_feature_of_one_image_is_dead_only_where_it_is_zero() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(30, 4), nn.ReLU())
    found = gn.feature_maps(model, images(1), "2")
    assert found.dead == tuple(int(i) for i in (found.maps[0] == 0).nonzero().flatten())
    assert 0 < len(found.dead) < 4


def test_saturated_channels_lie_at_a_bound_of_their_function() -> None:
    model = half_dead()
    with torch.no_grad():
        model.conv.bias[0] = 9.0
    found = gn.feature_maps(model, images(20), "squash")
    assert found.channels[0].saturated_share == 1
    assert found.saturated == (0,)  # channel 2 is at tanh(3) everywhere: dead, whatever else
    assert "1 saturated" in str(found)
    assert gn.feature_maps(model, images(20), "conv").channels[0].saturated_share is None


def test_channels_are_sorted_by_their_largest_value_or_their_spread() -> None:
    assert gn.feature_maps(half_dead(), images(20), "act").order == (0, 1, 2, 3)
    assert gn.feature_maps(half_dead(), images(20), "act", sort="activation").order == (2, 3, 0, 1)
    assert gn.feature_maps(half_dead(), images(20), "act", sort="variance").order[:2] == (3, 0)


def test_the_scale_is_shared_or_the_channels_own() -> None:
    shared, own = (gn.feature_maps(half_dead(), images(4), "act", scale=scale) for scale in ("shared", "own"))
    assert {shared.limit(channel) for channel in range(4)} == {3.0}
    assert own.limit(0) == float(own.maps[:, 0].max())
    assert own.limit(1) == 0


def test_a_run_prepares_pixels_pictures_and_files(digits_run: Run, digits: Dataset, tmp_path) -> None:  # type: ignore[no-untyped-def]
    picture = Image.fromarray(digits.test.inputs[0, 0].numpy())
    picture.save(tmp_path / "digit.png")
    fitted = digits_run.preprocessing.fit_inputs(digits.test.inputs[:1])
    given = [
        digits.test.inputs[:1],
        picture,
        tmp_path / "digit.png",
        [str(tmp_path / "digit.png")],
        np.array(picture)[None],
    ]
    found = [gn.feature_maps(digits_run, images, "c1") for images in given]
    found.append(gn.feature_maps(digits_run.model, digits_run.preprocessing.normalise(fitted), "c1"))
    assert all(torch.equal(other.maps, found[0].maps) for other in found[1:])
    assert all(torch.equal(other.images, fitted) for other in found[:-1])
    whole = gn.feature_maps(digits_run, digits.test, "c3")
    assert whole.num_images == len(digits.test)


def test_signals_volumes_and_vectors_have_maps_too() -> None:
    assert gn.feature_maps(nn.Sequential(nn.Conv1d(2, 3, 3)), torch.rand(2, 9), "0").maps.shape == (1, 3, 7)
    assert gn.feature_maps(nn.Sequential(nn.Conv3d(1, 2, 3)), torch.rand(2, 1, 5, 5, 5), "0").maps.shape == (
        2,
        2,
        3,
        3,
        3,
    )
    assert gn.feature_maps(nn.Sequential(nn.Linear(4, 5)), torch.rand(6, 4), "0", keep=2).maps.shape == (2, 5)


def test_everything_but_the_maps_becomes_plain_values() -> None:
    values = gn.feature_maps(half_dead(), images(5), "act").to_dict()
    assert values["dead"] == (1, 2)
    assert [channel["index"] for channel in values["channels"]] == [0, 1, 2, 3]  # type: ignore[index,union-attr]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "actt"}, r"Unknown layer 'actt'. Did you mean 'act'"),
        ({"layer": ""}, "Unknown layer ''"),
        ({"sort": "size"}, "Unknown sort 'size'. Choose one of: activation, index, variance"),
        ({"scale": "mine"}, "Unknown scale 'mine'"),
        ({"keep": 0}, "keep must be a whole number of at least 1; got 0"),
        ({"images": images(2)[:0]}, "expected at least one image, got none"),
        ({"images": torch.zeros(2, 3, 6, 5)}, "does not take inputs of 3x6x5: .*Give images as they were in training"),
        (
            {"images": torch.zeros(2, 1, 6, 5, dtype=torch.uint8)},
            "got uint8 pixels. How to prepare them is known to a run",
        ),
        ({"images": "photo.png"}, "got 'photo.png'. How to prepare it is known to a run"),
        ({"images": []}, "Expected one or more images of one shape and kind; got none"),
    ],
)
def test_a_users_mistake_is_explained(arguments: dict[str, object], message: str) -> None:
    given = {"images": images(2), "layer": "act", **arguments}
    with pytest.raises(UsageError, match=message):
        gn.feature_maps(half_dead(), **given)  # type: ignore[arg-type]


def test_an_image_of_the_wrong_shape_gets_the_runs_preprocessing_explained(digits_run: Run) -> None:
    with pytest.raises(
        UsageError, match=r"of 1x28x28. It takes 1x32x32: its preprocessing makes images grey, fits them to 32x32"
    ):
        gn.feature_maps(digits_run, torch.zeros(2, 1, 28, 28), "c1")
    with pytest.raises(UsageError, match="It was built for 1x32x32"):
        gn.feature_maps(digits_run.model, torch.zeros(2, 1, 20, 20), "c1")


def test_a_layer_without_a_row_for_each_image_is_refused() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.each(x.reshape(-1, 5)).reshape(len(x), -1)

    with pytest.raises(UsageError, match=r"^Expected layer 'each' to give numbers with a row for each of 2 images"):
        gn.feature_maps(Folded(), images(2), "each")


def test_a_layer_that_does_not_run_is_said_to() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.ReLU(), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(UsageError, match="^Layer 'unused' gave no tensor: the forward pass did not run it"):
        gn.feature_maps(Skips(), images(2), "unused")


def test_a_record_serves_a_plain_module(small_data: Dataset) -> None:
    record = make_preprocessing(small_data.train, (6, 5))
    found = gn.feature_maps(half_dead(), small_data.test, "conv", preprocessing=record)
    assert (found.num_images, tuple(found.images.shape[1:])) == (15, (1, 6, 5))


def test_a_layer_is_read_before_work_in_place_goes_over_it_in_every_batch() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    found = gn.feature_maps(model, -torch.ones(4, 2, 3, 3), "0", batch_size=2)
    assert [channel.maximum for channel in found.channels] == [-1.0, -1.0]


@pytest.mark.parametrize("shape", [(4, 2, 3, 5), (3, 1, 7, 7), (2, 70, 2, 2), (3, 4, 1, 1)])
def test_channels_innermost_give_the_figures_of_channels_outermost(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    found = gn.feature_maps(nn.Sequential(nn.Sigmoid()), values, "0")
    maps = values.sigmoid().double()
    for index, channel in enumerate(found.channels):
        own = maps[:, index]
        assert channel.num_values == own.numel()
        assert channel.mean == pytest.approx(float(own.mean()), rel=1e-6)
        assert channel.spread == pytest.approx(float(own.std(unbiased=False)), rel=1e-4)
        assert (channel.minimum, channel.maximum) == pytest.approx((float(own.min()), float(own.max())), rel=1e-6)
        near = (own <= SATURATION) | (own >= 1 - SATURATION)
        assert channel.saturated_share == pytest.approx(float(near.double().mean()))


class Pair(nn.Module):
    """A model that takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.conv(image) + other


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Pair(), "missing 1 required positional argument: 'other'.*It is called with a batch as one tensor"),
        (nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3))).half(), "Expected parameters in float32.*got float16"),
    ],
)
def test_a_model_that_fails_on_the_size_it_takes_is_not_told_to_change_the_size(model: nn.Module, message: str) -> None:
    record = Preprocessing(class_names=(), mode="L", size=(6, 6), mean=(0.5,), std=(0.5,), fit="stretch")
    with pytest.raises(UsageError, match=message) as caught:
        gn.feature_maps(model, torch.zeros(2, 1, 6, 6), "conv", preprocessing=record)
    assert "It takes 1x6x6" not in str(caught.value)


def test_what_is_no_images_at_all_is_said() -> None:
    with pytest.raises(UsageError, match="Expected images: a tensor, files, or a list of them; got NoneType"):
        gn.feature_maps(half_dead(), None, "conv")  # type: ignore[arg-type]
