"""Random weights whose rows are orthonormal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet.nn.connection import TableConv2d
from glassnet.nn.fan import WeightedLayer


def orthogonal(layer: WeightedLayer, generator: torch.Generator) -> Tensor:
    """Return new values for `layer.weight`, on the CPU: each of its matrices with orthonormal rows, or columns.

    Columns where a matrix has more rows than columns. A group of a convolution and a position of a locally connected
    layer are matrices of their own; a transposed convolution is read as the convolution that it transposes. Raises
    `UsageError` where a table of connections leaves no room. Saxe, McClelland and Ganguli (2014).
    """
    if isinstance(layer.module, TableConv2d):
        return _orthogonal_table(layer.name, layer.module, generator).to(layer.weight.dtype)
    assert layer.matrix_shape is not None, "only a table of connections is no matrix"
    dtype = torch.promote_types(layer.weight.dtype, torch.float32)  # there is no QR in half precision
    matrices = torch.empty(layer.matrix_shape, dtype=dtype, device="cpu")
    for matrix in matrices:
        nn.init.orthogonal_(matrix, generator=generator)
    return matrices.view(layer.weight.shape)


def _orthogonal_table(name: str, module: TableConv2d, generator: torch.Generator) -> Tensor:
    """Return kernels `(connections, k, k)` whose dense rows are orthonormal, each 0 where it has no connection.

    Gram-Schmidt row by row: of a random row, what the earlier rows span among its own inputs is taken away.
    """
    area = math.prod(module.kernel_size)
    rows = torch.zeros(module.out_channels, module.in_channels, area, dtype=torch.float64, device="cpu")
    for out_map, in_maps in enumerate(module.table):
        row = torch.randn(len(in_maps) * area, dtype=torch.float64, generator=generator, device="cpu")
        earlier = rows[:out_map, in_maps].flatten(1)
        row -= torch.linalg.pinv(earlier) @ (earlier @ row)
        if row.norm() < 1e-6:
            raise UsageError(
                f"Orthonormal rows need room: output map {out_map} of layer '{name}' sees {len(row)} inputs "
                f"({len(in_maps)} maps * {area}), and the {out_map} maps before it fill them. "
                "Use another initialisation, such as 'he-normal', or a table with fewer output maps."
            )
        rows[out_map, in_maps] = (row / row.norm()).view(len(in_maps), area)
    kernels = [rows[out_map, in_map] for out_map, in_map in module.connections]
    return torch.stack(kernels).view(module.weight.shape)
