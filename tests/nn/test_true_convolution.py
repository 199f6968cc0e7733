from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from glassnet.nn import TrueConv1d, TrueConv2d, TrueConv3d

LAYERS = {1: TrueConv1d, 2: TrueConv2d, 3: TrueConv3d}
CORRELATIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def convolution_oracle(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """S(i) = sum_m I(i - m) K(m) over every axis, where the whole kernel lies in the image; one channel."""
    reach = np.array(kernel.shape) - 1
    out = np.zeros(np.array(image.shape) - reach)
    for i in np.ndindex(out.shape):
        for m in np.ndindex(kernel.shape):
            out[i] += image[tuple(np.array(i) + reach - m)] * kernel[m]
    return out


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_it_agrees_with_the_sum_that_runs_against_the_kernel(dims: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, *(6, 5, 4)[:dims]))
    layer = LAYERS[dims](3, 2, (3, 2, 2)[:dims]).double()
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    found = layer(torch.from_numpy(x)).detach().numpy()
    for image, out in itertools.product(range(2), range(2)):
        expected = bias[out] + sum(convolution_oracle(x[image, c], weight[out, c]) for c in range(3))
        assert found[image, out] == pytest.approx(expected, abs=1e-12)


def test_one_axis_is_numpys_convolve() -> None:
    layer = TrueConv1d(1, 1, 3, bias=False, padding=2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 2.0, 3.0]]]))
    found = layer(torch.tensor([[[0.0, 1.0, 0.5]]], dtype=torch.float64))
    assert found.flatten().tolist() == pytest.approx([0, 1, 2.5, 4, 1.5])
    assert found.flatten().tolist() == pytest.approx(np.convolve([0, 1, 0.5], [1, 2, 3]).tolist())


def test_an_impulse_answers_with_the_kernel_itself_and_correlation_with_its_mirror_image() -> None:
    layer = TrueConv2d(1, 1, 3, bias=False, padding=2)
    impulse = torch.zeros(1, 1, 1, 1).fill_(1)
    assert torch.equal(layer(impulse), layer.weight)
    mirrored = nn.functional.conv2d(impulse, layer.weight, padding=2)
    assert torch.equal(mirrored, layer.weight.flip(2, 3))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2}, {"padding": 1, "padding_mode": "circular"}],
    ids=str,
)
def test_every_option_is_that_of_correlation_with_the_kernel_reversed(dims: int, options: dict[str, object]) -> None:
    layer = LAYERS[dims](4, 6, 3, **options)
    correlation = CORRELATIONS[dims](4, 6, 3, **options)
    correlation.load_state_dict(layer.state_dict())
    with torch.no_grad():
        correlation.weight.copy_(layer.weight.flip(*range(2, 2 + dims)))
    x = torch.randn(2, 4, *[7] * dims, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), correlation(x))
