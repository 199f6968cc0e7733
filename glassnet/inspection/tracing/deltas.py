"""Deltas: dL/d(unit) as the sum over the units that it feeds.

Rumelhart, Hinton and Williams (1986), "Learning representations by back-propagating errors", Nature 323. A unit y_i
that feeds units x_j has dE/dy_i = sum_j dE/dx_j * w_ji (their equation 7), where w_ji is what x_j changes by with y_i.
There x_j is a weighted sum and w_ji its weight; here x_j is any operation and w_ji its local derivative, so that their
equation 5, dE/dx_j = dE/dy_j * dy_j/dx_j, is the same sum with one term. It starts at the loss with dL/dL = 1, and for
softmax and cross-entropy the first derivative is p_k - t_k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet.inspection.tracing.address import Address
from glassnet.inspection.tracing.fan_out import fed_by
from glassnet.inspection.tracing.local_derivatives import Column, gradient_of
from glassnet.inspection.tracing.naming import Naming
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.terms import NOWHERE, Kind, Places, Terms, UnitTrace
from glassnet.inspection.tracing.values import Value

if TYPE_CHECKING:
    from glassnet.inspection.tracing.record import Trace

Index = tuple[int, ...]
HEADS = ("fed unit", "its delta", "local derivative", "product")


class Sum(NamedTuple):
    """Terms and what to say of them."""

    terms: Terms
    working: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]


def delta(trace: Trace, address: str | Address) -> UnitTrace:
    """Return how dL/d(unit) comes about; see `Trace.delta`."""
    trace._require_label()
    location = trace.locate(address)
    text, value, index = str(location.address), location.value, location.unit
    if not value.tensor.is_floating_point():
        kind = "complex" if value.tensor.is_complex() else "whole"
        raise UsageError(f"A delta is of a unit with real numbers; '{text}' has {kind} ones. Name another unit.")
    op = "input" if value.step is None else trace.steps[value.step].op
    gradient = gradient_of(value)
    if value == trace.loss_value:
        return _of_loss(trace, text, op, 1.0 if gradient is None else float(gradient))
    if gradient is None:
        note = "The loss does not depend on this unit by a way that autograd knows."
        found = Sum(in_columns((), trace.naming), (), (note,))
    else:
        found = summed(trace, value, index)
    return UnitTrace(
        address=text,
        op=op,
        formula="dL/d(unit) = sum over the units it feeds of their delta x local derivative",
        terms=found.terms,
        bias=None,
        total=float(found.terms.product.sum()),
        value=0.0 if gradient is None else float(gradient[index]),
        scale=scale_of(found.terms, value.tensor.dtype),
        heads=HEADS,
        working=found.working,
        notes=found.notes,
    )


def scale_of(terms: Terms, dtype: torch.dtype) -> float:
    """Return what rounding is measured against: the sum of the absolute terms.

    Terms below the smallest normal number of `dtype` have few figures, or are rounded to 0; so much is allowed of each.
    """
    info = torch.finfo(dtype)
    return max(float(terms.product.abs().sum()), max(len(terms), 1) * info.smallest_normal / info.eps)


def summed(trace: Trace, value: Value, index: Index) -> Sum:
    """Return a term for every unit that the number at `index` of `value` feeds, through every step that reads it."""
    columns: list[Column] = []
    working: list[tuple[str, float]] = []
    notes: list[str] = []
    for step, position in trace.consumers(value):
        found = fed_by(step, position, index)
        columns += found.columns
        if found.unexplained is not None:
            columns.append(whole(step, found.unexplained))
            notes.append(
                f"The backward function of {step.name} is no product with a matrix of local derivatives: what it "
                "returned stands as one number."
            )
        if step.op == "cross_entropy" and step.input_names[position] == "input":
            working += softmax_working(step, index)
    if not columns and trace.consumers(value):
        names = dict.fromkeys(step.name for step, _ in trace.consumers(value))
        notes.append(f"No loss flows back: it is read by {', '.join(names)}, where no output changes with it.")
    return Sum(in_columns(columns, trace.naming), tuple(working), tuple(notes))


def whole(step: Step, passed: float) -> Column:
    """Return one term for what a step passes back, without the units that it comes from."""
    empty = torch.zeros(1, 0, dtype=torch.long)
    return Column(step.output, empty, torch.tensor([passed], dtype=torch.float64), torch.ones(1, dtype=torch.float64))


def in_columns(columns: Sequence[Column], naming: Naming) -> Terms:
    """Return the units of several outputs as one table."""
    deltas = _joined([column.delta for column in columns])
    derivatives = _joined([column.derivative for column in columns])
    has_weights = any(column.weight is not None for column in columns)
    return Terms(
        value=deltas,
        factor=derivatives,
        product=deltas * derivatives,
        kind=torch.full((len(deltas),), Kind.PRODUCT, dtype=torch.int8),
        at=places((column.value, column.index) for column in columns),
        factor_at=places((c.weight, c.weight_index, len(c.delta)) for c in columns) if has_weights else None,
        naming=naming,
    )


def places(found: Iterable[tuple[Value | None, Tensor | None] | tuple[Value | None, Tensor | None, int]]) -> Places:
    """Return pairs of a value and the indices in it, `(T, rank)`, as one column; `NOWHERE` for those without a value.

    A third entry is the number of terms, for pairs without indices.
    """
    values: list[Value] = []
    which: list[Tensor] = []
    indices: list[Tensor] = []
    for value, index, *count in found:
        length = len(index) if index is not None else int(count[0])
        if value is None or index is None or index.shape[1] != len(value.shape):
            which.append(torch.full((length,), NOWHERE))
            indices.append(torch.zeros(length, 0, dtype=torch.long))
            continue
        if value not in values:
            values.append(value)
        which.append(torch.full((length,), values.index(value)))
        indices.append(index)
    width = max((index.shape[1] for index in indices), default=0)
    padded = [F.pad(index, (0, width - index.shape[1])) for index in indices]
    if not padded:
        return Places((), torch.zeros(0, dtype=torch.long), torch.zeros(0, 0, dtype=torch.long))
    return Places(tuple(values), torch.cat(which), torch.cat(padded))


def softmax_working(step: Step, index: Index) -> list[tuple[str, float]]:
    """Return p_k, t_k and n of the derivative (p_k - t_k) / n of cross-entropy by a logit, where it has that form.

    Bridle (1990), "Probabilistic interpretation of feedforward classification network outputs"; t is one-hot, or
    smoothed. Weighted classes and ignored labels have other forms and are left to the local derivative alone.
    """
    logits, target = step.inputs[0].tensor.double(), step.inputs[1].tensor
    named = step.named
    plain = all(named.get(name) is None for name in ("weight", "size_average", "reduce"))
    if not plain or logits.ndim != 2 or named.get("reduction", "mean") not in {"mean", "sum"}:
        return []
    image, k = index
    if not target.is_floating_point() and bool((target == named.get("ignore_index", -100)).any()):
        return []
    smoothing = float(named.get("label_smoothing", 0.0))
    hard = target[image, k].double() if target.is_floating_point() else (target[image] == k).double()
    t = float(hard) * (1 - smoothing) + smoothing / logits.shape[1]
    n = len(logits) if named.get("reduction", "mean") == "mean" else 1
    p = float(logits[image].softmax(0)[k])
    return [(f"softmax p_{k}", p), (f"target t_{k}", t), ("images n", float(n)), (f"(p_{k} - t_{k}) / n", (p - t) / n)]


def _of_loss(trace: Trace, text: str, op: str, gradient: float) -> UnitTrace:
    """Return where the sum starts: the loss changes by one with itself."""
    return UnitTrace(
        address=text,
        op=op,
        formula="dL/dL = 1",
        terms=in_columns((), trace.naming),
        bias=1.0,
        total=1.0,
        value=gradient,
        scale=1.0,
        heads=HEADS,
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=torch.float64)
