"""Convolution as a function: the textbook's, which flips the kernel, and the CNN frameworks', which does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 (the name that torch's documentation uses)
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.arithmetic import Padding, Sides, output_shape, padding_amounts

Numbers = Tensor | npt.NDArray[Any] | Sequence[Any] | float
"""A tensor, an array, nested lists or one number."""

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
"""The primitive by number of axes; it takes `(B, C, ...)` and does not flip the kernel."""


def convolve(
    x: Numbers,
    kernel: Numbers,
    *,
    bias: Numbers | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    flip: bool = True,
    dims: int | None = None,
) -> Tensor:
    """Convolve `x` with `kernel` over one, two or three axes.

    `flip=True` is the textbook's convolution, `y[n] = sum_j x[n - j] kernel[j]`: the kernel is flipped along every
    axis, as in `numpy.convolve` and `scipy.signal.convolve`. `flip=False` is cross-correlation, `y[n] = sum_j
    x[n + j] kernel[j]`: what `torch.nn.Conv2d` and every CNN framework call convolution.

    Shapes, as typed: `x` `(L,)`, `(H, W)` or `(D, H, W)` and `kernel` with as many axes; the result has them too.
    Shapes, as in a layer: `x` `(B, C, ...)` or `(C, ...)`, `kernel` `(O, C/groups, ...)`, `bias` `(O,)`; the result
    is `(B, O, ...)` or `(O, ...)`. Where both readings fit (three axes against three, with equal channels), `dims`
    must say how many axes are convolved over: 3 for volumes, 1 for a batch of signals.

    `stride`, `padding` and `dilation` are an int or an int per axis. `padding` may also be a name, or zeros (before,
    after) per axis, as in `glassnet.arithmetic.padding_amounts`: `valid` adds none; `half` and `full` add
    `floor(k'/2)` and `k' - 1` on both sides, with the reach `k' = dilation (k - 1) + 1`; `same` adds the fewest that
    make the output `ceil(i / stride)`. Where that is an odd number, the odd zero goes after the input as in torch,
    and with `flip=True` before it, as in `numpy.convolve`: at stride 1, tap `(k' - 1) // 2` of the kernel as typed
    sits on the output's position both ways.

    The result has the widest floating type among the arguments, lists counting as torch's default type; integers
    alone give `int64`, exact below 2**53. Raises `UsageError` where shapes do not fit. Dumoulin and Visin, "A guide to
    convolution arithmetic for deep learning" (2016), chapter 2; Goodfellow, Bengio and Courville, "Deep Learning"
    (2016), section 9.1.
    """
    values, weights, *offsets = as_tensors(x=x, kernel=kernel, **({} if bias is None else {"bias": bias}))
    dims = _convolved_axes(values, weights, groups, dims)
    values, weights, removed = _with_batch_and_channels(values, weights, dims)
    offset = _bias(offsets[0], weights, is_plain=removed == 2) if offsets else None
    _check_channels(values, weights, groups)
    steps, gaps = per_axis("stride", stride, dims), per_axis("dilation", dilation, dims)
    pads = pad_sides(padding, values.shape[2:], weights.shape[2:], steps, gaps, flip=flip)
    output_shape(values.shape[2:], weights.shape[2:], stride=steps, padding=pads, dilation=gaps)  # raises if it is none
    if flip:
        weights = weights.flip(tuple(range(2, 2 + dims)))
    padded = F.pad(values, [zeros for pair in reversed(pads) for zeros in pair])
    return _correlate(padded, weights, offset, steps, gaps, groups)[(0,) * removed]


def as_tensors(**values: Numbers) -> list[Tensor]:
    """Return the arguments as tensors of one dtype on one device; the keywords name them in errors.

    Integers alone become `int64`. Otherwise the widest floating type among tensors and arrays wins, and numbers typed
    as lists count as torch's default type.
    """
    tensors = [_as_tensor(name, value) for name, value in values.items()]
    dtype = reduce(torch.promote_types, map(_counted_dtype, values.values(), tensors))
    given = [value for value in values.values() if isinstance(value, Tensor)]
    device = given[0].device if given else torch.get_default_device()
    return [
        tensor.to(dtype) if isinstance(value, Tensor) else tensor.to(device, dtype)
        for tensor, value in zip(tensors, values.values(), strict=True)
    ]


def per_axis(name: str, value: int | Sequence[int], dims: int) -> Shape:
    """Return `dims` integers above 0 from one integer or one for each axis; the error calls them `name`."""
    given = value if isinstance(value, list | tuple) else (value,) * dims
    sizes = [int(size) for size in given if isinstance(size, int | np.integer) and size >= 1]
    if not len(sizes) == len(given) == dims:
        raise UsageError(f"{name} must be an int of at least 1, or {dims} of them for {dims} axes; got {value!r}.")
    return tuple(sizes)


def pad_sides(
    padding: Padding, input_size: Shape, kernel_size: Shape, stride: Shape, dilation: Shape, *, flip: bool
) -> tuple[Sides, ...]:
    """Return the zeros (before, after) each axis; see `convolve`. Flipping changes the sides of a named padding."""
    sides = padding_amounts(padding, kernel_size, stride=stride, dilation=dilation, input_size=input_size)
    given = padding if isinstance(padding, tuple | list) else (padding,) * len(sides)
    return tuple(
        (after, before) if flip and isinstance(name, str) else (before, after)
        for name, (before, after) in zip(given, sides, strict=True)
    )


def _as_tensor(name: str, value: Numbers) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        # A copy in native order: torch refuses negative steps and foreign byte orders, and warns of read-only arrays.
        array = np.asarray(value)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{name} must be numbers: a tensor, an array or nested lists with rows of equal length; got "
            f"{type(value).__name__} ({error})."
        ) from error


def _counted_dtype(value: Numbers, tensor: Tensor) -> torch.dtype:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return torch.int64
    is_typed = not isinstance(value, Tensor | np.ndarray | np.generic)
    return torch.get_default_dtype() if is_typed and tensor.is_floating_point() else tensor.dtype


def _convolved_axes(x: Tensor, kernel: Tensor, groups: int, dims: int | None) -> int:
    shapes = f"got x {tuple(x.shape)} and kernel {tuple(kernel.shape)}"
    if dims is None:
        if x.ndim == kernel.ndim == 3 and x.shape[1] == groups * kernel.shape[1]:
            raise UsageError(
                "x and kernel must be either (D, H, W) volumes or (B, C, L) signals with an (O, C, k) kernel; "
                f"{shapes} may be both. Say dims=3 for volumes or dims=1 for signals."
            )
        dims = kernel.ndim if x.ndim == kernel.ndim <= 3 else kernel.ndim - 2
    fitting = {(dims, dims), (dims + 1, dims + 2), (dims + 2, dims + 2)}
    if dims not in CONVOLUTIONS or (x.ndim, kernel.ndim) not in fitting:
        raise UsageError(
            f"x and kernel must both be (L,), (H, W) or (D, H, W), or x (B, C, ...) or (C, ...) and kernel "
            f"(O, C/groups, ...) over {dims if dims in CONVOLUTIONS else '1, 2 or 3'} axes; {shapes}. For one kernel "
            "on every channel, repeat it to (C, 1, ...) and say groups=C."
        )
    return dims


def _with_batch_and_channels(x: Tensor, kernel: Tensor, dims: int) -> tuple[Tensor, Tensor, int]:
    """Return `x` and `kernel` with the axes of a layer, and the number of leading axes to take off the result."""
    removed = dims + 2 - x.ndim
    return x[(None,) * removed], kernel[None, None] if kernel.ndim == dims else kernel, removed


def _check_channels(x: Tensor, kernel: Tensor, groups: int) -> None:
    out_channels, channels_each = kernel.shape[:2]
    if groups < 1 or out_channels % groups:
        raise UsageError(
            f"groups must be at least 1 and divide the kernel's {out_channels} output channels; got {groups}."
        )
    if x.shape[1] != channels_each * groups:
        raise UsageError(
            f"A kernel (O, C/groups, ...) = {tuple(kernel.shape)} with groups={groups} reads {channels_each}*{groups} "
            f"= {channels_each * groups} channels; x (B, C, ...) = {tuple(x.shape)} has {x.shape[1]}. Give x and "
            "kernel the same channels."
        )


def _bias(bias: Tensor, kernel: Tensor, *, is_plain: bool) -> Tensor:
    if bias.shape != kernel.shape[:1] and not (is_plain and bias.ndim == 0):
        expected = "one number" if is_plain else f"({len(kernel)},), one number an output channel"
        raise UsageError(f"bias must be {expected}; got shape {tuple(bias.shape)}.")
    return bias.reshape(-1)


def _correlate(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: Shape, dilation: Shape, groups: int) -> Tensor:
    primitive = CONVOLUTIONS[x.ndim - 2]
    if x.dtype != torch.int64:
        return primitive(x, kernel, bias, stride, 0, dilation, groups)
    # Accelerators convolve no integers; in float64 they are exact below 2**53.
    offset = None if bias is None else bias.double()
    return primitive(x.double(), kernel.double(), offset, stride, 0, dilation, groups).round().long()
