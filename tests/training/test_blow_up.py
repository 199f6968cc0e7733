"""Which layer of a network is the first whose numbers are lost, found without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from glassnet.training.blow_up import first_non_finite


class Log(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.log()


class Refuser(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        raise RuntimeError("singular\nmatrix")


def network(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Sequential(nn.ReLU(), layer), Log())


INPUTS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def with_weight(model: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        model[0].weight[1, 2] = value
    return model


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        (with_weight(network(Log()), float("nan")), INPUTS, "parameter '0.weight' had nan before the step"),
        (with_weight(network(Log()), float("-inf")), INPUTS, "parameter '0.weight' had infinity before the step"),
        (network(Log()), torch.full((8, 3), float("inf")), "the inputs themselves hold infinity"),
        (network(Log()), INPUTS, "layer '3.1' (Log) gave infinity first; its inputs reached "),
        (
            with_weight(network(Log()), 1e38),
            INPUTS * 1e3,
            "layer '0' (Linear) gave infinity first; its inputs reached ",
        ),
        (network(Refuser()), INPUTS, "a layer failed: singular"),
        (nn.Sequential(nn.Linear(3, 2)), INPUTS, "every layer's outputs are finite in fp32; the loss made of them is"),
    ],
)
def test_the_first_to_be_lost_is_named(model: nn.Module, inputs: Tensor, expected: str) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    assert first_non_finite(model, inputs).startswith(expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(before[name].nan_to_num(), tensor.nan_to_num()) for name, tensor in model.state_dict().items()
    )
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())
