"""Deltas against numbers worked out by hand, formulas written out here, and autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn


def textbook() -> tuple[nn.Sequential, Tensor, Tensor]:
    """The two inputs, two hidden and two output units of Mazur's "A step by step backpropagation example" (2015)."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2), nn.Sigmoid()).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.15, 0.20], [0.25, 0.30]]).double())
        model[0].bias.fill_(0.35)
        model[2].weight.copy_(torch.tensor([[0.40, 0.45], [0.50, 0.55]]).double())
        model[2].bias.fill_(0.60)
    return model, torch.tensor([0.05, 0.10]).double(), torch.tensor([0.01, 0.99]).double()


def half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * ((output - target) ** 2).sum()


@pytest.fixture
def taught() -> gn.Trace:
    model, image, target = textbook()
    return gn.trace(model, image, target, half_squared_error)


def test_the_textbook_example_has_its_published_error_and_deltas(taught: gn.Trace) -> None:
    assert float(taught.loss) == pytest.approx(0.298371109, abs=2e-9)
    assert taught.delta("3:0").total == pytest.approx(0.74136507, abs=1e-8)  # dE/d(out o1)
    assert taught.delta("2:0").total == pytest.approx(0.138498562, abs=1e-9)  # delta of o1
    assert taught.delta("1:0").total == pytest.approx(0.036350306, abs=1e-9)  # dE/d(out h1)


def test_a_hidden_units_delta_has_a_term_for_each_unit_that_it_feeds(taught: gn.Trace) -> None:
    found = taught.delta("1:0")
    assert found.terms.sources == ["2:0", "2:1"]
    assert found.terms.factor_sources == ["2.weight[0,0]", "2.weight[1,0]"]
    torch.testing.assert_close(found.terms.factor.float(), torch.tensor([0.40, 0.50]))
    torch.testing.assert_close(
        found.terms.product, torch.tensor([0.055399425, -0.019049119]).double(), atol=1e-9, rtol=0
    )
    assert found.relative_difference < 1e-12


def test_at_the_top_the_delta_is_softmax_less_one_hot_in_numbers() -> None:
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([math.log(1), math.log(2), math.log(5)]))
    images = torch.zeros(4, 2)
    trace = gn.trace(model, images, torch.tensor([2, 0, 1, 2]))
    name = trace.steps[0].name
    wrong, right = trace.delta(f"{name}[0]:1"), trace.delta(f"{name}[0]:2")
    assert wrong.value == pytest.approx((2 / 8) / 4)
    assert right.value == pytest.approx((5 / 8 - 1) / 4)
    assert [number for _, number in right.working] == pytest.approx([5 / 8, 1, 4, (5 / 8 - 1) / 4])
    assert wrong.terms.sources == ["loss.cross_entropy"]


@pytest.mark.parametrize("options", [{"label_smoothing": 0.1}, {"reduction": "sum"}])
def test_the_derivative_of_cross_entropy_is_itemised_with_its_options(options: dict[str, object]) -> None:
    trace = gn.trace(nn.Linear(2, 3), torch.rand(2, 2), [0, 2], lambda out, y: F.cross_entropy(out, y, **options))
    found = trace.delta(f"{trace.steps[0].name}[1]:2")
    assert dict(found.working)["(p_2 - t_2) / n"] == pytest.approx(found.value, rel=1e-5)


def test_weighted_classes_are_left_to_the_local_derivative() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0])
    trace = gn.trace(nn.Linear(2, 3), torch.rand(2, 2), [0, 2], lambda out, y: F.cross_entropy(out, y, weight))
    found = trace.delta(f"{trace.steps[0].name}[1]:2")
    assert found.working == ()
    assert found.relative_difference < 1e-6


def test_the_sum_starts_at_the_loss_with_one(taught: gn.Trace) -> None:
    found = taught.delta(taught.steps[-1].name)
    assert (found.total, found.value, len(found.terms)) == (1.0, 1.0, 0)


def test_a_unit_that_feeds_two_ways_has_terms_of_both() -> None:
    class Residual(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 3 + x

    found = gn.trace(Residual(), torch.tensor([1.0, 2.0]), [0.0, 0.0], lambda out, _: out.sum()).delta("input:1")
    assert found.terms.factor.tolist() == [3.0, 1.0]
    assert found.total == found.value == 4.0


def test_a_number_read_twice_by_one_step_counts_twice() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x

    found = gn.trace(Square(), torch.tensor([3.0, 1.0]), [0.0, 0.0], lambda out, _: out.sum()).delta("input:0")
    assert found.terms.product.tolist() == [3.0, 3.0]


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class OnlyTheSign(StraightThrough):
    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient.sign()


class Rounded(nn.Module):
    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x) * torch.tensor([[2.0, -5.0]])


def test_a_backward_function_of_the_users_own_gives_the_local_derivatives() -> None:
    trace = gn.trace(Rounded(StraightThrough), torch.tensor([[1.4, 2.6]]), [[0.0, 0.0]], lambda out, _: out.sum())
    found = trace.delta("input:1")
    assert found.terms.factor.tolist() == [1.0]
    assert found.total == found.value == -5.0


def test_a_backward_function_that_is_no_product_is_said_to_be_one_number() -> None:
    trace = gn.trace(Rounded(OnlyTheSign), torch.tensor([[1.4, 2.6]]), [[0.0, 0.0]], lambda out, _: out.sum())
    found = trace.delta("input:1")
    assert found.total == found.value == -1.0
    assert "no product" in found.notes[0]


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d])
@pytest.mark.parametrize("seed", range(6))
def test_every_input_and_weight_of_a_convolution_agrees_whatever_its_window(kind: type[nn.Module], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    axes = int(kind.__name__[-2])
    groups = pick(1, 2)
    options = {"stride": pick(1, 3), "dilation": pick(1, 2), "padding": pick(0, 2), "groups": groups}
    model = kind(2 * groups, 2 * groups, tuple(pick(1, 3) for _ in range(axes)), **options).double()
    size = 9 if axes == 1 else 7 if axes == 2 else 5
    images = torch.randn(2, 2 * groups, *(size,) * axes, generator=draw, dtype=torch.float64)
    trace = gn.trace(model, images, torch.zeros(()).double(), lambda out, _: (out**2).sum())
    for _ in range(5):
        index = tuple(pick(0, length - 1) for length in images.shape)
        unit = trace.delta(trace.naming.text((trace.inputs[0], index)))
        assert unit.relative_difference < 1e-12
        assert unit.value == float(trace.inputs[0].gradient[index])
    for path, parameter in model.named_parameters():
        index = tuple(pick(0, length - 1) for length in parameter.shape)
        weight = trace.weight(f"{path}[{','.join(map(str, index))}]")
        assert weight.relative_difference < 1e-12
        assert len(weight.terms) > 0


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_said_in_words_is_understood(padding: str) -> None:
    trace = gn.trace(
        nn.Conv1d(1, 1, 3, padding=padding, dilation=2), torch.rand(1, 1, 6), 0.0, lambda out, _: (out**2).sum()
    )
    for place in range(6):
        assert trace.delta(f"input:0@{place}").relative_difference < 1e-6


MODULES = [
    nn.MultiheadAttention(8, 2, batch_first=True),
    nn.LSTM(8, 3, batch_first=True),
    nn.GRU(8, 3, batch_first=True),
    nn.LayerNorm(8),
    nn.Sequential(nn.LocalResponseNorm(2), nn.AvgPool1d(2), nn.Upsample(scale_factor=2, mode="linear")),
    nn.Sequential(nn.AdaptiveMaxPool1d(3), nn.Softplus(), nn.GELU(), nn.Hardswish(), nn.PReLU(), nn.Softmax(-1)),
]


@pytest.mark.parametrize("model", MODULES, ids=lambda model: type(model).__name__)
def test_operations_of_every_kind_pass_their_deltas_on(model: nn.Module) -> None:
    tokens = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    given = (tokens, tokens, tokens) if isinstance(model, nn.MultiheadAttention) else tokens
    found = gn.verify(
        gn.trace(model, given, 0.0, lambda out, _: (out if isinstance(out, Tensor) else out[0]).pow(2).sum())
    )
    assert found.passed, found
    assert any(row.quantity == "delta" and row.worst >= 0 for row in found.rows)


def test_a_dead_relu_says_that_nothing_flows_back() -> None:
    trace = gn.trace(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), torch.tensor([-1.0, 2.0]), 0)
    found = trace.delta("input:0")
    assert (len(found.terms), found.value) == (0, 0.0)
    assert "read by 0" in found.notes[0]


def test_a_value_that_autograd_does_not_know_has_no_terms() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + x.detach()

    trace = gn.trace(Detached(2, 2), torch.rand(2), 0)
    found = trace.delta("detach:0")
    assert (len(found.terms), found.value) == (0, 0.0)
    assert "does not depend" in found.notes[0]


@pytest.mark.parametrize("model", ["lenet5", "resnet20"])
def test_the_model_is_left_as_it_was(model: str, state_of: Callable) -> None:
    network = gn.build_model(model)
    image = torch.rand(1 if model == "lenet5" else 3, 32, 32)
    before = state_of(network)
    trace = gn.trace(network, image, 3)
    for step in trace.steps[:-1]:
        trace.delta(trace.naming.text((step.output, (0,) * len(step.shape))))
    for path, value in trace.parameters.items():
        trace.weight(f"{path}[{','.join('0' * len(value.shape))}]").step(torch.optim.Adam(network.parameters()))
    assert state_of(network) == before


def test_text_markdown_and_plain_values_say_the_same(taught: gn.Trace) -> None:
    found = taught.delta("1:0")
    assert str(found).splitlines()[1].split() == ["fed", "unit", "its", "delta", "local", "derivative", "product"]
    assert "torch's value" in str(found)
    assert "| `2:0` |" in found.to_markdown()
    plain = found.to_dict()
    assert sum(term["product"] for term in plain["terms"]) == pytest.approx(plain["value"])
    assert taught.unit("1:0").delta.value == found.value


def test_a_delta_without_a_label_is_refused() -> None:
    with pytest.raises(gn.UsageError, match="without a label"):
        gn.trace(nn.Linear(2, 2), torch.rand(2)).delta("input:0")


def test_a_delta_of_several_units_is_refused_with_an_address_of_one(taught: gn.Trace) -> None:
    with pytest.raises(gn.UsageError, match="names several"):
        taught.delta("2")


def test_tokens_have_no_delta() -> None:
    trace = gn.trace(nn.Embedding(5, 3), torch.tensor([[1, 2]]), 0.0, lambda out, _: out.sum())
    with pytest.raises(gn.UsageError, match="real numbers"):
        trace.delta("input:1")


def test_a_probability_with_few_figures_left_is_no_disagreement() -> None:
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.0, -95.5]))  # exp(-95.5) is below the smallest normal number of float32
        model.weight.zero_()
    trace = gn.trace(nn.Sequential(model), torch.ones(1), 0)
    assert trace.delta("0:1").relative_difference < 1e-6
