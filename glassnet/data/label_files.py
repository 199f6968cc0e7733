"""A CSV that labels the image files beside it: `filename,label[,split]`."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from glassnet._errors import GlassnetError, UsageError, WorkError, nearest_names, unknown_name
from glassnet.data.columns import infer_task, read_cells
from glassnet.data.content import Content, Entry, Slice
from glassnet.data.images import SetAside
from glassnet.data.splits import SPLIT_WORDS

FILE_COLUMNS = ("filename", "file", "image", "path")
LABEL_COLUMNS = ("label", "class", "target")
SPLIT_COLUMN = "split"
DELIMITERS = (",", ";", "\t")
SUFFIXES = (".csv", ".tsv")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".avif"})
"""By which a column of files is known to be one of images."""


class LabelledFile(NamedTuple):
    """An image with its class name."""

    path: Entry
    label: str
    split: str
    """`train`, `validation` or `test`; empty text where the source does not say."""


@dataclass(frozen=True, kw_only=True)
class LabelledFiles:
    """What a folder or a CSV says about image files."""

    files: tuple[LabelledFile, ...]
    set_aside: tuple[SetAside, ...]
    notes: tuple[str, ...]
    layout: str
    """How the source was understood, in words."""
    task: str = "classification"
    """`regression` where the labels are values to predict."""
    class_order: tuple[str, ...] = ()
    """The names of all classes in their order, where the source has one; else they are sorted."""


class _Columns(NamedTuple):
    """Where the values stand in a row; `split` is None where there is no such column."""

    delimiter: str
    file: int
    label: int
    split: int | None
    is_known: bool
    """Whether the label column has a name that says so."""

    @property
    def last(self) -> int:
        return max(self.file, self.label, -1 if self.split is None else self.split)


class _Row(NamedTuple):
    line: int
    file: str
    label: str
    split: str


def printable(text: str | os.PathLike[str]) -> str:
    """Return a file's name fit for a terminal and for UTF-8: what cannot be printed becomes U+FFFD."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in os.fspath(text))


def shown(path: Entry, folder: Path) -> str:
    """Return the path of a file for a reader: from `folder` where it lies below it; of a member, `archive!member`."""
    if isinstance(path, Content):
        return f"{shown(path.path, folder)}!{printable(path.name)}" if isinstance(path, Slice) else printable(str(path))
    return printable(path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path)


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return names as text, in quotation marks: the first few, and how many more there are."""
    names = list(names)
    text = ", ".join(f"'{printable(name)}'" for name in names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 image`, `1,200 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def class_name(text: str) -> str:
    """Return a class name as it is compared: accents composed (Unicode NFC); file systems differ in spelling them."""
    return unicodedata.normalize("NFC", text)


def is_label_file(path: Path, target: str | None = None, *, takes_any_name: bool = True) -> bool:
    """Return whether `path` is a CSV or TSV whose header names a file column and a label column.

    The label column is `target`, else one of `LABEL_COLUMNS`, else, with `takes_any_name`, the only one that is left;
    under another name than those, the first row must name an image file.
    """
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    columns = _columns(path, target, takes_any_name)
    return columns is not None and (columns.is_known or _names_image(path, columns))


def find_label_file(files: Sequence[Path], target: str | None = None, *, takes_any_name: bool = True) -> Path | None:
    """Return the one label file among `files` (see `is_label_file`), or None. `UsageError` where there are several."""
    found = [path for path in files if is_label_file(path, target, takes_any_name=takes_any_name)]
    if len(found) > 1:
        raise UsageError(
            f"Expected one CSV that labels the images in {found[0].parent}; got {len(found)}: "
            f"{listed(path.name for path in found)}. Name the one to use as the source: {found[0]}."
        )
    return found[0] if found else None


def read_label_file(
    path: Path, beside: Sequence[Path], *, target: str | None = None, task: str | None = None
) -> LabelledFiles:
    """Read the label file `path`; file names in it count from its folder.

    The label column is `target`, or found as `is_label_file` does. Its labels are classes, or values to predict where
    `task` says `regression` or, without `task`, the rule for tables does: numbers that are not whole, or many of them.

    A file that is not there is looked for among the files `beside` it and in folders below: it is used where exactly
    one has that name. A file whose rows contradict each other is set aside; a repeated row counts once.

    Raises `UsageError` for a file without the columns, an unknown split, or one none of whose files exists, and
    `WorkError` for one that cannot be read as text.
    """
    columns = _columns(path, target)
    if path.exists() and not os.access(path, os.R_OK):
        raise WorkError(f"{path} may not be read (permission denied). Change its permissions, or copy it.")
    if columns is None:
        raise _no_columns(path, target)
    finder, set_aside = _Finder(path.parent, beside), []
    rows_by_file: dict[Path, list[_Row]] = defaultdict(list)
    missing: list[SetAside] = []
    for row in _rows(path, columns):
        if isinstance(row, SetAside):
            set_aside.append(row)
        elif isinstance(found := finder.find(row.file), Path):
            rows_by_file[found].append(row)
        else:
            missing.append(SetAside(printable(row.file), f"named in {printable(path.name)}, but {found}"))
    if not rows_by_file:
        raise _nothing_found(path, missing or set_aside, beside)
    labels = read_cells([row.label for rows in rows_by_file.values() for row in rows])
    inferred, why = infer_task(labels)
    task, why = (task, "as asked for") if task else (inferred, f"as {why}")
    notes = []
    if task == "regression":
        rows_by_file, foreign = _with_numbers(rows_by_file)
        if not rows_by_file:
            raise UsageError(
                f"Expected numbers as labels in {path} for regression; got '{printable(labels.texts[0])}'. "
                "Leave task out, or name another column: target=."
            )
        set_aside += foreign
        notes.append(f"Regression, {why}: the labels are values to predict; classes by task=classification.")
    used = {file: rows[0] for file, rows in rows_by_file.items() if len({row[2:] for row in rows}) == 1}
    set_aside += [_contradiction(rows) for file, rows in rows_by_file.items() if file not in used]
    return LabelledFiles(
        files=tuple(LabelledFile(file, used[file].label, used[file].split) for file in sorted(used)),
        set_aside=tuple(set_aside + missing),
        task=task,
        notes=(*notes, *_notes(path, rows_by_file, used, finder, beside)),
        layout=f"images labelled by {printable(path.name)}"
        + ("" if columns.split is None else ", which gives the splits"),
    )


def _header(path: Path) -> str:
    """Return the first line that is not blank, without a byte order mark; empty for what cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            return next((line for line in (stream.readline(10_000) for _ in range(10)) if line.strip()), "")
    except OSError:
        return ""


def _columns(path: Path, target: str | None = None, takes_any_name: bool = True) -> _Columns | None:
    for delimiter in DELIMITERS:
        names = _names(_header(path), delimiter)
        file = next((names.index(name) for name in FILE_COLUMNS if name in names), None)
        known = LABEL_COLUMNS if target is None else (target.strip().lower(),)
        label = next((names.index(name) for name in known if name in names), None)
        left = [place for place, name in enumerate(names) if place != file and name != SPLIT_COLUMN]
        is_known = label is not None and target is None
        if label is None and target is None and takes_any_name and len(left) == 1:
            label = left[0]
        if file is not None and label is not None and label != file:
            split = names.index(SPLIT_COLUMN) if SPLIT_COLUMN in names else None
            return _Columns(delimiter, file, label, split, is_known)
    return None


def _names_image(path: Path, columns: _Columns) -> bool:
    """Return whether the first row below the header names a file with the suffix of an image."""
    try:
        row = next((row for row in _rows(path, columns) if isinstance(row, _Row)), None)
    except GlassnetError:
        return False
    return row is not None and PurePosixPath(row.file.replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES


def _with_numbers(rows_by_file: dict[Path, list[_Row]]) -> tuple[dict[Path, list[_Row]], list[SetAside]]:
    """Return the rows whose label is a number, and what is set aside of the others."""
    good: dict[Path, list[_Row]] = defaultdict(list)
    foreign = []
    for file, rows in rows_by_file.items():
        for row, is_number in zip(rows, read_cells([row.label for row in rows]).is_number.tolist(), strict=True):
            if is_number:
                good[file].append(row)
            else:
                foreign.append(SetAside(printable(row.file), f"expected a number, got '{printable(row.label)}'"))
    return good, foreign


def _names(header: str, delimiter: str) -> list[str]:
    return [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]


def _no_columns(path: Path, target: str | None) -> UsageError:
    if not path.exists():
        return UsageError(f"Expected a CSV that labels images; there is no file {path}. Check the path.")
    names = max((_names(_header(path), delimiter) for delimiter in DELIMITERS), key=len)
    if target is not None and any(name in FILE_COLUMNS for name in names):
        return unknown_name("column", target, names, f"It should hold the labels in {path}.")
    near = [near for name in names for near in nearest_names(name, FILE_COLUMNS + LABEL_COLUMNS, 1)]
    hint = f" Did you mean {listed(dict.fromkeys(near))}?" if near else ""
    return UsageError(
        f"Expected a first line that names a column for files ({', '.join(FILE_COLUMNS)}) and one for labels "
        f"({', '.join(LABEL_COLUMNS)}) in {path}; got {listed(names) or 'nothing'}.{hint} Add or rename the columns."
    )


def _rows(path: Path, columns: _Columns) -> Iterator[_Row | SetAside]:
    """Yield the rows below the header; one that says too little comes as what is set aside."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=columns.delimiter)
            cells_by_line = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
            next(cells_by_line, None)
            for line, cells in cells_by_line:
                yield _row(path, line, cells, columns)
    except UnicodeDecodeError as error:
        raise WorkError(
            f"Expected {path} to be UTF-8 text; got byte 0x{error.object[error.start]:02x} in it, which is "
            "not. Save it again as 'CSV UTF-8'."
        ) from None
    except (OSError, csv.Error) as error:
        raise WorkError(f"{path} cannot be read: {error}. Repair or replace it.") from None


def _row(path: Path, line: int, cells: list[str], columns: _Columns) -> _Row | SetAside:
    where = f"{printable(path.name)}, line {line}"
    if len(cells) <= columns.last:
        return SetAside(where, f"expected at least {columns.last + 1} cells, got {len(cells)}")
    file, label = cells[columns.file].strip(), class_name(cells[columns.label].strip())
    if not file:
        return SetAside(where, "no file name")
    if not label:
        return SetAside(printable(file), f"no label in {printable(path.name)}")
    word = "" if columns.split is None else cells[columns.split].strip()
    if columns.split is not None and word.lower() not in SPLIT_WORDS:
        raise unknown_name("split", word, SPLIT_WORDS, f"It stands in line {line} of {path}, for {printable(file)}.")
    return _Row(line, file, label, SPLIT_WORDS.get(word.lower(), ""))


class _Finder:
    """Finds the file that a row means."""

    def __init__(self, folder: Path, beside: Sequence[Path]) -> None:
        self.folder = folder
        self.num_elsewhere = 0
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        for path in beside:
            self.by_name[path.name].append(path)

    def find(self, name: str) -> Path | str:
        """Return the file, or the reason why there is none."""
        for spelling in (name, name.replace("\\", "/")):
            path = os.path.normpath(self.folder / spelling)
            if os.path.isfile(path):
                return Path(path)
        tail = PurePosixPath(name.replace("\\", "/")).parts
        found = [path for path in self.by_name.get(tail[-1] if tail else "", ()) if path.parts[-len(tail) :] == tail]
        if len(found) == 1:
            self.num_elsewhere += 1
            return found[0]
        if found:
            return f"{len(found)} files have that name in folders below: name the folder too"
        return "it is no file" if os.path.exists(path) else "there is no such file"


def _contradiction(rows: Sequence[_Row]) -> SetAside:
    said = [f"'{row.label}'" + (f" in {row.split}" if row.split else "") for row in rows]
    unlike = next(index for index, row in enumerate(rows) if row[2:] != rows[0][2:])
    return SetAside(
        printable(rows[0].file),
        f"contradicting labels: {said[0]} in line {rows[0].line}, {said[unlike]} in line {rows[unlike].line}",
    )


def _nothing_found(path: Path, missing: Sequence[SetAside], beside: Sequence[Path]) -> UsageError:
    if not missing:
        return UsageError(f"Expected a row for each image in {path}; it has none below its header. Add the rows.")
    first = missing[0]
    stems = {file.stem: file.name for file in beside}
    hint = f" There is '{printable(stems[first.source])}': write the suffix too." if first.source in stems else ""
    return UsageError(
        f"Expected image files named by {path}, counted from its folder; none of its {counted(len(missing), 'row')} "
        f"leads to one ('{first.source}': {first.reason}).{hint} Put the CSV into the folder of the "
        "images, or write paths from there."
    )


def _notes(
    path: Path, rows: dict[Path, list[_Row]], used: Iterable[Path], finder: _Finder, beside: Sequence[Path]
) -> Iterator[str]:
    name = printable(path.name)
    repeated = [rows[file][0].file for file in used if len(rows[file]) > 1]
    if repeated:
        count = counted(len(repeated), "file")
        yield f"{name} gives {count} the same label more than once; each counts once: {listed(repeated)}."
    if finder.num_elsewhere:
        yield f"{counted(finder.num_elsewhere, 'row')} of {name}: the file was found by its name in a folder below."
    unlisted = [file for file in beside if Path(os.path.normpath(file)) not in rows]
    if unlisted:
        names = [shown(file, path.parent) for file in unlisted]
        yield f"Not used, because {name} does not name them: {counted(len(unlisted), 'image')}, {listed(names)}."
