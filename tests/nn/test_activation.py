from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.nn import ScaledSoftmax, ScaledTanh


def test_the_scaled_tanh_agrees_with_numpy() -> None:
    x = np.linspace(-6, 6, 101)
    found = ScaledTanh()(torch.from_numpy(x)).numpy()
    assert found == pytest.approx(1.7159 * np.tanh(2 * x / 3), rel=1e-12)


def test_the_scaled_tanh_keeps_one_at_one_and_bends_most_there() -> None:
    x = torch.linspace(0.1, 3, 2901, dtype=torch.float64, requires_grad=True)
    y = ScaledTanh()(x)
    assert float(ScaledTanh()(torch.tensor(1.0))) == pytest.approx(1, abs=1e-4)
    assert float(ScaledTanh()(torch.tensor(-1.0))) == pytest.approx(-1, abs=1e-4)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert float(x[curvature.argmin()].detach()) == pytest.approx(1.5 * math.atanh(3**-0.5), abs=0.001)  # 0.988


def softmax_oracle(z: np.ndarray, base: float, temperature: float) -> np.ndarray:
    powers = base ** (z / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("base", "temperature"), [(math.e, 1.0), (math.e, 4.0), (2.0, 1.0), (10.0, 0.5)])
def test_the_softmax_to_a_base_and_at_a_temperature_agrees_with_numpy(base: float, temperature: float) -> None:
    z = np.random.default_rng(0).normal(size=(5, 7))
    found = ScaledSoftmax(base=base, temperature=temperature)(torch.from_numpy(z)).numpy()
    assert found == pytest.approx(softmax_oracle(z, base, temperature), rel=1e-9)


def test_two_equal_steps_of_base_two_are_shares_of_one_two_and_four() -> None:
    found = ScaledSoftmax(base=2.0)(torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64))
    assert found.tolist()[0] == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_a_high_temperature_evens_out_and_a_low_one_takes_the_largest() -> None:
    z = torch.tensor([[1.0, 2.0, 4.0]])
    assert ScaledSoftmax(temperature=1e6)(z).tolist()[0] == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert ScaledSoftmax(temperature=1e-3)(z).tolist()[0] == [0, 0, 1]


def test_large_logits_do_not_overflow_and_the_axis_can_be_chosen() -> None:
    z = torch.tensor([[1000.0, 1001.0], [1001.0, 1001.0]], dtype=torch.float64)
    assert ScaledSoftmax(dim=0)(z)[:, 1].tolist() == [0.5, 0.5]
    assert ScaledSoftmax(base=10.0)(z)[0].tolist() == pytest.approx([1 / 11, 10 / 11])


def test_a_temperature_of_zero_and_a_base_of_one_are_refused_with_the_plain_value() -> None:
    with pytest.raises(UsageError, match=r"temperature must be a positive number; got 0\. 1 is the plain softmax"):
        ScaledSoftmax(temperature=0)
    with pytest.raises(UsageError, match=r"base must be a number above 1; got 0\.5\. e = 2\.718 is the plain"):
        ScaledSoftmax(base=0.5)


def test_torchs_randomized_leaky_relu_draws_slopes_and_uses_their_mean_in_evaluation() -> None:
    layer = nn.RReLU()
    x = torch.cat([torch.full((2000,), -1.0), torch.linspace(0, 5, 50)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        slopes = -layer(x)[:2000].numpy()
    assert 1 / 8 <= slopes.min() < 0.13
    assert 0.33 < slopes.max() <= 1 / 3
    assert slopes.mean() == pytest.approx(11 / 48, abs=0.005)
    assert slopes.var() == pytest.approx((1 / 3 - 1 / 8) ** 2 / 12, rel=0.1)
    expected = np.where(x.numpy() < 0, 11 / 48 * x.numpy(), x.numpy())
    assert layer.eval()(x).numpy() == pytest.approx(expected, rel=1e-6)
