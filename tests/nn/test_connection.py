from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from glassnet._errors import UsageError
from glassnet.nn import LENET5_C3_TABLE, TableConv2d

TABLE_I = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""
"""Table I of LeCun et al. (1998) as printed: a row for each S2 map, a column for each C3 map."""


def table_convolution_oracle(x: np.ndarray, layer: TableConv2d, stride: int, padding: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    k = weight.shape[1]
    size = [(n - k) // stride + 1 for n in x.shape[2:]]
    out = np.zeros((len(x), len(layer.table), *size))
    for b, i, j in np.ndindex(len(x), *size):
        connection = 0
        for out_map, in_maps in enumerate(layer.table):
            out[b, out_map, i, j] = bias[out_map]
            for in_map in in_maps:
                patch = x[b, in_map, i * stride : i * stride + k, j * stride : j * stride + k]
                out[b, out_map, i, j] += (patch * weight[connection]).sum()
                connection += 1
    return out


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_it_agrees_with_a_loop_over_the_table(stride: int, padding: int) -> None:
    layer = TableConv2d(3, [(2, 0), (1,), (0, 1, 2)], 3, stride=stride, padding=padding).double()
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 5))
    found = layer(torch.from_numpy(x)).detach().numpy()
    assert found == pytest.approx(table_convolution_oracle(x, layer, stride, padding), abs=1e-12)


def test_the_table_of_c3_is_table_i_of_the_paper() -> None:
    printed = np.array([row.split() for row in TABLE_I.strip().splitlines()]) == "X"
    assert printed.shape == (6, 16)
    for c3_map, s2_maps in enumerate(LENET5_C3_TABLE):
        assert tuple(np.flatnonzero(printed[:, c3_map])) == s2_maps


def test_c3_has_1516_parameters() -> None:
    layer = TableConv2d(6, LENET5_C3_TABLE, 5)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 1516
    assert layer.fan_in.tolist() == [75] * 6 + [100] * 9 + [150]


def test_a_full_table_is_a_convolution() -> None:
    layer = TableConv2d(2, [(0, 1)] * 3, (3, 2))
    convolution = nn.Conv2d(2, 3, (3, 2))
    with torch.no_grad():
        convolution.weight.copy_(layer.weight.view(3, 2, 3, 2))
        convolution.bias.copy_(layer.bias)
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x), convolution(x))


def test_an_input_map_reaches_exactly_the_output_maps_that_list_it() -> None:
    layer = TableConv2d(6, LENET5_C3_TABLE, 5, bias=False)
    for s2_map in range(6):
        x = torch.zeros(1, 6, 5, 5)
        x[0, s2_map] = 1
        reached = layer(x).flatten().nonzero().flatten().tolist()
        assert reached == [c3_map for c3_map, row in enumerate(LENET5_C3_TABLE) if s2_map in row]


def test_a_layer_made_without_memory_gets_its_table_with_the_stored_weights() -> None:
    stored = TableConv2d(3, [(2, 0), (1,)], 2)
    assert list(stored.state_dict()) == ["weight", "bias", "out_map", "in_map"]
    with torch.device("meta"):
        layer = TableConv2d(3, [(2, 0), (1,)], 2)
    layer.to_empty(device="cpu").load_state_dict(stored.state_dict())
    assert torch.equal(layer.dense_weight(), stored.dense_weight())


@pytest.mark.parametrize("row", [(), (0, 0), (0, 2), (-1,)], ids=str)
def test_a_row_that_is_empty_repeats_or_leads_nowhere_is_refused_by_number(row: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"Row 1 of the table must name one or more different .* 0 to 1; got \("):
        TableConv2d(2, [(0, 1), row], 3)


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="must have a row for each output map; got none"):
        TableConv2d(2, [], 3)
