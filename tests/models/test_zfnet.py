from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.models.zfnet import zfnet

SMALL = {"num_classes": 3, "input_shape": (3, 47, 47), "hidden": 16}


def test_the_parameters_follow_from_the_kernels_of_figure_3() -> None:
    with torch.device("meta"):
        model = zfnet()
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in model.named_children()}
    assert {name: count for name, count in counts.items() if count} == {
        "conv1": 14_208,  # 96 * (7*7*3 + 1)
        "conv2": 614_656,  # 256 * (5*5*96 + 1)
        "conv3": 885_120,  # 384 * (3*3*256 + 1)
        "conv4": 1_327_488,  # 384 * (3*3*384 + 1)
        "conv5": 884_992,  # 256 * (3*3*384 + 1)
        "fc6": 37_752_832,  # 4096 * (6*6*256 + 1)
        "fc7": 16_781_312,  # 4096 * (4096 + 1)
        "fc8": 4_097_000,  # 1000 * (4096 + 1)
    }
    assert sum(counts.values()) == 62_357_608


def test_the_maps_have_the_sizes_of_figure_3() -> None:
    with torch.device("meta"):
        maps, sizes = torch.empty(1, 3, 224, 224), {}
        for name, layer in zfnet().named_children():
            maps = layer(maps)
            sizes[name] = tuple(maps.shape[1:])
    assert sizes["conv1"] == (96, 110, 110)
    assert sizes["pool1"] == (96, 55, 55)
    assert sizes["conv2"] == (256, 26, 26)
    assert sizes["pool2"] == (256, 13, 13)
    assert sizes["conv3"] == sizes["conv4"] == (384, 13, 13)
    assert sizes["conv5"] == (256, 13, 13)
    assert sizes["pool5"] == (256, 6, 6)
    assert sizes["fc6"] == sizes["fc7"] == (4096,)
    assert sizes["fc8"] == (1000,)


def test_normalisation_follows_the_pooling_unlike_in_alexnet() -> None:
    names = [name for name, _ in zfnet(**SMALL).named_children()]
    assert names[:9] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2", "conv3"]
    names = [name for name, _ in zfnet(**SMALL, normalisation="batch").named_children()]
    assert names[:9] == ["conv1", "bn1", "relu1", "pool1", "conv2", "bn2", "relu2", "pool2", "conv3"]


@pytest.mark.parametrize("shape", [(1, 47, 47), (2, 60, 101)])
@pytest.mark.parametrize("normalisation", ["local_response", "batch", "none"])
def test_channels_sizes_and_classes_are_the_callers(shape, normalisation) -> None:
    with torch.device("meta"):
        model = zfnet(num_classes=4, input_shape=shape, normalisation=normalisation)
        assert model(torch.empty(2, *shape)).shape == (2, 4)


def test_one_training_step_moves_every_parameter_and_lowers_the_loss() -> None:
    torch.manual_seed(4)
    model = zfnet(**SMALL, dropout=0.0)
    images, labels = torch.randn(6, 3, 47, 47), torch.tensor([0, 1, 2, 0, 1, 2])
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert all((value != before[name]).any() for name, value in model.named_parameters())
    assert nn.functional.cross_entropy(model(images), labels) < loss


def test_initial_weights_follow_he_or_the_paper() -> None:
    he, published = zfnet(**SMALL), zfnet(**SMALL, initialisation="published")
    assert he.conv2.weight.std().item() == pytest.approx(math.sqrt(2 / (5 * 5 * 96)), rel=0.02)
    assert published.conv2.weight.std().item() == pytest.approx(0.01, rel=0.02)
    for model in (he, published):
        assert all((value == 0).all() for name, value in model.named_parameters() if name.endswith("bias"))


def test_images_too_small_are_refused_with_the_layer_and_the_arithmetic() -> None:
    with pytest.raises(
        UsageError,
        match=r"zfnet needs images of at least 47x47 pixels; got 32x46: conv1 14x21 -> pool1 7x10 -> conv2 2x3 -> "
        r"pool2 1x1 -> pool5 \(kernel 3, stride 2, padding 0\) has no room in 1x1, 1 \+ 2\*0 - 3 = -2 < -1, the least",
    ):
        zfnet(input_shape=(3, 32, 46))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (784,)}, r"zfnet takes images: input_shape \(channels, height, width\); got \(784,\)"),
        ({"dropout": -0.1}, "dropout of zfnet must be at least 0"),
        ({"hidden": 2.5}, "hidden of zfnet must be a whole number"),
        ({"normalisation": "local"}, "Unknown normalisation 'local'"),
        ({"initialisation": "publish"}, "Did you mean 'published'"),
    ],
)
def test_an_impossible_option_is_refused_by_name(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        zfnet(**options)
