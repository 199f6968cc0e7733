"""Convolution arithmetic: sizes, padding, parameters, multiplications, receptive fields. Integers only, no torch.

Relation numbers are those of Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016): sizes of
input `i`, output `o` and kernel `k`, padding `p`, stride `s`, dilation `d`; primes mark a transposed convolution. The
reach of a dilated kernel is `r = k + (k - 1)(d - 1)`.

What is named a size is one axis; a shape is any number of axes, without channels, and then each argument is one value
for all axes or a tuple with one per axis. A number that is not whole, or too small, raises `UsageError`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape

PADDING_NAMES = ("valid", "same", "half", "full")

Sizes = int | Shape
"""A number for all axes, or one per axis."""
Sides = tuple[int, int]
"""Pixels of padding before and after; of a box, the first pixel and the one behind the last."""
AxisPadding = int | str | Sides
"""Padding of one axis: pixels on both sides, a name, or pixels (before, after)."""
Padding = AxisPadding | tuple[AxisPadding, ...]
"""A number or name for all axes, or one `AxisPadding` per axis: for shapes, (1, 2) is height 1 and width 2."""
Window = tuple[Sizes] | tuple[Sizes, Sizes] | tuple[Sizes, Sizes, Padding] | tuple[Sizes, Sizes, Padding, Sizes]
"""A convolution or pooling in a chain: (kernel size, stride, padding, dilation); later ones may be left out."""


def _integer(name: str, value: object, least: int = 1) -> int:
    number = None if isinstance(value, bool) or not hasattr(value, "__index__") else operator.index(value)
    if number is None or number < least:
        raise UsageError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    return number


def _spread(name: str, value: object, num_axes: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * num_axes
    if len(values) != num_axes:
        sides = " Write (before, after) inside another tuple, as in ((1, 2), (1, 2))." if name == "padding" else ""
        raise UsageError(
            f"{name} must be one value, or a tuple with one for each of {num_axes} axes; got {value}.{sides}"
        )
    return values


def _integers(name: str, value: object, num_axes: int, least: int = 1) -> Shape:
    return tuple(_integer(name, number, least) for number in _spread(name, value, num_axes))


def _windows(
    num_axes: int, kernel_size: Sizes, stride: Sizes, padding: Padding, dilation: Sizes
) -> list[tuple[int, int, AxisPadding, int]]:
    """Return (kernel size, stride, padding, dilation) of each axis."""
    kernels, strides = _integers("kernel_size", kernel_size, num_axes), _integers("stride", stride, num_axes)
    paddings, dilations = _spread("padding", padding, num_axes), _integers("dilation", dilation, num_axes)
    return list(zip(kernels, strides, paddings, dilations, strict=True))


def _num_axes(*values: object) -> int:
    """Return how many axes the first tuple among `values` has; 1 where all are single numbers."""
    return _integer("number of axes", next((len(value) for value in values if isinstance(value, tuple | list)), 1))


def _reach(kernel_size: int, dilation: int) -> int:
    return _integer("dilation", dilation) * (_integer("kernel_size", kernel_size) - 1) + 1


def _axis_padding(padding: AxisPadding, reach: int, stride: int, input_size: int | None) -> Sides:
    match padding:
        case "valid":
            return 0, 0
        case "half":
            return reach // 2, reach // 2
        case "full":
            return reach - 1, reach - 1
        case "same":
            if stride > 1 and input_size is None:
                raise UsageError(
                    f"padding 'same' depends on the size before the convolution unless the stride is 1; got stride "
                    f"{stride} and no size. Give numbers, or the result of padding_amounts with input_size."
                )
            size = input_size or 1  # at stride 1 the size cancels out
            total = max((size - 1) // stride * stride + reach - size, 0)  # the least that makes the output ceil(i / s)
            return total // 2, total - total // 2
        case str():
            raise unknown_name("padding", padding, PADDING_NAMES, "A number pads both sides.")
        case (before, after):
            return _integer("padding before", before, 0), _integer("padding after", after, 0)
        case _:
            return _integer("padding", padding, 0), _integer("padding", padding, 0)


def padding_amounts(
    padding: Padding, kernel_size: Sizes, *, stride: Sizes = 1, dilation: Sizes = 1, input_size: Sizes | None = None
) -> tuple[Sides, ...]:
    """Return the pixels of padding (before, after) of each axis.

    `valid` is 0. `half` is `floor(r / 2)` on both sides: at stride 1 it keeps the size for odd `r` (relation 3) and
    adds one for even `r`. `full` is `r - 1` on both sides (relation 4). `same` makes the output `ceil(i / s)` with the
    least padding, an odd pixel going after, as in TensorFlow and, at stride 1, in torch. The number of axes is that of
    the first tuple among `kernel_size`, `input_size`, `stride` and `dilation`; single numbers alone mean one axis.

    Raises `UsageError` for an unknown name, and for `same` with a stride above 1 and no `input_size`.
    """
    num_axes = _num_axes(kernel_size, input_size, stride, dilation)
    windows = _windows(num_axes, kernel_size, stride, padding, dilation)
    sizes = [None] * num_axes if input_size is None else _integers("input_size", input_size, num_axes)
    return tuple(_axis_padding(p, _reach(k, d), s, i) for (k, s, p, d), i in zip(windows, sizes, strict=True))


def output_size(
    input_size: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: AxisPadding = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> int:
    """Return the output size of a convolution or pooling along one axis: `floor((i + 2p - r) / s) + 1`.

    Relation 15, with 1 to 7 as special cases. `padding` is pixels on both sides, (before, after), or a name as in
    `padding_amounts`. `ceil_mode` rounds up, then drops windows that start behind the input: torch's rule for pooling.

    Raises `UsageError` with the arithmetic where the kernel does not fit.
    """
    size, stride, reach = _integer("input_size", input_size), _integer("stride", stride), _reach(kernel_size, dilation)
    before, after = _axis_padding(padding, reach, stride, size)
    room, least = size + before + after - reach, 1 - stride if ceil_mode else 0
    if room < least:
        dilated = f" ({dilation}*({kernel_size} - 1) + 1)" if dilation > 1 else ""
        sides, pad = f"{before} before and {after} after", f"{before} + {after}"
        if before == after:
            sides, pad = f"{before}", f"2*{before}"
        raise UsageError(
            f"A kernel that reaches over {reach}{dilated} does not fit an input of {size} with padding {sides}: "
            f"{size} + {pad} - {reach} = {room} < {least}. Use a larger input, a smaller kernel or more padding."
        )
    if ceil_mode:
        return min(-(-room // stride), (size + before - 1) // stride) + 1
    return room // stride + 1


def output_shape(
    input_shape: Shape,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Shape:
    """Return `output_size` along each axis of `input_shape` (without channels); for padding see `padding_amounts`."""
    sizes = _integers("input_shape", input_shape, _num_axes(input_shape))
    windows = _windows(len(sizes), kernel_size, stride, padding, dilation)
    return tuple(
        output_size(i, k, stride=s, padding=p, dilation=d, ceil_mode=ceil_mode)
        for i, (k, s, p, d) in zip(sizes, windows, strict=True)
    )


def transposed_output_size(
    input_size: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: AxisPadding = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> int:
    """Return the output size of a transposed convolution along one axis: `s(i' - 1) + a + r - 2p`.

    Relation 14, with 8 to 13 as special cases. `stride`, `padding` and `dilation` are those of the convolution that it
    transposes, which turns `s` sizes into the same `i'`; `output_padding` is `a = (i + 2p - r) mod s` and says which of
    them comes back. As in torch, it must be smaller than the stride or the dilation.

    Raises `UsageError` where nothing is left, and for `same` at a stride above 1, which leaves the padding open.
    """
    size, stride, reach = _integer("input_size", input_size), _integer("stride", stride), _reach(kernel_size, dilation)
    extra = _integer("output_padding", output_padding, 0)
    if extra >= max(stride, dilation):
        raise UsageError(
            f"output_padding must be smaller than the stride or the dilation; got {extra} with stride {stride} and "
            f"dilation {dilation}. The sizes that become {size} under this stride differ by at most {stride - 1}."
        )
    before, after = _axis_padding(padding, reach, stride, None)
    result = stride * (size - 1) + extra + reach - before - after
    if result < 1:
        raise UsageError(
            f"A transposed convolution needs an output of at least 1; got {stride}*({size} - 1) + {extra} + {reach} - "
            f"{before} - {after} = {result}. Use a larger input, a larger kernel or less padding."
        )
    return result


def _channels(in_channels: int, out_channels: int, groups: int) -> tuple[int, int]:
    """Return the input channels that one kernel sees, and the output channels."""
    groups = _integer("groups", groups)
    for name, count in (("in_channels", in_channels), ("out_channels", out_channels)):
        if _integer(name, count) % groups:
            raise UsageError(
                f"groups must divide {name}; got {name}={count} and groups={groups}: "
                f"{count} = {count // groups}*{groups} + {count % groups}. Choose a divisor of {count}."
            )
    return operator.index(in_channels) // groups, operator.index(out_channels)


def num_conv_parameters(
    in_channels: int, out_channels: int, kernel_size: Shape, *, groups: int = 1, bias: bool = True
) -> int:
    """Return the parameters of a convolution: per output channel a kernel over `in_channels / groups`, and a bias."""
    if not isinstance(kernel_size, tuple | list):
        raise UsageError(f"kernel_size must have one value per axis, such as (3, 3) for images; got {kernel_size!r}.")
    seen, filters = _channels(in_channels, out_channels, groups)
    return (seen * math.prod(_integers("kernel_size", kernel_size, len(kernel_size))) + bool(bias)) * filters


def num_conv_multiplications(
    in_channels: int, out_channels: int, kernel_size: Sizes, output_shape: Shape, *, groups: int = 1
) -> int:
    """Return the multiplications of a convolution on one image: one per weight and output position.

    Those with a padded zero count too. `output_shape` is without channels.
    """
    positions = _integers("output_shape", output_shape, _num_axes(output_shape))
    kernel = _integers("kernel_size", kernel_size, len(positions))
    seen, filters = _channels(in_channels, out_channels, groups)
    return seen * math.prod(kernel) * filters * math.prod(positions)


num_local_multiplications = num_conv_multiplications
"""A locally connected layer multiplies as often as the convolution: only its weights are not shared."""


def num_local_parameters(
    in_channels: int, out_channels: int, kernel_size: Sizes, output_shape: Shape, *, groups: int = 1, bias: bool = True
) -> int:
    """Return the parameters of a locally connected layer: a kernel, and a bias, of its own for every unit."""
    positions = _integers("output_shape", output_shape, _num_axes(output_shape))
    kernel = _integers("kernel_size", kernel_size, len(positions))
    return num_conv_parameters(in_channels, out_channels, kernel, groups=groups, bias=bias) * math.prod(positions)


def num_linear_parameters(in_features: int, out_features: int, *, bias: bool = True) -> int:
    """Return the parameters of a fully connected layer: per output a weight for each input, and a bias."""
    return (_integer("in_features", in_features) + bool(bias)) * _integer("out_features", out_features)


def num_linear_multiplications(in_features: int, out_features: int) -> int:
    """Return the multiplications of a fully connected layer on one row: one per weight."""
    return num_linear_parameters(in_features, out_features, bias=False)


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """What the units of a feature map see of the input, per axis, in input pixels.

    `size`: pixels from the first to the last that a unit sees (dilation leaves gaps between them). `stride`: pixels
    between the fields of neighbouring units. `start`: first pixel of the first unit's field; negative means padding.
    Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks" (Distill, 2019).
    """

    size: Shape
    stride: Shape
    start: Shape

    def through(
        self, kernel_size: Sizes, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1
    ) -> ReceptiveField:
        """Return the field after one more convolution or pooling on this feature map.

        Raises `UsageError` for `same` with a stride above 1: give the result of `padding_amounts` instead.
        """
        fields = []
        for axis, (k, s, p, d) in enumerate(_windows(len(self.size), kernel_size, stride, padding, dilation)):
            reach, step = _reach(k, d), self.stride[axis]
            before, _ = _axis_padding(p, reach, s, None)
            fields.append((self.size[axis] + (reach - 1) * step, step * s, self.start[axis] - before * step))
        sizes, strides, starts = zip(*fields, strict=True)
        return ReceptiveField(size=sizes, stride=strides, start=starts)

    def box(self, position: Shape, input_shape: Shape | None = None) -> tuple[Sides, ...]:
        """Return the field of the unit at `position`: (first pixel, the one behind the last) per axis.

        With `input_shape` (no channels) the box is cut to it. A box of which nothing is cut is exact; a cut one holds
        every pixel that the unit sees, and may hold more at the edge, where padding in between hides pixels.
        """
        places = _integers("position", tuple(position), len(self.size), 0)
        firsts = [start + step * place for start, step, place in zip(self.start, self.stride, places, strict=True)]
        box = tuple((first, first + size) for first, size in zip(firsts, self.size, strict=True))
        if input_shape is None:
            return box
        ends = _integers("input_shape", tuple(input_shape), len(self.size))
        return tuple((min(max(a, 0), end), min(max(b, 0), end)) for (a, b), end in zip(box, ends, strict=True))


def receptive_field(chain: Iterable[Window]) -> ReceptiveField:
    """Return the receptive field, on the input, of the units after a chain of layers, the first layer first.

    For example `receptive_field([(11, 4), (3, 2), (5, 1, 2)])` is AlexNet up to conv2. The number of axes is that of
    the first tuple among kernel sizes, strides and dilations; single numbers alone mean one axis.
    """
    layers = list(chain)
    n = _num_axes(*(value for layer in layers for place, value in enumerate(layer) if place != 2))
    field = ReceptiveField(size=(1,) * n, stride=(1,) * n, start=(0,) * n)
    for layer in layers:
        field = field.through(*layer)
    return field


def parse_size(text: str) -> Shape:
    """Return the numbers of a size such as `224x224x3` or `3`; raise `UsageError` for anything else."""
    parts = re.split("[xX×]", text)
    for part in parts:
        if not re.fullmatch(r"\s*[0-9]{1,18}\s*", part) or int(part) < 1:
            raise UsageError(
                f"A size is whole numbers above 0 joined by x, such as 224x224x3; got '{part}' in '{text}'."
            )
    return tuple(map(int, parts))


@dataclass(frozen=True, kw_only=True)
class ConvolutionArithmetic:
    """A convolution in numbers, with the locally and the fully connected layer between the same shapes beside it.

    `input_shape` and `output_shape` have the channels last, as one writes 224x224x3. Counts are for one image.
    """

    input_shape: Shape
    output_shape: Shape
    kernel_size: Shape
    stride: Shape
    padding: tuple[Sides, ...]
    dilation: Shape
    groups: int
    bias: bool
    num_parameters: int
    num_multiplications: int
    num_local_parameters: int
    num_local_multiplications: int
    num_linear_parameters: int
    num_linear_multiplications: int

    def lines(self) -> list[str]:
        """Return each formula with its numbers: the output size per axis, then the counts of the three layers."""
        patch = "*".join(map(str, (*self.kernel_size, self.input_shape[-1])))
        patch += f"/{self.groups}" if self.groups > 1 else ""
        inputs, units = ("*".join(map(str, shape)) for shape in (self.input_shape, self.output_shape))
        learned, all_learned = (f"({n} + 1)" if self.bias else n for n in (patch, inputs))
        counts = (
            ("parameters", f"{learned} * {self.output_shape[-1]}", self.num_parameters),
            ("multiplications", f"{patch} * {units}", self.num_multiplications),
            ("locally connected parameters", f"{learned} * {units}", self.num_local_parameters),
            ("locally connected multiplications", f"{patch} * {units}", self.num_local_multiplications),
            ("fully connected parameters", f"{all_learned} * {units}", self.num_linear_parameters),
            ("fully connected multiplications", f"{inputs} * {units}", self.num_linear_multiplications),
        )
        output = "output: " + "x".join(map(str, self.output_shape))
        return [*self._size_lines(), output, *(f"{name}: {formula} = {number:,}" for name, formula, number in counts)]

    def _size_lines(self) -> list[str]:
        n = len(self.kernel_size)
        names = {1: ["length"], 2: ["height", "width"], 3: ["depth", "height", "width"]}
        lines = []
        for axis, name in enumerate(names.get(n, [f"axis {axis}" for axis in range(n)])):
            i, k, (before, after) = self.input_shape[axis], self.kernel_size[axis], self.padding[axis]
            s, d, o = self.stride[axis], self.dilation[axis], self.output_shape[axis]
            reach = f"{k}" if d == 1 else f"({d}*({k} - 1) + 1)"
            lines.append(f"{name}: floor(({i} + {before} + {after} - {reach}) / {s}) + 1 = {o}")
        return lines


def convolution_arithmetic(
    input_shape: Shape,
    kernel_size: Sizes,
    filters: int,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
) -> ConvolutionArithmetic:
    """Return the arithmetic of a convolution with `filters` output channels on `input_shape`, channels last.

    The number of axes is that of `input_shape` without the channels. Raises `UsageError` where a size does not fit.
    """
    if len(input_shape) < 2:
        raise UsageError(f"input_shape is a size with channels last, such as (224, 224, 3); got {tuple(input_shape)}.")
    *size, channels = _integers("input_shape", tuple(input_shape), len(input_shape))
    kernel, strides, _, dilations = zip(*_windows(len(size), kernel_size, stride, padding, dilation), strict=True)
    sides = padding_amounts(padding, kernel, stride=strides, dilation=dilations, input_size=tuple(size))
    out = output_shape(tuple(size), kernel, stride=strides, padding=sides, dilation=dilations)
    filters = _integer("filters", filters)
    inputs, units = channels * math.prod(size), filters * math.prod(out)
    return ConvolutionArithmetic(
        input_shape=(*size, channels),
        output_shape=(*out, filters),
        kernel_size=kernel,
        stride=strides,
        padding=sides,
        dilation=dilations,
        groups=groups,
        bias=bias,
        num_parameters=num_conv_parameters(channels, filters, kernel, groups=groups, bias=bias),
        num_multiplications=num_conv_multiplications(channels, filters, kernel, out, groups=groups),
        num_local_parameters=num_local_parameters(channels, filters, kernel, out, groups=groups, bias=bias),
        num_local_multiplications=num_local_multiplications(channels, filters, kernel, out, groups=groups),
        num_linear_parameters=num_linear_parameters(inputs, units, bias=bias),
        num_linear_multiplications=num_linear_multiplications(inputs, units),
    )
