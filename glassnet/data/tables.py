"""Tables from a CSV or TSV file: rows of numbers and categories with a class or a value to predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassnet._errors import GlassnetError, UsageError, WorkError, unknown_name
from glassnet._types import PathArg
from glassnet.data.columns import (
    TASKS,
    Cells,
    ColumnEncoding,
    ColumnRecord,
    Mask,
    TableEncoding,
    by_number,
    choose_task,
    class_texts,
    describe_column,
    fit_column,
    note_foreign,
    notes_on_unknown,
    why_left_out,
)
from glassnet.data.delimited_file import DELIMITERS, Rows, decode, read_rows
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.images import SetAside
from glassnet.data.label_files import FILE_COLUMNS, IMAGE_SUFFIXES
from glassnet.data.splits import SPLIT_WORDS, cut_positions

__all__ = ["ColumnEncoding", "ColumnRecord", "TableData", "TableEncoding", "load_table"]

SPLIT_COLUMN = "split"


@dataclass(frozen=True, eq=False, kw_only=True)
class TableData:
    """A data set that was read from a table."""

    dataset: Dataset
    encoding: TableEncoding
    """How its cells became features; encodes new rows in the same way."""
    target: str
    """The name of the column to predict."""
    columns: tuple[ColumnRecord, ...]
    """In the order of the file."""
    set_aside: tuple[SetAside, ...]
    """Rows that are not used, by line number, and why."""
    notes: tuple[str, ...]
    """What was understood of the file, and how, a sentence each."""


def load_table(
    path: PathArg,
    *,
    target: str | None = None,
    seed: int,
    validation_share: float = 0.1,
    test_share: float = 0.2,
    task: str | None = None,
) -> TableData:
    """Load a CSV or TSV file with a header: inputs `float32` `(N, F)` and the column `target` as labels.

    The delimiter (comma, semicolon or tab) is found by trial; the text is UTF-8, or UTF-16 with its mark. Without
    `target`, the last column is it. The task is classification where the target is text, or where at most 20
    different whole numbers stand in it, each twice or more on average; other numbers make it regression. `task`
    overrides the rule. Classes are those of the training rows, sorted (numbers by value).

    A column is numeric where at least four in five of its cells that are not missing are numbers; a missing number
    becomes the median of the training rows. Any other column is one of categories, those of the training rows, with
    one feature (0 or 1) each; a missing one is a category of its own, and one that is unknown gives zeros. Missing is
    an empty cell, NA, N/A, NaN, null or ?. Left out are columns without values, of more than 100 categories, and
    those that count the rows (named `id`, ending in `id`, `index` or nothing). All of this is told in `notes`.

    A column `split` with the words train, validation and test is honoured. A split without rows is cut from the
    training rows by `seed`, a share of each class; both shares are of the rows that are cut into.

    A row with too many or too few cells, without target, or without a number in a numeric column is set aside.

    Raises `UsageError` for a table without header, an unknown or unfit target, and a class that the training rows
    lack; `WorkError` for a file that cannot be read, and where no row is left.
    """
    path = Path(path)
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, TASKS)
    try:
        rows = read_rows(decode(path))
        plan = _plan_columns(rows.columns, target, task)
        used, set_aside = _usable(rows, plan)
        places = _split_places(used, plan, seed, {"validation": validation_share, "test": test_share})
        encoding = _fit(used, plan, places["train"])
        inputs, unknown = encoding.encode_cells(used)
        sets = _example_sets(inputs, used[plan.target], plan, places)
    except GlassnetError as error:
        raise type(error)(f"{path}: {error}") from None
    columns = tuple(describe_column(name, cells, plan.role(name), encoding) for name, cells in used.items())
    num_rows = len(rows.lines) + len(rows.set_aside)
    notes = (
        f"{num_rows} rows of {len(used)} columns, divided by {DELIMITERS[rows.delimiter]}s",
        *_notes_on_task(plan, sets, target is None),
        *(f"column '{column.name}': {remark}" for column in columns for remark in column.remarks),
        *_notes_on_images(used, plan),
        *notes_on_unknown(unknown),
        *_notes_on_rows(set_aside, num_rows, sets, plan),
    )
    return TableData(
        dataset=Dataset(
            path.stem, *sets, seed=seed, validation_share=validation_share, framing=Framing(encoding=encoding)
        ),
        encoding=encoding,
        target=plan.target,
        columns=columns,
        set_aside=tuple(SetAside(f"line {line}", reason) for line, reason in set_aside.items()),
        notes=notes,
    )


# Understanding the columns


@dataclass(frozen=True, eq=False)
class _Plan:
    """What each column is for."""

    target: str
    task: str
    why: str
    """Why it is this task, in words."""
    takes_any_text: bool
    """Whether every text in the target column is a class, also one among numbers."""
    split: str | None
    inputs: Mapping[str, str]
    """The kind of each input, by name."""
    left_out: Mapping[str, str]
    """Why a column is not used, by name."""

    @property
    def no_target(self) -> str:
        """Why a row without target is set aside."""
        return f"no value in the target column '{self.target}'"

    def role(self, name: str) -> tuple[str, str]:
        """Return the role of a column, and why it is left out, if it is."""
        if name in self.left_out:
            return "left out", self.left_out[name]
        return {self.target: "target", self.split: "split"}.get(name, "input"), ""


def _plan_columns(cells: Mapping[str, Cells], target: str | None, task: str | None) -> _Plan:
    if target is not None and target not in cells:
        raise unknown_name("column", target, cells)
    split = next((name for name in cells if name != target and _is_split(name, cells[name])), None)
    with_values = [name for name in cells if name != split and cells[name].kind != "empty"]
    target = target or (with_values[-1] if with_values else None)
    if target is None or cells[target].kind == "empty":
        received = "no column has any" if target is None else f"'{target}' has none"
        raise UsageError(f"Expected values in the column to predict; {received}. Name another: target=.")
    others = [name for name in cells if name not in (target, split)]
    left_out = {name: why for name in others if (why := why_left_out(name, cells[name]))}
    inputs = {name: cells[name].kind for name in others if name not in left_out}
    if not inputs:
        told = "; ".join(f"'{name}': {why}" for name, why in left_out.items()) or "there is no other column"
        raise UsageError(f"Expected at least one column beside the target '{target}' to predict it from; {told}.")
    chosen, why = choose_task(target, cells[target], task)
    takes_any_text = task == "classification" or cells[target].kind == "categorical"
    return _Plan(target, chosen, why, takes_any_text, split, inputs, left_out)


def _is_split(name: str, cells: Cells) -> bool:
    return name.lower() == SPLIT_COLUMN and any(text.lower() in SPLIT_WORDS for text in cells.texts)


def _usable(rows: Rows, plan: _Plan) -> tuple[dict[str, Cells], dict[int, str]]:
    """Return the cells of the rows that can be used, and by line why others cannot, in the order of lines.

    Raises `WorkError` where no row is left.
    """
    reasons = _foreign_rows(rows.columns, plan)
    set_aside = {**rows.set_aside, **{rows.lines[row]: reason for row, reason in reasons.items()}}
    set_aside = {line: set_aside[line] for line in sorted(set_aside)}
    is_good = np.array([row not in reasons for row in range(len(rows.lines))], dtype=np.bool_)
    if not is_good.any():
        line, reason = next(iter(set_aside.items()))
        raise WorkError(
            f"Expected rows that can be used; all {len(set_aside)} had to be set aside, such as line {line}: {reason}. "
            "Correct the table."
        )
    return {name: cells[is_good] for name, cells in rows.columns.items()}, set_aside


def _foreign_rows(cells: Mapping[str, Cells], plan: _Plan) -> dict[int, str]:
    """Return by row what keeps it from being used."""
    target = cells[plan.target]
    reasons = dict.fromkeys(target.is_missing.nonzero()[0].tolist(), plan.no_target)
    if not plan.takes_any_text:
        note_foreign(reasons, plan.target, target)
    if plan.split is not None:
        for row, text in enumerate(cells[plan.split].texts):
            if text.lower() not in SPLIT_WORDS:
                reasons.setdefault(row, f"column '{plan.split}': expected train, validation or test, got '{text}'")
    for name, kind in plan.inputs.items():
        if kind == "numeric":
            note_foreign(reasons, name, cells[name])
    return reasons


# Making the data set


def _split_places(
    cells: Mapping[str, Cells], plan: _Plan, seed: int, shares: Mapping[str, float]
) -> dict[str, NDArray[np.int64]]:
    """Return the rows of each split: as the table says, and cut from those to train where it says none."""
    column = cells[plan.target]
    words = ["train"] * len(column) if plan.split is None else cells[plan.split].texts
    given = np.array([SPLIT_WORDS[word.lower()] for word in words])
    places = {split: (given == split).nonzero()[0] for split in ("train", "validation", "test")}
    whole = places["train"]
    if not len(whole):
        raise UsageError(f"Expected rows to train on; the column '{plan.split}' marks none with train.")
    labels = column.numbers if plan.task == "regression" else np.unique(class_texts(column), return_inverse=True)[1]
    left = {split: 0.0 if len(places[split]) else share for split, share in shares.items()}
    train, validation, test = cut_positions(torch.from_numpy(labels[whole]), seed, left["validation"], left["test"])
    cut = {"train": train, "validation": validation, "test": test}
    return {split: whole[cut[split].numpy()] if split == "train" or left[split] else places[split] for split in places}


def _fit(cells: Mapping[str, Cells], plan: _Plan, train: NDArray[np.int64]) -> TableEncoding:
    is_train: Mask = np.zeros(len(cells[plan.target]), dtype=np.bool_)
    is_train[train] = True
    return TableEncoding(
        columns=tuple(fit_column(name, cells[name][is_train], kind) for name, kind in plan.inputs.items()),
        target=plan.target,
    )


def _example_sets(
    inputs: Tensor, target: Cells, plan: _Plan, places: Mapping[str, NDArray[np.int64]]
) -> tuple[ExampleSet, ExampleSet, ExampleSet]:
    """Return the three splits, with the classes of the training rows. Raises `UsageError` for one class only."""
    if plan.task == "regression":
        whole = ExampleSet(inputs, torch.from_numpy(target.numbers.astype(np.float32)), ())
    else:
        texts = class_texts(target)
        names = sorted(set(texts), key=by_number)
        label = {name: index for index, name in enumerate(names)}
        whole = ExampleSet(inputs, torch.tensor([label[text] for text in texts]), tuple(names))
    train, validation, test = (whole[torch.from_numpy(places[split])] for split in ("train", "validation", "test"))
    if plan.task == "regression":
        return train, validation, test
    names = [name for name, count in zip(train.class_names, train.class_counts(), strict=True) if count]
    if len(names) < 2:
        raise UsageError(
            f"Expected two classes at least in the target column '{plan.target}' to train on; all rows have "
            f"'{names[0]}'. Name another column: target=."
        )
    return train.aligned_to(names), validation.aligned_to(names), test.aligned_to(names)


# Telling what was understood


def _notes_on_task(plan: _Plan, sets: Sequence[ExampleSet], is_default: bool) -> Iterator[str]:
    yield f"the target is '{plan.target}'" + (", the last column; another by target=" if is_default else "")
    train = sets[0]
    if plan.task == "regression":
        low, high = (float(limit) for limit in train.labels.aminmax())
        yield f"regression, as {plan.why}: values from {low:g} to {high:g}" + (", all the same" if low == high else "")
        return
    counts = zip(train.class_names, train.class_counts(), strict=True)
    listed = ", ".join(f"{name} ({count})" for name, count in list(counts)[:10])
    more = f" and {train.num_classes - 10} more" if train.num_classes > 10 else ""
    yield f"classification, as {plan.why}: {train.num_classes} classes, to train: {listed}{more}"
    for split, examples in zip(("validation", "test"), sets[1:], strict=True):
        absent = [name for name, count in zip(examples.class_names, examples.class_counts(), strict=True) if not count]
        if absent and len(examples):
            yield f"{split} has no example of {', '.join(absent[:10])}" + (", ..." if len(absent) > 10 else "")


def _notes_on_images(cells: Mapping[str, Cells], plan: _Plan) -> Iterator[str]:
    """Say which columns name image files: their text is all that a network for a table sees of them."""
    for name, column in cells.items():
        suffixes = {PurePath(str(text)).suffix.lower() for text in column.texts}
        if name != plan.target and column.kind == "categorical" and suffixes <= IMAGE_SUFFIXES:
            yield (
                f"column '{name}': names of image files, of which only the names are read; to learn from the images, "
                f"call it {FILE_COLUMNS[0]} and name the labels' column: target="
            )


def _notes_on_rows(
    set_aside: Mapping[int, str], num_rows: int, sets: Sequence[ExampleSet], plan: _Plan
) -> Iterator[str]:
    if set_aside:
        listed = "; ".join(f"line {line}: {reason}" for line, reason in islice(set_aside.items(), 3))
        num_without = sum(reason == plan.no_target for reason in set_aside.values())
        told = f" ({num_without} without a target)" if num_without else ""
        yield f"set aside {len(set_aside)} of {num_rows} rows{told}: {listed}" + ("; ..." if len(set_aside) > 3 else "")
    where = "at random" if plan.split is None else f"by the column '{plan.split}'"
    train, validation, test = (len(examples) for examples in sets)
    yield f"{train} rows to train, {validation} to validate, {test} to test, divided {where}"
