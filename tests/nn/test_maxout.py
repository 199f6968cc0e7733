from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.nn import Maxout


def maxout_oracle(x: np.ndarray, num_pieces: int) -> np.ndarray:
    units = x.shape[1] // num_pieces
    h = np.empty((x.shape[0], units, *x.shape[2:]))
    for unit in range(units):
        h[:, unit] = np.max(x[:, unit * num_pieces : (unit + 1) * num_pieces], axis=1)
    return h


@pytest.mark.parametrize("shape", [(4, 6), (2, 12, 5), (2, 6, 3, 4), (1, 6, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("num_pieces", [1, 2, 3])
def test_it_agrees_with_a_loop_over_units(shape: tuple[int, ...], num_pieces: int) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    assert np.array_equal(Maxout(num_pieces)(torch.from_numpy(x)).numpy(), maxout_oracle(x, num_pieces))


def test_the_axis_counts_from_the_end_too() -> None:
    x = torch.tensor([[[1.0, 5.0, 2.0, 0.0]]])
    assert Maxout(2, dim=-1)(x).tolist() == [[[5.0, 2.0]]]


def test_two_lines_make_the_absolute_value() -> None:
    layer = nn.Sequential(nn.Linear(1, 2, bias=False), Maxout(2))
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    x = torch.linspace(-3, 3, 13)[:, None]
    assert torch.equal(layer(x), x.abs())


def test_the_gradient_goes_to_the_winner_and_is_shared_by_a_tie() -> None:
    x = torch.tensor([[1.0, 3.0, 2.0, 2.0]], requires_grad=True)
    Maxout(2)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0, 0.5, 0.5]]


def test_channels_that_do_not_divide_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(UsageError, match=r"needs a multiple of 3 channels; got 7 = 2\*3 \+ 1\. Give the layer before"):
        Maxout(3)(torch.zeros(1, 7))
    with pytest.raises(UsageError, match=r"num_pieces must be at least 1; got 0"):
        Maxout(0)
