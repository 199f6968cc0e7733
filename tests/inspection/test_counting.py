"""Counts against counters that do the arithmetic number by number, and against published totals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
import glassnet.nn as layers


class Tally:
    """A number that counts how often numbers are multiplied and added."""

    products = sums = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def __mul__(self, other: Tally) -> Tally:
        Tally.products += 1
        return Tally(self.value * other.value)

    def __add__(self, other: Tally) -> Tally:
        Tally.sums += 1
        return Tally(self.value + other.value)


def tallies(tensor: Tensor) -> dict[tuple[int, ...], Tally]:
    return {place: Tally(float(tensor[place])) for place in itertools.product(*map(range, tensor.shape))}


def added(terms: list[Tally]) -> Tally:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def by_hand_convolution(x: Tensor, layer: nn.Conv2d) -> dict[tuple[int, ...], Tally]:
    (ph, pw), (sh, sw), (dh, dw) = layer.padding, layer.stride, layer.dilation
    padded, weight = tallies(F.pad(x, (pw, pw, ph, ph))), tallies(layer.weight)
    out, each, kh, kw = layer.weight.shape
    size = layer(x[None]).shape[2:]
    result = {}
    for o, i, j in itertools.product(range(out), *map(range, size)):
        first = o // (out // layer.groups) * each
        taps = itertools.product(range(each), range(kh), range(kw))
        total = added([padded[first + c, i * sh + m * dh, j * sw + n * dw] * weight[o, c, m, n] for c, m, n in taps])
        result[o, i, j] = total if layer.bias is None else total + Tally(float(layer.bias[o]))
    return result


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1, bias=False),
        nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(2, 1, 1, bias=False),
    ],
    ids=repr,
)
def test_a_convolution_counts_what_a_loop_over_its_numbers_counts(layer: nn.Conv2d) -> None:
    x = torch.rand(layer.in_channels, 7, 6, generator=torch.Generator().manual_seed(0))
    Tally.products = Tally.sums = 0
    with torch.no_grad():
        found = by_hand_convolution(x, layer)
        answer = layer(x[None])[0]
    assert all(math.isclose(value.value, float(answer[place]), abs_tol=1e-5) for place, value in found.items())
    row = gn.summary(layer, tuple(x.shape)).rows[0]
    assert (row.num_multiplications, row.num_additions) == (Tally.products, Tally.sums)


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_fully_connected_layer_counts_what_a_loop_counts(has_bias: bool) -> None:
    layer = nn.Linear(5, 3, bias=has_bias)
    x, weight = tallies(torch.rand(5)), tallies(layer.weight.detach())
    Tally.products = Tally.sums = 0
    for o in range(3):
        total = added([x[i,] * weight[o, i] for i in range(5)])
        if has_bias:
            _ = total + Tally(1.0)
    row = gn.summary(layer, (5,)).rows[0]
    assert (row.num_multiplications, row.num_additions) == (Tally.products, Tally.sums)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.ConvTranspose2d(2, 3, 3), (4, 4)),
        (nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False), (4, 3)),
        (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (4, 4)),
        (nn.ConvTranspose2d(1, 1, 2, stride=3), (3, 3)),
    ],
    ids=repr,
)
def test_a_transposed_convolution_counts_the_products_that_land_in_its_output(
    layer: nn.ConvTranspose2d, size: tuple[int, int]
) -> None:
    p, s = layer.padding[0], layer.stride[0]
    height, width = layer(torch.zeros(1, layer.in_channels, *size)).shape[2:]
    landed: dict[tuple[int, ...], int] = {}
    kernel = range(layer.kernel_size[0])
    for i, j, m, n in itertools.product(*map(range, size), kernel, kernel):
        place = i * s + m - p, j * s + n - p
        if 0 <= place[0] < height and 0 <= place[1] < width:
            landed[place] = landed.get(place, 0) + layer.in_channels
    products = layer.out_channels * sum(landed.values())
    sums = layer.out_channels * sum(count - 1 for count in landed.values())
    sums += layer.out_channels * height * width if layer.bias is not None else 0
    row = gn.summary(layer, (layer.in_channels, *size)).rows[0]
    assert (row.num_multiplications, row.num_additions) == (products, sums)


class Called(nn.Module):
    """A function as a model."""

    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.keep = nn.Identity()  # a child, so that the function's own calls are seen
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.keep(x))


@pytest.mark.parametrize(
    ("function", "shape", "products", "sums"),
    [
        (lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3)), (3, 4, 4), 48, 48),
        (lambda x: F.layer_norm(x, (4,)), (3, 4), 12, 12),
        (lambda x: F.group_norm(x, 1), (2, 4, 4), 32, 32),
        (lambda x: F.avg_pool2d(x, 2), (3, 4, 4), 12, 12 * 3),
        (lambda x: F.adaptive_avg_pool2d(x, 2), (1, 5, 5), 4, 4 * 8),
        (lambda x: F.adaptive_avg_pool2d(x, 1), (2, 5, 5), 2, 2 * 24),
        (lambda x: F.max_pool2d(x, 2), (3, 4, 4), 0, 0),
        (lambda x: x + x, (3, 4), 0, 12),
        (lambda x: 2 * x - 1, (3, 4), 12, 12),
        (lambda x: x.mul_(x).div_(3), (5,), 10, 0),
        (lambda x: torch.add(x, x, alpha=2), (5,), 5, 5),
        (lambda x: x**2, (5,), 5, 0),
        (lambda x: x**3, (5,), 10, 0),
        (lambda x: x**0.5, (5,), 0, 0),
        (lambda x: x.mean(1), (5,), 1, 4),
        (lambda x: x.sum(), (5,), 0, 4),
        (lambda x: x @ x.mT, (3, 4), 3 * 3 * 4, 3 * 3 * 3),
        (lambda x: torch.einsum("bij,bkj->bik", x, x), (3, 4), 36, 27),
        (lambda x: torch.baddbmm(x, x, x), (4, 4), 64, 64),
        (lambda x: F.softmax(torch.relu(x), dim=1), (6,), 0, 0),
        (lambda x: x.flatten(1)[:, ::2].unsqueeze(0).repeat(1, 2, 1).squeeze(0), (3, 4), 0, 0),
        (lambda x: torch.cat([x, F.pad(x, (1, 1))], 1), (6,), 0, 0),
        (lambda x: x.var(1), (5,), 5 + 2, 15 - 2),
    ],
)
def test_functions_are_counted_by_the_conventions(function, shape, products: int, sums: int) -> None:  # type: ignore[no-untyped-def]
    result = gn.summary(Called(function), shape)
    assert result.uncounted == ()
    assert (result.num_multiplications, result.num_additions) == (products, sums)


def test_attention_comes_down_to_its_products() -> None:
    tokens, width, heads = 5, 8, 2
    layer = nn.MultiheadAttention(width, heads, batch_first=True, bias=False)

    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    result = gn.summary(Attended(), (tokens, width))
    projections = 4 * tokens * width * width
    scores_and_sums = 2 * heads * tokens * tokens * (width // heads)
    scalings = 2 * tokens * width  # of queries and keys, each by the fourth root of the head's width
    assert result.num_multiplications == projections + scores_and_sums + scalings
    assert result.num_parameters == sum(row.num_parameters for row in result.rows) == 4 * width * width
    assert result.uncounted == ()


def test_a_transformer_and_a_recurrent_layer_are_counted_whole() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    result = gn.summary(encoder, (5, 8))
    assert result.uncounted == ()
    assert {"self_attn.multi_head_attention_forward", "linear1", "add"} <= {row.name for row in result.rows}
    gates = 4 * 3 * (6 + 3) * 7
    recurrent = gn.summary(nn.LSTM(6, 3, batch_first=True), (7, 6))
    assert recurrent.uncounted == ()
    assert gates < recurrent.num_multiplications < 1.2 * gates  # the gates' own products come on top


def test_layers_of_the_canon_keep_their_textbook_counts() -> None:
    table = layers.TableConv2d(2, ((0, 1), (1,)), 3)
    row = gn.summary(table, (2, 5, 5)).rows[0]
    assert (row.num_multiplications, row.num_additions) == (3 * 9 * 9, (18 + 9) * 9)
    row = gn.summary(layers.LocallyConnected2d(2, 3, 5, 3), (2, 5, 5)).rows[0]
    assert (row.num_multiplications, row.num_additions) == (18 * 27, 18 * 27)
    row = gn.summary(layers.LocalResponseNorm(3), (4, 2, 2)).rows[0]
    assert (row.num_multiplications, row.num_additions) == (3 * 16, (2 + 3 + 3 + 2 - 4) * 4 + 16)
    by_function = gn.summary(Called(lambda x: F.local_response_norm(x, 3)), (4, 2, 2))
    assert (by_function.num_multiplications, by_function.num_additions) == (3 * 16, 6 * 4 + 16)
    row = gn.summary(layers.TrainableSubsampling2d(2), (2, 4, 4)).rows[0]
    assert (row.num_multiplications, row.num_additions) == (8, 8 * 3 + 8)


@pytest.mark.parametrize(
    ("name", "parameters", "products"),
    [
        # parameters and multiply-accumulates as torchvision's documentation publishes them
        ("alexnet-torchvision", 61_100_840, 0.714e9),
        ("vgg11", 132_863_336, 7.609e9),
        ("vgg16", 138_357_544, 15.470e9),
        ("vgg19", 143_667_240, 19.632e9),
        ("resnet18", 11_689_512, 1.814e9),
        ("resnet34", 21_797_672, 3.664e9),
        ("resnet50", 25_557_032, 4.089e9),
        ("resnet152", 60_192_808, 11.514e9),
        ("googlenet-torchvision", 13_004_888, 1.498e9),
    ],
)
def test_the_weighted_products_are_as_many_as_published(name: str, parameters: int, products: float) -> None:
    with torch.device("meta"):
        model = gn.build_model(name)
    result = gn.summary(model, (3, 224, 224))
    assert result.num_parameters == parameters
    assert result.num_weighted_multiplications == pytest.approx(products, abs=0.0006e9)
