"""A summary's rows as text: the tree for a terminal, Markdown, and the table of a lecture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from glassnet._types import Shape, by
from glassnet.inspection.rows import Container, LayerRow

Totals = Sequence[tuple[str, Mapping[str, str]]]
"""Lines under a table: what stands first in them, and cells by the column's title."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    cell: Callable[[LayerRow], str]
    is_left: bool = False
    rank: int = 0
    """Where the terminal is narrow, columns of a high rank are left out first; those of rank 0 always stay."""


def _same(sizes: Shape) -> str:
    """Return one number where all axes have it."""
    return by(sizes[:1] if len(set(sizes)) == 1 else sizes)


def _count(number: int | None) -> str:
    return "not counted" if number is None else f"{number:,}"


def _channels(row: LayerRow) -> str:
    """Return `3 -> 64` for images and signals; nothing for vectors, whose size is their number of features."""
    if len(row.input_shape) < 2 or len(row.output_shape) < 2:
        return ""
    into, out = row.input_shape[0], row.output_shape[0]
    return f"{into}" if into == out else f"{into} -> {out}"


KERNEL = Column("kernel", lambda row: by(row.kernel_size), rank=2)
STRIDE = Column("stride", lambda row: _same(row.stride), rank=3)
PAD = Column("pad", lambda row: _same(row.padding), rank=4)
PARAMETERS = Column("parameters", lambda row: f"{row.num_parameters:,}")

FULL = (
    Column("kind", lambda row: "function" if row.is_function else row.kind, is_left=True),
    Column("input", lambda row: by(row.input_shape), is_left=True, rank=5),
    Column("output", lambda row: by(row.output_shape), is_left=True),
    KERNEL,
    STRIDE,
    PAD,
    PARAMETERS,
    Column("multiplications", lambda row: _count(row.num_multiplications)),
    Column("additions", lambda row: _count(row.num_additions), rank=1),
    Column("KiB", lambda row: f"{row.num_bytes / 1024:,.1f}", rank=1),
    Column("field", lambda row: by(row.field_size), rank=1),
)
"""All that a row holds; the layer's name goes before."""

LECTURE = (
    Column("in", lambda row: by(row.input_shape[1:] or row.input_shape), is_left=True),
    Column("out", lambda row: by(row.output_shape[1:] or row.output_shape), is_left=True),
    KERNEL,
    STRIDE,
    PAD,
    Column("channels", _channels),
    PARAMETERS,
)
"""As lecture tables have it: sizes without channels, and these on their own."""


def lecture_rows(rows: Iterable[LayerRow]) -> list[LayerRow]:
    """Return the rows that a lecture's table has: those with a window or weights, and those that pool."""
    return [
        row
        for row in rows
        if row.kernel_size
        or row.is_weighted
        or (row.num_additions and len(row.input_shape) > 1 and row.output_shape != row.input_shape)
    ]


def tree(rows: Sequence[LayerRow], containers: Sequence[Container]) -> list[tuple[str, LayerRow | Container]]:
    """Return the rows under the modules that hold them: indented last names, a line for each module on the way."""
    by_name = {container.name: container for container in containers}
    lines: list[tuple[str, LayerRow | Container]] = []
    open_path: list[str] = []
    for row in rows:
        *path, last = row.name.split(".")
        shared = next((i for i, (a, b) in enumerate(zip(path, open_path, strict=False)) if a != b), None)
        shared = min(len(path), len(open_path)) if shared is None else shared
        for depth in range(shared, len(path)):
            name = ".".join(path[: depth + 1])
            if name in by_name:
                lines.append(("  " * depth + path[depth], by_name[name]))
        open_path = path
        lines.append(("  " * len(path) + last, row))
    return lines


def text_table(
    columns: Sequence[Column],
    lines: Sequence[tuple[str, LayerRow | Container]],
    totals: Totals,
    max_width: int | None = None,
) -> str:
    """Return lines of aligned columns; without the columns that `max_width` signs have no room for."""
    columns = list(columns)
    while True:
        text = _aligned(_cells(columns, lines, totals), 1 + sum(column.is_left for column in columns))
        width = max(len(line) for line in text.splitlines())
        worst = max(columns, key=lambda column: column.rank, default=None)
        if max_width is None or width <= max_width or worst is None or worst.rank == 0:
            return text
        columns.remove(worst)


def markdown_table(columns: Sequence[Column], lines: Sequence[tuple[str, LayerRow]], totals: Totals) -> str:
    """Return the table in Markdown: numbers to the right, the last lines in bold."""
    header, *body = _cells(columns, lines, totals)
    rule = [":--", *(":--" if column.is_left else "--:" for column in columns)]
    num_rows = len(lines)
    cells = [*body[:num_rows], *([f"**{cell}**" if cell else "" for cell in line] for line in body[num_rows:])]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in (header, rule, *cells)]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped)


def _cells(
    columns: Sequence[Column], lines: Sequence[tuple[str, LayerRow | Container]], totals: Totals
) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = [("layer", *(column.title for column in columns))]
    for label, row in lines:
        if isinstance(row, Container):
            cells.append((label, *(row.kind if column.title == "kind" else "" for column in columns)))
        else:
            cells.append((label, *(column.cell(row) for column in columns)))
    for label, values in totals:
        line = (label, *(values.get(column.title, "") for column in columns))
        if any(line[1:]):
            cells.append(line)
    return cells


def _aligned(cells: Sequence[tuple[str, ...]], num_left: int) -> str:
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
