"""Compiled networks, here by dynamo alone: what writes and compiles C++ takes half a minute and is torch's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from glassnet import TrainConfig, WorkError
from glassnet.data.examples import Dataset
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import make_preprocessing
from glassnet.training.fit import fit

COMPILE = torch.compile


def trained(data: Dataset, is_compiled: bool) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    record = make_preprocessing(data.train, (8, 8))
    splits = [to_device(split, record, torch.device("cpu")) for split in (data.train, data.validation)]
    # Compiled networks have torch's own convolutions, and Adam makes steps of rounding errors, such as the gradient of
    # a bias before normalisation.
    config = TrainConfig(epochs=2, batch_size=16, compile=is_compiled, ema=0.9, convolution="direct")
    fit(model, *splits, record, config)
    return model


def test_a_compiled_network_trains_to_the_same_weights_under_the_same_names(
    small_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        calls.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend=backend))
    plain, compiled = trained(small_data, False), trained(small_data, True)
    assert calls
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, rtol=0, atol=1e-5)


def test_a_network_that_cannot_be_compiled_is_said_in_words(
    small_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend=backend))
    with pytest.raises(WorkError, match=r"Could not compile the network: .*no C\+\+ compiler.* Leave --compile out"):
        trained(small_data, True)
