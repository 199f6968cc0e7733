"""`load_data`: whatever a user has, understood by what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from glassnet._errors import UsageError, WorkError, nearest_names, unknown_name
from glassnet._types import PathArg, Shape
from glassnet.data.array_file import ARRAY_SUFFIXES
from glassnet.data.arrays import load_array
from glassnet.data.columns import TASKS
from glassnet.data.delimited_file import TABLE_SUFFIXES
from glassnet.data.encoded_table import load_encoded_table
from glassnet.data.examples import Dataset, Framing
from glassnet.data.folders import load_folder
from glassnet.data.hub import PREFIX, Address, is_saved, load_hub, parse_address
from glassnet.data.images import SetAside
from glassnet.data.label_files import is_label_file
from glassnet.data.labelled_images import LabelledDataset
from glassnet.data.records import InputRecord, reading_of, stored_encoding
from glassnet.data.shapes import DIAL_NAMES, HALFWAY, load_shapes
from glassnet.data.shards import absolute_source, are_shards, load_shards
from glassnet.data.standard import STANDARD_SETS, load_standard
from glassnet.data.standardisation import Standardisation
from glassnet.data.tables import load_table
from glassnet.data.toys import TOYS, load_toy

SHAPES = "shapes"
WHOLE_OPTIONS = ("num_examples", "size", "channels")
"""Options of `load_data` that are whole numbers; the others are numbers."""
WHOLE: dict[str, Any] = {"seed": 0, "validation_share": 0.0, "test_share": 0.0}
"""How splits are cut where nothing is to be: all of it is judged."""


def list_datasets() -> list[str]:
    """Return the names that `load_data` accepts: the standard sets, then the toys."""
    return [*STANDARD_SETS, SHAPES, *TOYS]


def list_toys() -> list[tuple[str, str, Shape, int]]:
    """Return name, description, shape of one input and number of classes (0: values to predict) of each toy."""
    shapes = (SHAPES, "rendered triangles, squares, circles and stars", (3, 32, 32), 4)
    return [
        shapes,
        *((name, toy.description, toy.input_shape, len(toy.class_names)) for name, toy in TOYS.items()),
    ]


def load_data(
    source: PathArg,
    root: PathArg | None = None,
    *,
    seed: int = 0,
    validation_share: float = 0.1,
    target: str | None = None,
    task: str | None = None,
    download: bool = True,
    strict: bool = False,
    fit: str | None = None,
    interpolation: str | None = None,
    record: InputRecord | None = None,
    **options: Any,
) -> Dataset:
    """Load a data set in three splits from a name or a path; `dataset.notes` says what was understood.

    - A standard set: "digits", "mnist", "fashion-mnist", "cifar10" (`standard.load_standard`), from `root`,
      `$GLASSNET_DATA` or the user's cache; fetched where it is absent, unless `download` is false.
    - A toy: "shapes" (`shapes.load_shapes`) or a name of `toys.TOYS`, drawn by `seed`.
    - A folder of images by class or by split and class, or with a CSV of labels (`folders.load_folder`).
    - A `.csv` or `.tsv`: labels of images beside it, or a table; `target` is the column to predict, by default the
      last of a table (`tables.load_table`).
    - `hf:owner/name` of the Hugging Face hub, with `/config`, `@revision` and `?streaming` behind it as needed, or a
      folder written by `save_to_disk`; `target` names its column of labels (`hub.load_hub`).
    - WebDataset shards: a `.tar`, a folder of them, a pattern such as `train-{000..012}.tar`, web addresses, or the
      output of a command, `pipe:...` (`shards.load_shards`).
    - An `.npz`, `.npy`, `.pt` or `.pth` of inputs and labels (`arrays.load_array`).

    `task`, `classification` or `regression`, overrides how labels in a file are understood. `options` are those of
    the kind of data (`options_of`): `test_share`, and `noise`, `num_examples` or a dial of a toy. They are kept in
    the data set, so that a run loads the same again.

    A name goes before a path: write `./digits` for a folder of that name. Files and rows that cannot be used are set
    aside, with the reason, in `dataset.set_aside`; with `strict` they are an error instead. The test split is the
    published one where there is one; the others are cut by `seed`. With the preprocessing `record` of a network, other
    data is read as the network's own were: a table is encoded by the record, and splits that are not given are not
    cut: all is in the test split.

    `fit` and `interpolation` say how images of other proportions come into a network's input (see `Preprocessing`);
    None takes the data set's own: `crop` for files of images, `stretch` for a standard set.

    Raises `UsageError` for what is none of these and for an unknown option, and `WorkError` for data that cannot be
    read.
    """
    Framing(fit="crop" if fit is None else fit)  # an unknown word is refused before any work
    Framing(interpolation="bilinear" if interpolation is None else interpolation)
    said = {"target": target, "task": task}
    data = _load(source, root, seed, validation_share, said, download, strict, record, options)
    return data.framed(fit, interpolation)


def _load(
    source: PathArg,
    root: PathArg | None,
    seed: int,
    validation_share: float,
    said: Mapping[str, str | None],
    download: bool,
    strict: bool,
    record: InputRecord | None,
    options: dict[str, Any],
) -> Dataset:
    target, task = said["target"], said["task"]
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"Expected the name or the path of a data set; got {source!r}.")
    if task is not None and task not in TASKS:
        raise unknown_name("task", str(task), TASKS)
    name = str(source)
    _check_options(name, {**options, "validation_share": validation_share})
    if name in STANDARD_SETS or name == SHAPES or name in TOYS:
        for word, value in said.items():
            if value is not None:
                raise UsageError(f"{word} is for tables, labels of images and arrays; got '{name}'. Leave it out.")
    if name in STANDARD_SETS:
        return load_standard(name, root, seed=seed, validation_share=validation_share, download=download)
    if name == SHAPES:
        drawn = load_shapes(seed=seed, validation_share=validation_share, **_shape_options(options))
        return replace(drawn, source=name, options=options)
    if name in TOYS:
        drawn = load_toy(name, seed=seed, validation_share=validation_share, **options)
        return replace(drawn, source=name, options=options)
    cut = {"seed": seed, "validation_share": validation_share, **options} if record is None else WHOLE
    streamed = _load_address(name, target, task, strict, cut)
    if streamed is not None:
        data = streamed if record is None else _all_to_test(streamed)
        return replace(data, target=target, options=options)
    path = Path(source).expanduser()
    if not os.path.exists(path) and (path.name != name or path.suffix):
        raise _nothing_there(path)
    if not path.exists():
        near = nearest_names(name, _listed(Path()))
        more = f"There is no file or folder of this name either{f'; the nearest is ./{near[0]}' if near else ''}."
        raise unknown_name("data set", name, list_datasets(), more)
    if record is not None:
        data = _load_like(path, target, task, strict, record)
    else:
        data = _load_path(path, target, task, strict, cut)
    if strict and data.set_aside:
        raise _refusal(path, data.set_aside)
    return replace(data, source=str(path.resolve()), root=None, target=target, task=task, options=options)


def options_of(source: str) -> tuple[str, ...]:
    """Return the names of the `options` that `load_data` takes for a source."""
    if source in STANDARD_SETS:
        return ()
    if source == SHAPES:
        return ("num_examples", "size", "channels", *DIAL_NAMES)
    if source not in TOYS:
        return ("test_share",)
    toy = TOYS[source]
    noise = () if toy.max_noise is None else ("noise",)
    return noise if toy.is_table else (*noise, "num_examples", "test_share")


def _check_options(source: str, options: Mapping[str, object]) -> None:
    known = (*options_of(source), "validation_share")
    for name, value in options.items():
        if name not in known:
            raise unknown_name(f"option of '{source}'", name, known)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or (name in WHOLE_OPTIONS and not isinstance(value, int)):
            kind = "a whole number" if name in WHOLE_OPTIONS else "a number"
            raise UsageError(f"The option {name} of '{source}' must be {kind}; got {value!r}.")


def _shape_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `load_shapes`; dials that are not given stay halfway."""
    dials = {name: value for name, value in options.items() if name in DIAL_NAMES}
    others = {name: value for name, value in options.items() if name not in DIAL_NAMES}
    return {**others, "dials": replace(HALFWAY, **dials)} if dials else others


def _load_address(
    name: str, target: str | None, task: str | None, strict: bool, cut: Mapping[str, Any]
) -> Dataset | None:
    """Load what `name` addresses: a Hugging Face data set, or shards; None where it is neither."""
    path = Path(name).expanduser()
    is_hub = name.startswith(PREFIX) or (path.is_dir() and is_saved(path))
    if not is_hub and not are_shards(name):
        return None
    if task is not None:
        raise UsageError(f"task is for labels in a CSV or an array; those of {name} are classes. Leave task out.")
    if not is_hub:
        if target is not None:
            raise UsageError(f"target names a column, and shards have none; got {name}. Leave target out.")
        return replace(_told(load_shards(name, strict=strict, **cut)), source=absolute_source(name))
    address = parse_address(name) if name.startswith(PREFIX) else Address(name=name, folder=path.resolve())
    prefix = PREFIX if name.startswith(PREFIX) else ""
    source = name if address.folder is None else f"{prefix}{address.folder}"
    return replace(_told(load_hub(address, target=target, strict=strict, **cut)), source=source)


def _told(found: LabelledDataset) -> Dataset:
    """Return the data set with what its loader has to say."""
    return replace(found.dataset, notes=(found.layout, *found.notes), set_aside=found.set_aside)


def _load_path(path: Path, target: str | None, task: str | None, strict: bool, cut: Mapping[str, Any]) -> Dataset:
    """Load a folder or a file; `cut` says how splits that are not given are cut."""
    suffix = path.suffix.lower()
    if path.is_dir() or is_label_file(path, target):
        return _told(load_folder(path, strict=strict, target=target, task=task, **cut))
    if target is not None and suffix not in TABLE_SUFFIXES:
        raise UsageError(
            f"target names the column of a table ({', '.join(TABLE_SUFFIXES)}) or of an hf: data set to predict; got "
            f"{path}. Leave target out."
        )
    if suffix in TABLE_SUFFIXES:
        table = load_table(path, target=target, task=task, **cut)
        return replace(table.dataset, notes=table.notes, set_aside=table.set_aside)
    if suffix in ARRAY_SUFFIXES:
        array = load_array(path, task=task, **cut)
        return replace(array.dataset, notes=array.notes)
    raise UsageError(
        f"Expected a folder, a table ({', '.join(TABLE_SUFFIXES)}) or arrays ({', '.join(ARRAY_SUFFIXES)}); "
        f"got {path}. Put images in a folder for each class."
    )


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if os.access(folder, os.R_OK | os.X_OK) else []


def _nothing_there(path: Path) -> UsageError:
    near = [str(path.with_name(other)) for other in nearest_names(path.name, _listed(path.parent))]
    hint = f"Did you mean {' or '.join(near)}?" if near else "Check the path, or choose a name of `glassnet datasets`."
    return UsageError(f"Expected a folder or a file of data; there is nothing at {path}. {hint}")


def _load_like(path: Path, target: str | None, task: str | None, strict: bool, record: InputRecord) -> Dataset:
    """Load other data for a network with its `record`; nothing is learned of it, so nothing is cut off."""
    suffix, task = path.suffix.lower(), task or ("classification" if record.class_names else "regression")
    if suffix in TABLE_SUFFIXES and isinstance(record, Standardisation):
        table = load_encoded_table(path, stored_encoding(record, path), record.class_names, target=target)
        return replace(table.dataset, notes=table.notes, set_aside=table.set_aside)
    if suffix in ARRAY_SUFFIXES:
        array = load_array(path, task=task, reading=reading_of(record), **WHOLE)
        data = replace(array.dataset, notes=array.notes)
    else:
        data = _load_path(path, target, task, strict, WHOLE)
    return _all_to_test(data)


def _all_to_test(data: Dataset) -> Dataset:
    """Return `data` with all of it in the test split, where it gives none."""
    if len(data.test):
        return data
    nothing = data.train[:0]
    notes = (*data.notes, "no test split is given, and nothing is learned of this data: all of it is in the test split")
    return replace(data, train=nothing, test=data.train, notes=notes)


def _refusal(path: Path, set_aside: tuple[SetAside, ...]) -> WorkError:
    first = set_aside[0]
    return WorkError(
        f"{path}: expected data that can be used whole; {len(set_aside)} parts cannot, the first is {first.source}: "
        f"{first.reason}. Repair or remove them, or load without strict."
    )
