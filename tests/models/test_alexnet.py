from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.models.alexnet import alexnet, alexnet_2012, alexnet_torchvision
from glassnet.models.sizes import walk_sizes

SMALL = {"num_classes": 3, "input_shape": (3, 67, 67), "hidden": 16}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_by_layer(model: nn.Module) -> dict[str, int]:
    counts = {name: num_parameters(layer) for name, layer in model.named_children()}
    return {name: count for name, count in counts.items() if count}


def shapes_by_layer(model: nn.Sequential, images: torch.Tensor) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name, layer in model.named_children():
        images = layer(images)
        shapes[name] = tuple(images.shape[1:])
    return shapes


def test_one_column_has_the_parameters_of_the_textbook_table() -> None:
    with torch.device("meta"):
        model = alexnet()
    assert parameters_by_layer(model) == {
        "conv1": 96 * 11 * 11 * 3 + 96,
        "conv2": 256 * 5 * 5 * 96 + 256,
        "conv3": 384 * 3 * 3 * 256 + 384,
        "conv4": 384 * 3 * 3 * 384 + 384,
        "conv5": 256 * 3 * 3 * 384 + 256,
        "fc6": 4096 * 9216 + 4096,
        "fc7": 4096 * 4096 + 4096,
        "fc8": 1000 * 4096 + 1000,
    }
    assert num_parameters(model) == 62_378_344


def test_two_groups_have_the_kernels_of_the_paper_and_its_60_million_parameters() -> None:
    with torch.device("meta"):
        model = alexnet_2012()
    # Section 3.5: 96 kernels of 11x11x3, 256 of 5x5x48, 384 of 3x3x256, 384 of 3x3x192, 256 of 3x3x192.
    kernels = {
        name: tuple(layer.weight.shape) for name, layer in model.named_children() if isinstance(layer, nn.Conv2d)
    }
    assert kernels == {
        "conv1": (96, 3, 11, 11),
        "conv2": (256, 48, 5, 5),
        "conv3": (384, 256, 3, 3),
        "conv4": (384, 192, 3, 3),
        "conv5": (256, 192, 3, 3),
    }
    assert num_parameters(model) == 60_965_224


def test_in_two_groups_a_kernel_of_conv2_sees_the_maps_of_its_own_half_only() -> None:
    conv2 = alexnet_2012(**SMALL).conv2
    maps = torch.randn(1, 96, 7, 7, generator=torch.Generator().manual_seed(1))
    changed = maps.clone()
    changed[:, 48:] += 1
    difference = (conv2(changed) - conv2(maps)).abs().amax(dim=(0, 2, 3))
    assert (difference[:128] == 0).all()
    assert (difference[128:] > 0).all()


@pytest.mark.parametrize("build", [alexnet, alexnet_2012])
def test_the_maps_have_the_published_sizes(build) -> None:
    with torch.device("meta"):
        shapes = shapes_by_layer(build(), torch.empty(2, 3, 227, 227))
    assert shapes["conv1"] == (96, 55, 55)
    assert shapes["pool1"] == (96, 27, 27)
    assert shapes["conv2"] == (256, 27, 27)
    assert shapes["pool2"] == (256, 13, 13)
    assert shapes["conv3"] == shapes["conv4"] == (384, 13, 13)
    assert shapes["conv5"] == (256, 13, 13)
    assert shapes["pool5"] == (256, 6, 6)
    assert shapes["fc6"] == shapes["fc7"] == (4096,)
    assert shapes["fc8"] == (1000,)


def test_the_layers_come_in_the_order_of_section_3_5() -> None:
    assert [name for name, _ in alexnet(**SMALL).named_children()] == [
        *("conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"),
        *("conv3", "relu3", "conv4", "relu4", "conv5", "relu5", "pool5", "flatten"),
        *("drop6", "fc6", "relu6", "drop7", "fc7", "relu7", "fc8"),
    ]


def test_norm1_is_the_formula_of_section_3_3_with_alpha_undivided() -> None:
    activities = torch.rand(1, 12, 2, 2, generator=torch.Generator().manual_seed(2)) * 100
    a = activities.numpy().astype(np.float64)
    expected = np.empty_like(a)
    for i in range(12):
        squares = sum(a[:, j] ** 2 for j in range(max(0, i - 2), min(11, i + 2) + 1))
        expected[:, i] = a[:, i] / (2 + 1e-4 * squares) ** 0.75
    norm1 = alexnet(**SMALL).norm1
    np.testing.assert_allclose(norm1(activities).numpy(), expected, rtol=1e-5)


def test_batch_normalisation_stands_before_each_relu_and_replaces_the_local_one() -> None:
    names = [name for name, _ in alexnet(**SMALL, normalisation="batch").named_children()]
    assert names[:8] == ["conv1", "bn1", "relu1", "pool1", "conv2", "bn2", "relu2", "pool2"]
    assert sum(name.startswith("bn") for name in names) == 5
    assert not any(name.startswith("norm") for name in names)


def test_without_normalisation_only_the_norm_layers_are_missing() -> None:
    full = [name for name, _ in alexnet(**SMALL).named_children()]
    bare = [name for name, _ in alexnet(**SMALL, normalisation="none").named_children()]
    assert bare == [name for name in full if name not in {"norm1", "norm2"}]


def test_published_initial_weights_have_deviation_one_hundredth_and_ones_where_the_paper_says() -> None:
    model = alexnet(**SMALL, initialisation="published")
    ones = {name for name, layer in model.named_children() if hasattr(layer, "bias") and (layer.bias == 1).all()}
    zeros = {name for name, layer in model.named_children() if hasattr(layer, "bias") and (layer.bias == 0).all()}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert zeros == {"conv1", "conv3", "fc8"}
    assert model.conv3.weight.std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("build", [alexnet, alexnet_2012])
def test_he_weights_start_the_loss_near_the_logarithm_of_the_classes(build) -> None:
    torch.manual_seed(0)
    model = build(num_classes=10, input_shape=(3, 67, 67), hidden=256).eval()
    loss = nn.functional.cross_entropy(model(torch.randn(16, 3, 67, 67)), torch.arange(16) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.5)
    fan_in = model.conv2.weight[0].numel()  # kernels of half the depth in two groups
    assert model.conv2.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)


def test_torchvision_form_has_its_keys_and_shapes() -> None:
    with torch.device("meta"):
        model = alexnet_torchvision()
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == {
        "features.0.weight": (64, 3, 11, 11),
        "features.0.bias": (64,),
        "features.3.weight": (192, 64, 5, 5),
        "features.3.bias": (192,),
        "features.6.weight": (384, 192, 3, 3),
        "features.6.bias": (384,),
        "features.8.weight": (256, 384, 3, 3),
        "features.8.bias": (256,),
        "features.10.weight": (256, 256, 3, 3),
        "features.10.bias": (256,),
        "classifier.1.weight": (4096, 9216),
        "classifier.1.bias": (4096,),
        "classifier.4.weight": (4096, 4096),
        "classifier.4.bias": (4096,),
        "classifier.6.weight": (1000, 4096),
        "classifier.6.bias": (1000,),
    }
    assert num_parameters(model) == 61_100_840


def test_torchvision_form_takes_its_maps_from_224_pixels_down_to_6x6_and_other_sizes_too() -> None:
    with torch.device("meta"):
        model = alexnet_torchvision()
        assert model.features(torch.empty(1, 3, 224, 224)).shape == (1, 256, 6, 6)
        assert model(torch.empty(2, 3, 63, 300)).shape == (2, 1000)


@pytest.mark.parametrize("build", [alexnet, alexnet_2012, alexnet_torchvision])
@pytest.mark.parametrize("shape", [(1, 67, 67), (4, 90, 70)])
def test_channels_sizes_and_classes_are_the_callers(build, shape) -> None:
    with torch.device("meta"):
        model = build(num_classes=7, input_shape=shape)
        assert model(torch.empty(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("build", [alexnet, alexnet_2012, alexnet_torchvision])
def test_one_training_step_moves_every_parameter_and_lowers_the_loss(build) -> None:
    torch.manual_seed(3)
    model = build(**SMALL, dropout=0.0)
    images, labels = torch.randn(6, 3, 67, 67), torch.tensor([0, 1, 2, 0, 1, 2])
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    assert all((value != before[name]).any() for name, value in model.named_parameters())
    assert nn.functional.cross_entropy(model(images), labels) < loss


def test_dropout_has_the_probability_asked_for() -> None:
    for build in (alexnet, alexnet_2012, alexnet_torchvision):
        model = build(**SMALL, dropout=0.25)
        assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.25, 0.25]


def test_images_too_small_are_refused_with_the_layer_and_the_arithmetic() -> None:
    with pytest.raises(
        UsageError,
        match=r"alexnet needs images of at least 67x67 pixels; got 32x32: conv1 6x6 -> pool1 2x2 -> pool2 \(kernel 3, "
        r"stride 2, padding 0\) has no room in 2x2, 2 \+ 2\*0 - 3 = -1 < 0. Pad or resize the images to 67x67 or more",
    ):
        alexnet(input_shape=(3, 32, 32))
    with pytest.raises(UsageError, match="alexnet-2012 needs images of at least 67x67 pixels; got 66x300"):
        alexnet_2012(input_shape=(3, 66, 300))
    with pytest.raises(UsageError, match=r"alexnet-torchvision needs .* 63x63 pixels; got 62x62: features.0 14x14 -> "):
        alexnet_torchvision(input_shape=(3, 62, 62))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (28, 28)}, r"alexnet takes images: input_shape \(channels, height, width\); got \(28, 28\)"),
        ({"input_shape": (3, 67.5, 67)}, "height of alexnet must be a whole number of at least 1; got 67.5"),
        ({"dropout": 1.0}, "dropout of alexnet must be at least 0 and below 1; got 1.0"),
        ({"hidden": 0}, "hidden of alexnet must be a whole number of at least 1; got 0"),
        ({"normalisation": "bach"}, "Unknown normalisation 'bach'. Did you mean 'batch'"),
        ({"initialisation": "hi"}, "Unknown initialisation 'hi'."),
    ],
)
def test_an_impossible_option_is_refused_by_name(options, message) -> None:
    with pytest.raises(UsageError, match=message):
        alexnet(**options)


def test_walking_sizes_rounds_down_or_up_as_each_window_says() -> None:
    down, up = ("pool", 3, 2, 0, False), ("pool", 3, 2, 0, True)
    assert walk_sizes("net", (3, 112, 30), [down]) == (55, 14)
    assert walk_sizes("net", (3, 112, 30), [up]) == (56, 15)
    assert walk_sizes("net", (3, 112, 30), []) == (112, 30)
    assert walk_sizes("net", (1, 32, 20), [("c1", 5, 1, 0, False), ("c2", 5, 2, 2, False)]) == (14, 8)


def test_the_smallest_image_named_in_the_message_is_the_smallest_that_fits() -> None:
    for size in range(1, 67):
        with pytest.raises(UsageError, match="at least 67x67"):
            walk_sizes("net", (3, size, 500), [("c", 11, 4, 0, False), *[("p", 3, 2, 0, False)] * 3])
    assert walk_sizes("net", (3, 67, 67), [("c", 11, 4, 0, False), *[("p", 3, 2, 0, False)] * 3]) == (1, 1)
