from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet.models.gates import (
    gate_and,
    gate_inequalities,
    gate_nand,
    gate_nor,
    gate_not,
    gate_or,
    gate_xor,
    threshold_unit,
    truth_table,
)

TABLES = {
    "and": (gate_and, (0, 0, 0, 1)),
    "or": (gate_or, (0, 1, 1, 1)),
    "not": (gate_not, (1, 0)),
    "nand": (gate_nand, (1, 1, 1, 0)),
    "nor": (gate_nor, (1, 0, 0, 0)),
    "xor": (gate_xor, (0, 1, 1, 0)),
}
GATES = [(build, outputs) for build, outputs in TABLES.values()]


@pytest.mark.parametrize(("build", "outputs"), GATES)
def test_a_gate_answers_its_truth_table_in_zeros_and_ones(
    build: Callable[..., nn.Module], outputs: tuple[int, ...]
) -> None:
    table = truth_table(build())
    assert table.outputs == outputs
    assert [row.value for row in table.rows] == list(outputs)
    assert [row.inputs for row in table.rows] == list(itertools.product((0, 1), repeat=1 if build is gate_not else 2))


@pytest.mark.parametrize("name", TABLES)
def test_the_inequalities_of_the_published_weights_hold_and_are_those_of_the_model(name: str) -> None:
    build, outputs = TABLES[name]
    listed = gate_inequalities(name)
    assert listed.hold
    assert gate_inequalities(f"gate-{name}") == listed
    last = [row for row in listed.rows if row.unit in ("gate", "output")]
    assert tuple(row.target for row in last) == outputs
    answer = build()[:-1]  # without the step: w . x - theta of the last unit
    for row in last:
        assert answer(torch.tensor([row.row], dtype=torch.float32)).item() == pytest.approx(row.total)


def test_a_row_spells_its_inequality_in_symbols_and_numbers() -> None:
    rows = gate_inequalities("and").rows
    assert [row.symbols for row in rows] == [
        "w1*0 + w2*0 - theta < 0",
        "w1*0 + w2*1 - theta < 0",
        "w1*1 + w2*0 - theta < 0",
        "w1*1 + w2*1 - theta >= 0",
    ]
    assert rows[1].numbers == "1*0 + 1*1 - 1.5 = -0.5 < 0"
    assert rows[3].numbers == "1*1 + 1*1 - 1.5 = 0.5 >= 0"
    assert gate_inequalities("not").rows[0].numbers == "-1*0 - (-0.5) = 0.5 >= 0"
    with pytest.raises(FrozenInstanceError):
        rows[0].threshold = 3.0  # type: ignore[misc]


def test_xor_lists_both_hidden_units_and_what_the_output_sees_of_them() -> None:
    rows = gate_inequalities("xor").rows
    assert [row.unit for row in rows] == ["hidden.and"] * 4 + ["hidden.or"] * 4 + ["output"] * 4
    assert [(row.row, row.inputs) for row in rows[8:]] == [
        ((0, 0), (0, 0)),
        ((0, 1), (0, 1)),
        ((1, 0), (0, 1)),
        ((1, 1), (1, 1)),
    ]
    assert rows[11].numbers == "-2*1 + 1*1 - 0.5 = -1.5 < 0"


def test_weights_of_ones_own_are_held_against_the_table() -> None:
    too_high = gate_inequalities("and", weights=(1, 1), threshold=2.5)
    assert [row.holds for row in too_high.rows] == [True, True, True, False]
    assert not too_high.hold
    assert gate_inequalities("and", weights=(1, 1), threshold=2).hold  # the unit fires where the sum reaches theta
    assert not gate_inequalities("or", weights=(1, 1), threshold=0).hold


def test_no_single_unit_makes_xor() -> None:
    grid = [value / 2 for value in range(-6, 7)]
    for first, second, threshold in itertools.product(grid, repeat=3):
        assert not gate_inequalities("xor", weights=(first, second), threshold=threshold).hold


def test_fixed_weights_have_no_gradients_and_trainable_ones_do() -> None:
    assert not any(parameter.requires_grad for parameter in gate_xor().parameters())
    trainable = gate_xor(unit="sigmoid")
    assert all(parameter.requires_grad for parameter in trainable.parameters())
    fixed_shapes = [parameter.shape for parameter in gate_xor().parameters()]
    assert [parameter.shape for parameter in trainable.parameters()] == fixed_shapes


def learn(model: nn.Module, outputs: tuple[int, ...], num_steps: int) -> float:
    num_inputs = 1 if len(outputs) == 2 else 2
    bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=num_inputs)))
    targets = torch.tensor(outputs, dtype=torch.float32)[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(num_steps):
        loss = functional.binary_cross_entropy_with_logits(model(bits), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_two_layers_of_sigmoid_units_learn_xor() -> None:
    torch.manual_seed(1)
    model = gate_xor(unit="sigmoid")
    assert learn(model, (0, 1, 1, 0), 400) < 0.05
    assert truth_table(model).outputs == (0, 1, 1, 0)
    assert truth_table(nn.Sequential(model, nn.Sigmoid()), limit=0.5).outputs == (0, 1, 1, 0)


def test_one_sigmoid_unit_learns_and_but_not_xor() -> None:
    torch.manual_seed(0)
    model = gate_and(unit="sigmoid")
    learn(model, (0, 0, 0, 1), 200)
    assert truth_table(model).outputs == (0, 0, 0, 1)
    model = gate_or(unit="sigmoid")
    assert learn(model, (0, 1, 1, 0), 200) == pytest.approx(0.6931, abs=1e-3)  # ln 2: no better than a coin
    model = gate_not(unit="sigmoid")
    learn(model, (1, 0), 100)
    assert truth_table(model).outputs == (1, 0)


def test_a_threshold_unit_fires_where_the_sum_reaches_the_threshold() -> None:
    majority = threshold_unit((1, 1, 1), 2)
    assert truth_table(majority).outputs == (0, 0, 0, 1, 0, 1, 1, 1)
    inhibited = threshold_unit((1, 1, -2), 1)
    assert truth_table(inhibited).outputs == (0, 0, 1, 0, 1, 0, 1, 0)


@pytest.mark.parametrize("num_classes", [1, 2])
def test_a_gate_has_one_output_for_its_two_classes(num_classes: int) -> None:
    assert gate_nor(num_classes=num_classes)(torch.zeros(3, 2)).tolist() == [[1.0]] * 3


def test_words_that_are_off_are_refused() -> None:
    with pytest.raises(UsageError, match=r"gate-and takes 2 input\(s\): input_shape \(2,\); got \(3,\)"):
        gate_and(input_shape=(3,))
    with pytest.raises(UsageError, match=r"gate-not takes 1 input\(s\): input_shape \(1,\); got \(2,\)"):
        gate_not(input_shape=(2,))
    with pytest.raises(UsageError, match=r"gate-or has one output, false or true: num_classes 1 or 2; got 10"):
        gate_or(num_classes=10)
    with pytest.raises(UsageError, match=r"Unknown unit 'sigmoyd'\. Did you mean 'sigmoid'"):
        gate_or(unit="sigmoyd")
    with pytest.raises(UsageError, match=r"Unknown gate 'gate-xnor'\. Did you mean"):
        gate_inequalities("gate-xnor")
    with pytest.raises(UsageError, match=r"weights and a threshold together, or neither; got one"):
        gate_inequalities("and", weights=(1, 1))
    with pytest.raises(UsageError, match=r"Gate 'and' expects 2 weight\(s\), one an input; got 3"):
        gate_inequalities("and", weights=(1, 1, 1), threshold=2)
    with pytest.raises(UsageError, match=r"at least one weight; got none"):
        threshold_unit((), 1)


def test_a_truth_table_needs_one_output_and_a_linear_layer() -> None:
    with pytest.raises(UsageError, match=r"one output a row, \(4, 1\); got \(4, 3\)"):
        truth_table(nn.Linear(2, 3))
    with pytest.raises(UsageError, match=r"a model with a linear layer; got ReLU without one"):
        truth_table(nn.ReLU())
