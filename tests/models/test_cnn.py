from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet.models.cnn import cnn1d, cnn2d, cnn3d

BUILDERS = [(cnn1d, (2, 20)), (cnn2d, (2, 12, 8)), (cnn3d, (2, 8, 4, 6))]
DEFAULTS = [(cnn1d, (1, 128)), (cnn2d, (1, 28, 28)), (cnn3d, (1, 16, 16, 16))]


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("build", "shape"), DEFAULTS)
def test_the_default_input_is_a_small_one_of_its_kind(build: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
    assert build()(torch.zeros(3, *shape)).shape == (3, 10)


@pytest.mark.parametrize(("build", "shape"), BUILDERS)
@pytest.mark.parametrize("head", ["average", "flatten"])
def test_the_parameters_are_kernels_biases_and_a_linear_layer(
    build: Callable[..., nn.Module], shape: tuple[int, ...], head: str
) -> None:
    num_axes = len(shape) - 1
    model = build(num_classes=3, input_shape=shape, channels=(4, 5), kernel_size=3, head=head)
    positions = math.prod(size // 4 for size in shape[1:]) if head == "flatten" else 1
    expected = (2 * 3**num_axes + 1) * 4 + (4 * 3**num_axes + 1) * 5 + (5 * positions + 1) * 3
    assert num_parameters(model) == expected
    assert model(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(("build", "shape"), BUILDERS)
def test_a_training_step_moves_every_parameter(build: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = build(num_classes=2, input_shape=shape, activation="tanh", pooling="average", batch_norm=True, dropout=0.2)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    functional.cross_entropy(model(torch.randn(4, *shape)), torch.tensor([0, 1, 1, 0])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []


def test_the_layers_follow_each_other_as_described() -> None:
    model = cnn2d(channels=(4, 8, 8), batch_norm=True, dropout=0.5, activation="elu", pooling="average")
    stages = [f"{layer}{number}" for number in (1, 2, 3) for layer in ("conv", "bn", "act", "pool")]
    assert [name for name, _ in model.named_children()] == [*stages, "average", "flatten", "dropout", "output"]
    assert isinstance(model.act2, nn.ELU)
    assert isinstance(model.pool3, nn.AvgPool2d)
    assert model.conv1.bias is None
    assert model.dropout.p == 0.5
    bare = cnn2d(channels=(4,), pooling="none", head="flatten")
    assert [name for name, _ in bare.named_children()] == ["conv1", "act1", "flatten", "output"]
    assert bare.output.in_features == 4 * 28 * 28


def test_padding_decides_what_a_stage_leaves() -> None:
    def inputs_of_the_head(**options: int) -> int:
        model = cnn2d(input_shape=(1, 12, 12), channels=(1,), head="flatten", pooling="none", **options)
        return int(model.output.in_features)

    assert inputs_of_the_head(kernel_size=3) == 12 * 12
    assert inputs_of_the_head(kernel_size=5) == 12 * 12
    assert inputs_of_the_head(kernel_size=4) == 13 * 13
    assert inputs_of_the_head(kernel_size=5, padding=0) == 8 * 8
    assert inputs_of_the_head(kernel_size=3, padding=2) == 14 * 14


def test_the_average_head_takes_other_sizes_after_building() -> None:
    assert cnn2d(input_shape=(1, 12, 12), num_classes=2)(torch.zeros(1, 1, 30, 17)).shape == (1, 2)


def test_a_stage_without_pixels_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        UsageError,
        match=r"cnn2d needs pixels left in all of its 2 stages; got 3x9: 3x9 -> conv1 3x9 -> pool1 1x4 -> conv2 1x4 -> "
        r"pool2 \(kernel 2, padding 0\) has no room, 1 \+ 2\*0 - 2 = -1 < 0\. Use larger inputs, fewer numbers",
    ):
        cnn2d(input_shape=(1, 3, 9))
    with pytest.raises(
        UsageError, match=r"got 4: 4 -> conv1 \(kernel 7, padding 1\) has no room, 4 \+ 2\*1 - 7 = -1 < 0"
    ):
        cnn1d(input_shape=(1, 4), kernel_size=7, padding=1)
    with pytest.raises(UsageError, match=r"got 8x8x2: .* pool1 4x4x1 -> conv2 4x4x1 -> pool2"):
        cnn3d(input_shape=(1, 8, 8, 2))
    assert cnn3d(input_shape=(1, 8, 8, 2), pooling="none")(torch.zeros(1, 1, 8, 8, 2)).shape == (1, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rellu"}, r"Unknown activation 'rellu'\. Did you mean 'relu'"),
        ({"pooling": "mean"}, r"Unknown pooling 'mean'.*"),
        ({"head": "flat"}, r"Unknown head 'flat'\. Did you mean 'flatten'\?"),
        ({"channels": ()}, r"channels of cnn2d must be one positive number a stage, such as \(16, 32\); got \(\)"),
        ({"channels": (4, 0)}, r"channels of cnn2d .* got \(4, 0\)"),
        ({"kernel_size": 0}, r"kernel_size of cnn2d must be a whole number of at least 1; got 0"),
        ({"kernel_size": (3, 3)}, r"kernel_size of cnn2d must be a whole number .* got \(3, 3\)"),
        ({"padding": -1}, r"padding of cnn2d must be 0 or more whole pixels; got -1"),
        ({"dropout": 1.0}, r"dropout of cnn2d must be at least 0 and below 1; got 1\.0"),
        ({"input_shape": (1, 28)}, r"cnn2d takes input_shape \(channels, height, width\); got \(1, 28\)"),
    ],
)
def test_options_that_are_off_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cnn2d(**options)


def test_the_axes_are_named_for_signals_and_volumes() -> None:
    with pytest.raises(UsageError, match=r"cnn1d takes input_shape \(channels, length\)"):
        cnn1d(input_shape=(1, 28, 28))
    with pytest.raises(UsageError, match=r"cnn3d takes input_shape \(channels, depth, height, width\)"):
        cnn3d(input_shape=(1, 28, 28))
