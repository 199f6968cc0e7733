"""Inspection leaves a model, and torch, as it found them: over every function, also after an error in the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet import UsageError

SHAPE = (2, 8, 8)


class Everything(nn.Module):
    """What is easily disturbed: batch statistics, dropout, work in place, attention, recurrence, own state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.rnn = nn.GRU(4, 4, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        maps = F.relu_(self.drop(self.norm(self.conv(x))))
        maps = maps + F.dropout(maps, 0.1)  # draws in evaluation too
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        if self.fails:
            raise ValueError("the model fails")
        return self.head(self.rnn(tokens)[0].mean(1))


def examples(count: int = 12) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(count, *SHAPE, generator=generator), torch.arange(count) % 3)]


LENSES: dict[str, Callable[[nn.Module], object]] = {
    "summary": lambda model: gn.summary(model, SHAPE),
    "receptive field": lambda model: gn.receptive_field(model, SHAPE, "conv"),
    "mask": lambda model: gn.receptive_field(model, SHAPE, "conv").mask((3, 3)),
    "effective field": lambda model: gn.receptive_field(model, SHAPE, "conv", effective=True),
    "feature maps": lambda model: gn.feature_maps(model, examples()[0][0], "norm"),
    "top images": lambda model: gn.top_images(model, examples(), "conv:1"),
    "separation": lambda model: gn.separation(model, examples()[0][0], examples()[0][1].tolist()),
    "composition": lambda model: gn.composition(model, *examples(3)[0][0]),
    "ablation": lambda model: gn.ablate(model, examples(), "conv"),
    "ablation to the mean": lambda model: gn.ablate(model, examples(), "norm", [0], value="mean"),
    "activation statistics": lambda model: gn.activation_statistics(model, examples()[0][0]),
}


def state(model: nn.Module) -> dict[str, Any]:
    """Return all that must not change, tensors as copies."""
    return {
        "modes": [module.training for module in model.modules()],
        "attributes": [sorted(module.__dict__) for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "numbers": {name: value.clone() for name, value in model.state_dict().items()},
        "parameters": [id(parameter) for parameter in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "random": torch.get_rng_state(),
        "torch": (
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.mkldnn.enabled,
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
        ),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name in ("modes", "attributes", "hooks", "parameters", "requires_grad", "torch"):
        assert after[name] == before[name], name
    assert torch.equal(after["random"], before["random"])
    assert all(torch.equal(value, before["numbers"][name]) for name, value in after["numbers"].items())
    for new, old in zip(after["gradients"], before["gradients"], strict=True):
        assert (new is None) == (old is None)
        assert new is None or torch.equal(new, old)


@pytest.fixture
def model() -> Everything:
    """A model in mixed modes, with a gradient, a frozen weight and a hook of its owner's."""
    torch.manual_seed(0)
    model = Everything()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.drop.register_forward_hook(lambda module, args, output: None)
    return model


@pytest.mark.parametrize("lens", LENSES)
def test_the_model_stays_as_it_was(lens: str, model: Everything) -> None:
    before = state(model)
    LENSES[lens](model)
    assert_same(before, state(model))


@pytest.mark.parametrize("lens", LENSES)
def test_the_model_stays_as_it_was_after_an_error_in_it(lens: str, model: Everything) -> None:
    model.fails = True
    before = state(model)
    with pytest.raises((UsageError, ValueError), match="the model fails"):
        LENSES[lens](model)
    assert_same(before, state(model))


@pytest.mark.parametrize("lens", LENSES)
def test_an_inspection_may_run_without_gradients_and_in_inference_mode(lens: str, model: Everything) -> None:
    with torch.no_grad():
        LENSES[lens](model)
    with torch.inference_mode():
        LENSES[lens](model)


@pytest.mark.parametrize("lens", LENSES)
def test_an_inspection_twice_finds_the_same(lens: str, model: Everything) -> None:
    first, second = LENSES[lens](model), LENSES[lens](model)
    plain = getattr(first, "to_dict", None)
    if plain is None:
        assert str(first) == str(second)
    else:
        assert plain() == second.to_dict()  # type: ignore[attr-defined]


@pytest.mark.parametrize("lens", LENSES)
def test_a_lazy_model_is_refused_and_stays_lazy(lens: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(UsageError, match="'1.weight' gets its shape in the first forward pass"):
        LENSES[lens](model)
    assert isinstance(model[1], nn.LazyLinear)
