"""A convolution written as one sparse matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.arithmetic import Padding, output_shape
from glassnet.nn.functional import CONVOLUTIONS, Numbers, as_tensors, pad_sides, per_axis


def convolution_matrix(
    kernel: Numbers,
    input_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    *,
    flip: bool = False,
) -> Tensor:
    """Return the matrix whose product with the flattened input is the convolution of the input with `kernel`.

    `flip=False` is what torch computes, cross-correlation; `flip=True` is the textbook's convolution, with the kernel
    flipped along every axis. Padding, stride and dilation are read as by `glassnet.nn.functional.convolve`.

    `kernel` is `(k,)`, `(kh, kw)` or `(kd, kh, kw)` for an input without channels, or `(O, C, ...)` with them.
    `input_size` is the input's size along the axes convolved over, without channels: an int per axis, or one int for
    equal sizes (a three-axis kernel needs the tuple, which tells `(O, C, k)` from a volume). The result is a coalesced
    sparse COO tensor `(O * out positions, C * in positions)`, both in row-major order:
    `(matrix @ x.flatten()).reshape(O, *out_size)`. COO, because its transpose is COO again and autograd reaches the
    kernel through it. A weight is stored once for each output position where it meets the input, also where it is 0:
    the stored numbers are the multiplications of the convolution, padding left out.

    The transpose `matrix.t()` takes a gradient at the output to the gradient at the input (the backward pass), and is
    the transposed convolution with the same kernel. An integer kernel gives torch's default floating type. Raises
    `UsageError` where the sizes do not fit. Dumoulin and Visin, "A guide to convolution arithmetic for deep learning"
    (2016), sections 4.1 and 4.2.
    """
    (weights,) = as_tensors(kernel=kernel)
    weights = weights if weights.is_floating_point() else weights.to(torch.get_default_dtype())
    in_size = _input_size(weights, input_size)
    dims = len(in_size)
    weights = weights[None, None] if weights.ndim == dims else weights
    positions = _positions_read(weights.shape[2:], in_size, stride, padding, dilation, flip=flip)
    reads, is_inside = (each.to(weights.device) for each in positions)
    if flip:
        weights = weights.flip(tuple(range(2, 2 + dims)))
    out_channels, in_channels = weights.shape[:2]
    num_out, num_taps = reads.shape
    num_in = math.prod(in_size)
    met = is_inside[None, :, None, :].expand(out_channels, num_out, in_channels, num_taps)
    o, position, c, tap = met.nonzero(as_tuple=True)
    # Sorted and without repetition: `nonzero` counts in row-major order and a kernel reads a position once.
    with torch.sparse.check_sparse_tensor_invariants(True):
        return torch.sparse_coo_tensor(
            torch.stack((o * num_out + position, c * num_in + reads[position, tap])),
            weights.flatten(2)[o, c, tap],
            (out_channels * num_out, in_channels * num_in),
            is_coalesced=True,
        )


def _input_size(kernel: Tensor, input_size: int | Sequence[int]) -> Shape:
    sizes = input_size
    if isinstance(sizes, int) and kernel.ndim != 3:
        sizes = (sizes,) * (kernel.ndim if kernel.ndim < 3 else kernel.ndim - 2)
    if isinstance(sizes, int) or len(sizes) not in CONVOLUTIONS or kernel.ndim not in (len(sizes), len(sizes) + 2):
        raise UsageError(
            "input_size must have one size for each axis of a kernel (k,), (kh, kw) or (kd, kh, kw), or for each axis "
            f"after (O, C) of one with channels; got input_size {input_size} and a kernel of shape "
            f"{tuple(kernel.shape)}. For signals (C, L) and a kernel (O, C, k), write input_size=(L,)."
        )
    return per_axis("input_size", sizes, len(sizes))


def _positions_read(
    kernel_size: Shape,
    in_size: Shape,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    *,
    flip: bool,
) -> tuple[Tensor, Tensor]:
    """Return `(out positions, taps)`: the flat input position each tap reads, and whether it is inside the input.

    Along one axis, tap `j` at output position `n` reads input position `n * stride + j * dilation - padding`.
    """
    dims = len(in_size)
    steps, gaps = per_axis("stride", stride, dims), per_axis("dilation", dilation, dims)
    pads = pad_sides(padding, in_size, kernel_size, steps, gaps, flip=flip)
    out_size = output_shape(in_size, kernel_size, stride=steps, padding=pads, dilation=gaps)
    flat = torch.zeros((1, 1), dtype=torch.int64)
    inside = torch.ones((1, 1), dtype=torch.bool)
    for axis, size in enumerate(in_size):
        outputs, taps = torch.arange(out_size[axis]), torch.arange(kernel_size[axis])
        read = outputs[:, None] * steps[axis] + taps * gaps[axis] - pads[axis][0]
        flat = _row_major(flat[:, None, :, None] * size + read[:, None, :])
        inside = _row_major(inside[:, None, :, None] & ((read >= 0) & (read < size))[:, None, :])
    return flat, inside


def _row_major(pairs: Tensor) -> Tensor:
    """Return `(P, p, T, t)` as `(P * p, T * t)`."""
    return pairs.flatten(2).flatten(0, 1)
