from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from glassnet.nn import Sign, Step


def test_the_unit_fires_from_its_threshold_on() -> None:
    x = torch.tensor([-torch.inf, -3.0, 0.4999, 0.5, 0.5001, 3.0, torch.inf])
    expected = np.array([0, 0, 0, 1, 1, 1, 1], dtype=np.float32)
    assert np.array_equal(Step(threshold=0.5)(x).numpy(), expected)
    assert np.array_equal(Sign(threshold=0.5)(x).numpy(), 2 * expected - 1)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_counts_as_reached_where_torch_sign_would_say_zero(zero: float) -> None:
    x = torch.tensor([zero])
    assert Step()(x).item() == 1
    assert Sign()(x).item() == 1
    assert torch.sign(x).item() == 0


def test_a_number_that_is_none_gives_neither_value() -> None:
    assert Step()(torch.tensor([torch.nan])).item() == 0.5
    assert Sign()(torch.tensor([torch.nan])).item() == 0


@pytest.mark.parametrize("layer", [Step(threshold=0.3), Sign(threshold=0.3)], ids=["step", "sign"])
def test_the_gradient_is_zero_and_backward_still_runs(layer: nn.Module) -> None:
    x = torch.tensor([-1.0, 0.3, 2.0], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0]


def gate(weights: list[float], bias: float) -> nn.Sequential:
    linear = nn.Linear(len(weights), 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([weights]))
        linear.bias.fill_(bias)
    return nn.Sequential(linear, Step())


def test_one_unit_is_a_logic_gate_and_two_layers_make_xor() -> None:
    inputs = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)))
    conjunction, disjunction = gate([1, 1], -1.5), gate([1, 1], -0.5)
    assert conjunction(inputs).flatten().tolist() == [0, 0, 0, 1]
    assert disjunction(inputs).flatten().tolist() == [0, 1, 1, 1]
    hidden = torch.cat([disjunction(inputs), conjunction(inputs)], dim=1)
    assert gate([1, -1], -0.5)(hidden).flatten().tolist() == [0, 1, 1, 0]
