"""Finite differences beside autograd's gradient."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from glassnet._errors import UsageError
from glassnet.inspection.tracing.address import WEIGHT, Address, WeightAddress
from glassnet.inspection.tracing.derivation import aligned, number
from glassnet.inspection.tracing.float64_pass import Float64Pass
from glassnet.inspection.tracing.local_derivatives import gradient_of
from glassnet.inspection.tracing.values import Value

if TYPE_CHECKING:
    from glassnet.inspection.tracing.record import Trace

Index = tuple[int, ...]
APART = 1e-3
"""Relative difference of the derivatives on both sides above which a function is taken to have a kink there."""

AGREED = {8: 1e-6, 4: 1e-3}
"""Relative difference up to which gradient and finite difference agree, by the bytes of a number; else 5e-2."""


@dataclass(frozen=True, kw_only=True)
class GradientRow:
    """One number, its gradient twice."""

    address: str
    gradient: float
    """autograd's."""
    numeric: float
    """(L(x + e) - L(x - e)) / 2e"""
    left: float
    """(L(x) - L(x - e)) / e"""
    right: float
    """(L(x + e) - L(x)) / e"""

    @property
    def difference(self) -> float:
        """autograd's gradient less the finite difference."""
        return self.gradient - self.numeric

    @property
    def relative_difference(self) -> float:
        """Relative to the larger of both; 0 where both are 0."""
        return abs(self.difference) / max(abs(self.gradient), abs(self.numeric), 1e-30) if self.difference else 0.0

    @property
    def has_kink(self) -> bool:
        """True where the sides differ: within the step a ReLU switches, or another input is the largest of a pool."""
        return abs(self.left - self.right) > APART * max(abs(self.left), abs(self.right), 1e-12)


@dataclass(frozen=True, kw_only=True)
class GradientCheck:
    """Finite differences of some numbers of one value, beside autograd."""

    of: str
    epsilon: float
    rows: tuple[GradientRow, ...]
    tolerance: float
    """Relative to the larger of both, with a floor of the same share of the largest gradient here."""
    notes: tuple[str, ...] = ()

    @property
    def worst(self) -> GradientRow:
        """The row with the largest relative difference."""
        return max(self.rows, key=lambda row: row.relative_difference)

    @property
    def disagreeing(self) -> tuple[GradientRow, ...]:
        """Rows beyond the tolerance that no kink explains."""
        largest = max(abs(row.gradient) for row in self.rows)
        return tuple(
            row
            for row in self.rows
            if not row.has_kink
            and not abs(row.difference) <= self.tolerance * (max(abs(row.gradient), abs(row.numeric)) + largest) + 1e-12
        )

    def __str__(self) -> str:
        head = ("number", "autograd", "finite difference", "relative difference", "")
        rows = [
            (row.address, number(row.gradient, 8), number(row.numeric, 8), number(row.relative_difference, 2),
             "kink" if row.has_kink else "") for row in self.rows
        ]  # fmt: skip
        verdict = f"{len(self.disagreeing)} of {len(self.rows)} disagree" if self.disagreeing else "All agree"
        lines = [f"Gradients of {self.of}, steps of {self.epsilon:g} in float64"]
        lines += [f"  {line}" for line in aligned([head, *rows])]
        return "\n".join(
            [*lines, f"  {verdict} (tolerance {self.tolerance:g}).", *(f"  Note: {n}" for n in self.notes)]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        extra = [{"relative_difference": row.relative_difference, "has_kink": row.has_kink} for row in self.rows]
        return {
            **asdict(self),
            "rows": [{**asdict(row), **more} for row, more in zip(self.rows, extra, strict=True)],
            "num_disagreeing": len(self.disagreeing),
        }


def gradient_check(trace: Trace, of: str, n: int, epsilon: float, seed: int) -> GradientCheck:
    """Return finite differences of numbers of `of`; see `Trace.gradient_check`."""
    trace._require_label()
    if n < 1 or not epsilon > 0:
        raise UsageError(f"A gradient check needs n of at least 1 and a step above 0; got n={n}, epsilon={epsilon}.")
    value, open_index = _named(trace, of)
    if not value.tensor.is_floating_point():
        raise UsageError(f"Gradients are of real numbers; '{of}' holds {value.tensor.dtype}. Name another.")
    gradient = gradient_of(value)
    again = Float64Pass(trace)
    base = again.loss({})
    rows = [
        _row(again, value, index, 0.0 if gradient is None else float(gradient[index]), base, epsilon, trace)
        for index in _drawn(open_index, value.shape, n, seed)
    ]
    notes = [f"Computed in the model's own precision: {', '.join(again.rounded)}."] if again.rounded else []
    if trace.read_by_program:
        notes.append("The model's Python code reads numbers of the pass; they are held fixed, as autograd does.")
    tolerance = AGREED.get(value.tensor.element_size(), 5e-2)
    return GradientCheck(of=of, epsilon=epsilon, rows=tuple(rows), tolerance=tolerance, notes=tuple(notes))


def _row(
    again: Float64Pass, value: Value, index: Index, gradient: float, base: float, epsilon: float, trace: Trace
) -> GradientRow:
    above, below = (again.loss({value: _moved(again.tensor(value), index, by)}) for by in (epsilon, -epsilon))
    return GradientRow(
        address=trace.naming.text((value, index)),
        gradient=gradient,
        numeric=(above - below) / (2 * epsilon),
        left=(base - below) / epsilon,
        right=(above - base) / epsilon,
    )


def _moved(tensor: Tensor, index: Index, by: float) -> Tensor:
    moved = tensor.clone()
    moved[index] += by
    return moved


def _named(trace: Trace, of: str) -> tuple[Value, tuple[int | slice, ...]]:
    """Return the value that a text names, and the index of the numbers in it: a parameter, a weight, units."""
    if of in trace.parameters:
        value = trace.parameter(of)
        return value, (slice(None),) * len(value.shape)
    match = WEIGHT.fullmatch(of)
    if match is not None and match["path"] in trace.parameters:
        return trace.locate_weight(WeightAddress.parse(of))
    location = trace.locate(Address.parse(of))
    return location.value, location.index


def _drawn(open_index: tuple[int | slice, ...], shape: tuple[int, ...], n: int, seed: int) -> Iterator[Index]:
    """Yield up to `n` different indices among those that `open_index` leaves open."""
    draw = random.Random(seed)
    ranges = [
        range(size)[place] if isinstance(place, slice) else range(place, place + 1)
        for place, size in zip(open_index, shape, strict=True)
    ]
    count = 1
    for places in ranges:
        count *= len(places)
    for chosen in sorted(draw.sample(range(count), min(n, count))):
        index = []
        for places in reversed(ranges):
            chosen, place = divmod(chosen, len(places))
            index.append(places[place])
        yield tuple(reversed(index))
