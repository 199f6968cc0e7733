"""Which input meets which output through which entry of a kernel, for convolutions of any number of axes.

Dumoulin and Visin (2016), "A guide to convolution arithmetic for deep learning": along each axis input `i`, kernel
entry `k` and output `o` meet where `i + padding = o * stride + k * dilation`; of a transposed convolution input and
output change places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glassnet._types import Shape
from glassnet.inspection.tracing.step import Step

Index = tuple[int, ...]


@dataclass(frozen=True)
class Sliding:
    """A convolution's window, one number an axis."""

    kernel: Shape
    stride: Shape
    padding: Shape
    """Zeros before the first number of each axis."""
    dilation: Shape
    groups: int
    is_transposed: bool

    def met_by_input(self, place: Index, out_size: Shape) -> tuple[Tensor, Tensor]:
        """Return the entries of the kernel that an input meets, `(T, axes)`, and the outputs there, `(T, axes)`."""
        entries, outputs = [], []
        for axis, at in enumerate(place):
            k = torch.arange(self.kernel[axis])
            if self.is_transposed:
                out = at * self.stride[axis] - self.padding[axis] + k * self.dilation[axis]
                is_met = torch.ones_like(k, dtype=torch.bool)
            else:
                reached = at + self.padding[axis] - k * self.dilation[axis]
                out, is_met = reached.div(self.stride[axis], rounding_mode="floor"), reached % self.stride[axis] == 0
            is_met &= (out >= 0) & (out < out_size[axis])
            entries.append(k[is_met])
            outputs.append(out[is_met])
        return grid(entries), grid(outputs)

    def met_by_entry(self, entry: Index, in_size: Shape, out_size: Shape) -> tuple[Tensor, Tensor]:
        """Return the inputs that an entry of the kernel meets, `(T, axes)`, and the outputs, `(T, axes)`.

        Inputs may lie in the padding, outside `in_size`; of a transposed convolution no output lies outside.
        """
        inputs, outputs = [], []
        for axis, k in enumerate(entry):
            if self.is_transposed:
                given = torch.arange(in_size[axis])
                out = given * self.stride[axis] - self.padding[axis] + k * self.dilation[axis]
                is_met = (out >= 0) & (out < out_size[axis])
                given, out = given[is_met], out[is_met]
            else:
                out = torch.arange(out_size[axis])
                given = out * self.stride[axis] - self.padding[axis] + k * self.dilation[axis]
            inputs.append(given)
            outputs.append(out)
        return grid(inputs), grid(outputs)


def sliding_of(step: Step) -> Sliding | None:
    """Return the window of a convolution; None for a call in a form that is not read here."""
    given, weight = step.input("input"), step.input("weight")
    axes = int(step.op[-2])
    if given is None or weight is None or len(given.shape) != axes + 2:
        return None
    named, kernel = step.named, weight.shape[2:]
    stride, dilation = (_each(named.get(name, 1), axes) for name in ("stride", "dilation"))
    padding = named.get("padding", 0)
    if padding == "valid":
        padding = 0
    if padding == "same":  # an odd zero goes to the end
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    is_transposed = "transpose" in step.op
    return Sliding(kernel, stride, _each(padding, axes), dilation, int(named.get("groups", 1)), is_transposed)


def grid(axes: list[Tensor]) -> Tensor:
    """Return every combination of places along some axes, `(T, axes)`."""
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def _each(value: Any, axes: int) -> Shape:
    numbers = (value,) if isinstance(value, int) else tuple(int(number) for number in value)
    return numbers * axes if len(numbers) == 1 else numbers
