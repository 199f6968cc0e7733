"""Weights against connectivity: a layer with every connection of its own, with local ones, and with shared ones."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from torch import nn

from glassnet._errors import UsageError
from glassnet._types import Shape, by
from glassnet.arithmetic import convolution_arithmetic
from glassnet.nn import LocallyConnected2d

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, LocallyConnected2d)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to connect the same inputs with the same outputs; counts are for one input."""

    name: str
    num_connections: int
    """Pairs of an input and an output with a weight between them, padded zeros included: as many multiplications."""
    num_parameters: int
    num_multiplications: int
    num_additions: int

    @property
    def sharing(self) -> float:
        """Connections for each weight that is not a bias: 1 where none is shared."""
        return self.num_connections / max(self.num_parameters, 1)


@dataclass(frozen=True, kw_only=True)
class Connectivity:
    """What `connectivity` returns; `str()` is the table."""

    kind: str
    """The layer's class."""
    input_shape: Shape
    output_shape: Shape
    forms: tuple[Form, ...]
    """Fully connected, locally connected, convolutional."""

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        header = ("form", "parameters", "multiplications", "additions")
        rows = [
            (form.name, f"{form.num_parameters:,}", f"{form.num_multiplications:,}", f"{form.num_additions:,}")
            for form in self.forms
        ]
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
        lines = [
            "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in (header, *rows)
        ]
        return "\n".join([f"{self.kind} from {by(self.input_shape)} to {by(self.output_shape)}", *lines])


def connectivity(layer: nn.Module, input_shape: Shape) -> Connectivity:
    """Count parameters and arithmetic of one layer on `input_shape` `(C, ...)` in three forms, side by side.

    `layer` is a convolution or a locally connected layer. The fully connected form joins every input with every
    output; the locally connected one joins a window with each output, by weights of its own; the convolution has the
    same window and one set of weights for all positions. Biases are as the layer has them: one a unit in the first
    two forms, one a channel in the last.

    Raises `UsageError` for another kind of layer, and for an input that it does not take.
    """
    if not isinstance(layer, CONVOLUTIONS):
        raise UsageError(
            f"Expected a convolution or a locally connected layer; got {type(layer).__name__}. A fully connected layer "
            "has no window to share."
        )
    channels, *size = input_shape if len(input_shape) > 1 else (0,)
    if channels != layer.in_channels or len(size) != len(layer.kernel_size):
        raise UsageError(
            f"This {type(layer).__name__} takes inputs of {layer.in_channels} channels and {len(layer.kernel_size)} "
            f"further axes; got {by(tuple(input_shape))}. Give the layer's own input, as `glassnet summary` shows it."
        )
    has_bias = layer.bias is not None
    found = convolution_arithmetic(
        (*size, channels),
        tuple(layer.kernel_size),
        layer.out_channels,
        stride=tuple(layer.stride),
        padding=layer.padding if isinstance(layer.padding, str) else tuple(layer.padding),
        dilation=tuple(getattr(layer, "dilation", (1,) * len(size))),
        groups=getattr(layer, "groups", 1),
        bias=has_bias,
    )
    units = math.prod(found.output_shape)
    forms = (
        ("fully connected", found.num_linear_parameters, found.num_linear_multiplications),
        ("locally connected", found.num_local_parameters, found.num_local_multiplications),
        ("convolutional", found.num_parameters, found.num_multiplications),
    )
    return Connectivity(
        kind=type(layer).__name__,
        input_shape=tuple(input_shape),
        output_shape=(found.output_shape[-1], *found.output_shape[:-1]),
        forms=tuple(
            Form(
                name=name,
                num_connections=products,
                num_parameters=parameters,
                num_multiplications=products,
                num_additions=products - units + (units if has_bias else 0),
            )
            for name, parameters, products in forms
        ),
    )
