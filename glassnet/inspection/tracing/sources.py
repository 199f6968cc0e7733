"""Walking down from a number to those that made it, and to those that made them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet.inspection.tracing.derivation import number
from glassnet.inspection.tracing.rules import Answer, Question, itemised
from glassnet.inspection.tracing.terms import NOWHERE, Kind
from glassnet.inspection.tracing.values import Value

if TYPE_CHECKING:
    from glassnet.inspection.tracing.record import Trace

Place = tuple[Value, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Source:
    """One number that another was made from."""

    address: str
    value: float
    weight: float
    """nan where the number was turned into another by a formula."""
    product: float
    """What it contributed to the number above."""
    share: float
    """The product relative to the sum of all absolute products of the number above, with its sign."""
    through: tuple[str, ...]
    """The steps that were walked through to get to what its own sources are, nearest first."""
    sources: tuple[Source, ...]
    """Its own sources, where the walk went deeper."""
    place: Place = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "address": self.address,
            "value": self.value,
            "weight": None if self.weight != self.weight else self.weight,
            "product": self.product,
            "share": self.share,
            "through": list(self.through),
            "sources": [source.to_dict() for source in self.sources],
        }


@dataclass(frozen=True, eq=False)
class Sources:
    """The inputs that contributed most to a unit, the largest first."""

    address: str
    value: float
    through: tuple[str, ...]
    """The steps that were walked through first."""
    found: tuple[Source, ...]

    def __iter__(self) -> Iterator[Source]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, place: int) -> Source:
        return self.found[place]

    def __str__(self) -> str:
        through = f", through {', '.join(self.through)}" if self.through else ""
        return "\n".join([f"{self.address} = {number(self.value, 4)}{through}, came from", *_lines(self.found, 1)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "address": self.address,
            "value": self.value,
            "through": list(self.through),
            "sources": [source.to_dict() for source in self.found],
        }


class Driver(NamedTuple):
    """One unit on the strongest ways to a number above."""

    address: str
    value: float
    share: float
    """The shares along a way multiplied, summed over the ways that were followed."""


def drivers_of(
    trace: Trace, value: Value, index: tuple[int, ...], k: int, depth: int | None
) -> tuple[tuple[Driver, ...], ...]:
    """Return by depth the `k` units with the largest shares of a number; see `Unit.drivers`."""
    if k < 1 or (depth is not None and depth < 1):
        raise UsageError(f"k and depth must be at least 1; got k={k}, depth={depth}. Write drivers(k=5).")
    layers: list[tuple[Driver, ...]] = []
    frontier: dict[Place, float] = {(value, index): 1.0}
    while frontier and (depth is None or len(layers) < depth):
        found: dict[Place, float] = {}
        for place, share in frontier.items():
            for below, part in _shares(trace, place, k):
                found[below] = found.get(below, 0.0) + share * part
        frontier = dict(sorted(found.items(), key=lambda item: -abs(item[1]))[:k])
        if frontier:
            layers.append(
                tuple(
                    Driver(trace.naming.text((value, index)), float(value.tensor[index]), share)
                    for (value, index), share in frontier.items()
                )
            )
    return tuple(layers)


def _shares(trace: Trace, place: Place, k: int) -> list[tuple[Place, float]]:
    """Return the `4 k` largest contributors to where a place leads, each with its share: more than are kept,
    because several places may share one.
    """
    answer, _ = _walked(trace, place)
    if answer is None:
        return []
    rows = _contributing(answer)
    product = answer.product[0][rows]
    whole = float(product.abs().sum())
    order = product.abs().argsort(descending=True, stable=True)[: 4 * k]
    return [(_place(answer, int(row)), float(answer.product[0, row]) / whole if whole else 0.0) for row in rows[order]]


def sources_of(trace: Trace, value: Value, index: tuple[int, ...], k: int, depth: int) -> Sources:
    """Return the largest contributors; see `Unit.sources`."""
    if k < 1 or depth < 1:
        raise UsageError(f"k and depth must be at least 1; got k={k}, depth={depth}. Write sources(k=5, depth=2).")
    through, found = _below(trace, (value, index), k, depth)
    return Sources(trace.naming.text((value, index)), float(value.tensor[index]), through, found)


def _below(trace: Trace, place: Place, k: int, depth: int) -> tuple[tuple[str, ...], tuple[Source, ...]]:
    """Return the steps that were walked through from `place`, and the sources of where that led."""
    answer, through = _walked(trace, place)
    if answer is None or depth == 0:
        return through, ()
    rows = _contributing(answer)
    product = answer.product[0][rows]
    whole = float(product.abs().sum())
    order = product.abs().argsort(descending=True, stable=True)[:k]
    found = []
    for row in rows[order].tolist():
        below = _place(answer, row)
        deeper = _below(trace, below, k, depth - 1) if depth > 1 else ((), ())
        part = float(answer.product[0, row])
        found.append(
            Source(
                address=trace.naming.text(below),
                value=float(answer.value[0, row]),
                weight=float(answer.factor[0, row]),
                product=part,
                share=part / whole if whole else 0.0,
                through=deeper[0],
                sources=deeper[1],
                place=below,
            )
        )
    return through, tuple(found)


def _walked(trace: Trace, place: Place) -> tuple[Answer | None, tuple[str, ...]]:
    """Follow numbers that were made from one other; return the first answer of several, None at an input."""
    through: list[str] = []
    while True:
        value, index = place
        if value.step is None:
            return None, tuple(through)
        step = trace.steps[value.step]
        with torch.inference_mode(False), torch.no_grad():
            at = torch.tensor([index], dtype=torch.long).reshape(1, len(index))
            answer = itemised(Question(step, value.origin.output, at))
        rows = _contributing(answer)
        if len(rows) != 1 or _is_weighted(answer):
            return (answer if len(rows) else None), tuple(through)
        through.append(step.name)
        place = _place(answer, int(rows[0]))


def _contributing(answer: Answer) -> Tensor:
    """Return the terms that stand somewhere and have a part in the number."""
    kind, which = answer.kind[0], answer.at.which[0]
    is_part = (kind == Kind.PRODUCT) | (kind == Kind.TAKEN)
    return (is_part & (which != NOWHERE)).nonzero()[:, 0]


def _is_weighted(answer: Answer) -> bool:
    """Return whether the terms are products with a matrix of parameters: a layer, also where it has one input."""
    if answer.factor_at is None:
        return False
    weight = answer.factor_at.values[0]
    return weight.source == "parameter" and len(weight.shape) > 1


def _place(answer: Answer, row: int) -> Place:
    value = answer.at.values[int(answer.at.which[0, row])]
    return value, tuple(answer.at.index[0, row, : len(value.shape)].tolist())


def _lines(sources: tuple[Source, ...], level: int) -> Iterator[str]:
    width = max((len(source.address) for source in sources), default=0)
    for source in sources:
        weight = "" if source.weight != source.weight else f" x {number(source.weight, 4)}"
        through = f"   (then through {', '.join(source.through)})" if source.through and source.sources else ""
        yield (
            f"{'  ' * level}{source.share:+7.1%}  {source.address:<{width}}  "
            f"{number(source.value, 4)}{weight} = {number(source.product, 4)}{through}"
        )
        yield from _lines(source.sources, level + 2)
