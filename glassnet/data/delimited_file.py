"""Delimited text, CSV or TSV: a header and rows of cells; the delimiter is found by trial."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from glassnet._errors import UsageError, WorkError, nearest_names
from glassnet.data.columns import Cells, read_cells
from glassnet.data.label_files import IMAGE_SUFFIXES

TABLE_SUFFIXES = (".csv", ".tsv")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a file that have as many cells as its header."""

    columns: Mapping[str, Cells]
    lines: Sequence[int]
    """The line in which each row begins, counted from 1."""
    set_aside: Mapping[int, str]
    """The other rows by line, and why."""
    delimiter: str


def decode(path: Path) -> str:
    """Return the text of a file, UTF-8, or UTF-16 with its mark. Raises `WorkError` for what is no text."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise WorkError(f"Expected a table that can be read; got {error.strerror or error}.") from None
    is_utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise WorkError(
            f"Expected text as UTF-8; got the byte 0x{raw[error.start]:02x} in line {line}. Save the table as UTF-8."
        ) from None
    if "\0" in text:
        raise WorkError("Expected a table as text; got binary data. Export it as CSV.")
    if not text.strip():
        raise UsageError("Expected a table with a header; the file is empty. Save it again.")
    return text


def read_rows(text: str, expected: Collection[str] = ()) -> Rows:
    """Read the rows of a table with a header; `expected` are columns that it must have, one at least.

    Raises `UsageError` for a table without header or rows, and for a column that is missing or stands twice.
    """
    delimiter = _sniff(text, expected)
    rows: list[list[str]] = []
    lines: list[int] = []
    set_aside: dict[int, str] = {}
    names: list[str] = []
    for line, row in _parse(text, delimiter):
        if isinstance(row, str):
            set_aside[line] = row
        elif not names:
            names = [name.strip() for name in row]
        elif len(row) != len(names):
            set_aside[line] = f"expected {len(names)} cells, as in the header; got {len(row)}"
        else:
            rows.append(row)
            lines.append(line)
    if len(names) < 2 and not expected:
        raise UsageError(
            f"Expected a header of two columns at least, divided by {', '.join(DELIMITERS.values())}; got {names}."
        )
    if expected:
        _check_expected(names, expected)
    if not rows:
        first = next((f"none: line {line}: {reason}" for line, reason in set_aside.items()), "none")
        raise UsageError(f"Expected rows of {len(names)} cells, as in the header; got {first}. Correct the table.")
    columns = [read_cells(column) for column in zip(*rows, strict=True)]
    if not expected:
        _check_header(names, columns)
    named = [name or f"column {place}" for place, name in enumerate(names, start=1)]
    return Rows(dict(zip(named, columns, strict=True)), lines, set_aside, delimiter)


def _check_expected(names: Sequence[str], expected: Collection[str]) -> None:
    """Raise `UsageError` where a column that is needed is missing, or stands twice."""
    known = {name or f"column {place}" for place, name in enumerate(names, start=1)}
    missing = [name for name in expected if name not in known]
    if missing:
        near = nearest_names(missing[0], known, 1)
        hint = f" Did you mean '{near[0]}'? Rename it." if near else " Add or rename it."
        shown = ", ".join(f"'{name}'" for name in names[:10]) + (", ..." if len(names) > 10 else "")
        raise UsageError(
            f"Expected the column{'s' if len(missing) > 1 else ''} {', '.join(repr(name) for name in missing[:10])}, "
            f"which the network was trained on; got a header of {shown}.{hint}"
        )
    twice = next((name for name in expected if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"Expected columns with names that differ; '{twice}' stands twice. Rename one.")


def _sniff(text: str, expected: Collection[str]) -> str:
    """Return the delimiter by which most of the first rows have as many cells, two at least, as the first of all.

    One by which the first row has more of the `expected` cells goes before.
    """

    def fit(delimiter: str) -> tuple[int, int, int]:
        rows = [row for _, row in islice(_parse(text, delimiter), 50) if not isinstance(row, str)]
        first = [cell.strip() for cell in rows[0]] if rows else []
        num_expected = len(set(expected).intersection(first))
        if len(first) < 2:
            return num_expected, 0, 0
        return num_expected, sum(len(row) == len(first) for row in rows), len(first)

    return max(DELIMITERS, key=fit)


def _parse(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the line in which each row begins, and its cells, or what is wrong with it; blank lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            is_open = "unexpected end" in str(error)
            yield line, f"a quote is opened and never closed, up to line {reader.line_num}" if is_open else str(error)
            continue
        if len(row) > 1 or any(cell.strip() for cell in row):
            yield line, row


def _check_header(names: Sequence[str], columns: Sequence[Cells]) -> None:
    """Refuse a first line that is a row of data, and names that stand twice.

    It is data where each column of numbers begins with a number already (unless they count up by one, as the years
    do, or the names that pandas gives); without such columns, where each name is also a value of its column. A name
    that ends as an image's does is the first row of a list of images.
    """
    header = read_cells(names)
    numeric = [place for place, column in enumerate(columns) if column.kind == "numeric"]
    numbers = header.numbers[numeric]
    if numeric:
        counts_up = len(numbers) > 2 and bool((np.diff(numbers) == 1).all())
        is_data = bool(header.is_number[numeric].any()) and not header.is_foreign[numeric].any() and not counts_up
    else:
        is_data = all(name in column.texts for name, column in zip(header.texts, columns, strict=True))
    is_list = any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)
    if is_data or is_list:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise UsageError(
            f"Expected a header, the names of the columns, in the first line; got what looks like data: {shown}. "
            f"Put the names before it, such as {'filename' if is_list else 'x1,x2'},label."
        )
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"Expected columns with names that differ; '{twice}' stands twice. Rename one.")
