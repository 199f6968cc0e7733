"""The examples of a data set that a layer finds most like an image, found in one streaming pass.

Every example is ranked by bounds in the layer's own precision, while its output is at hand; the few that may be among
the nearest are compared again in float64, and those numbers are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import by
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Batch, Examples, Images, Subject, gather, opened, said_commonest, stream
from glassnet.inspection.capture import layer_of
from glassnet.inspection.likeness import bounds, check_measure, compared
from glassnet.inspection.similarity import collected, read_layer
from glassnet.inspection.units import LayerError


@dataclass(frozen=True, eq=False, kw_only=True)
class Neighbour:
    """One of the examples that are nearest to an image."""

    position: int
    """Where it stands among the examples."""
    value: float
    """Of the measure."""
    label: int | None
    class_name: str
    image: Tensor

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {name: getattr(self, name) for name in ("position", "value", "label", "class_name")}


@dataclass(frozen=True, eq=False, kw_only=True)
class Nearest(Sequence[Neighbour]):
    """The examples that a layer finds most like an image, the nearest first."""

    layer: str
    measure: str
    rows: tuple[Neighbour, ...]
    image: Tensor
    num_examples: int
    set_aside: tuple[SetAside, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.rows[index]

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {
            "layer": self.layer,
            "measure": self.measure,
            "num_examples": self.num_examples,
            "neighbours": [row.to_dict() for row in self.rows],
            "set_aside": [item.__dict__ for item in self.set_aside],
        }

    def __str__(self) -> str:
        text = f"To {self.layer}, example {self.rows[0].position} of {self.num_examples:,} is most like the image "
        text += f"({self.measure} {self.rows[0].value:.3g})"
        return text + said_commonest([row.class_name for row in self.rows], f"the {len(self.rows)} nearest") + "."

    def __repr__(self) -> str:
        return f"Nearest('{self.layer}', {len(self.rows)} of {self.num_examples} examples)"


def nearest(
    subject: Subject,
    image: Images,
    examples: Examples,
    layer: str,
    n: int = 5,
    measure: str = "cosine",
    *,
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> Nearest:
    """Find the `n` examples that `layer` finds most like one image, in one streaming pass over them.

    The model is left as it was. Raises `UsageError` for an unknown layer or measure, several images, and no example.
    """
    model, record = opened(subject, preprocessing)
    check_measure(measure)
    if not isinstance(n, int) or n < 1:
        raise UsageError(f"n must be a whole number of at least 1; got {n!r}.")
    layer_of(model, layer)
    asked = stream(gather(image, model, record), model, record)
    wanted, own = collected(model, record, asked.batches, layer, 2)
    if len(wanted) != 1:
        raise UsageError(f"nearest compares one image with the examples; got {len(wanted)}.")
    source = stream(examples, model, record, batch_size)
    best = _Best(wanted, measure, layer, n)
    for batch in read_layer(model, record, source.batches, layer, best.look):
        best.add(batch, source.class_names)
    if not best.count:
        raise UsageError("There is nothing to compare with: expected at least one example, got none.")
    return Nearest(
        layer=layer,
        measure=measure,
        rows=tuple(neighbour for _, neighbour in best.entries),
        image=own[0].given[0].cpu(),
        num_examples=best.count,
        set_aside=source.set_aside,
    )


class _Best:
    """The nearest examples so far."""

    def __init__(self, wanted: Tensor, measure: str, layer: str, n: int) -> None:
        self.wanted, self.measure, self.layer, self.n = wanted, measure, layer, n
        self.count = 0
        self.entries: list[tuple[float, Neighbour]] = []
        """Each with its likeness, larger for more alike, the nearest first."""
        self._rows = torch.zeros(0, dtype=torch.int64)
        """Of the last batch, those that may be among the nearest, and their values in float64."""
        self._values = torch.zeros(0)

    def look(self, output: Tensor) -> None:
        """Take the layer's output for a batch, `(B, C, ...)`."""
        self.count += len(output)
        if output.shape[1:] != self.wanted.shape[1:]:
            shapes = f"{by(tuple(self.wanted.shape[1:]))}; got {by(tuple(output.shape[1:]))}"
            raise LayerError(
                f"Expected layer '{self.layer}' to give {shapes} for an example. Only outputs of one shape can be "
                "compared: choose another layer, or examples of the image's size."
            )
        self._rows = self._candidates(output)
        self._values = compared(self.wanted, output[self._rows], self.measure, self.layer)

    def add(self, batch: Batch, class_names: Sequence[str]) -> None:
        """Take the batch that was looked at last."""
        found = [
            (self._likeness(value), value, row)
            for value, row in zip(self._values.tolist(), self._rows.tolist(), strict=True)
        ]
        for likeness, value, row in sorted(found, key=lambda entry: (-entry[0], entry[2]))[: self.n]:
            self.entries.append((likeness, _neighbour(batch, row, value, class_names)))
        self.entries.sort(key=lambda entry: (-entry[0], entry[1].position))
        del self.entries[self.n :]

    def _candidates(self, output: Tensor) -> Tensor:
        """Return the rows that may be among the nearest; those whose bounds are no numbers may."""
        if self.measure == "cka":
            return torch.arange(len(output), device=output.device)
        low, high = bounds(self.wanted, output, self.measure)
        least = float(torch.nan_to_num(low, nan=-math.inf).topk(min(self.n, len(low))).values[-1])
        if len(low) < self.n:
            least = -math.inf
        if len(self.entries) == self.n:
            worst = self.entries[-1][0]
            least = max(least, worst if self.measure == "cosine" else -(worst**2))
        return (~(high < least)).nonzero().flatten()

    def _likeness(self, value: float) -> float:
        return -math.inf if math.isnan(value) else -value if self.measure == "euclidean" else value


def _neighbour(batch: Batch, row: int, value: float, class_names: Sequence[str]) -> Neighbour:
    label = None if batch.labels is None or batch.labels.is_floating_point() else int(batch.labels[row])
    return Neighbour(
        position=int(batch.positions[row]),
        value=value,
        label=label,
        class_name=class_names[label] if label is not None and label < len(class_names) else "",
        image=batch.given[row].cpu().clone(),
    )
