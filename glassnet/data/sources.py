"""`load_data`: whatever a user has, understood by what it is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from glassnet._errors import UsageError, WorkError, unknown_name
from glassnet._types import PathArg, Shape
from glassnet.data.arrays import load_array
from glassnet.data.examples import Dataset
from glassnet.data.folders import load_folder
from glassnet.data.hub import PREFIX, Address, is_saved, load_hub, parse_address
from glassnet.data.images import SetAside
from glassnet.data.label_files import is_label_file
from glassnet.data.labelled_images import LabelledDataset
from glassnet.data.shapes import load_shapes
from glassnet.data.shards import absolute_source, are_shards, load_shards
from glassnet.data.standard import STANDARD_SETS, load_standard
from glassnet.data.tables import load_table
from glassnet.data.toys import TOYS, load_toy

ARRAYS = (".npz", ".npy", ".pt", ".pth")
TABLES = (".csv", ".tsv")
SHAPES = "shapes"


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
    download: bool = True,
    strict: bool = False,
) -> Dataset:
    """Load a data set in three splits from a name or a path; `dataset.notes` says what was understood.

    - A standard set: "digits", "mnist", "fashion-mnist", "cifar10" (`standard.load_standard`), from `root`,
      `$GLASSNET_DATA` or the user's cache; fetched where it is absent, unless `download` is false.
    - A toy: "shapes" (`shapes.load_shapes`) or a name of `toys.TOYS`, drawn by `seed`.
    - A folder of images by class or by split and class, or with a CSV of labels (`folders.load_folder`).
    - A `.csv` or `.tsv`: labels of images beside it, or a table with the column `target` to predict, by default the
      last (`tables.load_table`).
    - `hf:owner/name` of the Hugging Face hub, with `/config`, `@revision` and `?streaming` behind it as needed, or a
      folder written by `save_to_disk`; `target` names its column of labels (`hub.load_hub`).
    - WebDataset shards: a `.tar`, a folder of them, a pattern such as `train-{000..012}.tar`, web addresses, or the
      output of a command, `pipe:...` (`shards.load_shards`).
    - An `.npz`, `.npy`, `.pt` or `.pth` of inputs and labels (`arrays.load_array`).

    A name goes before a path: write `./digits` for a folder of that name. Files and rows that cannot be used are set
    aside, with the reason, in `dataset.set_aside`; with `strict` they are an error instead. The test split is the
    published one where there is one; the others are cut by `seed`.

    Raises `UsageError` for what is none of these, and `WorkError` for data that cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"Expected the name or the path of a data set; got {source!r}.")
    name = str(source)
    if name in STANDARD_SETS:
        return load_standard(name, root, seed=seed, validation_share=validation_share, download=download)
    if name == SHAPES:
        return replace(load_shapes(seed=seed, validation_share=validation_share), source=name)
    if name in TOYS:
        return replace(load_toy(name, seed=seed, validation_share=validation_share), source=name)
    if name.startswith(PREFIX):
        address = parse_address(name)
        full = name if address.folder is None else f"{PREFIX}{address.folder}"
        return _from_hub(address, full, target, seed, validation_share, strict)
    if are_shards(name):
        if target is not None:
            raise UsageError(f"target names a column, and shards have none; got {name}. Leave target out.")
        found = load_shards(name, seed=seed, validation_share=validation_share, strict=strict)
        return replace(_told(found), source=absolute_source(name))
    path = Path(source).expanduser()
    if path.is_dir() and is_saved(path):
        address = Address(name=str(path), folder=path.resolve())
        return _from_hub(address, str(path.resolve()), target, seed, validation_share, strict)
    if not path.exists():
        more = "There is no file or folder of this name either."
        raise unknown_name("data set", name, list_datasets(), more)
    data = _load_path(path, target, seed, validation_share, strict)
    if strict and data.set_aside:
        raise _refusal(path, data.set_aside)
    return replace(data, source=str(path.resolve()), root=None)


def _from_hub(
    address: Address, source: str, target: str | None, seed: int, validation_share: float, strict: bool
) -> Dataset:
    found = load_hub(address, target=target, seed=seed, validation_share=validation_share, strict=strict)
    return replace(_told(found), source=source, target=target)


def _told(found: LabelledDataset) -> Dataset:
    """Return the data set with what its loader has to say."""
    return replace(found.dataset, notes=(found.layout, *found.notes), set_aside=found.set_aside)


def _load_path(path: Path, target: str | None, seed: int, validation_share: float, strict: bool) -> Dataset:
    suffix = path.suffix.lower()
    if target is not None and suffix not in TABLES:
        raise UsageError(
            f"target names the column of a table (.csv, .tsv) or of an hf: data set; got {path}. Leave target out."
        )
    if path.is_dir() or (target is None and is_label_file(path)):
        folder = load_folder(path, seed=seed, validation_share=validation_share, strict=strict)
        return _told(folder)
    if suffix in TABLES:
        table = load_table(path, target=target, seed=seed, validation_share=validation_share)
        return replace(table.dataset, notes=table.notes, set_aside=table.set_aside, target=target)
    if suffix in ARRAYS:
        array = load_array(path, seed=seed, validation_share=validation_share)
        return replace(array.dataset, notes=array.notes)
    raise UsageError(
        f"Expected a folder, a table ({', '.join(TABLES)}) or arrays ({', '.join(ARRAYS)}); got {path}. "
        "Put images in a folder for each class."
    )


def _refusal(path: Path, set_aside: tuple[SetAside, ...]) -> WorkError:
    first = set_aside[0]
    return WorkError(
        f"{path}: expected data that can be used whole; {len(set_aside)} parts cannot, the first is {first.source}: "
        f"{first.reason}. Repair or remove them, or load without strict."
    )
