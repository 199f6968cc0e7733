"""What happened, a row per epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields

from glassnet._errors import WorkError


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch. Losses are means, in the unit of the loss; accuracies are shares, 0..1, nan for a regression."""

    epoch: int
    """Counts from 1."""
    step: int
    """Optimizer steps taken since the start of the run."""
    num_examples: int
    """Training examples seen in this epoch; fewer than the set where the epoch was interrupted."""
    learning_rate: float
    """At the last step of the epoch."""
    train_loss: float
    """Mean over the epoch's batches, each before its update; without label smoothing, as the hold-out loss."""
    train_accuracy: float
    """Likewise: of the weights as they were at each batch."""
    validation_loss: float
    """Of the weights at the end of the epoch; nan without a validation split."""
    validation_accuracy: float
    """Likewise."""
    images_per_s: float
    """Training speed without validation and saving."""
    epoch_s: float
    """Seconds from the start of the epoch to the end of its validation."""


@dataclass(frozen=True)
class History(Sequence[EpochRow]):
    """The rows of a run, in order."""

    rows: tuple[EpochRow, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.rows[index]

    def __iter__(self) -> Iterator[EpochRow]:
        return iter(self.rows)

    def column(self, name: str) -> list[float]:
        """Return one field of every row, such as `validation_loss`."""
        return [getattr(row, name) for row in self.rows]

    @property
    def best(self) -> EpochRow:
        """The row of the lowest hold-out loss, the earliest of equals; without a validation split the last row."""
        scored = [row for row in self.rows if not math.isnan(row.validation_loss)]
        return min(scored, key=lambda row: row.validation_loss) if scored else self.rows[-1]

    def to_csv(self) -> str:
        """Return the rows as CSV text; numbers read back equal."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> History:
        """Read rows that `to_csv` wrote. Raises `WorkError` that names the line at fault."""
        reader = csv.DictReader(io.StringIO(text))
        if reader.fieldnames is None or list(reader.fieldnames) != _FIELDS:
            raise WorkError(f"Expected the columns {', '.join(_FIELDS)}; got {reader.fieldnames}.")
        rows = []
        for number, line in enumerate(reader, start=2):
            try:
                rows.append(EpochRow(**{name: _TYPES[name](value) for name, value in line.items()}))
            except (TypeError, ValueError, KeyError):
                raise WorkError(f"Line {number} does not hold one number for each column: {line}.") from None
        return cls(tuple(rows))


_FIELDS = [field.name for field in fields(EpochRow)]
_TYPES = {field.name: {"int": int, "float": float}[str(field.type)] for field in fields(EpochRow)}
