"""Convolution by a table of connections: each output map sees some input maps only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet.nn.size import pair

LENET5_C3_TABLE: tuple[tuple[int, ...], ...] = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)
"""The S2 maps that each of the 16 C3 maps sees: LeCun et al. (1998), table I, a row here for a column there."""


class TableConv2d(nn.Module):
    """Convolution (torch's, unflipped) in which output map `o` sees the input maps `table[o]` and no others.

    `x` `(B, in_channels, H, W)` -> `(B, len(table), H', W')`. `weight` `(connections, k, k)` holds one kernel for
    each pair of maps that the table joins, in its order, and nothing for the rest: 60 * 25 + 16 = 1,516 parameters
    for LeNet-5's C3, where the full table has 96 * 25 + 16 = 2,416. LeCun, Bottou, Bengio and Haffner,
    "Gradient-based learning applied to document recognition" (1998), section II.B and table I.

    `dense_weight()` is the same convolution's full kernel, 0 where there is no connection. Weights and biases start
    uniform within +-1 / sqrt(fan-in) of their output map, as torch's do.

    Raises `UsageError` for a row that is empty, repeats a map or names one that does not exist.
    """

    out_map: Tensor
    in_map: Tensor

    def __init__(
        self,
        in_channels: int,
        table: Sequence[Sequence[int]],
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_table(table, in_channels)
        self.in_channels = in_channels
        self.out_channels = len(table)
        self.table = tuple(tuple(row) for row in table)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = pair(padding, "padding", least=0)
        self.connections = tuple((out_map, in_map) for out_map, row in enumerate(self.table) for in_map in row)
        # stored with the weights: a model made on torch's meta device gets its buffers from there
        self.register_buffer("out_map", torch.tensor([out_map for out_map, _ in self.connections]))
        self.register_buffer("in_map", torch.tensor([in_map for _, in_map in self.connections]))
        self.weight = nn.Parameter(torch.empty(len(self.connections), *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(self.out_channels)) if bias else None
        self.reset_parameters()

    @property
    def fan_in(self) -> Tensor:
        """Inputs of one unit of each output map, `(out_channels,)`: the maps it sees times the kernel's area."""
        num_maps = torch.tensor([len(row) for row in self.table], device=self.weight.device)
        return num_maps * math.prod(self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw weights and biases anew."""
        bound = self.fan_in.rsqrt()
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(bound[self.out_map, None, None])
            if self.bias is not None:
                self.bias.uniform_(-1, 1).mul_(bound)

    def dense_weight(self) -> Tensor:
        """Return the full kernel `(out_channels, in_channels, k, k)`, 0 where the table has no connection."""
        zeros = self.weight.new_zeros(self.out_channels, self.in_channels, *self.kernel_size)
        return zeros.index_put((self.out_map, self.in_map), self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sums of every output map."""
        return F.conv2d(x, self.dense_weight(), self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Return the arguments as they stand in `repr`."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"{len(self.weight)} of {self.in_channels * self.out_channels} connections"
        )


def _check_table(table: Sequence[Sequence[int]], in_channels: int) -> None:
    if not table:
        raise UsageError("The table must have a row for each output map; got none.")
    for out_map, row in enumerate(table):
        if not row or len(set(row)) != len(row) or not all(0 <= in_map < in_channels for in_map in row):
            raise UsageError(
                f"Row {out_map} of the table must name one or more different input maps from 0 to {in_channels - 1}; "
                f"got {tuple(row)}."
            )
