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


def test_with_muon_the_last_layer_may_have_a_rate_of_its_own() -> None:
    values = {"optimizer": "muon", "learning_rate": 0.1, "other_learning_rate": 0.5}
    model = network()
    optimizer = build_optimizer(model, TrainConfig(**values, output_learning_rate=3.0).resolved())
    rates = {id(parameter): group["lr"] for group in optimizer.parts[1].param_groups for parameter in group["params"]}
    expected = {id(parameter): 0.5 for parameter in (model[0].bias, *model[1].parameters(), model[3].bias)}
    assert rates == expected | {id(model[3].weight): 3.0}
    set_learning_rate(optimizer, 0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.25, 1.5])
    together = build_optimizer(network(), TrainConfig(**values).resolved())
    assert [group["lr"] for group in together.param_groups] == [0.1, 0.5]


def test_the_steps_to_an_orthogonal_update_are_the_configs() -> None:
    def update(steps: int | None) -> torch.Tensor:
        config = TrainConfig(
            optimizer="muon", learning_rate=1.0, momentum=0.0, newton_schulz_steps=steps, weight_decay=0
        )
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2))
        optimizer = build_optimizer(model, config.resolved())
        model[0].weight.grad = torch.randn(3, 4)
        before = model[0].weight.detach().clone()
        optimizer.step()
        return before - model[0].weight.detach()

    assert torch.equal(update(None), update(5))
    spreads = [torch.linalg.svdvals(update(steps)) for steps in (1, 5)]
    assert spreads[0].min() < spreads[1].min(), "one step leaves small singular values small"


def test_with_muon_the_rest_has_a_momentum_and_a_weight_decay_of_its_own() -> None:
    """One step shrinks the last layer, with its own rate, by the same share as the rest."""
    config = TrainConfig(
        optimizer="muon", other_learning_rate=0.5, output_learning_rate=3.0, other_momentum=0.0, other_weight_decay=0.2
    )
    model = network()
    optimizer = build_optimizer(model, config.resolved())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        if name != "0.weight":  # the kernel
            torch.testing.assert_close(parameter.detach(), before[name] * 0.9, msg=name)
    usual = build_optimizer(network(), TrainConfig(optimizer="muon").resolved()).parts[1].param_groups
    assert [(group["momentum"], group["nesterov"], group["weight_decay"]) for group in usual] == [(0.9, True, 0.0)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fixed_norm_is_that_of_orthonormal_rows_before_each_update(layout: torch.memory_format) -> None:
    """The update of such a kernel depends neither on its norm nor on how often it was updated."""
    config = TrainConfig(optimizer="muon", learning_rate=0.1, momentum=0.0, fixed_norm=True).resolved()
    steps = []
    for scale in (1.0, 100.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6, 3)).to(memory_format=layout)
        with torch.no_grad():
            model[0].weight.mul_(scale)
        optimizer = build_optimizer(model, config)
        model[0].weight.grad = torch.ones_like(model[0].weight)
        before = model[0].weight.detach().clone()
        optimizer.step()
        scaled = before * (6**0.5 / before.norm())
        steps.append(model[0].weight.detach() - scaled)
    assert torch.allclose(*steps, atol=1e-5)
    assert 0.05 < steps[0].norm() < 0.15, "one singular value of about one, times the rate"


def test_a_fixed_norm_leaves_kernels_of_zeros_and_those_without_gradient() -> None:
    config = TrainConfig(optimizer="muon", learning_rate=0.1, fixed_norm=True).resolved()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    nn.init.zeros_(model[0].weight)
    optimizer = build_optimizer(model, config)
    model[0].weight.grad = torch.zeros_like(model[0].weight)
    before = model[1].weight.detach().clone()
    optimizer.step()
    assert torch.equal(model[0].weight, torch.zeros_like(model[0].weight))
    assert torch.equal(model[1].weight, before)
