from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from glassnet import UsageError, build_model
from glassnet.inspection import filters, summary

LENET5 = [
    # name, output, parameters, multiplications: by hand from LeCun et al. 1998, section II.B (every C3 map sees all)
    ("c1", (6, 28, 28), (5 * 5 + 1) * 6, 25 * 6 * 28 * 28),
    ("act1", (6, 28, 28), 0, 0),
    ("s2", (6, 14, 14), 0, 0),
    ("c3", (16, 10, 10), (25 * 6 + 1) * 16, 150 * 16 * 100),
    ("act3", (16, 10, 10), 0, 0),
    ("s4", (16, 5, 5), 0, 0),
    ("c5", (120, 1, 1), (25 * 16 + 1) * 120, 400 * 120),
    ("act5", (120, 1, 1), 0, 0),
    ("flatten", (120,), 0, 0),
    ("f6", (84,), 121 * 84, 120 * 84),
    ("act6", (84,), 0, 0),
    ("output", (10,), 85 * 10, 840),
]


def test_lenet5_has_the_layers_and_counts_of_its_paper() -> None:
    result = summary(build_model("lenet5"), (1, 32, 32))
    rows = [(row.name, row.output_shape, row.num_parameters, row.num_multiplications) for row in result.rows]
    assert rows == LENET5
    assert result.num_parameters == 61_706
    assert result.num_multiplications == sum(row[3] for row in LENET5)
    assert result.uncounted == ()


def test_the_table_shows_every_row_and_the_total() -> None:
    lines = str(summary(build_model("lenet5"), (1, 32, 32))).splitlines()
    columns = ["layer", "kind", "input", "output", "kernel", "stride", "pad", "parameters", "multiplications"]
    assert lines[0].split() == columns
    assert lines[1].split() == ["c1", "Conv2d", "1x32x32", "6x28x28", "5x5", "1", "0", "156", "117,600"]
    assert lines[-1].split() == ["total", "61,706", "416,520"]


def test_grouped_strided_and_one_dimensional_layers_are_counted() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.BatchNorm2d(8), nn.Flatten(2), nn.Conv1d(8, 2, 3))
    counts = [row.num_multiplications for row in summary(model, (4, 9, 9)).rows]
    assert counts == [2 * 8 * 9 * 16, 8 * 16, 0, 8 * 2 * 3 * 14]


def test_a_linear_layer_over_positions_counts_each_of_them() -> None:
    assert summary(nn.Sequential(nn.Linear(5, 7)), (3, 5)).num_multiplications == 3 * 35


class Odd(nn.Module):
    """A layer that glassnet has never heard of."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


def test_an_unknown_kind_is_said_to_be_not_counted() -> None:
    result = summary(nn.Sequential(OrderedDict(fc=nn.Linear(4, 4), odd=Odd())), (4,))
    assert result.uncounted == ("odd",)
    assert "not counted" in str(result)


def test_parameters_used_twice_are_counted_once() -> None:
    layer = nn.Linear(4, 4)
    result = summary(nn.Sequential(layer, nn.ReLU(), layer), (4,))
    assert [row.num_parameters for row in result.rows] == [20, 0, 0]
    assert result.num_parameters == 20
    assert result.num_multiplications == 32


def test_the_model_is_left_as_it_was_also_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 3))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    summary(model, (1, 8, 8))
    with pytest.raises(UsageError, match=r"does not take an input of 1x9x9: .*Give the input shape"):
        summary(model, (1, 9, 9))
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_filters_are_a_copy_of_the_first_convolutions_kernels() -> None:
    model = build_model("lenet5")
    found = filters(model)
    assert found.layer == "c1"
    assert torch.equal(found.weights, model.c1.weight)
    found.weights.zero_()
    assert model.c1.weight.abs().sum() > 0
    assert filters(model, "c3").weights.shape == (16, 6, 5, 5)


def test_a_wrong_layer_gets_the_nearest_names() -> None:
    with pytest.raises(UsageError, match=r"Unknown convolution 'c2'. Did you mean 'c\d' or 'c\d'"):
        filters(build_model("lenet5"), "c2")
    with pytest.raises(UsageError, match="Sequential has no 2-D one"):
        filters(build_model("softmax"))


def test_positions_folded_into_the_batch_are_counted() -> None:
    class EveryPixel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(images.permute(0, 2, 3, 1).reshape(-1, 3))

    assert summary(EveryPixel(), (3, 8, 8)).num_multiplications == 64 * 30


def test_weights_outside_layers_make_the_total_a_lower_bound() -> None:
    class WithOwnWeights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.head = nn.Linear(4, 2)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.head(rows * self.scale)

    result = summary(WithOwnWeights(), (4,))
    assert result.uncounted == ("(model)",)
    assert str(result).splitlines()[-1].split()[-3:] == ["at", "least", "8"]


def test_an_empty_sequential_is_an_identity() -> None:
    assert summary(nn.Sequential(nn.Sequential(), nn.Linear(2, 2)), (2,)).uncounted == ()


@pytest.mark.parametrize("shape", [64, (1, -8, 8), "1x8x8", (1.0, 8, 8)])
def test_an_input_shape_that_is_none_is_refused(shape: object) -> None:
    with pytest.raises(UsageError, match="input_shape must be positive whole numbers"):
        summary(nn.Flatten(), shape)  # type: ignore[arg-type]
