"""Local derivatives: how every output of one step changes with one number among its inputs.

A column of the step's Jacobian. Forward-mode automatic differentiation gives it by one repetition of the call: with the
one-hot tangent `e_i` the tangent of the output is `J e_i` (Baydin et al. 2018, "Automatic differentiation in machine
learning: a survey", section 3.1).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from glassnet.inspection.tracing.calls import kind_of
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.values import Value

Index = tuple[int, ...]
MOST_ROWS = 512
"""Rows of a Jacobian that are worked out one by one to read a column from them, at most."""

AGREE = 1e-3
"""Relative difference above which a backward function is taken to be no matrix product."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The outputs of a step that one number feeds, in columns."""

    value: Value
    """The output that they are units of."""
    index: Tensor
    """`(T, rank)`"""
    delta: Tensor
    """`(T,)` float64: dL/d(output)."""
    derivative: Tensor
    """`(T,)` float64: d(output)/d(number)."""
    weight: Value | None = None
    """What the derivatives are entries of; None where they are worked out."""
    weight_index: Tensor | None = None
    """`(T, weight's rank)`"""


class Derived(NamedTuple):
    """The columns at one position of a step's inputs."""

    columns: tuple[Column, ...]
    unexplained: float | None = None
    """dL/d(number) through the step in one number, where it cannot be taken apart."""


def gradient_of(value: Value) -> Tensor | None:
    """Return autograd's gradient of a value as a dense tensor: embeddings may have a sparse one."""
    gradient = value.gradient
    return gradient.to_dense() if gradient is not None and gradient.layout != torch.strided else gradient


def derived(step: Step, position: int, index: Index) -> Derived:
    """Return the local derivatives of a step's outputs by the number at `index` of its input `position`.

    Outputs that the loss does not depend on are left out, and zeros of the column.
    """
    gradients = {place: gradient_of(value) for place, value in enumerate(step.outputs)}
    deltas = {place: gradient for place, gradient in gradients.items() if gradient is not None}
    if not deltas or not step.is_differentiable:
        return Derived(())
    if not kind_of(step.call.function).is_foreign:
        try:
            return Derived(_columns(step, deltas, _pushed(step, position, index)))
        except (NotImplementedError, RuntimeError):
            pass  # no forward mode for this operation
    return _by_autograd(step, position, index, deltas)


@cache
def _load_forward_rules() -> None:
    """Have torch load what forward mode needs; it compiles rules by a function that it warns of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def _pushed(step: Step, position: int, index: Index) -> list[Tensor | None]:
    """Return the tangent of every output for a one-hot tangent of one input."""
    _load_forward_rules()
    given = step.inputs[position].tensor
    tangent = torch.zeros_like(given)
    tangent[index] = 1
    with _kernels(step.op), torch.inference_mode(False), torch.enable_grad(), forward_ad.dual_level():
        # Without a gradient asked for, the call would be run on detached tensors, which have no tangents.
        dual = forward_ad.make_dual(given.detach().clone().requires_grad_(), tangent)
        outputs = step.replay_all({position: dual})
        tangents = [forward_ad.unpack_dual(output).tangent for output in outputs]
        return [None if found is None else found.detach() for found in tangents]


@contextmanager
def _kernels(op: str) -> Iterator[None]:
    """Have torch compute by kernels that know forward mode: fused attention and recurrent ones do not."""
    was_enabled = torch._C._get_mkldnn_enabled()
    with ExitStack() as stack:
        if op == "scaled_dot_product_attention":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if op == "lstm":
            stack.callback(torch._C._set_mkldnn_enabled, was_enabled)
            torch._C._set_mkldnn_enabled(False)
        yield


def _columns(step: Step, deltas: dict[int, Tensor], tangents: Sequence[Tensor | None]) -> tuple[Column, ...]:
    found = []
    for output, delta in deltas.items():
        tangent = tangents[output]
        if tangent is None:
            continue
        column = _column(step.outputs[output], delta, tangent)
        if len(column.delta):
            found.append(column)
    return tuple(found)


def _column(value: Value, delta: Tensor, tangent: Tensor) -> Column:
    if tangent.is_complex():  # autograd's gradient of a complex number is dL/d(real) + i dL/d(imaginary)
        tangent, delta = torch.view_as_real(tangent.resolve_conj()), torch.view_as_real(delta.resolve_conj())
    index = tangent.nonzero()
    return Column(value, index, numbers_at(delta, index), numbers_at(tangent, index))


def numbers_at(tensor: Tensor, index: Tensor) -> Tensor:
    """Return the numbers of a tensor at indices `(T, rank)`, as `(T,)` float64."""
    return tensor[tuple(index.T)].reshape(-1)[: len(index)].double()


def _by_autograd(step: Step, position: int, index: Index, deltas: dict[int, Tensor]) -> Derived:
    """Return the column by backward functions alone: differentiated once more, or row by row.

    A backward function of the user's own may be no matrix product (a clipped or estimated gradient). The products then
    do not add up to what it returns, and its result is one number that is not taken apart.
    """
    whole = step.vjp(deltas, [position])[position]
    if whole is None:
        return Derived(())
    passed = float(whole[index].real)
    for way in (_differentiated_twice, _row_by_row):
        try:
            columns = _columns(step, deltas, way(step, position, index, deltas))
        except (NotImplementedError, RuntimeError):
            continue
        products = [column.delta * column.derivative for column in columns]
        total, scale = (float(sum(part.sum() for part in parts)) for parts in (products, [p.abs() for p in products]))
        if abs(total - passed) <= AGREE * max(scale, abs(passed)):
            return Derived(columns)
    return Derived((), passed)


def _differentiated_twice(step: Step, position: int, index: Index, deltas: dict[int, Tensor]) -> list[Tensor | None]:
    """Return the column as d(v J)_i / dv: the backward pass is linear in what it is given."""
    leaf = step.inputs[position].tensor.detach().clone().requires_grad_()
    given = {output: delta.detach().clone().requires_grad_() for output, delta in deltas.items()}
    with torch.inference_mode(False), torch.enable_grad():
        outputs = step.replay_all({position: leaf})
        (back,) = torch.autograd.grad(
            [outputs[place] for place in given], leaf, list(given.values()), create_graph=True
        )
        columns = torch.autograd.grad(back[index], list(given.values()), allow_unused=True)
    by_output = dict(zip(given, columns, strict=True))
    return [by_output.get(output) for output in range(len(step.outputs))]


def _row_by_row(step: Step, position: int, index: Index, deltas: dict[int, Tensor]) -> list[Tensor | None]:
    """Return the column from the Jacobian's rows of all outputs with a delta."""
    if sum(int(delta.count_nonzero()) for delta in deltas.values()) > MOST_ROWS:
        raise NotImplementedError("too many rows")
    tangents: list[Tensor | None] = [None] * len(step.outputs)
    for output, delta in deltas.items():
        column = torch.zeros_like(delta)
        for place in delta.nonzero().tolist():
            one_hot = torch.zeros_like(delta)
            one_hot[tuple(place)] = 1
            row = step.vjp({output: one_hot}, [position])[position]
            column[tuple(place)] = 0 if row is None else row[index]
        tangents[output] = column
    return tangents
