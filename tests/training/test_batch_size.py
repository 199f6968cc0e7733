"""How many examples go through a network at once, where that is left open."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.data.examples import Dataset
from glassnet.data.records import InputRecord, make_record
from glassnet.training import batch_size
from glassnet.training.batch_size import activation_bytes, fitting_batch_size, with_batch_size
from glassnet.training.config import TrainConfig


@pytest.fixture
def record(digits: Dataset) -> InputRecord:
    return make_record(digits.train, (8, 8), digits.framing)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10))


def test_all_is_the_whole_split_and_a_number_stays(model: nn.Module, record: InputRecord) -> None:
    assert with_batch_size(TrainConfig(batch_size="all"), 1295, model, record).batch_size == 1295
    assert with_batch_size(TrainConfig(batch_size=7), 1295, model, record).batch_size == 7


def test_auto_is_the_usual_size_where_memory_is_plenty(model: nn.Module, record: InputRecord) -> None:
    assert with_batch_size(TrainConfig(batch_size="auto"), 1295, model, record).batch_size == 64
    assert with_batch_size(TrainConfig(batch_size="auto"), 20, model, record).batch_size == 20
    assert with_batch_size(TrainConfig(batch_size="auto", accumulate=4), 20, model, record).batch_size == 5


def test_auto_halves_until_the_activations_fit(
    model: nn.Module, record: InputRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = activation_bytes(model, record)
    monkeypatch.setattr(batch_size, "available_bytes", lambda device: int(each * batch_size.WORKSPACE * 2 * 20))
    assert fitting_batch_size(model, record) == 16
    monkeypatch.setattr(batch_size, "available_bytes", lambda device: 0)
    assert fitting_batch_size(model, record) == 1


def test_activations_are_those_that_backward_needs_and_no_weights(record: InputRecord) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 1000), nn.ReLU())
    # A linear layer keeps its input of 64 numbers, the ReLU its output of 1,000.
    assert activation_bytes(linear, record) == pytest.approx(4 * (64 + 1000))


def test_the_trial_changes_nothing(model: nn.Module, record: InputRecord) -> None:
    model.eval()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    activation_bytes(model, record)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_more_than_there_is_is_refused(model: nn.Module, record: InputRecord) -> None:
    with pytest.raises(UsageError, match="at most the 10 training examples; got 11"):
        with_batch_size(TrainConfig(batch_size=11), 10, model, record)
