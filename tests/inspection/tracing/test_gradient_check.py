"""Finite differences beside autograd: where they agree, where they must not, and what they say of kinks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn


@pytest.mark.parametrize("of", ["c1.weight", "f6.bias", "c3:4", "s2", "input", "output:3", "c5.weight[3,2,1,0]"])
def test_parameters_units_and_pixels_agree_with_finite_differences(of: str) -> None:
    model = gn.build_model("lenet5")
    image = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    found = gn.trace(model, image, 3).gradient_check(of, 4)
    assert not found.disagreeing, found
    assert len(found.rows) == (1 if of in {"output:3", "c5.weight[3,2,1,0]"} else 4)
    assert "agree" in str(found)
    assert found.to_dict()["num_disagreeing"] == 0


def test_batch_statistics_and_dropout_are_repeated_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 30), nn.BatchNorm1d(30), nn.Dropout(0.5), nn.Linear(30, 3))
    images = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    found = gn.trace(model, images, [0, 1, 2, 0, 1], training=True).gradient_check("0.weight", 8)
    assert not found.disagreeing, found
    assert found.worst.relative_difference < 1e-2


def test_float64_agrees_to_many_figures() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    found = gn.trace(model, torch.rand(2, 4).double(), [0, 2]).gradient_check("0.weight", 24, epsilon=1e-5)
    assert found.tolerance == 1e-6
    assert not found.disagreeing
    assert len({row.address for row in found.rows}) == 24


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * 3


class Wrong(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return WrongBackward.apply(x)


def test_a_wrong_backward_function_is_found_out() -> None:
    found = gn.trace(Wrong(), torch.rand(1, 3), 0.0, lambda out, _: out.sum()).gradient_check("input")
    assert len(found.disagreeing) == 3
    assert found.worst.gradient == 3
    assert found.worst.numeric == pytest.approx(2)
    assert "3 of 3 disagree" in str(found)


def test_at_a_kink_the_sides_differ_and_it_is_said() -> None:
    found = gn.trace(nn.ReLU(), torch.zeros(1, 1), 0.0, lambda out, _: out.sum()).gradient_check("input")
    row = found.rows[0]
    assert (row.left, row.right, row.has_kink) == (0.0, pytest.approx(1), True)
    assert not found.disagreeing
    assert "kink" in str(found)


def test_lowered_precision_inside_the_model_is_raised_for_the_differences() -> None:
    class Lowered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).to(torch.bfloat16).float().softmax(1, dtype=torch.float32)

    found = gn.trace(Lowered(), torch.rand(1, 3), 0).gradient_check("fc.bias")
    assert all(abs(row.difference) < 2e-2 * abs(row.gradient) for row in found.rows)


@pytest.mark.parametrize(("words", "options"), [("n of at least 1", {"n": 0}), ("a step above 0", {"epsilon": 0.0})])
def test_a_senseless_request_is_refused(words: str, options: dict[str, float]) -> None:
    with pytest.raises(gn.UsageError, match=words):
        gn.trace(nn.Linear(2, 2), torch.rand(2), 0).gradient_check("weight", **options)
