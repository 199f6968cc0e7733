from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.nn import LocallyConnected2d


def local_oracle(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: tuple[int, int], padding: tuple[int, int]
) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    rows, columns, channels, _, down, across = weight.shape
    z = np.zeros((len(x), channels, rows, columns))
    for b, o, r, c in np.ndindex(z.shape):
        top, left = r * stride[0], c * stride[1]
        patch = x[b, :, top : top + down, left : left + across]
        z[b, o, r, c] = bias[o, r, c] + (weight[r, c, o] * patch).sum()
    return z


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding"), [((3, 3), (1, 1), (0, 0)), ((3, 2), (2, 1), (1, 0)), ((1, 4), (1, 3), (0, 2))]
)
def test_it_agrees_with_a_loop_over_positions(
    kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    layer = LocallyConnected2d(2, 3, (6, 5), kernel_size, stride=stride, padding=padding).double()
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 5))
    assert layer.bias is not None
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    found = layer(torch.from_numpy(x)).detach().numpy()
    assert found == pytest.approx(local_oracle(x, weight, bias, stride, padding), abs=1e-12)


def test_with_the_same_kernels_everywhere_it_is_a_convolution() -> None:
    convolution = nn.Conv2d(2, 4, 3, stride=2, padding=1)
    layer = LocallyConnected2d(2, 4, 7, 3, stride=2, padding=1)
    with torch.no_grad():
        layer.weight.copy_(convolution.weight.expand_as(layer.weight))
        layer.bias.copy_(convolution.bias[:, None, None].expand_as(layer.bias))
    x = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), convolution(x))


def test_a_kernel_acts_at_its_own_position_only() -> None:
    layer = LocallyConnected2d(1, 1, 5, 3)
    before = layer(torch.ones(1, 1, 5, 5))
    with torch.no_grad():
        layer.weight[1, 2] += 1
    changed = (layer(torch.ones(1, 1, 5, 5)) - before)[0, 0]
    expected = torch.zeros(3, 3)
    expected[1, 2] = 9
    torch.testing.assert_close(changed, expected)


def test_parameters_are_counted_by_position() -> None:
    layer = LocallyConnected2d(3, 8, (6, 5), 3)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * 3 * 8 * (3 * 3 * 3 + 1)
    assert list(LocallyConnected2d(3, 8, 6, 3, bias=False).state_dict()) == ["weight"]


def test_another_image_size_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"takes images \(B, 3, 6, 6\): .* the size is fixed\. Got \(1, 3, 7, 6\)\."):
        LocallyConnected2d(3, 8, 6, 3)(torch.zeros(1, 3, 7, 6))


def test_a_kernel_larger_than_the_input_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(UsageError, match=r"2 \+ 2\*0 - 3 = -1 < 0"):
        LocallyConnected2d(1, 1, (6, 2), 3)


def test_sizes_that_are_no_pair_of_numbers_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"padding must be a whole number of at least 0, or a pair .* got -1\."):
        LocallyConnected2d(1, 1, 6, 3, padding=-1)
    with pytest.raises(UsageError, match=r"stride must be a whole number of at least 1, or a pair .* got \(1, 2, 3\)"):
        LocallyConnected2d(1, 1, 6, 3, stride=(1, 2, 3))  # type: ignore[arg-type]
