"""What a rule is asked, and what it answers: the terms of several units of one step's output at once.

`U` units, `T` terms each; `index` tensors have the axes of a value last. All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassnet.inspection.tracing.step import Slot, Step
from glassnet.inspection.tracing.terms import Kind, Places
from glassnet.inspection.tracing.values import Value

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Question:
    """Some units of one output of a step."""

    step: Step
    output: int
    index: Tensor
    """`(U, rank)`."""

    @property
    def value(self) -> Value:
        """The output that the units are of."""
        return self.step.outputs[self.output]

    @property
    def num_units(self) -> int:
        """U."""
        return len(self.index)

    def argument(self, name: str, default: Any = None) -> Any:
        """Return an argument that holds no tensor, torch's `default` where it was not given."""
        return self.step.named.get(name, default)

    def operand(self, position: int, *names: str) -> Any:
        """Return an argument by its position, or by one of its names: a `Value`, a number, None where not given."""
        args, kwargs = self.step.call.args, self.step.call.kwargs
        found = args[position] if position < len(args) else next((kwargs[n] for n in names if n in kwargs), None)
        return self.step.inputs[found.position] if isinstance(found, Slot) else found

    def read(self, value: Value, index: Tensor, inside: Tensor | None = None) -> Tensor:
        """Return a value's numbers at `index` `(..., rank)` as float64; 0 where not `inside`."""
        tensor = value.tensor
        if inside is not None:
            index = torch.where(inside[..., None], index, 0)
        found = gathered(tensor, index)
        is_cast, dtype = self.step.call.autocast
        if is_cast and dtype is not None and found.dtype == torch.float32 and self.value.tensor.dtype == dtype:
            found = found.to(dtype)  # autocast rounds what it multiplies
        found = found.double()
        return found if inside is None else found.where(inside, 0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """The terms of `U` units."""

    formula: str
    value: Tensor
    """`(U, T)`, as the next three."""
    factor: Tensor
    product: Tensor
    kind: Tensor
    at: Places
    factor_at: Places | None = None
    total: Tensor
    """`(U,)`, as all below."""
    scale: Tensor
    bias: Tensor | None = None
    bias_at: tuple[Value, Tensor] | None = None
    """The bias parameter, and the index in it, `(U, rank)`."""
    working: tuple[tuple[str, Tensor], ...] = ()
    notes: tuple[str, ...] = ()
    is_sum: bool = True
    is_linearisation: bool = False


Rule = Callable[[Question], Answer | None]
"""Itemises an operation; None where it is called in a way that the rule does not know."""


def places(value: Value, index: Tensor) -> Places:
    """Return places `(U, T)` that are all in one value."""
    return Places((value,), torch.zeros((), dtype=torch.long).expand(index.shape[:-1]), index)


def places_in(parts: Sequence[tuple[Value, Tensor]]) -> Places:
    """Return places in several values, their columns `(U, T_i, rank_i)` side by side."""
    values = tuple(value for value, _ in parts)
    rank = max(index.shape[-1] for _, index in parts)
    padded = [torch.nn.functional.pad(index, (0, rank - index.shape[-1])) for _, index in parts]
    which = [torch.full(index.shape[:-1], number) for number, (_, index) in enumerate(parts)]
    return Places(values, torch.cat(which, -1), torch.cat(padded, -2))


def summed(
    formula: str,
    value: Tensor,
    factor: Tensor,
    at: Places,
    *,
    kind: Tensor | None = None,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    **more: Any,
) -> Answer:
    """Return the answer of a weighted sum. A factor of 0 takes nothing, also of an infinite value that it was not
    multiplied with: only where `kind` says that the number was passed over.
    """
    kind = torch.full((), Kind.PRODUCT, dtype=torch.int8).expand(value.shape) if kind is None else kind
    factor = factor.expand(value.shape)
    product = (value * factor).masked_fill((kind == Kind.PASSED_OVER) | (kind == Kind.TIE), 0.0)
    total, size = product.sum(-1), product.abs().sum(-1)
    if bias is not None:
        total, size = total + bias, size + bias.abs()
    return Answer(
        formula=formula, value=value, factor=factor, product=product, kind=kind, at=at, bias=bias, total=total,
        scale=size if scale is None else scale, **more,
    )  # fmt: skip


def turned(formula: str, value: Tensor, result: Tensor, at: Places, **more: Any) -> Answer:
    """Return the answer of a function of one number: `value` `(U, 1)` turned into `result` `(U, 1)`."""
    return Answer(
        formula=formula, value=value, factor=torch.full_like(value, NAN), product=result,
        kind=torch.full(value.shape, Kind.PRODUCT, dtype=torch.int8), at=at,
        **{"total": result[:, 0], "scale": (value.abs() + result.abs())[:, 0], **more},
    )  # fmt: skip


def gathered(tensor: Tensor, index: Tensor) -> Tensor:
    """Return a tensor's numbers at `index` `(..., rank)`, on the CPU.

    By NumPy where it knows the type: torch's gathering shares a few thousand numbers out among threads, and waits for
    them a hundred times longer than the work takes where the processors are busy.
    """
    if not index.shape[-1]:
        return tensor.cpu().expand(index.shape[:-1])
    if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16 and tensor.layout == torch.strided:
        found = tensor.numpy()[tuple(column.numpy() for column in index.unbind(-1))]
        return torch.from_numpy(np.asarray(found))
    return tensor[tuple(index.to(tensor.device).unbind(-1))].cpu()


def grid(sizes: Sequence[int]) -> Tensor:
    """Return every index into a block of those sizes, `(product, len(sizes))`, the last axis fastest."""
    if not sizes:
        return torch.zeros(1, 0, dtype=torch.long)
    return torch.stack(torch.meshgrid(*(torch.arange(size) for size in sizes), indexing="ij"), -1).reshape(
        -1, len(sizes)
    )


def sizes_of(argument: Any, count: int) -> tuple[int, ...]:
    """Return an argument such as a stride, one number or several, as `count` numbers."""
    if isinstance(argument, list | tuple):
        found = tuple(int(part) for part in argument)
        return found * count if len(found) == 1 else found
    return (int(argument),) * count


def axes_of(argument: Any, rank: int) -> tuple[int, ...]:
    """Return the axes that a `dim` names, from 0; all where it names none."""
    if argument is None or argument == () or argument == []:
        return tuple(range(rank))
    found = argument if isinstance(argument, list | tuple) else (argument,)
    return tuple(sorted(int(axis) % rank for axis in found)) if rank else ()


def broadcast_index(index: Tensor, value: Value) -> Tensor:
    """Return where torch's broadcasting reads `value` for output units `index` `(U, rank)`."""
    shape = value.shape
    last = index[:, index.shape[1] - len(shape) :]
    return last * torch.tensor([int(size != 1) for size in shape], dtype=torch.long)


def along(index: Tensor, shape: Sequence[int], axes: Sequence[int], *, is_kept: bool) -> Tensor:
    """Return every place `(U, T, rank)` that a reduction over `axes` of `shape` reads for units `index`.

    `is_kept` says whether the output has the reduced axes, of size 1 or (a softmax) of their own.
    """
    taps = grid([shape[axis] for axis in axes])
    others = [axis for axis in range(len(shape)) if axis not in axes]
    found = torch.zeros(len(index), len(taps), len(shape), dtype=torch.long)
    for place, axis in enumerate(others):
        found[:, :, axis] = index[:, axis if is_kept else place, None]
    for place, axis in enumerate(axes):
        found[:, :, axis] = taps[:, place]
    return found


def unravelled(flat: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the index `(..., rank)` of places counted through a tensor of `shape`."""
    columns = []
    for size in reversed(shape):
        columns.append(flat % size)
        flat = flat.div(size, rounding_mode="floor")
    return torch.stack(columns[::-1], -1) if columns else flat[..., None][..., :0]
