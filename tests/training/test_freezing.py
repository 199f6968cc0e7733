from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from glassnet import TrainConfig, UsageError
from glassnet.data.examples import Dataset
from glassnet.training.fit import EpochEnd, fit
from glassnet.training.freezing import first_layer

from .test_fit import network, prepared

MUON = {"optimizer": "muon", "fixed_norm": True, "other_weight_decay": 0.01}


def trained(data: Dataset, **values: object) -> tuple[nn.Module, list[dict[str, Tensor]], list[bool]]:
    """Train; return the model, its weights after each epoch, and whether the first layer has gradients by then."""
    model, weights, has_gradients = network(), [], []

    def note(end: EpochEnd) -> None:
        weights.append({name: value.clone() for name, value in end.weights.items()})
        has_gradients.append(model[0].weight.requires_grad)

    fit(model, *prepared(data), TrainConfig(**{"epochs": 3, "batch_size": 16} | values), on_epoch=note)
    return model, weights, has_gradients


@pytest.mark.parametrize("values", [{}, MUON, {"weight_decay": 0.5, "max_gradient_norm": 0.1}, {"accumulate": 2}])
def test_the_first_layer_learns_for_so_many_epochs_and_the_others_to_the_end(
    values: dict[str, object], small_data: Dataset
) -> None:
    model, (first, second, last), has_gradients = trained(small_data, first_layer_epochs=1, **values)
    for name in ("0.weight", "0.bias"):
        assert torch.equal(first[name], last[name])
        assert not torch.equal(first[name], network().state_dict()[name])
    for name in ("1.weight", "5.weight", "5.bias"):
        assert not torch.equal(second[name], last[name])
    assert has_gradients == [True, False, False]
    assert all(parameter.requires_grad for parameter in model.parameters()), "after the training all may learn again"


def test_a_part_of_an_epoch_is_rounded_to_steps(small_data: Dataset) -> None:
    """Up to there the training is the same as one in which the first layer learns to the end."""
    *_, (whole, *_), _ = trained(small_data)
    *_, (half, *_), _ = trained(small_data, first_layer_epochs=0.5)
    *_, (almost, *_), _ = trained(small_data, first_layer_epochs=0.999)
    assert not torch.equal(whole["0.weight"], half["0.weight"])
    assert torch.equal(whole["0.weight"], almost["0.weight"])
    *_, never, _ = trained(small_data, first_layer_epochs=3)
    assert torch.equal(never[-1]["0.weight"], trained(small_data)[1][-1]["0.weight"])


def test_what_learns_first_may_be_a_bias_alone() -> None:
    """As of a layer whose kernels are set by the data."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    model[1].weight.requires_grad_(False)
    with first_layer(model) as layer:
        assert [id(parameter) for parameter in layer.parameters] == [id(model[1].bias)]
        layer.learn(False)
        assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]


def test_gradients_that_others_wait_for_are_computed_and_dropped() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with first_layer(model, is_waited_for=True) as layer:
        layer.learn(False)
        model(torch.ones(1, 4)).sum().backward()
        assert model[0].weight.grad is not None
        layer.drop_gradients()
        assert model[0].weight.grad is None
        assert model[1].weight.grad is not None


def test_a_single_layer_that_learns_is_refused(small_data: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    config = TrainConfig(epochs=1, batch_size=16, first_layer_epochs=0.5)
    with pytest.raises(UsageError, match="several layers that learn; this one has 1. Leave it out"):
        fit(model, *prepared(small_data), config)
