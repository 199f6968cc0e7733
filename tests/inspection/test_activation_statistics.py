from __future__ import annotations

import copy
from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet._seed import seeded
from glassnet.inspection.activation_statistics import ActivationStatistics, LayerStatistics, activation_statistics
from glassnet.nn import ScaledTanh, Step, initialise


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_layer(statistics: ActivationStatistics) -> dict[str, LayerStatistics]:
    return {row.layer: row for row in statistics.rows}


def small_network() -> nn.Sequential:
    with seeded(0, "test"):
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 4, 3),
                norm=nn.BatchNorm2d(4),
                relu=nn.ReLU(inplace=True),
                drop=nn.Dropout(0.5),
                flatten=nn.Flatten(),
                hidden=nn.Linear(4 * 16, 6),
                tanh=nn.Tanh(),
                output=nn.Linear(6, 3),
            )
        )


def test_two_layers_agree_with_numpy_and_the_chain_rule() -> None:
    model = nn.Sequential(OrderedDict(hidden=nn.Linear(5, 4), tanh=nn.Tanh(), output=nn.Linear(4, 3))).double()
    x, labels = normal(6, 5).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    w, b, v, c = (parameter.detach().numpy() for parameter in model.parameters())
    z = x.numpy() @ w.T + b
    h = np.tanh(z)
    logits = h @ v.T + c
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    d_logits = shares - np.eye(3)[labels]
    d_h = d_logits @ v
    d_z = d_h * (1 - h**2)
    statistics = activation_statistics(model, x, labels)
    for row, values, gradient in zip(statistics.rows, (z, h, logits), (d_z, d_h, d_logits), strict=True):
        assert (row.mean, row.spread) == pytest.approx((values.mean(), values.std()))
        assert row.gradient_spread == pytest.approx(gradient.std())
    assert statistics.loss == pytest.approx(-np.log(shares[range(6), labels]).mean())
    assert statistics.loss_kind == "cross-entropy"
    assert [(row.layer, row.kind, row.shape) for row in statistics.rows] == [
        ("hidden", "Linear", (4,)),
        ("tanh", "Tanh", (4,)),
        ("output", "Linear", (3,)),
    ]


def test_zeros_and_saturated_outputs_are_shares() -> None:
    model = nn.Sequential(OrderedDict(relu=nn.ReLU(), tanh=nn.Tanh(), scaled=ScaledTanh(), clip=nn.ReLU6()))
    x = torch.tensor([[-1.0, 0.0, 1.0, 9.0]])
    rows = by_layer(activation_statistics(model, x))
    assert rows["relu"].zero_share == 0.5
    assert rows["relu"].saturated_share is None
    assert rows["tanh"].saturated_share == 0.25  # tanh(9) = 1, tanh(1) = 0.76
    assert rows["scaled"].saturated_share == 0.0  # 1.7159 tanh(2/3) = 1, of 1.7159
    assert rows["clip"].saturated_share == 0.5  # its two zeros
    saturated = activation_statistics(nn.Sequential(nn.Sigmoid()), torch.tensor([[-5.0, -3.0, 0.0, 5.0]]))
    assert saturated.rows[0].saturated_share == 0.5  # sigmoid(-5) = 0.007, sigmoid(-3) = 0.047


def test_the_scale_of_gradients_does_not_depend_on_the_number_of_images() -> None:
    model, x, labels = small_network().eval(), normal(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    once = activation_statistics(model, x, labels)
    thrice = activation_statistics(model, x.repeat(3, 1, 1, 1), labels.repeat(3))
    for a, b in zip(once.rows, thrice.rows, strict=True):
        assert a.gradient_spread == pytest.approx(b.gradient_spread, rel=1e-4)


def test_an_operation_in_place_does_not_touch_the_layer_before_it() -> None:
    in_place, plain = small_network().eval(), small_network().eval()
    plain.relu = nn.ReLU()
    x = normal(4, 1, 6, 6)
    assert activation_statistics(in_place, x).rows == activation_statistics(plain, x).rows
    rows = by_layer(activation_statistics(in_place, x))
    assert rows["norm"].zero_share == 0
    assert rows["relu"].zero_share > 0.2


def test_a_model_that_begins_in_place_leaves_the_images_alone() -> None:
    x = normal(3, 4)
    before = x.clone()
    rows = activation_statistics(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)), x).rows
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert rows[0].gradient_spread is not None


class Shared(nn.Module):
    """One ReLU called twice, an identity beside a branch, and a layer that returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.identity = nn.Identity()
        self.pair = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.relu(x))
        pair, _ = self.pair(y[:, None])
        return self.relu(self.identity(y) + 3 * y + 0 * pair[:, 0])


def test_every_call_has_a_row_and_a_layer_without_one_tensor_is_named() -> None:
    statistics = activation_statistics(Shared(), normal(5, 4))
    assert [(row.layer, row.call) for row in statistics.rows] == [
        ("relu", 0),
        ("linear", 0),
        ("identity", 0),
        ("relu", 1),
    ]
    assert statistics.left_out == ("pair",)


def test_an_identity_has_the_gradient_of_its_own_branch() -> None:
    rows = by_layer(activation_statistics(Shared(), normal(5, 4)))
    assert rows["linear"].gradient_spread == pytest.approx(4 * rows["identity"].gradient_spread, rel=1e-5)


def test_without_labels_the_projection_comes_from_the_seed() -> None:
    model, x = small_network(), normal(4, 1, 6, 6)
    first = activation_statistics(model, x, seed=1)
    assert first.loss_kind == "random projection"
    assert first == activation_statistics(model, x, seed=1)
    assert first.loss != activation_statistics(model, x, seed=2).loss
    wide = activation_statistics(nn.Sequential(nn.Flatten()), normal(50, 1, 6, 6))
    assert wide.rows[-1].gradient_spread == pytest.approx(1, rel=0.05)
    assert repr(first) == f"ActivationStatistics(8 rows, random projection {first.loss:.4g})"


def test_a_threshold_unit_stops_the_gradient_and_an_argmax_has_none() -> None:
    model = nn.Sequential(OrderedDict(below=nn.Linear(4, 4), step=Step(), above=nn.Linear(4, 2)))
    rows = by_layer(activation_statistics(model, normal(5, 4)))
    assert rows["below"].gradient_spread == 0
    assert rows["step"].gradient_spread > 0
    assert rows["step"].saturated_share == 1

    class Hard(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).argmax(1, keepdim=True).float()

    assert activation_statistics(Hard(4, 2), normal(5, 4)).rows[0].gradient_spread is None


def deep_network(use_norm: bool = False) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, 9):
        layers[f"hidden{number}"] = nn.Linear(100, 100)
        if use_norm:
            layers[f"norm{number}"] = nn.BatchNorm1d(100)
        layers[f"tanh{number}"] = nn.Tanh()
    return nn.Sequential(layers)


def spreads(model: nn.Module, kind: str = "Tanh") -> tuple[list[float], list[float]]:
    """Return the spread of outputs and gradients at each layer of a kind, bottom first."""
    rows = [row for row in activation_statistics(model, normal(200, 100)).rows if row.kind == kind]
    return [row.spread for row in rows], [row.gradient_spread or 0.0 for row in rows]


def test_small_weights_make_signal_and_gradient_vanish_and_large_ones_saturate() -> None:
    signal, gradient = spreads(initialise(deep_network(), "normal", seed=0, std=0.02))
    assert all(above < 0.3 * below for below, above in pairwise(signal))
    assert all(below < 0.3 * above for below, above in pairwise(gradient))
    large = activation_statistics(initialise(deep_network(), "normal", seed=0, std=1.0), normal(200, 100))
    assert min(row.saturated_share for row in large.rows if row.saturated_share is not None) > 0.7


def test_without_saturation_large_weights_make_the_gradient_explode() -> None:
    model = nn.Sequential(*[nn.Linear(100, 100) for _ in range(8)])
    _, gradient = spreads(initialise(model, "normal", seed=0, std=0.5), "Linear")
    assert gradient[0] > 1e4 * gradient[-1]


def test_xavier_weights_keep_signal_and_gradient_within_bounds() -> None:
    signal, gradient = spreads(initialise(deep_network(), "xavier-normal", seed=0))
    assert signal[-1] > 0.3 * signal[0]
    assert 0.3 < gradient[0] / gradient[-1] < 3


def test_batch_normalisation_makes_up_for_small_weights_while_training() -> None:
    model = initialise(deep_network(use_norm=True), "normal", seed=0, std=0.02)
    signal, gradient = spreads(model)
    assert signal == pytest.approx([signal[0]] * 8, rel=0.05)
    assert gradient[0] > 0.3 * gradient[-1]
    signal, _ = spreads(model.eval())  # running statistics that have seen nothing do nothing
    assert signal[-1] < 1e-4 * signal[0]


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError("this layer always fails")


def everything_of(model: nn.Module) -> dict[str, object]:
    return {
        "modes": [module.training for module in model.modules()],
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "buffers": [id(buffer) for buffer in model.buffers()],
        "versions": [buffer._version for buffer in model.buffers()],
        "gradients": [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        "backward hooks": [len(module._backward_hooks) for module in model.modules()],
        "random state": torch.random.get_rng_state(),
    }


@pytest.mark.parametrize("is_failing", [False, True], ids=["done", "failed"])
@pytest.mark.parametrize("is_training", [False, True], ids=["evaluating", "training"])
def test_the_model_stays_as_it_was(is_failing: bool, is_training: bool) -> None:
    model = small_network().train(is_training)
    model.norm.train(not is_training)
    model.register_buffer("own", torch.ones(2), persistent=False)
    model.conv.bias.requires_grad_(False)
    model.hidden.register_forward_hook(lambda module, args, output: output * 2)
    F.cross_entropy(model(normal(4, 1, 6, 6)), torch.tensor([0, 1, 2, 0])).backward()
    if is_failing:
        model.append(Failing())
    before = copy.deepcopy(everything_of(model)), [id(buffer) for buffer in model.buffers()]
    if is_failing:
        with pytest.raises(ArithmeticError, match="this layer always fails"):
            activation_statistics(model, normal(4, 1, 6, 6))
    else:
        activation_statistics(model, normal(4, 1, 6, 6), torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(everything_of(model), before[0], rtol=0, atol=0)
    assert len(before[0]["gradients"]) == 7  # of eight parameters one is frozen
    assert [id(buffer) for buffer in model.buffers()] == before[1]


def test_it_works_where_gradients_are_switched_off() -> None:
    model, x = small_network(), normal(4, 1, 6, 6)
    expected = activation_statistics(model, x)
    with torch.no_grad():
        assert activation_statistics(model, x) == expected
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert activation_statistics(model, x.clone()) == expected


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 3], [0, 1, -1]], ids=str)
def test_labels_that_do_not_fit_are_refused_with_both_sides(labels: list[int]) -> None:
    with pytest.raises(UsageError, match=r"Labels must be \(3,\), .* logits \(3, 3\)\. Leave the labels out"):
        activation_statistics(small_network(), normal(3, 1, 6, 6), torch.tensor(labels))


def test_an_output_that_is_no_tensor_and_an_empty_batch_are_refused() -> None:
    with pytest.raises(UsageError, match=r"one tensor with a row for each of the 2 images.* got tuple\. Wrap the"):
        activation_statistics(nn.GRU(4, 4), normal(2, 3, 4))
    with pytest.raises(UsageError, match=r"each of the 0 images, at least one; got \(0, 2\)"):
        activation_statistics(nn.Linear(4, 2), torch.zeros(0, 4))


def test_a_lazy_model_that_never_ran_is_refused() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(UsageError, match=r"'0\.weight' gets its shape in the first forward pass .* Run the model once"):
        activation_statistics(model, normal(2, 4))
    assert isinstance(model[0], nn.LazyLinear)
