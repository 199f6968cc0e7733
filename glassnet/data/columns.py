"""The columns of a table: their cells as numbers or categories, and the record that encodes new rows the same way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassnet._errors import UsageError
from glassnet.data.images import SetAside

MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null", "?"})
"""What stands for a missing value, in lower case; a cell is compared in lower case, without spaces around it."""
MISSING_CATEGORY = "missing"
"""The category of missing cells in a column of categories."""
NUMERIC_SHARE = 0.8
"""A column is one of numbers where at least this share of its cells that are not missing are numbers."""
MAX_CATEGORIES = 100
"""A column of text with more different values is left out: one feature each would be more noise than data."""
ROW_NAMES = ("", "index", "row", "unnamed: 0")
"""Names of columns that only count the rows; so does a name that ends in `id`."""
TASKS = ("classification", "regression")
MAX_CLASS_NUMBERS = 20
"""A target of whole numbers is classes where at most so many differ, each twice or more on average."""
FLOAT32_MAX = float(np.finfo(np.float32).max)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one column, read."""

    texts: Sequence[str]
    """As they stand in the file, without spaces around them."""
    is_missing: Mask
    """`(N,)`."""
    numbers: NDArray[np.float64]
    """`(N,)`; nan where the cell is missing or no finite number within the range of float32."""

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, mask: Mask) -> Cells:
        """Return the cells of the rows in `mask` `(N,)`."""
        return Cells(list(compress(self.texts, mask)), self.is_missing[mask], self.numbers[mask])

    @property
    def is_number(self) -> Mask:
        """Which cells are numbers, `(N,)`."""
        return ~np.isnan(self.numbers)

    @property
    def is_foreign(self) -> Mask:
        """Which cells are neither a number nor missing, `(N,)`; in a column of numbers they are mistakes."""
        return ~self.is_missing & np.isnan(self.numbers)

    @property
    def kind(self) -> str:
        """`numeric`, `categorical`, or `empty` where all cells are missing. The rule is `NUMERIC_SHARE`."""
        num_present = int((~self.is_missing).sum())
        if not num_present:
            return "empty"
        return "numeric" if self.is_number.sum() >= NUMERIC_SHARE * num_present else "categorical"

    @property
    def categories(self) -> list[str]:
        """The category of each cell: its text, or `MISSING_CATEGORY`."""
        if not self.is_missing.any():
            return list(self.texts)
        return [
            MISSING_CATEGORY if missing else text for text, missing in zip(self.texts, self.is_missing, strict=True)
        ]

    def num_distinct(self, kind: str) -> int:
        """Return how many different values there are, missing ones apart; of `numeric` cells, different numbers."""
        if kind == "numeric":
            return len(np.unique(self.numbers[self.is_number]))
        return len(set(compress(self.texts, ~self.is_missing)))


def read_cells(texts: Sequence[str]) -> Cells:
    """Read the cells of one column."""
    texts = [text.strip() for text in texts]
    is_missing = np.array([text.lower() in MISSING_WORDS for text in texts], dtype=np.bool_)
    values = np.full(len(texts), np.nan)
    values[~is_missing] = _numbers(list(compress(texts, ~is_missing)))
    values[~(np.abs(values) <= FLOAT32_MAX)] = np.nan
    return Cells(texts, is_missing, values)


def _numbers(texts: Sequence[str]) -> list[float]:
    """Return the number that each text is, else nan. Python's own `1_000` is no number here."""
    try:
        numbers = [float(text) for text in texts]
        if "_" not in "".join(texts):
            return numbers
    except ValueError:
        pass
    known = {text: _number(text) for text in set(texts)}
    return [known[text] for text in texts]


def _number(text: str) -> float:
    try:
        return np.nan if "_" in text else float(text)
    except ValueError:
        return np.nan


@dataclass(frozen=True, kw_only=True)
class ColumnEncoding:
    """How a cell of one column becomes features: a number stays one, a category becomes a one-hot row.

    Raises `UsageError` for an unknown kind, numbers without a fill, and categories that are none or stand twice.
    """

    name: str
    kind: str
    """`numeric` or `categorical`."""
    categories: tuple[str, ...] = ()
    """The categories of the training rows, sorted, one feature each; with `MISSING_CATEGORY` where cells of theirs are
    missing. Any other category becomes a row of zeros."""
    fill: float | None = None
    """What stands in for a missing number: the median of the training rows."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))
        has_fill = isinstance(self.fill, int | float) and abs(self.fill) <= FLOAT32_MAX
        is_numeric = self.kind == "numeric" and has_fill and not self.categories
        has_categories = 0 < len(self.categories) == len(set(self.categories))
        if not is_numeric and not (self.kind == "categorical" and has_categories and self.fill is None):
            raise UsageError(
                f"Column '{self.name}' must be numeric with a fill, or categorical with categories that differ; got "
                f"kind '{self.kind}', fill {self.fill}, {len(self.categories)} categories."
            )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each feature: that of the column, or `column=category`."""
        if self.kind == "numeric":
            return (self.name,)
        return tuple(f"{self.name}={category}" for category in self.categories)

    def encode(self, cells: Cells) -> tuple[NDArray[np.float32], Mapping[str, int]]:
        """Return the features `(N, F)` of `cells`, and the unknown categories with their counts."""
        if self.fill is not None:
            return np.nan_to_num(cells.numbers, nan=self.fill).astype(np.float32)[:, None], {}
        place = {category: index for index, category in enumerate(self.categories)}
        found = cells.categories
        places = np.array([place.get(category, -1) for category in found], dtype=np.int64)
        features = np.zeros((len(found), len(place)), dtype=np.float32)
        rows = (places >= 0).nonzero()[0]
        features[rows, places[rows]] = 1
        return features, Counter(compress(found, places < 0))


def fit_column(name: str, cells: Cells, kind: str) -> ColumnEncoding:
    """Make the encoding of a column of the given `kind` from the `cells` of the training rows alone."""
    if kind == "numeric":
        known = cells.numbers[cells.is_number]
        return ColumnEncoding(name=name, kind=kind, fill=float(np.median(known)) if len(known) else 0.0)
    return ColumnEncoding(name=name, kind=kind, categories=tuple(sorted(set(cells.categories))))


@dataclass(frozen=True, kw_only=True)
class TableEncoding:
    """How a row of a table becomes a row of numbers; made at training, stored, and applied to new rows.

    Raises `UsageError` for no columns, or two of one name.
    """

    columns: tuple[ColumnEncoding, ...]
    """The columns that are inputs, in the order of their features."""
    target: str = ""
    """The column that is predicted; empty where it has no name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        names = [column.name for column in self.columns]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"An encoding needs at least one column, each with a name of its own; got {names}.")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each of the F features."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def encode(self, rows: Sequence[Mapping[str, str]]) -> tuple[Tensor, tuple[SetAside, ...]]:
        """Return the features `float32 (N, F)` of the rows that can be encoded, in order, and the others.

        A row maps the name of a column to its cell; further columns are not looked at. A row is set aside where it
        lacks a column or has no number in a column of numbers. Missing values are filled as in training, and an
        unknown category becomes zeros (`encode_cells` counts them).
        """
        reasons: dict[int, str] = {}
        columns = {}
        for column in self.columns:
            given = [row.get(column.name) for row in rows]
            cells = read_cells(["" if text is None else str(text) for text in given])
            for index, text in enumerate(given):
                if text is None:
                    reasons.setdefault(index, f"expected a cell for column '{column.name}'; the row has none")
            if column.kind == "numeric":
                note_foreign(reasons, column.name, cells)
            columns[column.name] = cells
        is_good = np.array([index not in reasons for index in range(len(rows))], dtype=np.bool_)
        inputs, _ = self.encode_cells({name: cells[is_good] for name, cells in columns.items()})
        return inputs, tuple(SetAside(f"row {index}", reasons[index]) for index in sorted(reasons))

    def unknown_categories(self, rows: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, int]]:
        """Return the categories of `rows` that no training row has, with their counts, by column."""
        unknown = {}
        for column in self.columns:
            if column.kind == "categorical":
                cells = read_cells([row[column.name] for row in rows if column.name in row])
                if foreign := column.encode(cells)[1]:
                    unknown[column.name] = foreign
        return unknown

    def encode_cells(self, columns: Mapping[str, Cells]) -> tuple[Tensor, dict[str, Mapping[str, int]]]:
        """Return the features `float32 (N, F)` of `columns` by name, and their unknown categories with counts."""
        features, unknown = [], {}
        for column in self.columns:
            values, foreign = column.encode(columns[column.name])
            features.append(values)
            if foreign:
                unknown[column.name] = foreign
        return torch.from_numpy(np.concatenate(features, axis=1)), unknown

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        columns = [{**asdict(column), "categories": list(column.categories)} for column in self.columns]
        return {"columns": columns, "target": self.target}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableEncoding:
        """Make the encoding that `to_dict` gave. Raises `UsageError` where something is missing or foreign."""
        try:
            columns = tuple(ColumnEncoding(**column) for column in values["columns"])
            return cls(columns=columns, target=str(values.get("target", "")))
        except (TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f"Expected the encoding of a table, columns with name, kind, categories and fill; got {values!r} "
                f"({error}). Store what to_dict gives."
            ) from None


def note_foreign(reasons: dict[int, str], name: str, cells: Cells) -> None:
    """Add to `reasons`, by row, each cell of a column of numbers that is none; a row keeps its first reason."""
    for index in cells.is_foreign.nonzero()[0].tolist():
        reasons.setdefault(index, f"column '{name}': expected a number, got '{_shortened(cells.texts[index])}'")


def _shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[:length] + "..."


def why_left_out(name: str, cells: Cells) -> str | None:
    """Return why a column is of no use as an input, or None where it is of use."""
    if cells.kind == "empty":
        return "it has no values"
    counts_rows = name.lower() in ROW_NAMES or name.lower().endswith("id") or re.fullmatch(r"column \d+", name)
    if counts_rows and cells.is_number.all() and len(cells) > 1 and bool((np.diff(cells.numbers) == 1).all()):
        return "it counts the rows"
    if cells.kind == "categorical" and (count := cells.num_distinct("categorical")) > MAX_CATEGORIES:
        return f"it is text with {count} different values (at most {MAX_CATEGORIES})" + comma_hint(cells)
    return None


def comma_hint(cells: Cells) -> str:
    """Return a remark, to be put behind others, where most cells are numbers with a decimal comma; else nothing."""
    distinct = set(cells.texts) if cells.kind == "categorical" else set()
    num_commas = sum(re.fullmatch(r"[-+]?[\d.]*\d,\d+", text) is not None for text in distinct)
    if num_commas <= len(distinct) / 2:
        return ""
    return "; they look like numbers with decimal commas: save them with points"


def class_texts(cells: Cells) -> list[str]:
    """Return the class of each cell of a target column: its text; among numbers, 1 and 1.0 are both `1`."""
    if cells.kind != "numeric":
        return list(cells.texts)
    return [
        str(int(number)) if number == number // 1 else text
        for text, number in zip(cells.texts, cells.numbers.tolist(), strict=True)
    ]


def by_number(name: str) -> tuple[bool, float, str]:
    """Sort numbers by value, before texts."""
    number = read_cells([name]).numbers[0]
    return bool(np.isnan(number)), float(np.nan_to_num(number)), name


@dataclass(frozen=True, kw_only=True)
class ColumnRecord:
    """What was understood of one column, over the rows that are used."""

    name: str
    role: str
    """`input`, `target`, `split` or `left out`."""
    kind: str
    """`numeric`, `categorical`, or `empty`."""
    num_missing: int
    num_distinct: int
    """Different values, missing ones apart."""
    remarks: tuple[str, ...] = ()
    """What a reader should know, in words: missing values and what stands for them, why it is left out, ..."""


def describe_column(name: str, cells: Cells, role: tuple[str, str], encoding: TableEncoding) -> ColumnRecord:
    """Return the record of a column with the `role`, a word and why it is left out, from its used `cells`."""
    kind, num_missing = cells.kind, int(cells.is_missing.sum())
    remarks = [f"left out: {role[1]}"] if role[1] else []
    column = next((column for column in encoding.columns if column.name == name), None)
    if column is not None:
        kind = column.kind
        if num_missing:
            median = f"filled with {column.fill or 0:g}, the median to train"
            remedy = "a category of its own" if column.fill is None else median
            remarks.append(f"missing in {num_missing} of {len(cells)} rows: {remedy}")
        if cells.num_distinct(kind) + (kind == "categorical" and num_missing > 0) < 2:
            remarks.append("constant: it tells nothing")
        if hint := comma_hint(cells):
            remarks.append(hint.removeprefix("; "))
    return ColumnRecord(
        name=name,
        role=role[0],
        kind=kind,
        num_missing=num_missing,
        num_distinct=cells.num_distinct(kind),
        remarks=tuple(remarks),
    )


def notes_on_unknown(unknown: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Say which categories of each column, by name with their counts, are none of the training rows'."""
    for name, counts in unknown.items():
        listed = ", ".join(f"'{category}' ({count})" for category, count in list(counts.items())[:5])
        more = ", ..." if len(counts) > 5 else ""
        yield f"column '{name}': categories that no training row has become zeros: {listed}{more}"


def infer_task(cells: Cells) -> tuple[str, str]:
    """Return the task that the cells of a target column suggest, and why: the rule is at `MAX_CLASS_NUMBERS`."""
    if cells.kind != "numeric":
        return "classification", "the target is text"
    numbers = cells.numbers[cells.is_number]
    count, num_present = cells.num_distinct("numeric"), int((~cells.is_missing).sum())
    is_whole = bool((numbers == np.rint(numbers)).all())
    has_few = is_whole and count <= MAX_CLASS_NUMBERS and num_present >= 2 * count
    kind = "different whole numbers" if is_whole else "different numbers, not all whole"
    return "classification" if has_few else "regression", f"the target has {count} {kind}"


def choose_task(name: str, cells: Cells, task: str | None) -> tuple[str, str]:
    """Return the task and why it is this one. Raises `UsageError` for a target that does not suit."""
    is_numeric = cells.kind == "numeric"
    count = cells.num_distinct(cells.kind)
    num_present = int((~cells.is_missing).sum())
    if task == "regression" and not is_numeric:
        text = next(text for text, is_foreign in zip(cells.texts, cells.is_foreign, strict=True) if is_foreign)
        raise UsageError(
            f"Expected numbers in the target column '{name}' for regression; got text, such as '{text}'"
            f"{comma_hint(cells)}. Name another column, or leave task out."
        )
    inferred, why = infer_task(cells)
    chosen = task or inferred
    if chosen == "classification" and count == num_present:
        raise UsageError(
            f"Expected classes in the target column '{name}'; all {count} values differ{comma_hint(cells)}. "
            "Name another column: target=."
        )
    return (task, "as asked for") if task else (inferred, why)
