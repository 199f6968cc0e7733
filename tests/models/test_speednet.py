from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet.inspection.summary import summary
from glassnet.models.speednet import speednet


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_by_hand(first: int, second: int, side: int, *, in_channels: int = 1, num_classes: int = 10) -> int:
    """Return kernels without biases, a scale and a shift for each channel, and the linear layer over side x side."""
    kernels = 25 * in_channels * first + 9 * first * second
    return kernels + 2 * (first + second) + (second * side**2 + 1) * num_classes


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 25 * 8 + 9 * 8 * 32 + 9 * 32 * 64 + 2 * (8 + 32 + 64) + (64 * 3 * 3 + 1) * 10),
        ({"channels": (8, 32)}, count_by_hand(8, 32, 10)),
        ({"channels": (8, 16), "num_classes": 26}, count_by_hand(8, 16, 10, num_classes=26)),
        ({"channels": (8, 16), "input_shape": (3, 32, 32)}, count_by_hand(8, 16, 12, in_channels=3)),
    ],
)
def test_the_parameters_are_as_many_as_the_layers_say(options: dict, count: int) -> None:
    assert num_parameters(speednet(**options)) == count


def test_the_documented_counts_are_those_of_the_network() -> None:
    model = speednet()
    assert num_parameters(model) == 26_914
    assert "26,914" in (speednet.__doc__ or "")
    counts = {row.name: row.num_multiplications for row in summary(model, (1, 28, 28)).rows}
    assert sum(counts[f"conv{number}"] for number in (1, 2, 3)) == 511_488


def test_each_stage_convolves_pools_normalises_and_rectifies_and_the_last_one_does_not_pool() -> None:
    model = speednet(channels=(4, 6, 7))
    names = ["conv1", "pool1", "bn1", "act1", "conv2", "pool2", "bn2", "act2", "conv3", "bn3", "act3"]
    assert [name for name, _ in model.named_children()] == [*names, "flatten", "output"]
    maps, shapes = torch.zeros(2, 1, 28, 28), {}
    for name, layer in model.named_children():
        maps = layer(maps)
        shapes[name] = tuple(maps.shape[1:])
    assert [shapes[name] for name in ("conv1", "act1", "conv2", "act2", "conv3")] == [
        (4, 24, 24), (4, 12, 12), (6, 10, 10), (6, 5, 5), (7, 3, 3)
    ]  # fmt: skip
    assert maps.shape == (2, 10)


def test_pooling_before_relu_gives_the_same_and_before_batch_norm_other_statistics() -> None:
    maps = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pool, relu = nn.MaxPool2d(2), nn.ReLU()
    assert torch.equal(relu(pool(maps)), pool(relu(maps)))
    first, last = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    assert not torch.allclose(first(pool(maps)), pool(last(maps)), atol=0.1)
    torch.testing.assert_close(first.running_mean, 0.1 * pool(maps).mean(dim=(0, 2, 3)))


def test_a_training_step_moves_every_parameter() -> None:
    torch.manual_seed(0)
    model = speednet(num_classes=3, channels=(4, 6))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    functional.cross_entropy(model(torch.randn(4, 1, 28, 28)), torch.tensor([0, 1, 2, 0])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, r"channels of speednet must be one number a stage, such as \(8, 32, 64\); got \(\)"),
        ({"channels": (8, 0)}, r"channels of speednet must be a whole number of at least 1; got 0"),
        ({"input_shape": (28, 28)}, r"speednet takes images.* got \(28, 28\)"),
        ({"input_shape": (1, 12, 28)}, r"speednet needs images of at least 20x20 pixels; got 12x28: .*conv3"),
    ],
)
def test_a_wrong_option_is_answered_with_what_is_right(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        speednet(**options)
