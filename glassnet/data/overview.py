"""What a data set is, before anything is done with it: splits, classes, counts, sizes, and what looks wrong."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size
from torch import Tensor

from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.images import SetAside
from glassnet.data.label_files import listed, printable
from glassnet.data.preprocessing import cropped_share
from glassnet.data.splits import SPLITS

MOST_CLASSES = 20
"""With more classes, the table shows the largest and the smallest."""
MOST_NAME_CELLS = 40
"""A longer class name is cut in the table; in cells of the terminal."""
MOST_SHOWN = 3
"""How many files are named for each reason to set them aside."""
MOST_REASONS = 10
MUCH_CROPPED = 0.25
"""Above this share of the pixels, what a crop throws away gets a word of advice."""
LEAST_CROPPED = 0.0005
"""A smaller share, 0.0 %, is as good as none."""
MODE_WORDS = {"L": "grey", "RGB": "colour (RGB)"}
MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The smallest, the median and the largest of some values."""

    smallest: float
    median: float
    largest: float

    def __str__(self) -> str:
        return " / ".join(f"{value:,.6g}" for value in (self.smallest, self.median, self.largest))


@dataclass(frozen=True, kw_only=True)
class SplitOverview:
    """One split."""

    num_examples: int
    class_counts: tuple[int, ...]
    """Examples of each class, in the order of the class names; empty for regression."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A data set as it was understood; what `describe_dataset` returns."""

    name: str
    layout: str
    """How the source was understood, in words; empty where there was nothing to understand."""
    kind: str
    """`images`, or `numbers`."""
    splits: dict[str, SplitOverview]
    """By name: `train`, `validation`, `test`."""
    class_names: tuple[str, ...]
    """Empty for regression."""
    input_shape: tuple[int, ...]
    """Shape of one input; for image files with the median height and width."""
    mode: str | None
    """What images are read as, `L` or `RGB`; None for numbers and for another number of channels."""
    height: Spread | None
    """Of the images, in pixels; None for numbers."""
    width: Spread | None
    """Likewise."""
    fit: str | None
    """How images come into a network's input, `crop`, `pad` or `stretch`; None for numbers."""
    interpolation: str | None
    """Likewise: `nearest`, `bilinear`, `bicubic` or `lanczos`."""
    cropped_share: float | None
    """Share (0..1) of all pixels that `crop` throws away at `input_size`; None for numbers."""
    input_size: tuple[int, int] | None
    """Height and width of the network's input; None where it is not known, and taken for square."""
    values: Spread | None
    """Of the values to predict in training; None for classes."""
    imbalance: float | None
    """How many times the smallest class to train on the largest is; classes without an example are left out."""
    notes: tuple[str, ...]
    set_aside: tuple[SetAside, ...]

    @property
    def num_examples(self) -> int:
        """Examples in all splits."""
        return sum(split.num_examples for split in self.splits.values())

    def lines(self) -> list[str]:
        """Return the overview as lines for a terminal, in aligned columns."""
        kind = "examples" if self.kind == "numbers" else self.kind
        what = f"{len(self.class_names):,} classes" if self.class_names else "values to predict"
        lines = [f"{printable(self.name)}: {self.num_examples:,} {kind}, {what}"]
        facts = self._facts()
        width = max(map(len, facts))
        lines += [f"  {name:<{width}}  {value}" for name, value in facts.items()]
        lines += ["", *_table(self._rows())]
        if self.notes:
            lines += ["", "Notes", *(f"  - {printable(note)}" for note in self.notes)]
        if self.set_aside:
            lines += ["", f"Set aside: {len(self.set_aside):,}", *_reasons(self.set_aside)]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the overview as plain values for JSON."""
        return {**asdict(self), "num_examples": self.num_examples}

    def _facts(self) -> dict[str, str]:
        facts = {"layout": self.layout} if self.layout else {}
        if self.kind == "numbers":
            facts["input"] = " x ".join(f"{size:,}" for size in self.input_shape)
        else:
            facts["read as"] = MODE_WORDS.get(self.mode or "", f"{self.input_shape[0]} channels")
        spreads = {"height": self.height, "width": self.width, "values": self.values}
        facts |= {name: f"{spread}  (smallest / median / largest)" for name, spread in spreads.items() if spread}
        if self.fit is not None:
            facts["fit"] = f"{self.fit}, {self.interpolation}{self._crop_words()}"
        if self.imbalance is not None:
            facts["imbalance"] = f"{self.imbalance:.3g} to 1 between the largest and the smallest class in train"
        return facts

    def _crop_words(self) -> str:
        """Return what a crop throws away, and the remedy where that is much."""
        if self.fit != "crop" or self.cropped_share is None:
            return ""
        size = "a square input" if self.input_size is None else "an input of {}x{}".format(*self.input_size)
        if self.cropped_share < LEAST_CROPPED:
            return f"; for {size}, no pixel is thrown away"
        words = f"; for {size}, {self.cropped_share:.1%} of the pixels lie outside and are thrown away"
        return words + (" (--fit pad keeps them)" if self.cropped_share > MUCH_CROPPED else "")

    def _rows(self) -> list[list[str]]:
        """Return the table of counts: a header, a row per class or some of them, the totals."""
        counts = [split.class_counts for split in self.splits.values()]
        columns = zip(self.class_names, *counts, strict=True)
        rows = [[name, *(f"{count:,}" for count in of_class)] for name, *of_class in columns]
        title = "class" if self.class_names else ""
        if len(rows) > MOST_CLASSES:
            title, rows = "class, by size", self._extremes(rows)
        return [[title, *self.splits], *rows, ["all", *(f"{split.num_examples:,}" for split in self.splits.values())]]

    def _extremes(self, rows: list[list[str]]) -> list[list[str]]:
        """Return the rows of the largest and the smallest classes in training, with a gap between them."""
        counts = self.splits["train"].class_counts
        order = sorted(range(len(rows)), key=lambda index: (-counts[index], self.class_names[index]))
        half = MOST_CLASSES // 2
        gap = [f"... {len(rows) - 2 * half:,} more"]
        return [*(rows[index] for index in order[:half]), gap, *(rows[index] for index in order[-half:])]


def describe_dataset(
    dataset: Dataset,
    *,
    layout: str = "",
    notes: Sequence[str] = (),
    set_aside: Sequence[SetAside] = (),
    input_size: tuple[int, int] | None = None,
) -> Overview:
    """Sum up a data set; `layout`, `notes` and `set_aside` are what its loader has to say (see `LabelledDataset`).

    `input_size` is the height and width of the network's input, where it is known.
    """
    train = dataset.train
    splits = {name: _split(getattr(dataset, name)) for name in SPLITS}
    sizes = dataset.image_sizes() if train.is_image else None
    counts = [count for count in splits["train"].class_counts if count]
    return Overview(
        name=dataset.name,
        layout=layout,
        kind="images" if train.is_image else "numbers",
        splits=splits,
        class_names=dataset.class_names,
        input_shape=train.input_shape,
        mode=MODES.get(train.input_shape[0]) if train.is_image else None,
        height=None if sizes is None else _spread(sizes[:, 0]),
        width=None if sizes is None else _spread(sizes[:, 1]),
        fit=None if sizes is None else dataset.framing.fit,
        interpolation=None if sizes is None else dataset.framing.interpolation,
        cropped_share=None if sizes is None else _cropped(sizes, dataset, input_size),
        input_size=input_size if train.is_image else None,
        values=_spread(train.labels.flatten()) if train.is_regression else None,
        imbalance=max(counts) / min(counts) if counts else None,
        notes=tuple(notes),
        set_aside=tuple(set_aside),
    )


def _split(examples: ExampleSet) -> SplitOverview:
    counts = () if examples.is_regression else tuple(examples.class_counts())
    return SplitOverview(num_examples=len(examples), class_counts=counts)


def _cropped(sizes: Tensor, dataset: Dataset, input_size: tuple[int, int] | None) -> float:
    return cropped_share(sizes, input_size or (1, 1)) if dataset.framing.fit == "crop" else 0.0


def _spread(values: Tensor) -> Spread | None:
    """Return the spread of `(N,)`, None of nothing; the median is a value that occurs, the lower of two."""
    if not len(values):
        return None
    return Spread(smallest=values.min().item(), median=values.median().item(), largest=values.max().item())


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines: the first column to the left, the others to the right, by the width on the terminal."""
    names = [printable(row[0]) for row in rows]
    names = [
        name if cell_len(name) <= MOST_NAME_CELLS else set_cell_size(name, MOST_NAME_CELLS - 1) + "…" for name in names
    ]
    name_width = max(map(cell_len, names))
    widths = [max((len(row[column]) for row in rows if len(row) > 1), default=0) for column in range(1, len(rows[0]))]
    return [
        "  " + "  ".join([set_cell_size(name, name_width), *map(str.rjust, row[1:], widths)]).rstrip()
        for name, row in zip(names, rows, strict=True)
    ]


def _reasons(set_aside: Sequence[SetAside]) -> list[str]:
    """Return a line for each reason, the commonest first, with the first files that it concerns.

    Reasons that differ in numbers alone, such as how many bytes are missing, are one.
    """
    by_reason: dict[str, list[SetAside]] = defaultdict(list)
    for item in set_aside:
        by_reason[re.sub(r"\d+", "0", item.reason)].append(item)
    commonest = sorted(by_reason.values(), key=len, reverse=True)
    width = len(f"{len(commonest[0]):,}")
    lines = []
    for items in commonest[:MOST_REASONS]:
        files = listed([item.source for item in items], MOST_SHOWN)
        lines.append(f"  {len(items):>{width},}  {printable(items[0].reason)}: {files}")
    if left := sum(map(len, commonest[MOST_REASONS:])):
        lines.append(f"  {left:>{width},}  for other reasons")
    return lines
