"""Gradients of weights against numbers worked out by hand, and the steps that follow from them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations

import glassnet as gn
from glassnet.training.muon import Float32Muon
from glassnet.training.optimizer import KernelOptimizer


def textbook() -> tuple[nn.Module, gn.Trace]:
    """The example of Mazur (2015), "A step by step backpropagation example", learning rate 0.5."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2), nn.Sigmoid()).double()
    for layer, numbers, shift in ((0, [[0.15, 0.20], [0.25, 0.30]], 0.35), (2, [[0.40, 0.45], [0.50, 0.55]], 0.60)):
        nn.init.constant_(model[layer].bias, shift)
        with torch.no_grad():
            model[layer].weight.copy_(torch.tensor(numbers, dtype=torch.float64))
    inputs, target = torch.tensor([0.05, 0.10]).double(), torch.tensor([0.01, 0.99]).double()
    return model, gn.trace(model, inputs, target, lambda out, y: 0.5 * ((out - y) ** 2).sum())


@pytest.mark.parametrize(
    ("address", "gradient", "new"),
    [
        ("2.weight[0,0]", 0.082167041, 0.35891648),
        ("2.weight[0,1]", 0.082667628, 0.408666186),
        ("2.weight[1,0]", -0.022602540, 0.511301270),
        ("2.weight[1,1]", -0.022740242, 0.561370121),
        ("0.weight[0,0]", 0.000438568, 0.149780716),
        ("0.weight[0,1]", 0.000877135, 0.19956143),
        ("0.weight[1,0]", 0.000497713, 0.24975114),
        ("0.weight[1,1]", 0.000995425, 0.29950229),
    ],
)
def test_the_textbook_example_has_its_published_gradients_and_new_weights(
    address: str, gradient: float, new: float
) -> None:
    model, trace = textbook()
    found = trace.weight(address)
    assert found.total == pytest.approx(gradient, abs=1e-8)
    assert found.value == pytest.approx(found.total, rel=1e-12)
    step = found.step(torch.optim.SGD(model.parameters(), lr=0.5))
    assert step.after == pytest.approx(new, abs=1e-8)
    assert step.value == pytest.approx(step.after, rel=1e-12)


def test_a_3x3_kernels_gradient_is_the_correlation_of_image_and_deltas() -> None:
    # A 4x4 image counts 1 to 16; the loss weighs the 2x2 outputs 1, 10, 100, 1000, which are then the deltas.
    model = nn.Conv2d(1, 1, 3)
    image = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    weights = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    trace = gn.trace(model, image, 0.0, lambda out, _: (out * weights).sum())
    corner = trace.weight("weight[0,0,0,0]")
    assert corner.terms.value.tolist() == [1, 2, 5, 6]
    assert corner.terms.factor.tolist() == [1, 10, 100, 1000]
    assert corner.total == corner.value == 1 * 1 + 2 * 10 + 5 * 100 + 6 * 1000
    assert trace.weight("weight[0,0,2,2]").total == 11 * 1 + 12 * 10 + 15 * 100 + 16 * 1000
    assert corner.terms.sources[0] == "input:0@0,0"
    assert trace.weight("bias[0]").total == 1111


def test_padding_is_said_to_be_padding_and_counts_nothing() -> None:
    trace = gn.trace(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)), torch.ones(1, 3, 3), 0.0, lambda out, _: out.sum())
    found = trace.weight("0.weight[0,0,0,0]")
    assert found.terms.words.count("padding") == 5
    assert found.total == found.value == 4.0


def test_softmax_regression_has_the_gradient_of_the_lecture() -> None:
    # One image x = (1, 2), logits 0: p = 1/3 each, label 0, so dL/dW_kj = (p_k - t_k) x_j.
    model = nn.Sequential(nn.Linear(2, 3))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    trace = gn.trace(model, torch.tensor([1.0, 2.0]), 0)
    found = [[trace.weight(f"0.weight[{k},{j}]").value for j in range(2)] for k in range(3)]
    expected = [[-2 / 3, -4 / 3], [1 / 3, 2 / 3], [1 / 3, 2 / 3]]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
    assert trace.weight("0.bias[0]").total == pytest.approx(-2 / 3)


def test_images_of_a_batch_have_a_term_each() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    found = gn.trace(model, torch.rand(4, 2), [0, 1, 2, 0]).weight("0.weight[1,0]")
    assert found.terms.sources == [f"input[{image}]:0" for image in range(4)]


def test_a_module_called_twice_has_terms_of_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x).tanh())

    found = gn.trace(Twice(), torch.rand(2), 1).weight("fc.weight[0,1]")
    assert found.terms.sources == ["input:1", "tanh:1"]
    assert found.relative_difference < 1e-6


def test_scale_and_shift_of_batch_norm_meet_the_normalised_input() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2, eps=1e-12))
    image = torch.tensor([1.0, 3.0, 1.0, 3.0, 0.0, 0.0, 8.0, 8.0]).reshape(1, 2, 2, 2)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 1.0]).reshape(1, 2, 2, 2)
    trace = gn.trace(model, image, 0.0, lambda out, _: (out * weights).sum(), training=True)
    scale = trace.weight("0.weight[0]")
    assert scale.terms.value.tolist() == pytest.approx([-1, 1, -1, 1])
    assert scale.total == pytest.approx(-1 + 2 - 3 + 4)
    assert trace.weight("0.bias[0]").total == 10


def test_an_embeddings_row_has_the_deltas_of_its_tokens() -> None:
    class Tokens(nn.Module):
        def __init__(self, **options: Any) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 3, **options)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x)

    weights = torch.tensor([[1.0], [10.0], [100.0]])
    for options in ({}, {"sparse": True}):
        trace = gn.trace(Tokens(**options), torch.tensor([[4, 2, 4]]), 0.0, lambda out, _: (out * weights).sum())
        assert trace.weight("table.weight[4,1]").total == trace.weight("table.weight[4,1]").value == 101
        assert len(trace.weight("table.weight[0,1]").terms) == 0
    trace = gn.trace(Tokens(padding_idx=-1), torch.tensor([[4, 2, 4]]), 0.0, lambda out, _: (out * weights).sum())
    assert trace.weight("table.weight[4,1]").total == trace.weight("table.weight[4,1]").value == 0


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrised_weight_is_followed_through_the_graph(normed: Callable[[nn.Module], nn.Module]) -> None:
    trace = gn.trace(nn.Sequential(normed(nn.Linear(3, 2))), torch.rand(3), 1)
    for path, value in trace.parameters.items():
        index = ",".join("0" * len(value.shape))
        found = trace.weight(f"{path}[{index}]")
        assert found.value != 0
        assert found.relative_difference < 1e-5


def test_an_unused_weight_says_so() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    found = gn.trace(Partly(), torch.rand(2), 1).weight("spare.weight[0,0]")
    assert (found.op, found.value, len(found.terms)) == ("unused", 0.0, 0)
    assert "does not depend" in found.notes[0]
    with pytest.raises(gn.UsageError, match="needs a gradient"):
        found.step(torch.optim.SGD([found.parameter.tensor], lr=0.1))


def test_an_unknown_weight_is_answered_with_the_nearest() -> None:
    trace = gn.trace(nn.Sequential(nn.Linear(2, 2)), torch.rand(2), 1)
    with pytest.raises(gn.UsageError, match=r"Did you mean '0\.weight'"):
        trace.weight("0.wieght[0,0]")
    with pytest.raises(gn.UsageError, match=r"0\.weight\[0\.\.1, 0\.\.1\]"):
        trace.weight("0.weight[2,0]")


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "plain": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "maximised adam": lambda p: torch.optim.Adam(p, lr=0.01, maximize=True, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.2, betas=(0.8, 0.9)),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.1),
    "centred rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.2),
    "muon": lambda p: torch.optim.Muon([q for q in p if q.ndim == 2], lr=0.1),
    "muon plainly": lambda p: torch.optim.Muon(
        [q for q in p if q.ndim == 2], lr=0.1, nesterov=False, adjust_lr_fn="match_rms_adamw"
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_of_an_optimizer_are_those_of_torch(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 5))
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    images = torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    for number in range(3):
        labels = torch.arange(6).add(number) % 5
        trace = gn.trace(model, images, labels)
        before = copy.deepcopy(optimizer.state_dict())
        found = [trace.weight(address).step(optimizer) for address in ("0.weight[2,1]", "2.weight[4,0]")]
        assert str(optimizer.state_dict()) == str(before)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        for update, place in zip(found, (model[0].weight[2, 1], model[2].weight[4, 0]), strict=True):
            assert update.value == pytest.approx(float(place.detach()), rel=1e-6)
            assert update.relative_difference < 1e-6, update
            assert update.after != update.before


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_glassnets_optimizer_of_kernels_is_taken_apart_in_any_layout(layout: torch.memory_format) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).to(memory_format=layout)
    rest = torch.optim.SGD([model[0].bias, *model[3].parameters()], lr=0.1, momentum=0.9)
    optimizer = KernelOptimizer(lambda groups: Float32Muon(groups, lr=0.02), [model[0].weight], rest)
    images = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    trace = gn.trace(model, images, [0, 2])
    kernel, bias = (trace.weight(address).step(optimizer) for address in ("0.weight[3,1,0,2]", "0.bias[1]"))
    F.cross_entropy(model(images), torch.tensor([0, 2])).backward()
    optimizer.step()
    assert (kernel.optimizer, bias.optimizer) == ("Float32Muon", "SGD")
    assert kernel.value == pytest.approx(float(model[0].weight[3, 1, 0, 2].detach()), rel=1e-5)
    assert bias.value == pytest.approx(float(model[0].bias[1].detach()), rel=1e-6)
    assert max(kernel.relative_difference, bias.relative_difference) < 1e-6


def test_an_update_is_told_in_lines_and_plain_values() -> None:
    model, trace = textbook()
    found = trace.weight("2.weight[0,0]").step(torch.optim.Adam(model.parameters(), lr=0.01))
    assert "mean square v" in str(found)
    assert "torch's step gives" in found.to_markdown()
    plain = found.to_dict()
    assert plain["lines"][-1]["value"] == plain["after"] == pytest.approx(0.39, abs=1e-6)  # Adam's first step is lr


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1), "does not have the parameter"),
        (lambda model: torch.optim.Adadelta(model.parameters()), "got Adadelta"),
        (lambda model: "sgd", "got str"),
    ],
)
def test_an_optimizer_that_does_not_fit_is_refused(make: Callable[[nn.Module], Any], words: str) -> None:
    model, trace = textbook()
    with pytest.raises(gn.UsageError, match=words):
        trace.weight("2.weight[0,0]").step(make(model))
