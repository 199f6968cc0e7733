"""Layers with weights, their fans, and their weights as matrices."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet.nn.connection import TableConv2d
from glassnet.nn.local import LocallyConnected2d

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedLayer:
    """A linear or convolutional layer of a model, with what an initialisation must know of it."""

    name: str
    """Its dotted path in the model."""
    module: nn.Module
    weight: nn.Parameter
    fan_in: Tensor
    """Inputs of one unit; one number, or one for each weight (broadcasts over `weight`)."""
    fan_out: Tensor
    """Units that one input reaches, edges and stride left out of account; as `fan_in`."""
    matrix_shape: tuple[int, int, int] | None
    """`(matrices, rows, columns)` that `weight` is a view of, each a linear map; None where it is none (a table)."""


def weighted_layers(model: nn.Module) -> list[WeightedLayer]:
    """Return the linear and convolutional layers of `model`, in the order of `named_modules`; a shared weight once.

    With groups, a fan counts one group: the inputs and units that are joined. Raises `UsageError` for a weight that
    is computed from others (a parametrization), where what is written into it would be lost.
    """
    found: dict[int, WeightedLayer] = {}
    for name, module in model.named_modules():
        shapes = _fans(module)
        if shapes is None:
            continue
        weight = module._parameters.get("weight")
        if weight is None:
            raise UsageError(
                f"Layer '{name}' must hold its weight as a parameter; its weight is computed by a parametrization. "
                "Initialise the model first and add the parametrization afterwards."
            )
        fan_in, fan_out, matrix_shape = shapes
        layer = WeightedLayer(
            name=name,
            module=module,
            weight=weight,
            fan_in=torch.as_tensor(fan_in, device="cpu"),
            fan_out=torch.as_tensor(fan_out, device="cpu"),
            matrix_shape=matrix_shape,
        )
        found.setdefault(id(weight), layer)
    return list(found.values())


def _fans(module: nn.Module) -> tuple[int | Tensor, int | Tensor, tuple[int, int, int] | None] | None:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features, (1, module.out_features, module.in_features)
    if isinstance(module, CONVOLUTIONS + TRANSPOSED_CONVOLUTIONS):
        area, groups = math.prod(module.kernel_size), module.groups
        channels_in, channels_out = module.in_channels // groups, module.out_channels // groups
        if isinstance(module, TRANSPOSED_CONVOLUTIONS):  # its weight is that of the convolution it transposes
            return channels_in * area, channels_out * area, (groups, channels_in, channels_out * area)
        return channels_in * area, channels_out * area, (groups, channels_out, channels_in * area)
    if isinstance(module, LocallyConnected2d):
        fan_out = module.out_channels * math.prod(module.kernel_size)
        return module.fan_in, fan_out, (math.prod(module.output_size), module.out_channels, module.fan_in)
    if isinstance(module, TableConv2d):
        return (*_table_fans(module), None)
    return None


def _table_fans(module: TableConv2d) -> tuple[Tensor, Tensor]:
    """Return the fans of each connection's kernel, `(connections, 1, 1)`."""
    area = math.prod(module.kernel_size)
    maps_reached = Counter(in_map for _, in_map in module.connections)
    fans_in = [len(module.table[out_map]) * area for out_map, _ in module.connections]
    fans_out = [maps_reached[in_map] * area for _, in_map in module.connections]
    on_cpu = torch.tensor([fans_in, fans_out], device="cpu")[:, :, None, None]
    return on_cpu[0], on_cpu[1]
