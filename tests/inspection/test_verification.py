"""Verification finds agreement where there is one, and says where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import glassnet as gn
from glassnet.cli import app
from glassnet.inspection.tracing.rules import RULES
from glassnet.inspection.verification import tolerance_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_network_agrees_within_the_tolerance_of_its_type(dtype: torch.dtype) -> None:
    model = gn.build_model("lenet5").to(dtype)
    found = gn.verify(model, torch.rand(1, 32, 32, dtype=dtype), units=30)
    assert found.passed, found
    assert {row.quantity for row in found.rows} == {"unit", "delta", "weight"}
    assert {row.tolerance for row in found.rows} == {tolerance_of(dtype)}
    assert found.num_checked == 90


def test_the_seed_decides_what_is_drawn() -> None:
    trace = gn.trace(gn.build_model("mlp"), torch.rand(1, 28, 28), 3)
    assert gn.verify(trace, seed=1) == gn.verify(trace, seed=1)
    assert gn.verify(trace, seed=1) != gn.verify(trace, seed=2)


def test_a_network_of_one_output_has_gradients_of_its_square() -> None:
    found = gn.verify(nn.Linear(3, 1), torch.rand(2, 3), units=5)
    assert found.passed
    assert "mean square" in str(found)


def test_without_a_label_a_trace_has_its_units_verified_alone() -> None:
    found = gn.verify(gn.trace(nn.Linear(3, 2), torch.rand(3)), units=5)
    assert [row.quantity for row in found.rows] == ["unit"]


class Tripled(nn.Module):
    """A hook on a tensor changes the gradient behind the back of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient * 3)
        return y.tanh()


def test_a_gradient_that_is_not_the_sum_is_beyond_tolerance() -> None:
    found = gn.verify(Tripled(), torch.rand(2, 3), units=20)
    assert not found.passed
    beyond = {(row.quantity, row.op) for row in found.rows if not row.passed}
    assert beyond == {("delta", "linear"), ("weight", "linear")}
    assert "BEYOND" in str(found)


def test_a_rule_that_raises_is_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(question: object) -> None:
        raise IndexError("beyond the end")

    monkeypatch.setitem(RULES, "linear", broken)
    found = gn.verify(nn.Sequential(nn.Linear(3, 2)), torch.rand(2, 3), units=6)
    assert not found.passed
    assert "beyond the end" in found.failures[0]
    assert "could not be recomputed" in str(found)


def test_a_model_is_left_as_it_was(state_of: Callable) -> None:
    model = gn.build_model("resnet20").train()
    images = torch.rand(2, 3, 32, 32)
    before = state_of(model)
    gn.verify(model, images, units=12)
    assert state_of(model) == before


@pytest.fixture
def state_of() -> Callable[[nn.Module], dict[str, object]]:
    """Parameters, buffers, gradients, modes, random state; compare two with `==`."""

    def state(model: nn.Module) -> dict[str, object]:
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return {
            "random": torch.get_rng_state().tolist(),
            "modes": [module.training for module in model.modules()],
            "gradients": [parameter.grad for parameter in model.parameters()],
            **{name: tensor.detach().flatten().tolist() for name, tensor in tensors.items()},
        }

    return state


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gn.verify(nn.Linear(2, 2)), "needs inputs"),
        (lambda: gn.verify(nn.Linear(2, 2), torch.rand(2), units=0), "At least one unit"),
        (lambda: gn.verify(gn.trace(nn.Linear(2, 2), torch.rand(2)), label=1), "leave them out"),
    ],
)
def test_what_cannot_be_verified_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(gn.UsageError, match=words):
        call()


def test_the_command_prints_a_row_an_operation_and_json() -> None:
    table = CliRunner().invoke(app, ["verify", "lenet5", "--units", "12"])
    assert table.exit_code == 0
    assert "delta through" in table.stdout
    plain = CliRunner().invoke(app, ["verify", "lenet5", "--units", "6", "--float64", "--json"])
    result = json.loads(plain.stdout)
    assert result["passed"]
    assert {row["tolerance"] for row in result["rows"]} == {1e-12}


def test_the_command_ends_with_1_where_a_number_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassnet.inspection.verification.tolerance_of", lambda dtype: 1e-30)
    found = CliRunner().invoke(app, ["verify", "lenet5", "--units", "12"])
    assert found.exit_code == 1
    assert "BEYOND" in found.stdout


SEVEN = str(Path(__file__).parents[2] / "docs" / "seven.png")


def test_explain_writes_a_delta_and_a_weights_step() -> None:
    delta = CliRunner().invoke(app, ["explain", "lenet5", SEVEN, "--unit", "output:3", "--backward", "--label", "3"])
    assert delta.exit_code == 0
    assert "softmax p_3" in delta.stdout
    asked = ["explain", "lenet5", SEVEN, "--weight", "output.bias[2]", "--optimizer", "adam", "--lr", "0.5", "--json"]
    result = json.loads(CliRunner().invoke(app, asked).stdout)
    assert result["address"] == "output.bias[2]"
    assert result["step"]["optimizer"] == "Adam"
    assert abs(result["step"]["after"] - result["step"]["before"]) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--backward"], "say which"),
        (["--label", "3"], "add --backward"),
        (["--unit", "c1:0@0,0", "--optimizer", "sgd"], "steps a weight"),
        (["--unit", "c1:0@0,0", "--weight", "c1.bias[0]"], "One number at a time"),
        (["--weight", "c1.bias[0]", "--lr", "1"], "say which one"),
        (["--weight", "c1.bias[0]", "--optimizer", "sdg"], "Did you mean 'sgd'"),
        (["--weight", "c1.bias[0]", "--label", "ten"], "class number"),
        (["--weight", "c1.bias[0]", "--label", "10"], "0 to 9"),
    ],
)
def test_a_question_of_explain_that_does_not_fit_is_refused(asked: list[str], words: str) -> None:
    found = CliRunner().invoke(app, ["explain", "lenet5", SEVEN, *asked])
    assert isinstance(found.exception, gn.UsageError)
    assert words in str(found.exception)
