from __future__ import annotations

import numpy as np
import pytest
import torch

from glassnet._errors import UsageError
from glassnet.nn import TrainableSubsampling2d


def subsampling_oracle(x: np.ndarray, coefficient: np.ndarray, bias: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    down, across = size
    out = np.zeros((*x.shape[:2], x.shape[2] // down, x.shape[3] // across))
    for b, c, i, j in np.ndindex(out.shape):
        patch = x[b, c, i * down : (i + 1) * down, j * across : (j + 1) * across]
        out[b, c, i, j] = coefficient[c] * patch.sum() + bias[c]
    return out


@pytest.mark.parametrize("kernel_size", [2, 3, (1, 2)], ids=str)
def test_it_agrees_with_a_loop_over_patches(kernel_size: int | tuple[int, int]) -> None:
    layer = TrainableSubsampling2d(3, kernel_size).double()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 6))
    parameters = layer.coefficient.detach().numpy(), layer.bias.detach().numpy()
    expected = subsampling_oracle(x, *parameters, layer.kernel_size)
    assert layer(torch.from_numpy(x)).detach().numpy() == pytest.approx(expected, abs=1e-12)


def test_four_pixels_are_added_multiplied_and_shifted() -> None:
    layer = TrainableSubsampling2d(1)
    with torch.no_grad():
        layer.coefficient.fill_(0.5)
        layer.bias.fill_(-1)
    assert layer(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item() == 0.5 * 10 - 1


def test_there_are_two_parameters_a_map() -> None:
    assert sum(parameter.numel() for parameter in TrainableSubsampling2d(16).parameters()) == 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        coefficient = TrainableSubsampling2d(1000).coefficient.detach()
    assert 0.49 < coefficient.max() <= 0.5
    assert -0.5 <= coefficient.min() < -0.49


def test_an_image_below_one_patch_and_a_wrong_count_of_maps_are_refused() -> None:
    layer = TrainableSubsampling2d(3)
    with pytest.raises(UsageError, match=r"needs images \(B, 3, H, W\) of at least 2x2 pixels; got \(1, 3, 1, 8\)"):
        layer(torch.zeros(1, 3, 1, 8))
    with pytest.raises(UsageError, match=r"got \(1, 1, 8, 8\)"):
        layer(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UsageError, match=r"kernel_size must be a whole number of at least 1, or a pair .*; got 0"):
        TrainableSubsampling2d(3, 0)
