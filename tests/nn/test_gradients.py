"""Every differentiable layer: what backward computes against finite differences, for inputs and parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from glassnet.nn import (
    LocallyConnected2d,
    LocalResponseNorm,
    Maxout,
    RBFOutput,
    ScaledSoftmax,
    ScaledTanh,
    TableConv2d,
    TrainableSubsampling2d,
    TrueConv1d,
    TrueConv2d,
    TrueConv3d,
    random_centres,
)

LAYERS = {
    "scaled tanh": (ScaledTanh(), (3, 4)),
    "softmax": (ScaledSoftmax(base=2.0, temperature=3.0), (3, 4)),
    "maxout": (Maxout(2), (2, 4, 3)),
    "true convolution 1-D": (TrueConv1d(2, 3, 3), (2, 2, 5)),
    "true convolution 2-D": (TrueConv2d(2, 2, (2, 3), stride=2, padding=1), (1, 2, 4, 4)),
    "true convolution 3-D": (TrueConv3d(1, 2, 2), (1, 1, 3, 3, 3)),
    "subsampling": (TrainableSubsampling2d(2), (2, 2, 4, 5)),
    "table": (TableConv2d(3, [(0, 2), (1,), (0, 1, 2)], 2), (2, 3, 3, 3)),
    "local": (LocallyConnected2d(2, 3, 4, 3, padding=1, stride=2), (2, 2, 4, 4)),
    "rbf": (RBFOutput(random_centres(3, 5)), (2, 5)),
    "local response": (LocalResponseNorm(3, alpha=0.5), (2, 4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_backward_agrees_with_finite_differences(name: str) -> None:
    layer, shape = LAYERS[name]
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    names = [name for name, _ in layer.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x.requires_grad_(), *values))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_names_its_arguments_and_loads_its_own_state(name: str) -> None:
    layer, _ = LAYERS[name]
    assert repr(layer).startswith(type(layer).__name__ + "(")
    assert repr(layer) != type(layer).__name__ + "()"
    layer.load_state_dict(layer.state_dict(), strict=True)
    assert isinstance(layer, nn.Module)
