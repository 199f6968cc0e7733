"""The terms that one number is made of, in columns, and the record of how they come to it.

Shared by forward units, deltas, gradients of weights and optimizer steps: each is a list of products, a constant, a
total in float64, and torch's own value beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassnet.inspection.tracing import derivation
from glassnet.inspection.tracing.naming import Naming
from glassnet.inspection.tracing.values import Value

NOWHERE = -1


class Kind(IntEnum):
    """What a term is; `ABSENT` fills columns where one unit has fewer terms than another."""

    ABSENT = 0
    PRODUCT = 1
    PADDING = 2
    """Outside the input: a zero that was put there."""
    TAKEN = 3
    """The winner of a maximum, or where a number was copied from."""
    TIE = 4
    """As large as the winner."""
    PASSED_OVER = 5
    """In the window, and not taken."""

    @property
    def word(self) -> str:
        """What is said of it beside its number; nothing of a plain product."""
        return {2: "padding", 3: "taken", 4: "tie", 5: "not taken"}.get(int(self), "")


@dataclass(frozen=True, eq=False)
class Places:
    """Where the numbers of a column stand: one place in one of `values` for each."""

    values: tuple[Value, ...]
    which: Tensor
    """`(..., T)`: the position in `values`; `NOWHERE` for a number that stands in none."""
    index: Tensor
    """`(..., T, rank)`: the index in that value; outside it for padding. Values of lower rank use the first entries."""

    def of(self, rows: Tensor) -> Places:
        """Return the places of `rows` of a single column."""
        return Places(self.values, _picked(self.which, rows), _picked(self.index, rows))

    def of_unit(self, number: int) -> Places:
        """Return one unit's of `(U, T)` places."""
        return Places(self.values, self.which[number], self.index[number])

    def __iter__(self) -> Iterator[tuple[Value, tuple[int, ...]] | None]:
        """Yield value and index of every place of a single column; None for `NOWHERE`."""
        for which, index in zip(self.which.tolist(), self.index.tolist(), strict=True):
            value = None if which == NOWHERE else self.values[which]
            yield None if value is None else (value, tuple(index[: len(value.shape)]))


@dataclass(frozen=True, eq=False, kw_only=True)
class Terms:
    """Terms in columns: `(T,)` for one number, `(U, T)` for several at once."""

    value: Tensor
    """float64: the number that is weighted (an activation; of a delta, the consumer's delta)."""
    factor: Tensor
    """float64: its weight (of a delta, the local derivative). nan where the product is another function."""
    product: Tensor
    """float64: value times factor, or what the value is turned into."""
    kind: Tensor
    """int8, a `Kind` each."""
    at: Places
    """Where the values stand."""
    factor_at: Places | None = None
    """Where the factors stand; None where they are worked out (an average's 1/n)."""
    naming: Naming = field(repr=False)

    def __len__(self) -> int:
        return int(self.value.shape[-1])

    def of(self, rows: Tensor) -> Terms:
        """Return some of the terms of one number, in the order of `rows`."""
        return replace(
            self,
            value=_picked(self.value, rows),
            factor=_picked(self.factor, rows),
            product=_picked(self.product, rows),
            kind=_picked(self.kind, rows),
            at=self.at.of(rows),
            factor_at=None if self.factor_at is None else self.factor_at.of(rows),
        )

    def of_unit(self, number: int) -> Terms:
        """Return one unit's terms of `(U, T)` columns, without absent ones."""
        found = replace(
            self,
            value=self.value[number],
            factor=self.factor[number],
            product=self.product[number],
            kind=self.kind[number],
            at=self.at.of_unit(number),
            factor_at=None if self.factor_at is None else self.factor_at.of_unit(number),
        )
        is_there = found.kind != Kind.ABSENT
        return found if bool(is_there.all()) else found.of(is_there.nonzero()[:, 0])

    def largest(self, k: int | None = None) -> Terms:
        """Return the terms by the size of their product, the largest first."""
        order = self.product.abs().nan_to_num(posinf=math.inf).argsort(descending=True, stable=True)
        return self.of(order if k is None else order[:k])

    @property
    def sources(self) -> list[str]:
        """The addresses of the values, `features.3:4@2,5`; outside the input for padding."""
        return [self.naming.text(place) for place in self.at]

    @property
    def factor_sources(self) -> list[str]:
        """The addresses of the factors, `conv1.weight[3,0,1,1]`; empty where they are worked out."""
        if self.factor_at is None:
            return [""] * len(self)
        return [self.naming.text(place) for place in self.factor_at]

    @property
    def words(self) -> list[str]:
        """What is said of each term: `padding`, `taken`, `tie`, or nothing."""
        return [Kind(kind).word for kind in self.kind.tolist()]

    def partial_sums(self) -> list[PartialSum]:
        """Return the sum of the products of each channel of each source value, in their order."""
        sums: list[PartialSum] = []
        for which, value in enumerate(self.at.values):
            rows = (self.at.which == which).nonzero()[:, 0]
            if not len(rows):
                continue
            axis = self.naming.channel_axis(value)
            index = _picked(self.at.index, rows)
            channels = index[:, axis] if value.shape else torch.zeros(len(rows), dtype=torch.long)
            found, place = channels.unique(return_inverse=True)
            total = torch.zeros(len(found), dtype=torch.float64).index_add(0, place, _picked(self.product, rows))
            count = torch.zeros(len(found)).index_add(0, place, torch.ones(len(place)))
            sums += [
                PartialSum(self.naming.channel_text(value, channel), channel, int(number), part)
                for channel, number, part in zip(found.tolist(), count.tolist(), total.tolist(), strict=True)
            ]
        return sums


def _picked(column: Tensor, rows: Tensor) -> Tensor:
    """Return rows of a column; by NumPy, because torch would share the few out among threads."""
    return torch.from_numpy(column.numpy()[rows.numpy()])


class PartialSum(NamedTuple):
    """The sum of the products of one channel of the input."""

    source: str
    """The channel's address, `conv1:3`."""
    channel: int
    num_terms: int
    total: float


@dataclass(frozen=True, eq=False, kw_only=True)
class UnitTrace:
    """How one number came about: its terms, the total in float64, and torch's value beside it."""

    address: str
    """What it is, `features.6:12@3,5`, `conv1.weight[3,0,1,1]`."""
    op: str
    """The operation that made it."""
    formula: str
    """In words of arithmetic, `sum of value x weight + bias`."""
    terms: Terms
    bias: float | None
    """What is added to the products; None where there is nothing."""
    total: float
    """The result of the formula, accumulated in float64."""
    value: float
    """torch's own."""
    scale: float
    """What rounding is measured against: the sum of the absolute terms."""
    heads: tuple[str, str, str, str] = ("source", "value", "weight", "product")
    """What the columns are called."""
    working: tuple[tuple[str, float], ...] = ()
    """Numbers on the way, by name: a mean, a variance, a largest logit."""
    notes: tuple[str, ...] = ()
    """What a reader must know, a sentence each: that it is a linearisation, that there was a tie."""
    bias_source: str = ""
    """The address of the bias, where it is a parameter."""
    is_sum: bool = True
    """True where the total is the sum of the products and the bias; False for another formula (a softmax)."""
    is_linearisation: bool = False
    """True where there is no rule: the terms are those of the Jacobian's row, and the total is not the value."""

    @property
    def difference(self) -> float:
        """The total less torch's value."""
        return 0.0 if self.total == self.value else self.total - self.value

    @property
    def relative_difference(self) -> float:
        """The difference relative to the sum of the absolute terms; 0 where both are the same, infinite or nan too."""
        if self.total == self.value or (math.isnan(self.total) and math.isnan(self.value)):
            return 0.0
        return abs(self.difference) / max(self.scale, 1e-300)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address}, {self.op}, {len(self.terms)} terms, {self.value:.6g})"

    def to_text(self, *, all: bool = False, limit: int = 16) -> str:
        """Return an aligned table for a terminal: the `limit` largest terms, or with `all` every one in its order."""
        return derivation.to_text(self, all=all, limit=limit)

    def to_markdown(self, *, all: bool = False, limit: int = 16) -> str:
        """Return the same as Markdown."""
        return derivation.to_markdown(self, all=all, limit=limit)

    def to_latex(self, *, all: bool = False, limit: int = 9) -> str:
        """Return a worked derivation as a LaTeX `align*` block."""
        return derivation.to_latex(self, all=all, limit=limit)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; numbers that are not finite are None."""
        return derivation.to_dict(self)
