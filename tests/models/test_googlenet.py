from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.models.googlenet import GoogLeNet, googlenet, googlenet_torchvision

SMALL = {"num_classes": 3, "input_shape": (3, 79, 79)}

# Input channels, then 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
INCEPTIONS = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def shapes_of(model: nn.Module, names: list[str], images: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Run the model and return the shapes of some layers' outputs."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str):
        return lambda layer, inputs, output: shapes.update({name: tuple(output.shape[1:])})

    for name in names:
        model.get_submodule(name).register_forward_hook(note(name))
    model(images)
    return shapes


def torchvision_shapes(*, auxiliary: bool) -> dict[str, tuple[int, ...]]:
    convolutions = {"conv1": (64, 3, 7), "conv2": (64, 64, 1), "conv3": (192, 64, 3)}
    for name, (channels, ones, reduce3, threes, reduce5, fives, projected) in INCEPTIONS.items():
        convolutions |= {
            f"inception{name}.branch1": (ones, channels, 1),
            f"inception{name}.branch2.0": (reduce3, channels, 1),
            f"inception{name}.branch2.1": (threes, reduce3, 3),
            f"inception{name}.branch3.0": (reduce5, channels, 1),
            f"inception{name}.branch3.1": (fives, reduce5, 3),
            f"inception{name}.branch4.1": (projected, channels, 1),
        }
    linears = {"fc": (1000, 1024)}
    if auxiliary:
        convolutions |= {"aux1.conv": (128, 512, 1), "aux2.conv": (128, 528, 1)}
        for head in ("aux1", "aux2"):
            linears |= {f"{head}.fc1": (1024, 2048), f"{head}.fc2": (1000, 1024)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (kernels, channels, side) in convolutions.items():
        shapes[f"{name}.conv.weight"] = (kernels, channels, side, side)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (kernels,)
        shapes[f"{name}.bn.num_batches_tracked"] = ()
    for name, size in linears.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = size, size[:1]
    return shapes


def test_the_published_network_has_seven_million_parameters_without_its_auxiliary_heads() -> None:
    with torch.device("meta"):
        assert num_parameters(googlenet(auxiliary=False)) == 6_998_552
        assert num_parameters(googlenet()) == 6_998_552 + 6_379_728


def test_each_layer_has_the_weights_that_its_row_of_table_1_makes() -> None:
    with torch.device("meta"):
        model = googlenet(auxiliary=False)
    # c*a + c*b + 9*b*d + c*e + 25*e*f + c*g. The table's own column of parameters, in units of 1024, agrees for conv2
    # (112), 3a (159) and the linear layer (1000), and is up to 7 % off its rows elsewhere (4c 463, 5a 1072).
    weights = {
        "conv1": 9_408,
        "conv2_reduce": 4_096,
        "conv2": 110_592,
        "inception3a": 163_328,
        "inception3b": 388_096,
        "inception4a": 375_552,
        "inception4b": 448_512,
        "inception4c": 509_440,
        "inception4d": 604_672,
        "inception4e": 867_328,
        "inception5a": 1_042_432,
        "inception5b": 1_442_816,
        "fc": 1_024_000,
    }
    counted = {
        name: sum(value.numel() for key, value in layer.named_parameters() if key.endswith("weight"))
        for name, layer in model.named_children()
    }
    assert {name: count for name, count in counted.items() if count} == weights
    assert (weights["conv2_reduce"] + weights["conv2"]) // 1024 == 112
    assert weights["inception3a"] // 1024 == 159
    assert weights["fc"] // 1024 == 1000


@pytest.mark.parametrize("name", INCEPTIONS)
def test_an_inception_module_has_the_kernels_of_its_row(name) -> None:
    channels, ones, reduce3, threes, reduce5, fives, projected = INCEPTIONS[name]
    with torch.device("meta"):
        module = googlenet(auxiliary=False).get_submodule(f"inception{name}")
    assert {key: tuple(value.shape) for key, value in module.state_dict().items() if value.ndim == 4} == {
        "branch1x1.conv.weight": (ones, channels, 1, 1),
        "branch3x3.conv_reduce.weight": (reduce3, channels, 1, 1),
        "branch3x3.conv.weight": (threes, reduce3, 3, 3),
        "branch5x5.conv_reduce.weight": (reduce5, channels, 1, 1),
        "branch5x5.conv.weight": (fives, reduce5, 5, 5),
        "branch_pool.conv.weight": (projected, channels, 1, 1),
    }


def test_the_maps_have_the_sizes_of_table_1() -> None:
    expected = {
        "conv1": (64, 112, 112),
        "pool1": (64, 56, 56),
        "conv2": (192, 56, 56),
        "pool2": (192, 28, 28),
        "inception3a": (256, 28, 28),
        "inception3b": (480, 28, 28),
        "pool3": (480, 14, 14),
        "inception4a": (512, 14, 14),
        "inception4b": (512, 14, 14),
        "inception4c": (512, 14, 14),
        "inception4d": (528, 14, 14),
        "inception4e": (832, 14, 14),
        "pool4": (832, 7, 7),
        "inception5a": (832, 7, 7),
        "inception5b": (1024, 7, 7),
        "pool5": (1024, 1, 1),
        "aux1.pool": (512, 4, 4),
        "aux2.pool": (528, 4, 4),
        "fc": (1000,),
    }
    with torch.device("meta"):
        assert shapes_of(googlenet(), list(expected), torch.empty(2, 3, 224, 224)) == expected


def test_the_stem_comes_in_the_order_of_figure_3() -> None:
    with torch.device("meta"):
        names = [name for name, _ in googlenet(auxiliary=False).named_children()]
        normalised = [name for name, _ in googlenet(auxiliary=False, batch_norm=True).named_children()]
    assert names[:10] == [
        *("conv1", "relu1", "pool1", "norm1"),
        *("conv2_reduce", "relu2_reduce", "conv2", "relu2", "norm2", "pool2"),
    ]
    assert names[-4:] == ["pool5", "flatten", "dropout", "fc"]
    assert normalised[:7] == ["conv1", "bn1", "relu1", "pool1", "conv2_reduce", "bn2_reduce", "relu2_reduce"]
    assert not {"norm1", "norm2"} & set(normalised)


def test_an_inception_module_concatenates_its_branches_in_the_order_of_the_table() -> None:
    module = googlenet(**SMALL).inception3a
    maps = torch.randn(1, 192, 5, 5)
    branches = [module.branch1x1, module.branch3x3, module.branch5x5, module.branch_pool]
    torch.testing.assert_close(module(maps), torch.cat([branch(maps) for branch in branches], dim=1))


def test_norm1_divides_alpha_by_the_five_channels_of_its_window() -> None:
    activities = torch.rand(1, 8, 2, 2, generator=torch.Generator().manual_seed(1)) * 100
    a = activities.numpy().astype(np.float64)
    expected = np.empty_like(a)
    for i in range(8):
        squares = sum(a[:, j] ** 2 for j in range(max(0, i - 2), min(7, i + 2) + 1))
        expected[:, i] = a[:, i] / (1 + 1e-4 / 5 * squares) ** 0.75
    np.testing.assert_allclose(googlenet(**SMALL).norm1(activities).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("auxiliary", "count"), [(True, 13_004_888), (False, 6_624_904)])
def test_torchvision_form_has_its_keys_shapes_and_number_of_parameters(auxiliary, count) -> None:
    with torch.device("meta"):
        model = googlenet_torchvision(auxiliary=auxiliary)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == torchvision_shapes(auxiliary=auxiliary)
    assert num_parameters(model) == count
    assert {layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.001}


def test_torchvision_form_has_the_published_map_sizes_through_its_own_poolings() -> None:
    expected = {
        "maxpool1": (64, 56, 56),
        "conv3": (192, 56, 56),
        "maxpool2": (192, 28, 28),
        "maxpool3": (480, 14, 14),
        "maxpool4": (832, 7, 7),
        "inception5b": (1024, 7, 7),
        "aux1.pool": (512, 4, 4),
        "aux2.fc2": (1000,),
        "fc": (1000,),
    }
    with torch.device("meta"):
        model = googlenet_torchvision()
        assert shapes_of(model, list(expected), torch.empty(2, 3, 224, 224)) == expected
    assert [layer.kernel_size for name, layer in model.named_children() if name.startswith("maxpool")] == [3, 3, 3, 2]


@pytest.mark.parametrize("build", [googlenet, googlenet_torchvision])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_channels_sizes_and_classes_are_the_callers(build, auxiliary) -> None:
    with torch.device("meta"):
        for shape in ((1, 79, 79), (4, 100, 131)):
            model = build(num_classes=5, input_shape=shape, auxiliary=auxiliary)
            assert model(torch.empty(2, *shape)).shape == (2, 5)
            assert [tuple(logits.shape) for logits in model.auxiliary_logits] == [(2, 5)] * (2 * auxiliary)


@pytest.mark.parametrize(("build", "size"), [(googlenet, 79), (googlenet_torchvision, 32)])
def test_a_step_with_the_auxiliary_loss_moves_every_parameter(build, size) -> None:
    torch.manual_seed(7)
    model = build(num_classes=3, input_shape=(3, size, size), dropout=0.0)
    images, labels = torch.randn(6, 3, size, size), torch.tensor([0, 1, 2, 0, 1, 2])
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = nn.functional.cross_entropy(model(images), labels) + model.auxiliary_loss(labels)
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert all((value != before[name]).any() for name, value in model.named_parameters())


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}])
def test_a_plain_training_loop_lowers_the_loss_and_leaves_the_auxiliary_heads_alone(options) -> None:
    torch.manual_seed(8)
    model = googlenet(**SMALL, dropout=0.0, **options)
    images, labels = torch.randn(6, 3, 79, 79), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    untouched = {name for name, value in model.named_parameters() if value.grad is None}
    assert untouched == {name for name, _ in model.named_parameters() if name.startswith("aux")}
    assert nn.functional.cross_entropy(model(images), labels) < loss


def test_the_auxiliary_loss_is_three_tenths_of_both_heads_cross_entropies() -> None:
    model = googlenet(**SMALL)
    labels = torch.tensor([2, 0])
    model(torch.randn(2, 3, 79, 79))
    expected = 0.0
    for logits in model.auxiliary_logits:
        z = logits.detach().numpy().astype(np.float64)
        likelihoods = np.exp(z)[[0, 1], labels.numpy()] / np.exp(z).sum(axis=1)
        expected += 0.3 * -np.log(likelihoods).mean()
    assert model.auxiliary_loss(labels).item() == pytest.approx(expected, rel=1e-5)
    sums = model.auxiliary_loss(labels, nn.CrossEntropyLoss(reduction="sum"))
    assert sums.item() == pytest.approx(2 * expected, rel=1e-5)


def test_each_auxiliary_head_reads_its_own_module_and_the_first_reads_the_earlier_one() -> None:
    model = googlenet(**SMALL)
    images = torch.randn(1, 3, 79, 79)
    model(images)[0, 0].backward(retain_graph=True)
    for logits, last in zip(model.auxiliary_logits, ("inception4a", "inception4d"), strict=True):
        model.zero_grad()
        logits[0, 0].backward(retain_graph=True)
        reached = [
            name for name, layer in model.named_children() if any(p.grad is not None for p in layer.parameters())
        ]
        assert max(name for name in reached if name.startswith("inception")) == last


def test_evaluation_runs_no_auxiliary_head_and_keeps_no_logits() -> None:
    model = googlenet_torchvision(num_classes=3, input_shape=(3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    model(images)
    assert len(model.auxiliary_logits) == 2
    model.eval()
    assert model.auxiliary_logits == ()
    model.aux1.register_forward_hook(lambda *_: pytest.fail("an auxiliary head ran in evaluation"))
    assert model(images).shape == (2, 3)
    assert model.auxiliary_logits == ()
    with pytest.raises(UsageError, match=r"just run on images in training mode; .* Build it with auxiliary=True"):
        model.auxiliary_loss(torch.tensor([0, 1]))


def test_a_model_fresh_from_a_training_pass_can_be_copied_without_its_logits() -> None:
    model = googlenet_torchvision(num_classes=3, input_shape=(3, 32, 32))
    model(torch.randn(2, 3, 32, 32))
    twin = copy.deepcopy(model)
    assert isinstance(twin, GoogLeNet)
    assert twin.auxiliary_logits == ()
    assert len(model.auxiliary_logits) == 2
    torch.testing.assert_close(twin.state_dict(), model.state_dict())


@pytest.mark.parametrize("build", [googlenet, googlenet_torchvision])
def test_initial_weights_start_the_loss_near_the_logarithm_of_the_classes(build) -> None:
    torch.manual_seed(9)
    model = build(num_classes=10, input_shape=(3, 79, 79))
    model.dropout.p = 0.0
    loss = nn.functional.cross_entropy(model(torch.randn(8, 3, 79, 79)), torch.arange(8))
    assert loss.item() == pytest.approx(math.log(10), abs=1.0)


def test_published_form_draws_he_weights_and_torchvisions_one_hundredth() -> None:
    published, like_torchvision = googlenet(**SMALL), googlenet_torchvision(**SMALL)
    assert published.conv2.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert like_torchvision.conv3.conv.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_dropout_is_before_fc_and_the_auxiliary_heads_keep_their_own() -> None:
    model = googlenet(**SMALL, dropout=0.1)
    assert (model.dropout.p, model.aux1.dropout.p, model.aux2.dropout.p) == (0.1, 0.7, 0.7)
    assert googlenet(**SMALL).dropout.p == 0.4
    assert googlenet_torchvision(**SMALL).dropout.p == 0.2


def test_images_too_small_are_refused_with_the_layer_the_arithmetic_and_the_way_out() -> None:
    with pytest.raises(
        UsageError,
        match=r"googlenet needs images of at least 79x79 pixels; got 64x64: conv1 32x32 -> pool1 16x16 -> pool2 8x8 -> "
        r"pool3 4x4 -> aux1.pool \(kernel 5, stride 3, padding 0\) has no room in 4x4, 4 \+ 2\*0 - 5 = -1 < 0. "
        r"Pad or resize the images to 79x79 or more. Or do without the auxiliary heads: auxiliary=False.",
    ):
        googlenet(input_shape=(3, 64, 64))
    with pytest.raises(UsageError, match=r"at least 31x31 pixels; got 30x30: .* -> pool4 .* 1 \+ 2\*0 - 3 = -2 < -1"):
        googlenet(input_shape=(3, 30, 30), auxiliary=False)
    with pytest.raises(UsageError, match=r"googlenet-torchvision needs images of at least 15x15 pixels; got 14x14"):
        googlenet_torchvision(input_shape=(3, 14, 14))


def test_the_smallest_images_named_in_the_messages_run() -> None:
    with torch.device("meta"):
        for build, options, size in (
            (googlenet, {}, 79),
            (googlenet, {"auxiliary": False}, 31),
            (googlenet_torchvision, {}, 15),
        ):
            model = build(num_classes=2, input_shape=(3, size, size), **options)
            assert model(torch.empty(2, 3, size, size)).shape == (2, 2)


@pytest.mark.parametrize("build", [googlenet, googlenet_torchvision])
def test_an_impossible_option_is_refused_by_name(build) -> None:
    with pytest.raises(UsageError, match=r"googlenet.* takes images: input_shape \(channels, height, width\); got"):
        build(input_shape=(224, 224))
    with pytest.raises(UsageError, match=r"dropout of googlenet.* must be at least 0 and below 1; got 1"):
        build(dropout=1)
