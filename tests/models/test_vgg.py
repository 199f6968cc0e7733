from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.models import vgg

BUILDERS = {
    "vgg11": vgg.vgg11,
    "vgg13": vgg.vgg13,
    "vgg16": vgg.vgg16,
    "vgg19": vgg.vgg19,
    "vgg11-bn": vgg.vgg11_bn,
    "vgg13-bn": vgg.vgg13_bn,
    "vgg16-bn": vgg.vgg16_bn,
    "vgg19-bn": vgg.vgg19_bn,
}

NUM_PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11-bn": 132_868_840,
    "vgg13-bn": 133_053_736,
    "vgg16-bn": 138_365_992,
    "vgg19-bn": 143_678_248,
}

# Kernels of each convolution, and the positions of the convolutions in torchvision's `features`.
KERNELS = {
    "vgg11": [64, 128, 256, 256, 512, 512, 512, 512],
    "vgg13": [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    "vgg16": [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512],
    "vgg19": [64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512],
}
POSITIONS = {
    "vgg11": [0, 3, 6, 8, 11, 13, 16, 18],
    "vgg13": [0, 2, 5, 7, 10, 12, 15, 17, 20, 22],
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
    "vgg11-bn": [0, 4, 8, 11, 15, 18, 22, 25],
    "vgg13-bn": [0, 3, 7, 10, 14, 17, 21, 24, 28, 31],
    "vgg16-bn": [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40],
    "vgg19-bn": [0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49],
}


def torchvision_shapes(name: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for position, kernels in zip(POSITIONS[name], KERNELS[name.removesuffix("-bn")], strict=True):
        shapes[f"features.{position}.weight"] = (kernels, channels, 3, 3)
        shapes[f"features.{position}.bias"] = (kernels,)
        if name.endswith("-bn"):
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"features.{position + 1}.{part}"] = (kernels,)
            shapes[f"features.{position + 1}.num_batches_tracked"] = ()
        channels = kernels
    for position, size in ((0, (4096, 25_088)), (3, (4096, 4096)), (6, (1000, 4096))):
        shapes[f"classifier.{position}.weight"] = size
        shapes[f"classifier.{position}.bias"] = size[:1]
    return shapes


@pytest.mark.parametrize("name", BUILDERS)
def test_the_state_dict_has_torchvisions_keys_shapes_and_number_of_parameters(name) -> None:
    with torch.device("meta"):
        model = BUILDERS[name]()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert list(shapes) == list(torchvision_shapes(name))
    assert shapes == torchvision_shapes(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize(("name", "millions"), [("vgg11", 133), ("vgg13", 133), ("vgg16", 138), ("vgg19", 144)])
def test_the_parameters_are_the_millions_of_table_2(name, millions) -> None:
    with torch.device("meta"):
        model = BUILDERS[name]()
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions


def test_vgg16_has_the_weights_of_the_published_layer_table() -> None:
    with torch.device("meta"):
        model = vgg.vgg16()
    weights = [layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert weights == [
        *(1_728, 36_864),
        *(73_728, 147_456),
        *(294_912, 589_824, 589_824),
        *(1_179_648, 2_359_296, 2_359_296),
        *(2_359_296, 2_359_296, 2_359_296),
        *(102_760_448, 16_777_216, 4_096_000),
    ]


def test_vgg16_halves_its_maps_in_five_poolings_from_224_to_7() -> None:
    with torch.device("meta"):
        model, maps, pooled = vgg.vgg16(), torch.empty(1, 3, 224, 224), []
        for layer in model.features:
            maps = layer(maps)
            if isinstance(layer, nn.MaxPool2d):
                pooled.append(tuple(maps.shape[1:]))
        assert model.avgpool(maps).shape == maps.shape
    assert pooled == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]


def test_the_average_pooling_changes_nothing_at_7x7_and_copies_a_single_position() -> None:
    model = vgg.vgg11(num_classes=2, hidden=4)
    maps = torch.rand(1, 512, 7, 7)
    torch.testing.assert_close(model.avgpool(maps), maps)
    assert (model.avgpool(maps[:, :, :1, :1]) == maps[:, :, :1, :1]).all()


@pytest.mark.parametrize("name", BUILDERS)
def test_channels_sizes_and_classes_are_the_callers(name) -> None:
    with torch.device("meta"):
        for shape in ((1, 32, 32), (5, 70, 33)):
            model = BUILDERS[name](num_classes=6, input_shape=shape, hidden=32)
            assert model(torch.empty(2, *shape)).shape == (2, 6)
            assert model.classifier[0].out_features == model.classifier[3].in_features == 32


@pytest.mark.parametrize("name", ["vgg11", "vgg13-bn"])
def test_one_training_step_moves_every_parameter_and_lowers_the_loss(name) -> None:
    torch.manual_seed(5)
    model = BUILDERS[name](num_classes=3, input_shape=(1, 32, 32), hidden=16, dropout=0.0)
    images, labels = torch.randn(6, 1, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    # A bias before batch normalisation is taken off again with the mean: rounding alone moves it.
    followed = {f"features.{position}.bias" for position in POSITIONS[name]} if name.endswith("-bn") else set()
    torch.optim.SGD(model.parameters(), lr=0.001).step()
    moved = {key for key, value in model.named_parameters() if (value != before[key]).any()}
    assert moved >= set(before) - followed
    assert nn.functional.cross_entropy(model(images), labels) < loss


def test_initial_weights_keep_the_signal_through_19_layers() -> None:
    torch.manual_seed(6)
    model = vgg.vgg19(num_classes=10, input_shape=(3, 32, 32), hidden=64).eval()
    images = torch.randn(8, 3, 32, 32)
    assert 0.1 < model.features(images).square().mean().sqrt() < 10
    assert model.features[2].weight.std().item() == pytest.approx(math.sqrt(2 / (3 * 3 * 64)), rel=0.02)
    assert model.classifier[6].weight.std().item() == pytest.approx(0.01, rel=0.1)
    loss = nn.functional.cross_entropy(model(images), torch.arange(8))
    assert loss.item() == pytest.approx(math.log(10), abs=0.3)


def test_dropout_has_the_probability_asked_for() -> None:
    model = vgg.vgg11_bn(num_classes=2, input_shape=(3, 32, 32), hidden=4, dropout=0.2)
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.2, 0.2]


def test_images_too_small_are_refused_with_the_layer_and_the_arithmetic() -> None:
    with pytest.raises(
        UsageError,
        match=r"vgg16 needs images of at least 32x32 pixels; got 28x28: features.4 14x14 -> features.9 7x7 -> "
        r"features.16 3x3 -> features.23 1x1 -> features.30 \(kernel 2, stride 2, padding 0\) has no room in 1x1, "
        r"1 \+ 2\*0 - 2 = -1 < 0. Pad or resize the images to 32x32 or more.",
    ):
        vgg.vgg16(input_shape=(1, 28, 28))
    with pytest.raises(UsageError, match="vgg19-bn needs images of at least 32x32 pixels; got 31x224"):
        vgg.vgg19_bn(input_shape=(3, 31, 224))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (32, 32)}, r"vgg11-bn takes images: input_shape \(channels, height, width\); got \(32, 32\)"),
        ({"dropout": 1.5}, "dropout of vgg11-bn must be at least 0 and below 1; got 1.5"),
        ({"hidden": -1}, "hidden of vgg11-bn must be a whole number of at least 1; got -1"),
    ],
)
def test_an_impossible_option_is_refused_by_name(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        vgg.vgg11_bn(**options)
