"""Units of a trace, itemised: one with every term, or many at once with their totals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import by
from glassnet.inspection.tracing.address import Address
from glassnet.inspection.tracing.perturbation import Perturbation, without
from glassnet.inspection.tracing.rules import Answer, Question, itemised
from glassnet.inspection.tracing.rules.question import grid
from glassnet.inspection.tracing.sources import Driver, Sources, drivers_of, sources_of
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.terms import Terms, UnitTrace
from glassnet.inspection.tracing.values import Value

if TYPE_CHECKING:
    from glassnet.inspection.tracing.record import Trace

MOST_TERMS = 1 << 19
"""Terms worked out at once where many units are asked for: about 60 MB."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Unit(UnitTrace):
    """One number that a step made, as the sum or formula of the numbers it was made from."""

    step: Step = field(repr=False)
    made: Value = field(repr=False)
    """The step's output that it stands in."""
    index: tuple[int, ...]
    """Where in it, with the batch axis."""
    trace: Trace = field(repr=False)

    @property
    def delta(self) -> UnitTrace:
        """dL/d(unit), as the sum over the units that it feeds; raises `UsageError` without a label."""
        return self.trace.delta(self.address)

    def sources(self, k: int = 5, depth: int = 1) -> Sources:
        """Return the `k` inputs that contributed most, and of each its own down to `depth` layers.

        Steps that make a number of one other (activations, normalisations, views, the winner of a maximum) are walked
        through and count for no layer; the walk ends at the model's inputs. A share is the product relative to the
        sum of the absolute products of its unit. Raises `UsageError` unless both numbers are at least 1.
        """
        return sources_of(self.trace, self.made, self.index, k, depth)

    def drivers(self, k: int = 5, depth: int | None = None) -> tuple[tuple[Driver, ...], ...]:
        """Return layer by layer, down to the model's inputs or `depth` layers, the `k` units that drove this one most.

        Of each layer's units the `k` with the largest share are followed further. A share here is the product of the
        shares (see `sources`) along the way, summed over the ways followed. Raises `UsageError` as `sources`.
        """
        return drivers_of(self.trace, self.made, self.index, k, depth)

    def perturb(self, address: str, value: float | Tensor) -> Perturbation:
        """Set a pixel, unit or weight to `value`; return what torch makes of it, here first. See `Trace.perturb`."""
        return self.trace.perturb(address, value, watch=self.address)

    def without(self, address: str) -> float:
        """Return what this number is with a pixel, unit, channel or weight set to 0, recomputed by torch.

        Raises as `Trace.perturb`.
        """
        return without(self.trace, (self.made, self.index), address)


@dataclass(frozen=True, eq=False, kw_only=True)
class Units:
    """Many units of one step at once: a channel, an image, all.

    Its tensors have the axes that the address leaves open.
    """

    address: str
    op: str
    formula: str
    value: Tensor = field(repr=False)
    """torch's own."""
    total: Tensor = field(repr=False)
    """float64."""
    scale: Tensor = field(repr=False)
    """The sum of the absolute terms of each."""
    bias: Tensor | None = field(repr=False)
    is_linearisation: bool
    made: Value = field(repr=False)
    step: Step = field(repr=False)
    indices: Tensor = field(repr=False)
    """`(*shape, rank)`: where each unit stands in the step's output."""
    trace: Trace = field(repr=False)

    @property
    def difference(self) -> Tensor:
        """The totals less torch's values."""
        return torch.where(self.total == self.value, 0.0, self.total - self.value.double())

    @property
    def relative_difference(self) -> Tensor:
        """The absolute differences relative to the sums of the absolute terms; 0 where both are nan."""
        is_same = (self.total == self.value) | (self.total.isnan() & self.value.isnan())
        return (self.difference.abs() / self.scale.clamp(min=1e-300)).masked_fill(is_same, 0.0)

    def __len__(self) -> int:
        return self.value.numel()

    def __getitem__(self, position: int | tuple[int, ...]) -> Unit:
        """Return one of the units with its terms, by its place among the open axes."""
        place = position if isinstance(position, tuple) else (position,)
        shape = tuple(self.value.shape)
        if len(place) != len(shape) or any(not -n <= p < n for p, n in zip(place, shape, strict=True)):
            raise UsageError(f"A unit of {self.address} has {len(shape)} indices in {by(shape)}; got {place}.")
        return unit_at(self.trace, self.made, tuple(self.indices[place].tolist()))

    def __str__(self) -> str:
        worst = float(self.relative_difference.max()) if len(self) else 0.0
        low, high = (float(self.value.min()), float(self.value.max())) if len(self) else (math.nan, math.nan)
        return (
            f"{self.address}: {len(self):,} units ({by(tuple(self.value.shape))}) of {self.step.name}, {self.op}: "
            f"{self.formula}. Values {low:.4g} to {high:.4g}. "
            + (
                "A linearisation, not compared."
                if self.is_linearisation
                else f"Totals in float64 differ from torch's by at most {worst:.2g} of the sum of the absolute terms."
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "address": self.address,
            "op": self.op,
            "formula": self.formula,
            "shape": list(self.value.shape),
            "value": self.value.tolist(),
            "total": self.total.tolist(),
            "relative_difference": self.relative_difference.tolist(),
            "is_linearisation": self.is_linearisation,
        }


def unit_of(trace: Trace, address: str | Address) -> Unit:
    """Return the unit that an address names; see `Trace.unit`."""
    location = trace.locate(address)
    return unit_at(trace, location.value, location.unit)


def unit_at(trace: Trace, value: Value, index: tuple[int, ...]) -> Unit:
    """Return one number of a step's output, itemised."""
    naming = trace.naming
    step = _maker(trace, value, naming.text((value, index)))
    answer = answer_of(trace, value, torch.tensor([index], dtype=torch.long).reshape(1, len(index)))
    terms = terms_of(trace, answer).of_unit(0)
    bias_at = None if answer.bias_at is None else (answer.bias_at[0], tuple(answer.bias_at[1][0].tolist()))
    return Unit(
        address=naming.text((value, index)),
        op=step.op,
        formula=answer.formula,
        terms=terms,
        bias=None if answer.bias is None else float(answer.bias[0]),
        bias_source=naming.text(bias_at),
        total=float(answer.total[0]),
        value=float(value.tensor[index]),
        scale=float(answer.scale[0]),
        working=tuple((word, float(numbers[0])) for word, numbers in answer.working),
        notes=answer.notes,
        is_sum=answer.is_sum,
        is_linearisation=answer.is_linearisation,
        step=step,
        made=value,
        index=index,
        trace=trace,
    )


def units_of(trace: Trace, address: str | Address) -> Units:
    """Return the units of a channel, an image or a step; see `Trace.units`."""
    location = trace.locate(address)
    value = location.value
    step = _maker(trace, value, str(location.address))
    ranges = [range(size)[place] for place, size in zip(location.index, value.shape, strict=True)]
    starts = [found.start if isinstance(found, range) else found for found in ranges]
    counts = [len(found) if isinstance(found, range) else 1 for found in ranges]
    index = grid(counts) + torch.tensor(starts, dtype=torch.long)
    shape = tuple(len(found) for found in ranges if isinstance(found, range))
    answers = list(_chunks(trace, value, index))
    bias = [answer.bias for answer in answers if answer.bias is not None]
    return Units(
        address=str(location.address),
        op=step.op,
        formula=answers[0].formula if answers else "",
        value=value.tensor[location.index].cpu(),
        total=torch.cat([answer.total for answer in answers]).reshape(shape),
        scale=torch.cat([answer.scale for answer in answers]).reshape(shape),
        bias=torch.cat(bias).reshape(shape) if bias and len(bias) == len(answers) else None,
        is_linearisation=any(answer.is_linearisation for answer in answers),
        made=value,
        step=step,
        indices=index.reshape(*shape, -1),
        trace=trace,
    )


def answer_of(trace: Trace, value: Value, index: Tensor) -> Answer:
    """Return the terms of units `index` `(U, rank)` of a step's output."""
    assert value.step is not None, "an input has no terms"
    with torch.inference_mode(False), torch.no_grad():
        return itemised(Question(trace.steps[value.step], value.origin.output, index))


def terms_of(trace: Trace, answer: Answer) -> Terms:
    """Return an answer's columns `(U, T)`."""
    return Terms(
        value=answer.value,
        factor=answer.factor,
        product=answer.product,
        kind=answer.kind,
        at=answer.at,
        factor_at=answer.factor_at,
        naming=trace.naming,
    )


def _chunks(trace: Trace, value: Value, index: Tensor) -> list[Answer]:
    """Answer in parts of about `MOST_TERMS` terms, by the number of terms of the first unit."""
    if not len(index):
        return []
    num_terms = answer_of(trace, value, index[:1]).value.shape[1]
    return [answer_of(trace, value, part) for part in index.split(max(1, MOST_TERMS // max(num_terms, 1)))]


def _maker(trace: Trace, value: Value, address: str) -> Step:
    if value.step is None:
        raise UsageError(
            f"A unit that was computed is needed; '{address}' is given to the model, and nothing made it. "
            f"Ask for one of a step, such as '{trace.steps[0].name}' ({by(trace.steps[0].shape)})."
        )
    return trace.steps[value.step]
