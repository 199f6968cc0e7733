from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.nn import LocalResponseNorm


def response_norm_oracle(a: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """b_i = a_i / (k + alpha * sum_{j = max(0, i - n/2)}^{min(N - 1, i + n/2)} a_j^2)^beta, section 3.3."""
    b = np.empty_like(a)
    maps = a.shape[1]
    for i in range(maps):
        total = np.zeros_like(a[:, 0])
        for j in range(max(0, i - size // 2), min(maps - 1, i + size // 2) + 1):
            total += a[:, j] ** 2
        b[:, i] = a[:, i] / (k + alpha * total) ** beta
    return b


@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(2, 7, 3, 4), (2, 3, 2, 2), (2, 6, 5)], ids=str)
def test_it_agrees_with_the_printed_formula(size: int, shape: tuple[int, ...]) -> None:
    a = 10 * np.random.default_rng(0).normal(size=shape)
    found = LocalResponseNorm(size, alpha=0.1, beta=0.6, k=1.5)(torch.from_numpy(a)).numpy()
    assert found == pytest.approx(response_norm_oracle(a, size, 0.1, 0.6, 1.5), rel=1e-9)


def test_the_defaults_are_those_of_the_paper() -> None:
    a = 50 * np.random.default_rng(0).normal(size=(1, 8, 2, 2))
    found = LocalResponseNorm()(torch.from_numpy(a)).numpy()
    assert found == pytest.approx(response_norm_oracle(a, 5, 1e-4, 0.75, 2.0), rel=1e-9)


def test_torchs_layer_divides_alpha_by_the_size() -> None:
    a = np.full((1, 5, 1, 1), 3.0)
    x = torch.from_numpy(a)
    ours = LocalResponseNorm(5, alpha=0.1, beta=1.0, k=2.0)(x)
    theirs = nn.LocalResponseNorm(5, alpha=0.1, beta=1.0, k=2.0)(x)
    assert float(ours[0, 2]) == pytest.approx(3 / (2 + 0.1 * (5 * 9)))
    assert float(theirs[0, 2]) == pytest.approx(3 / (2 + 0.1 / 5 * (5 * 9)))
    assert torch.equal(nn.LocalResponseNorm(5, alpha=5 * 0.1, beta=1.0, k=2.0)(x), ours)


@pytest.mark.parametrize("size", [0, 4, -1])
def test_a_window_without_a_middle_map_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=rf"size must be an odd number of maps, .*; got {size}\."):
        LocalResponseNorm(size)
