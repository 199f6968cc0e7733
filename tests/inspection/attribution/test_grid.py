"""Every method on every kind of built-in network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import glassnet as gn
from glassnet import UsageError
from glassnet.inspection.attribution import METHODS
from glassnet.models import spec_of

SMALL: dict[str, dict[str, object]] = {
    "alexnet": {"input_shape": (3, 67, 67), "hidden": 16},
    "alexnet-2012": {"input_shape": (3, 67, 67), "hidden": 16},
    "alexnet-torchvision": {"input_shape": (3, 63, 63), "hidden": 16},
    "zfnet": {"input_shape": (3, 67, 67), "hidden": 16},
    "googlenet": {"input_shape": (3, 79, 79)},
    "googlenet-torchvision": {"input_shape": (3, 33, 33)},
    **{name: {"input_shape": (3, 32, 32), "hidden": 16} for name in gn.list_models() if name.startswith("vgg")},
    **{f"resnet{d}": {"input_shape": (3, 33, 33)} for d in ("18", "34", "50", "101", "152", "18-lecture")},
    **{name: {"unit": "sigmoid"} for name in gn.list_models() if name.startswith("gate-")},
}
DEEPER = {
    *(f"vgg{depth}{norm}" for depth in (13, 16, 19) for norm in ("", "-bn")),
    *(f"resnet{depth}" for depth in (34, 101, 152, 32, 44, 56, 110)),
}
"""Of the same operations as a shallower one of their family, which stands for them."""
NETWORKS = [name for name in gn.list_models() if name not in DEEPER]
QUICK: dict[str, dict[str, object]] = {
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 16, "tolerance": 0.02},
    "occlusion": {"window": 32, "stride": 32},
    "shapley_sampling": {"samples": 1, "patch": 32},
}
WITHOUT_MAPS = {"perceptron", "linear-regression", "logistic-regression", "softmax", "mlp"}


def network(name: str) -> nn.Module:
    return gn.build_model(name, **SMALL.get(name, {}))


def options(method: str, side: int) -> dict[str, object]:
    found = dict(QUICK.get(method, {}))
    if side < 32:
        return {
            key: value if key in {"samples", "steps", "tolerance"} else max(side // 2, 1)
            for key, value in found.items()
        }
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_answers_on_every_network_and_leaves_it_as_it_was(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassnet.inspection.attribution.faithfulness.NUM_STEPS", 1)
    model = network(name)
    before = copy.deepcopy(model.state_dict())
    shape = spec_of(model).input_shape
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    for method in METHODS:
        if method == "grad_cam" and (name in WITHOUT_MAPS or name.startswith("gate-")):
            with pytest.raises(UsageError, match="needs a convolution with more than one position"):
                gn.attribute(model, image, method=method)
            continue
        found = gn.attribute(model, image, method=method, **options(method, max(shape)))  # type: ignore[arg-type]
        assert tuple(found.scores.shape) == tuple(shape)
        assert tuple(found.map.shape) == (tuple(shape[1:]) or tuple(shape))
        assert found.scores.isfinite().all()
        # The deepest are untrained so flat that the output bears any change of the image without a bit's difference.
        is_flat = abs(found.output - found.baseline_output) < 1e-6
        assert found.scores.any() or is_flat or "every score is 0" in found.notes[-1]
        if found.promised is not None:
            gap, size = abs(found.completeness_gap or 0.0), float(found.scores.abs().sum()) + abs(found.absorbed)
            size = max(size, abs(found.output))  # numbers of that size are rounded
            tolerance = 0.02 if method == "integrated_gradients" else 1e-4
            assert gap <= tolerance * max(abs(found.promised), size), (method, gap, found.promised)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
