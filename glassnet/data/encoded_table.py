"""Rows of a table for a network that was trained on another: encoded by the stored record, with nothing fitted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glassnet._errors import GlassnetError
from glassnet._types import PathArg
from glassnet.data.columns import Cells, TableEncoding, class_texts, note_foreign, notes_on_unknown
from glassnet.data.delimited_file import Rows, decode, read_rows
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.images import SetAside
from glassnet.data.splits import SPLIT_WORDS

SPLIT_COLUMN = "split"


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedRows:
    """Rows as a network's inputs."""

    inputs: Tensor
    """`float32 (N, F)`."""
    sources: tuple[str, ...]
    """What each row is called: the file with its line, or its position among rows given in Python."""
    set_aside: tuple[SetAside, ...]
    """Rows that cannot be encoded, and why."""
    notes: tuple[str, ...]
    """What a reader should know, a sentence each: categories that no training row has."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedTable:
    """A table as a data set for a network that was trained on another."""

    dataset: Dataset
    set_aside: tuple[SetAside, ...]
    """Rows that are not used, by line number, and why."""
    notes: tuple[str, ...]
    """What was understood of the file, a sentence each."""


def encode_file(path: PathArg, encoding: TableEncoding) -> EncodedRows:
    """Encode the rows of a CSV or TSV file; further columns, such as the target, are not looked at.

    Raises `UsageError` for a file without header or rows, and one that lacks a column; `WorkError` for one that
    cannot be read.
    """
    path = Path(path)
    try:
        rows = read_rows(decode(path), [column.name for column in encoding.columns])
    except GlassnetError as error:
        raise type(error)(f"{path}: {error}") from None
    reasons = _foreign_rows(rows, encoding)
    inputs, unknown = encoding.encode_cells(_kept(rows, reasons))
    lines = {**rows.set_aside, **{rows.lines[row]: reason for row, reason in reasons.items()}}
    return EncodedRows(
        inputs=inputs,
        sources=tuple(f"{path}, line {line}" for row, line in enumerate(rows.lines) if row not in reasons),
        set_aside=tuple(SetAside(f"{path}, line {line}", lines[line]) for line in sorted(lines)),
        notes=tuple(f"{path}: {note}" for note in notes_on_unknown(unknown)),
    )


def encode_mappings(rows: Sequence[Mapping[str, object]], encoding: TableEncoding) -> EncodedRows:
    """Encode rows that map the name of a column to its cell, a text or a number; None is a missing value."""
    texts = [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in rows]
    inputs, set_aside = encoding.encode(texts)
    unusable = {item.source for item in set_aside}
    used = {source: row for index, row in enumerate(texts) if (source := f"row {index}") not in unusable}
    return EncodedRows(
        inputs=inputs,
        sources=tuple(used),
        set_aside=set_aside,
        notes=tuple(notes_on_unknown(encoding.unknown_categories(list(used.values())))),
    )


def load_encoded_table(
    path: PathArg, encoding: TableEncoding, class_names: Sequence[str], *, target: str | None = None
) -> EncodedTable:
    """Load a table by the `encoding` of another.

    The column `target`, by default the encoding's, holds classes, `class_names` before others; without class names,
    values. All rows are in the test split, unless a column `split` says otherwise: nothing is learned of them.

    Raises `UsageError` for a missing column, and otherwise as `encode_file`.
    """
    path, target = Path(path), target or encoding.target
    try:
        rows = read_rows(decode(path), [*(column.name for column in encoding.columns), target])
    except GlassnetError as error:
        raise type(error)(f"{path}: {error}") from None
    reasons = _foreign_rows(rows, encoding)
    _note_targets(reasons, target, rows.columns[target], bool(class_names))
    split = _split_column(rows, encoding, target)
    if split is not None:
        for row, text in enumerate(rows.columns[split].texts):
            if text.lower() not in SPLIT_WORDS:
                reasons.setdefault(row, f"column '{split}': expected train, validation or test, got '{text}'")
    cells = _kept(rows, reasons)
    inputs, unknown = encoding.encode_cells(cells)
    whole = ExampleSet(inputs, *_labels(cells[target], class_names))
    words = ["test"] * len(whole) if split is None else [SPLIT_WORDS[text.lower()] for text in cells[split].texts]
    train, validation, test = (
        whole[torch.tensor([word == name for word in words], dtype=torch.bool)]
        for name in ("train", "validation", "test")
    )
    lines = {**rows.set_aside, **{rows.lines[row]: reason for row, reason in reasons.items()}}
    notes = (
        "encoded as the table that the network was trained on",
        *notes_on_unknown(unknown),
        f"{len(whole)} rows with the target '{target}'" + ("" if split else ", all in the test split"),
    )
    dataset = Dataset(path.stem, train, validation, test, seed=0, framing=Framing(encoding=encoding))
    set_aside = tuple(SetAside(f"line {line}", lines[line]) for line in sorted(lines))
    return EncodedTable(dataset=dataset, set_aside=set_aside, notes=notes)


def _foreign_rows(rows: Rows, encoding: TableEncoding) -> dict[int, str]:
    """Return by row the cell that is no number where one is expected."""
    reasons: dict[int, str] = {}
    for column in encoding.columns:
        if column.kind == "numeric":
            note_foreign(reasons, column.name, rows.columns[column.name])
    return reasons


def _kept(rows: Rows, reasons: Mapping[int, str]) -> dict[str, Cells]:
    is_good = np.array([row not in reasons for row in range(len(rows.lines))], dtype=np.bool_)
    return {name: cells[is_good] for name, cells in rows.columns.items()}


def _note_targets(reasons: dict[int, str], target: str, cells: Cells, are_classes: bool) -> None:
    for row in cells.is_missing.nonzero()[0].tolist():
        reasons.setdefault(row, f"no value in the target column '{target}'")
    if not are_classes:
        note_foreign(reasons, target, cells)


def _split_column(rows: Rows, encoding: TableEncoding, target: str) -> str | None:
    used = {target, *(column.name for column in encoding.columns)}
    for name, cells in rows.columns.items():
        is_split = name.lower() == SPLIT_COLUMN and any(text.lower() in SPLIT_WORDS for text in cells.texts)
        if is_split and name not in used:
            return name
    return None


def _labels(cells: Cells, class_names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels `(N,)` and their classes: those known, then others; values and no classes without any known.

    A text that is a class is one as it stands, before numbers are compared by value.
    """
    if not class_names:
        return torch.from_numpy(cells.numbers.astype(np.float32)), ()
    known = set(class_names)
    texts = [
        text if text in known else by_value for text, by_value in zip(cells.texts, class_texts(cells), strict=True)
    ]
    names = (*class_names, *sorted(set(texts) - known))
    place = {name: index for index, name in enumerate(names)}
    return torch.tensor([place[text] for text in texts], dtype=torch.int64), names
