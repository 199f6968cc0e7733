"""`load_data`: whatever a user has, understood by what it is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from glassnet._errors import UsageError, WorkError, nearest_names, unknown_name
from glassnet._types import PathArg, Shape
from glassnet.data.arrays import load_array
from glassnet.data.examples import Dataset, Framing
from glassnet.data.folders import load_folder
from glassnet.data.images import SetAside
from glassnet.data.label_files import is_label_file
from glassnet.data.shapes import load_shapes
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
    fit: str | None = None,
    interpolation: str | None = None,
) -> Dataset:
    """Load a data set in three splits from a name or a path; `dataset.notes` says what was understood.

    - A standard set: "digits", "mnist", "fashion-mnist", "cifar10" (`standard.load_standard`), from `root`,
      `$GLASSNET_DATA` or the user's cache; fetched where it is absent, unless `download` is false.
    - A toy: "shapes" (`shapes.load_shapes`) or a name of `toys.TOYS`, drawn by `seed`.
    - A folder of images by class or by split and class, or with a CSV of labels (`folders.load_folder`).
    - A `.csv` or `.tsv`: labels of images beside it, or a table with the column `target` to predict, by default the
      last (`tables.load_table`).
    - An `.npz`, `.npy`, `.pt` or `.pth` of inputs and labels (`arrays.load_array`).

    A name goes before a path: write `./digits` for a folder of that name. Files and rows that cannot be used are set
    aside, with the reason, in `dataset.set_aside`; with `strict` they are an error instead. The test split is the
    published one where there is one; the others are cut by `seed`.

    `fit` and `interpolation` say how images of other proportions come into a network's input (see `Preprocessing`);
    None takes the data set's own: `crop` for a folder of images, `stretch` for a standard set.

    Raises `UsageError` for what is none of these, and `WorkError` for data that cannot be read.
    """
    Framing(fit="crop" if fit is None else fit)  # an unknown word is refused before any work
    Framing(interpolation="bilinear" if interpolation is None else interpolation)
    data = _load(source, root, seed, validation_share, target, download, strict)
    return data.framed(fit, interpolation)


def _load(
    source: PathArg,
    root: PathArg | None,
    seed: int,
    validation_share: float,
    target: str | None,
    download: bool,
    strict: bool,
) -> Dataset:
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"Expected the name or the path of a data set; got {source!r}.")
    name = str(source)
    if name in STANDARD_SETS:
        return load_standard(name, root, seed=seed, validation_share=validation_share, download=download)
    if name == SHAPES:
        return replace(load_shapes(seed=seed, validation_share=validation_share), source=name)
    if name in TOYS:
        return replace(load_toy(name, seed=seed, validation_share=validation_share), source=name)
    path = Path(source).expanduser()
    if not os.path.exists(path) and (path.name != name or path.suffix):
        raise _nothing_there(path)
    if not path.exists():
        more = "There is no file or folder of this name either."
        raise unknown_name("data set", name, list_datasets(), more)
    data = _load_path(path, target, seed, validation_share, strict)
    if strict and data.set_aside:
        raise _refusal(path, data.set_aside)
    return replace(data, source=str(path.resolve()), root=None)


def _load_path(path: Path, target: str | None, seed: int, validation_share: float, strict: bool) -> Dataset:
    suffix = path.suffix.lower()
    if target is not None and suffix not in TABLES:
        raise UsageError(f"target names the column of a table (.csv, .tsv) to predict; got {path}. Leave target out.")
    if path.is_dir() or (target is None and is_label_file(path)):
        folder = load_folder(path, seed=seed, validation_share=validation_share, strict=strict)
        return replace(folder.dataset, notes=(folder.layout, *folder.notes), set_aside=folder.set_aside)
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


def _nothing_there(path: Path) -> UsageError:
    beside = [str(other) for other in path.parent.iterdir()] if os.access(path.parent, os.R_OK | os.X_OK) else []
    near = nearest_names(str(path), beside)
    hint = f"Did you mean {' or '.join(near)}?" if near else "Check the path, or choose a name of `glassnet datasets`."
    return UsageError(f"Expected a folder or a file of data; there is nothing at {path}. {hint}")


def _refusal(path: Path, set_aside: tuple[SetAside, ...]) -> WorkError:
    first = set_aside[0]
    return WorkError(
        f"{path}: expected data that can be used whole; {len(set_aside)} parts cannot, the first is {first.source}: "
        f"{first.reason}. Repair or remove them, or load without strict."
    )
