"""Arrays from a .npz, .npy or .pt file: inputs and labels found by name, and told apart by type and shape."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassnet._errors import GlassnetError, UsageError, WorkError
from glassnet._types import PathArg, Shape
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.splits import SPLIT_WORDS, cut_positions

INPUT_NAMES = ("x", "inputs", "images", "data")
LABEL_NAMES = ("y", "labels", "targets")
CLASS_NAMES = "class_names"
CHUNK_ROWS = 4096
"""Rows that are looked at or converted at a time, so that no second copy of a large array is made in float64."""

T = TypeVar("T")
Array = NDArray[Any]
Parts = dict[str, dict[str, Array]]
"""Arrays by role (`inputs`, `labels`) and split."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayData:
    """A data set that was read from a file of arrays."""

    dataset: Dataset
    notes: tuple[str, ...]
    """What was understood of the file, and how, a sentence each."""


def load_array(path: PathArg, *, seed: int, validation_share: float = 0.1, test_share: float = 0.2) -> ArrayData:
    """Load inputs and labels from `path`: `.npz`, `.npy`, or a file of `torch.save`, `.pt` or `.pth`.

    The arrays are found by name, in upper or lower case: `x`, `inputs`, `images` or `data`; `y`, `labels` or
    `targets`; and `class_names`, which may be absent. With splits, the name of the split stands after or before it:
    `x_train`, `y_train`, `x_val`, `test_images`. A split that is absent is cut from the training examples, a share
    of each class, by `seed`; `validation_share` and `test_share` are shares of what is cut into. An `.npy` file holds
    inputs; their labels lie beside it as `<name>_labels.npy` or `y.npy`. A `.pt` file holds a dict of tensors, or a
    pair `(x, y)`.

    Inputs: `uint8` `(N, H, W)`, `(N, C, H, W)` and `(N, H, W, C)` with C = 1 or 3 are images; where both ends fit,
    the first. Other types with four axes and 1 or 3 channels are images if they hold 8-bit levels exactly: whole
    numbers in 0..255, or floats that are whole 255ths in 0..1. Nothing is rounded: all else becomes `float32`
    numbers, channels first: rows `(N, F)`, series `(N, C, L)`, `(N, C, H, W)`, volumes or video `(N, C, D, H, W)`;
    channels that stand last are moved where the last axis has 1 or 3 and the second has not. `(N, L)` is read as rows
    of L features: for a network of 1-D convolutions make it `(N, 1, L)`. `(N,)` becomes `(N, 1)`.

    Labels: whole numbers and texts are classes, fixed by the training split, in ascending order; with `class_names`,
    whole numbers count in them. Rows of zeros with one 1 are classes too (one-hot). Floats are values to predict.

    Nothing is unpickled but tensors: an array of Python objects is refused. Raises `UsageError` for arrays that are
    not found or do not fit together, labels that are negative or beyond the classes, and values that are not finite;
    `WorkError` for a file that is missing, damaged, or holds objects.
    """
    path = Path(path)
    arrays, others = _read_file(path)
    try:
        sets, notes = _read_sets(arrays, others)
        train, validation, test = _complete(sets, seed, validation_share, test_share)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    shares = {"validation": validation_share, "test": test_share}
    cut = [split for split, share in shares.items() if share and split not in sets]
    if cut:
        notes.append(f"{' and '.join(cut)} cut from the training examples by seed {seed}")
    notes.append(f"{len(train)} examples to train, {len(validation)} to validate, {len(test)} to test")
    dataset = Dataset(path.stem, train, validation, test, seed=seed, validation_share=validation_share)
    return ArrayData(dataset=dataset, notes=tuple(notes))


def _read_sets(arrays: Mapping[str, Array], others: Sequence[str]) -> tuple[dict[str, ExampleSet], list[str]]:
    """Return the examples of the splits that are given, and what was understood."""
    parts, class_names = _find_parts(arrays, others)
    inputs, told_inputs = _inputs(parts["inputs"])
    sets, told_labels = _examples(inputs, parts["labels"], class_names)
    return sets, [*(f"'{key}' is not used" for key in others), told_inputs, told_labels]


def _complete(
    sets: Mapping[str, ExampleSet], seed: int, validation_share: float, test_share: float
) -> tuple[ExampleSet, ExampleSet, ExampleSet]:
    """Return the three splits: as given, or cut from `train`."""
    whole = sets["train"]
    shares = (0.0 if "validation" in sets else validation_share, 0.0 if "test" in sets else test_share)
    train, validation, test = cut_positions(whole.labels, seed, *shares)
    return whole[train], sets.get("validation", whole[validation]), sets.get("test", whole[test])


# Reading files


def _read_file(path: Path) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays of a file that have a known name, and the names of the others."""
    if not path.is_file():
        received = "a folder" if path.is_dir() else "no such file"
        raise WorkError(f"{path}: expected a file of arrays; got {received}.")
    readers = {".npz": _read_npz, ".npy": _read_npy, ".pt": _read_torch, ".pth": _read_torch}
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path}: expected a name that ends in {', '.join(readers)}; got '{path.suffix}'.")
    return readers[path.suffix.lower()](path)


def _read_npz(path: Path) -> tuple[dict[str, Array], list[str]]:
    def read() -> tuple[dict[str, Array], list[str]]:
        with zipfile.ZipFile(path) as archive:
            keys = {name.removesuffix(".npy"): name for name in archive.namelist()}
            arrays = {}
            for key in filter(_role, keys):
                with archive.open(keys[key]) as stream:
                    arrays[key] = _read_stream(stream, f"{path}, '{key}'")
        return arrays, [key for key in keys if not _role(key)]

    return _guarded(path, "a whole .npz archive", read)


def _read_npy(path: Path) -> tuple[dict[str, Array], list[str]]:
    beside = [path.with_name(f"{path.stem}_labels.npy"), path.with_name("y.npy")]
    labels = next((other for other in beside if other.is_file() and other != path), None)
    if labels is None:
        raise UsageError(
            f"{path} holds one array, the inputs; expected their labels beside it as {beside[0].name} or y.npy, and "
            "there is neither. Save them so, or both in one file: np.savez('name.npz', x=x, y=y)."
        )
    return {"x": _read_one(path), "y": _read_one(labels)}, []


def _read_one(path: Path) -> Array:
    def read() -> Array:
        with path.open("rb") as stream:
            return _read_stream(stream, str(path))

    return _guarded(path, "a whole .npy array", read)


def _read_stream(stream: IO[bytes], what: str) -> Array:
    """Read one array of the .npy format; one of objects is refused by its header, and nothing is unpickled."""
    version = np.lib.format.read_magic(stream)
    read_header: Callable[[IO[bytes]], tuple[Shape, bool, np.dtype[Any]]]
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if read_header(stream)[2].hasobject:
        raise WorkError(
            f"{what}: expected an array of numbers; got one of Python objects, which is what NumPy makes of images of "
            "mixed sizes or rows of mixed lengths. It is refused, because to read it is to run code. Bring all to one "
            "size and save a plain array."
        )
    stream.seek(0)
    array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _read_torch(path: Path) -> tuple[dict[str, Array], list[str]]:
    content = _guarded(
        path, "a whole file of torch.save", lambda: torch.load(path, map_location="cpu", weights_only=True)
    )
    if isinstance(content, tuple | list) and len(content) == 2:
        content = dict(zip(("x", "y"), content, strict=True))
    if not isinstance(content, dict):
        raise UsageError(
            f"{path}: expected a dict of tensors with the keys x and y, or a pair (x, y); got "
            f"{type(content).__name__}. Save one so: torch.save({{'x': x, 'y': y}}, path)."
        )
    keys = [str(key) for key in content]
    known = {str(key): value for key, value in content.items() if _role(str(key))}
    return {key: _from_torch(value, key, path) for key, value in known.items()}, [k for k in keys if not _role(k)]


def _from_torch(value: object, key: str, path: Path) -> Array:
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return np.array(value)
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        raise UsageError(f"{path}, '{key}': expected a plain, dense tensor; got {type(value).__name__}.")
    return (value.float() if value.dtype == torch.bfloat16 else value).detach().resolve_conj().resolve_neg().numpy()


def _guarded(path: Path, expected: str, read: Callable[[], T]) -> T:
    """Run a reader; whatever a damaged or hostile file makes it raise becomes a `WorkError`."""
    try:
        return read()
    except GlassnetError:
        raise
    except PermissionError:
        raise WorkError(f"{path}: expected a file that may be read; permission denied. Correct it.") from None
    except Exception as error:  # the readers raise almost anything on a damaged file
        with path.open("rb") as stream:
            is_pickle = stream.read(1) == b"\x80"
        found = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found or is_pickle:
            named = f" ({found[1]})" if found else ""
            raise WorkError(
                f"{path}: expected {expected}; got pickled Python objects{named}. They are refused, because to read "
                "them is to run code, and nothing in them was run. Save plain arrays or tensors."
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WorkError(f"{path}: expected {expected}; it is damaged or cut short ({reason}). Copy it again.") from None


# Names


def _role(key: str) -> tuple[str, str] | None:
    """Return what a key stands for, `(role, split)`, with `all` for no split; None for an unknown key."""
    if key.lower() == CLASS_NAMES:
        return CLASS_NAMES, "all"
    words = key.lower().split("_")
    splits = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    names = [word for word in words if word not in SPLIT_WORDS]
    if len(names) != 1 or len(splits) > 1:
        return None
    roles = {**dict.fromkeys(INPUT_NAMES, "inputs"), **dict.fromkeys(LABEL_NAMES, "labels")}
    return (roles[names[0]], splits[0] if splits else "all") if names[0] in roles else None


def _find_parts(arrays: Mapping[str, Array], others: Sequence[str]) -> tuple[Parts, tuple[str, ...] | None]:
    """Sort the arrays by role and split, and check that inputs and labels belong together."""
    keys: dict[tuple[str, str], str] = {}
    for key in arrays:
        place = _role(key) or ("", "")
        if place in keys:
            raise UsageError(f"'{keys[place]}' and '{key}' could both be the {place[0]}. Rename one.")
        keys[place] = key
    names = keys.pop((CLASS_NAMES, "all"), None)
    splits = {split for _, split in keys}
    parts: Parts = {"inputs": {}, "labels": {}}
    for (role, split), key in keys.items():
        parts[role]["train" if split == "all" else split] = arrays[key]
    is_mixed = "all" in splits and len(splits) > 1
    if "train" not in parts["inputs"] or set(parts["inputs"]) != set(parts["labels"]) or is_mixed:
        raise UsageError(
            f"Expected inputs ({', '.join(INPUT_NAMES)}) with labels ({', '.join(LABEL_NAMES)}), or x_train "
            f"and y_train, and so on for each split; got {', '.join([*arrays, *others]) or 'nothing'}. "
            "Rename the arrays."
        )
    for split, inputs in parts["inputs"].items():
        _check_lengths(inputs, parts["labels"][split], split)
    return parts, None if names is None else _read_names(arrays[names])


def _read_names(names: Array) -> tuple[str, ...]:
    if names.dtype.kind not in "US" or names.ndim != 1:
        raise UsageError(f"Expected class_names as a row of texts; got {names.dtype} {names.shape}.")
    return tuple(_text(names).tolist())


def _check_lengths(inputs: Array, labels: Array, split: str) -> None:
    if not inputs.ndim or not labels.ndim or not inputs.size or not labels.size:
        raise UsageError(
            f"Expected inputs and labels with one example at least; got shapes {inputs.shape} and {labels.shape} in "
            f"the {split} split. Was the file written whole?"
        )
    if len(inputs) != len(labels):
        raise UsageError(
            f"Expected a label for each input; got {len(inputs)} inputs and {len(labels)} labels in the {split} split."
        )


# Inputs


@dataclass(frozen=True)
class _Plan:
    """How an array becomes inputs."""

    shape: tuple[int, ...]
    """With -1 for N: axes of size 1 are put in by it."""
    is_channels_last: bool = False
    scale: int | None = None
    """Factor to 8-bit levels; None for numbers."""


def _inputs(arrays: Mapping[str, Array]) -> tuple[dict[str, Tensor], str]:
    """Turn the arrays of all splits into inputs in the same way, and say in words which."""
    first = arrays["train"]
    for split, array in arrays.items():
        if array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
            raise UsageError(
                f"All splits must have inputs of one type and shape; got {first.dtype} {first.shape} to train and "
                f"{array.dtype} {array.shape} for {split}. Save them alike."
            )
    plan = _plan_inputs(list(arrays.values()))
    inputs = {split: _apply(plan, array, split) for split, array in arrays.items()}
    shape = inputs["train"].shape[1:]
    what = "images" if plan.scale else {1: "rows", 2: "series", 3: "numbers", 4: "volumes"}[len(shape)]
    axes = {1: "(F,)", 2: "(C, L)", 3: "(C, H, W)", 4: "(C, D, H, W)"}[len(shape)]
    moved = ", channels moved from last to first" if plan.is_channels_last else ""
    levels = f"; {first.dtype} values times {plan.scale} are exact 8-bit levels" if first.dtype != np.uint8 else ""
    told = f"inputs {first.dtype} (N, {str(first.shape[1:])[1:-1].rstrip(',')}) read as {what}"
    return inputs, f"{told} {axes} = {tuple(shape)}{moved}{levels if plan.scale else ''}{_hint(first, plan)}"


def _hint(array: Array, plan: _Plan) -> str:
    if array.ndim == 3 and not plan.scale and min(array.shape[1:]) > 4:
        return "; if they are grey images, save them as uint8, or as (N, 1, H, W)"
    if array.ndim == 2 and array.dtype == np.uint8:
        return "; if they are flattened images, save them as (N, H, W) or (N, C, H, W)"
    return ""


def _plan_inputs(arrays: Sequence[Array]) -> _Plan:
    first = arrays[0]
    shape = first.shape[1:]
    if first.dtype.kind not in "buif" or first.ndim > 5:
        raise UsageError(f"Inputs must be real numbers with 1 to 5 axes; got {first.dtype} {first.shape}.")
    if first.ndim == 1:
        return _Plan((-1, 1))
    if first.ndim < 4:
        is_image = first.dtype == np.uint8 and first.ndim == 3
        return _Plan((-1, 1, *shape), scale=1) if is_image else _Plan((-1, *shape))
    has_channels = shape[0] in (1, 3) or shape[-1] in (1, 3)
    is_last = has_channels and shape[0] not in (1, 3)
    if first.ndim == 5:
        return _Plan((-1, *shape), is_last)
    if first.dtype == np.uint8 and not has_channels:
        raise UsageError(
            f"Images as uint8 must be (N, C, H, W) or (N, H, W, C) with 1 or 3 channels; got {first.shape}. Drop an "
            "alpha channel by x[..., :3]; for other channels save float32, and for volumes (N, 1, D, H, W)."
        )
    return _Plan((-1, *shape), is_last, _level_scale(arrays) if has_channels else None)


def _level_scale(arrays: Sequence[Array]) -> int | None:
    """Return the factor that makes the values of all `arrays` whole numbers in 0..255, or None where none does.

    255 for floats and booleans that lie in 0..1, else 1. A float may be off by two roundings of its own type.
    """
    dtype = arrays[0].dtype
    low, high = np.min([array.min() for array in arrays]), np.max([array.max() for array in arrays])
    if not (low >= 0 and high <= 255):
        return None
    scale = 255 if dtype.kind in "fb" and high <= 1 else 1
    tolerance = 2 * scale * float(np.finfo(dtype).eps) if dtype.kind == "f" and scale > 1 else 0.0
    for array in arrays:
        for start in range(0, len(array), CHUNK_ROWS):
            levels = array[start : start + CHUNK_ROWS].astype(np.float64) * scale
            if np.abs(levels - np.rint(levels)).max() > tolerance:
                return None
    return scale


def _apply(plan: _Plan, array: Array, split: str) -> Tensor:
    """Return `array` as inputs. Raises `UsageError` for numbers that are not finite as float32."""
    if plan.scale is None:
        values = _finite(array, "inputs", split)
    else:
        values = array if array.dtype == np.uint8 else _levels(array, plan.scale)
    values = values.reshape(plan.shape)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 1) if plan.is_channels_last else values))


def _levels(array: Array, scale: int) -> NDArray[np.uint8]:
    """Return `array * scale`, whole numbers in 0..255, as bytes."""
    levels = np.empty(array.shape, dtype=np.uint8)
    for start in range(0, len(array), CHUNK_ROWS):
        levels[start : start + CHUNK_ROWS] = np.rint(array[start : start + CHUNK_ROWS].astype(np.float64) * scale)
    return levels


def _finite(array: Array, what: str, split: str) -> Array:
    """Return `array` as float32."""
    with np.errstate(over="ignore"):  # what overflows is found below
        values = array.astype(np.float32)
    is_finite = np.isfinite(values)
    if is_finite.all():
        return values
    first = np.unravel_index(int(is_finite.argmin()), values.shape)
    raise UsageError(
        f"Expected finite numbers within the range of float32; {int((~is_finite).sum())} of {values.size} {what} of "
        f"the {split} split are nan or infinite, the first at [{', '.join(str(place) for place in first)}]. "
        "Fill or drop them."
    )


# Labels


def _examples(
    inputs: Mapping[str, Tensor], labels: Mapping[str, Array], class_names: tuple[str, ...] | None
) -> tuple[dict[str, ExampleSet], str]:
    """Join inputs with labels, which are classes or values in all splits alike, and say in words which."""
    flat = {split: array[:, 0] if array.shape[1:] == (1,) else array for split, array in labels.items()}
    first = flat["train"]
    if len({(_LABEL_KINDS.get(array.dtype.kind, "other"), *array.shape[1:]) for array in flat.values()}) > 1:
        found = ", ".join(f"{array.dtype} {array.shape} ({split})" for split, array in flat.items())
        raise UsageError(f"All splits must have labels of one type and shape; got {found}. Save them alike.")
    kind = _LABEL_KINDS.get(first.dtype.kind)
    told = f"labels {first.dtype} {first.shape} read as"
    if all(_is_one_hot(array) for array in flat.values()):
        class_names = _names_for_columns(class_names, first.shape[1])
        flat = {split: array.argmax(1) for split, array in flat.items()}
        first, kind, told = flat["train"], "whole", f"{told} one-hot rows,"
    elif kind == "values" and first.ndim <= 2 and class_names is None:
        return {split: _values(inputs[split], array, split) for split, array in flat.items()}, _told_values(first)
    if kind in (None, "values") or first.ndim != 1:
        raise UsageError(
            "Labels must be whole numbers or texts (N,), one-hot rows (N, K), or, without class_names, values as "
            f"floats (N,) or (N, K); got {first.dtype} {first.shape}{' with class_names' if class_names else ''}."
        )
    sets = {split: _classes(inputs[split], array, split, class_names) for split, array in flat.items()}
    names = class_names or sets["train"].class_names
    if sum(count > 0 for count in sets["train"].class_counts()) < 2:
        raise UsageError("Expected labels of two classes at least; all training labels are the same. Check the labels.")
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    is_fine = len(names) > 20 and 2 * len(names) > len(first)
    hint = "; most stand once: to predict them as values, save floats" if is_fine else ""
    return {split: examples.aligned_to(names) for split, examples in sets.items()}, (
        f"{told} {len(names)} classes ({listed}){hint}"
    )


_LABEL_KINDS = {"i": "whole", "u": "whole", "b": "truth", "U": "text", "S": "text", "f": "values"}


def _is_one_hot(labels: Array) -> bool:
    if labels.ndim != 2 or labels.dtype.kind not in "buif":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def _names_for_columns(class_names: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    names = class_names or tuple(str(index) for index in range(count))
    if len(names) != count:
        raise UsageError(f"Expected a name for each of the {count} columns of one-hot labels; got {len(names)} names.")
    return names


def _values(inputs: Tensor, labels: Array, split: str) -> ExampleSet:
    return ExampleSet(inputs, torch.from_numpy(_finite(labels, "labels", split)), ())


def _told_values(labels: Array) -> str:
    is_whole = bool((labels == np.rint(labels)).all())
    hint = "; all are whole numbers: if they are classes, save integers" if is_whole else ""
    return f"labels {labels.dtype} {labels.shape} read as values to predict (regression){hint}"


def _classes(inputs: Tensor, labels: Array, split: str, class_names: tuple[str, ...] | None) -> ExampleSet:
    """Return the examples of one split with the classes that occur in it, or with `class_names`."""
    if labels.dtype.kind in "iu":
        top = len(class_names) - 1 if class_names else np.iinfo(np.int64).max
        outside = (labels < 0) | (labels > top)
        if outside.any():
            first = int(outside.argmax())
            known = f"in 0..{top}, as there are {top + 1} class names" if class_names else "0 or more"
            raise UsageError(
                f"Labels must be {known}; label {first} of the {split} split is {labels[first]} "
                f"({int(outside.sum())} such labels in all). Correct the labels or the class names."
            )
        if class_names:
            return ExampleSet(inputs, torch.from_numpy(labels.astype(np.int64)), class_names)
    values, places = np.unique(labels if labels.dtype.kind in "iub" else _text(labels), return_inverse=True)
    names = tuple(str(value).lower() if labels.dtype.kind == "b" else str(value) for value in values)
    return ExampleSet(inputs, torch.from_numpy(places.astype(np.int64)), names)


def _text(values: Array) -> Array:
    """Return texts; bytes must be UTF-8."""
    try:
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    except UnicodeDecodeError as error:
        raise UsageError(f"Expected labels as UTF-8; got bytes that are not ({error}). Save them as texts.") from None
