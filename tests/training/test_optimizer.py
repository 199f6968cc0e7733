from __future__ import annotations

import pytest
import torch
from torch import nn

from glassnet import TrainConfig
from glassnet.training.optimizer import OPTIMIZERS, build_optimizer, set_learning_rate


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_step_that_lowers_a_simple_loss(name: str) -> None:
    holder = nn.Module()
    holder.weight, holder.last = (nn.Parameter(torch.full((2, 2), 3.0)) for _ in range(2))
    optimizer = build_optimizer(holder, TrainConfig(optimizer=name, learning_rate=0.01).resolved())
    for _ in range(3):
        optimizer.zero_grad()
        (holder.weight.square().sum() + holder.last.square().sum()).backward()
        optimizer.step()
    assert holder.weight.max() < 3
    assert holder.last.max() < 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_config_reaches_the_optimizer(name: str) -> None:
    config = TrainConfig(optimizer=name, learning_rate=0.123, weight_decay=0.25).resolved()
    optimizer = build_optimizer(network(), config)
    assert all(group["lr"] == (0.05 if "lr_ratio" in group else 0.123) for group in optimizer.param_groups)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.25, 0.0}


def test_weight_decay_spares_biases_and_normalisation() -> None:
    optimizer = build_optimizer(network(), TrainConfig(weight_decay=0.1).resolved())
    for group in optimizer.param_groups:
        assert all((parameter.ndim >= 2) == (group["weight_decay"] > 0) for parameter in group["params"])


def test_sgd_has_nesterovs_momentum_unless_it_has_none() -> None:
    with_momentum = build_optimizer(network(), TrainConfig(optimizer="sgd").resolved()).param_groups[0]
    without = build_optimizer(network(), TrainConfig(optimizer="sgd", momentum=0).resolved()).param_groups[0]
    assert (with_momentum["momentum"], with_momentum["nesterov"]) == (0.9, True)
    assert (without["momentum"], without["nesterov"]) == (0, False)


def test_a_frozen_parameter_is_left_out() -> None:
    model = network()
    model[0].requires_grad_(False)
    chosen = {id(p) for group in build_optimizer(model, TrainConfig().resolved()).param_groups for p in group["params"]}
    assert id(model[0].weight) not in chosen
    assert id(model[3].weight) in chosen


def test_setting_the_learning_rate_sets_every_group() -> None:
    optimizer = build_optimizer(network(), TrainConfig().resolved())
    set_learning_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
