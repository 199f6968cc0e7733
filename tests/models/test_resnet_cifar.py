from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet.models.resnet_cifar import resnet20, resnet32, resnet44, resnet56, resnet110, resnet_cifar

BUILDERS = {20: resnet20, 32: resnet32, 44: resnet44, 56: resnet56, 110: resnet110}
PUBLISHED = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_by_hand(depth: int, num_classes: int = 10) -> int:
    """Return 3x3 kernels without biases, a scale and a shift for each channel, and the linear layer."""
    blocks = (depth - 2) // 6
    kernels = 9 * 3 * 16 + 2 * 16
    for inner, outer in ((16, 16), (16, 32), (32, 64)):
        kernels += 9 * inner * outer + (2 * blocks - 1) * 9 * outer * outer + 2 * blocks * 2 * outer
    return kernels + (64 + 1) * num_classes


@pytest.mark.parametrize("depth", BUILDERS)
def test_the_parameters_are_as_many_as_published(depth: int) -> None:
    with torch.device("meta"):
        model = BUILDERS[depth]()
    assert num_parameters(model) == PUBLISHED[depth] == count_by_hand(depth)


@pytest.mark.parametrize("depth", BUILDERS)
def test_the_depth_counts_the_layers_with_weights(depth: int) -> None:
    with torch.device("meta"):
        model = BUILDERS[depth]()
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == depth


def test_options_b_and_c_add_projections() -> None:
    sizes_change = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    every_other_block = sum(count * (width**2 + 2 * width) for count, width in ((3, 16), (2, 32), (2, 64)))
    with torch.device("meta"):
        assert num_parameters(resnet20(shortcut="B")) == 269_722 + sizes_change
        assert num_parameters(resnet20(shortcut="C")) == 269_722 + sizes_change + every_other_block


def test_the_maps_have_the_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        model = resnet20()
    sizes = []
    for layer in (model.conv1, model.layer1, model.layer2, model.layer3):
        layer.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape[1:])))
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)
    assert sizes == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize("build", [resnet20, resnet32])
def test_a_training_step_moves_every_parameter(build: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    model = build(num_classes=3, input_shape=(1, 12, 12))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    functional.cross_entropy(model(torch.randn(4, 1, 12, 12)), torch.tensor([0, 1, 2, 0])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []


def test_with_zero_init_residual_the_network_starts_as_its_shortcuts() -> None:
    torch.manual_seed(0)
    model = resnet20(zero_init_residual=True).eval()
    images = torch.randn(2, 3, 8, 8)
    maps = model.bn1(model.conv1(images)).relu()
    pooled = maps[:, :, ::2, ::2][:, :, ::2, ::2].mean(dim=(2, 3))  # what two zero-padding shortcuts leave of it
    expected = pooled @ model.fc.weight[:, :16].T + model.fc.bias
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(("depth", "near"), [(21, "20 and 26"), (2, "8 and 14"), (0, "8 and 14")])
def test_a_depth_that_is_not_6n_plus_2_is_refused_with_the_nearest(depth: int, near: str) -> None:
    with pytest.raises(UsageError, match=rf"must be 6n \+ 2 .* got {depth}\. The nearest are {near}\."):
        resnet_cifar(depth)


def test_words_that_are_off_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Unknown shortcut 'D'"):
        resnet20(shortcut="D")
    with pytest.raises(UsageError, match=r"resnet56 takes images.* got \(32, 32\)"):
        resnet56(input_shape=(32, 32))
