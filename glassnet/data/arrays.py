"""Arrays from a .npz, .npy or .pt file: inputs and labels found by name, and told apart by type and shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import PathArg, Shape
from glassnet.data.array_file import CLASS_NAMES, INPUT_NAMES, LABEL_NAMES, Array, read_file, role_of
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.images import SetAside
from glassnet.data.splits import cut_positions

NOT_FINITE = "expected finite numbers within the range of float32; it has nan or infinity"
"""Why one input among many is set aside."""
CHUNK_ROWS = 4096
"""Rows that are looked at or converted at a time, so that no second copy of a large array is made in float64."""

Parts = dict[str, dict[str, Array]]
"""Arrays by role (`inputs`, `labels`) and split."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayData:
    """A data set that was read from a file of arrays."""

    dataset: Dataset
    notes: tuple[str, ...]
    """What was understood of the file, and how, a sentence each."""


def load_array(
    path: PathArg,
    *,
    seed: int,
    validation_share: float = 0.1,
    test_share: float = 0.2,
    task: str | None = None,
    reading: ArrayReading | None = None,
) -> ArrayData:
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
    `task` (`classification` or `regression`) overrides this for numbers.

    `reading` says how the inputs of another file were read, which these are to be read like.

    Nothing is unpickled but tensors: an array of Python objects is refused. Raises `UsageError` for arrays that are
    not found or do not fit together, labels that are negative or beyond the classes, and values that are not finite;
    `WorkError` for a file that is missing, damaged, or holds objects.
    """
    path = Path(path)
    arrays, others = read_file(path)
    try:
        sets, notes, scale = _read_sets(arrays, others, task, reading)
        train, validation, test = _complete(sets, seed, validation_share, test_share)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    shares = {"validation": validation_share, "test": test_share}
    cut = [split for split, share in shares.items() if share and split not in sets]
    if cut:
        notes.append(f"{' and '.join(cut)} cut from the training examples by seed {seed}")
    notes.append(f"{len(train)} examples to train, {len(validation)} to validate, {len(test)} to test")
    framing = Framing(array_scale=scale)
    dataset = Dataset(path.stem, train, validation, test, seed=seed, framing=framing, validation_share=validation_share)
    return ArrayData(dataset=dataset, notes=tuple(notes))


def _read_sets(
    arrays: Mapping[str, Array], others: Sequence[str], task: str | None, reading: ArrayReading | None
) -> tuple[dict[str, ExampleSet], list[str], int | None]:
    """Return the examples of the splits that are given, what was understood, and the factor to 8-bit levels."""
    parts, class_names = _find_parts(arrays, others)
    inputs, told_inputs, scale = _inputs(parts["inputs"], reading)
    labels = {split: _for_task(array, task) for split, array in parts["labels"].items()}
    sets, told_labels = _examples(inputs, labels, class_names)
    return sets, [*(f"'{key}' is not used" for key in others), told_inputs, told_labels], scale


@dataclass(frozen=True, kw_only=True)
class ArrayReading:
    """How arrays were read at training, so that others are read alike whatever their values are."""

    is_image: bool
    """Whether they were images; else they were numbers."""
    scale: int | None = None
    """The factor to 8-bit levels, 1 or 255; None: found by the values."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayInputs:
    """The inputs of a file."""

    inputs: Tensor
    """`uint8 (N, C, H, W)`, or `float32 (N, ...)`."""
    sources: tuple[str, ...]
    """The file and the place in its array, such as `new.npz[3]`."""
    set_aside: tuple[SetAside, ...]
    """Inputs with numbers that are not finite."""


def load_inputs(path: PathArg, reading: ArrayReading, input_shape: Shape) -> ArrayInputs:
    """Load the inputs alone, found by name as in `load_array`, or the one array that the file holds.

    `input_shape` is the shape of one input of the network: an array of that shape is one input. Where a file has
    splits, all are read. Inputs with nan or infinity are set aside.

    Raises `UsageError` where no inputs are found or they cannot be read as at training, `WorkError` as `load_array`.
    """
    path = Path(path)
    arrays, others = read_file(path, needs_labels=False)
    found = {key: array for key, array in arrays.items() if (role_of(key) or ("",))[0] == "inputs"}
    if not found:
        raise UsageError(
            f"{path}: expected inputs, an array named {', '.join(INPUT_NAMES)}; got "
            f"{', '.join([*arrays, *others]) or 'nothing'}. Rename it, or save it alone."
        )
    inputs, sources, set_aside = [], [], []
    for key, array in found.items():
        name = f"{path}" if len(found) == 1 else f"{path}, {key}"
        array = array[None] if array.shape == input_shape and array.shape != (1,) else array
        is_good = _finite_rows(array)
        sources += [f"{name}[{place}]" for place in is_good.nonzero()[0].tolist()]
        bad = (~is_good).nonzero()[0].tolist()
        set_aside += [SetAside(f"{name}[{place}]", NOT_FINITE) for place in bad]
        if is_good.any():
            try:
                inputs.append(_apply(_plan_inputs([array[is_good]], reading), array[is_good], "test"))
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
    if len({tuple(part.shape[1:]) for part in inputs}) > 1:
        raise UsageError(f"{path}: expected inputs of one shape; got {[tuple(part.shape) for part in inputs]}.")
    empty = torch.zeros(0, *input_shape, dtype=torch.uint8 if reading.is_image else torch.float32)
    return ArrayInputs(
        inputs=torch.cat(inputs) if inputs else empty, sources=tuple(sources), set_aside=tuple(set_aside)
    )


def _finite_rows(array: Array) -> NDArray[np.bool_]:
    """Return which rows hold finite numbers within the range of float32 alone, `(N,)`."""
    if array.dtype.kind != "f" or not array.ndim:
        return np.ones(array.shape[:1], dtype=np.bool_)
    with np.errstate(over="ignore"):
        return np.array([bool(np.isfinite(row.astype(np.float32)).all()) for row in array], dtype=np.bool_)


def _for_task(labels: Array, task: str | None) -> Array:
    """Return labels of numbers as floats for regression, as whole numbers for classification, else as they are."""
    if task == "regression" and labels.dtype.kind in "buif":
        return labels.astype(np.float64)
    if task == "regression":
        raise UsageError(f"Expected labels that are numbers for regression; got {labels.dtype}. Leave task out.")
    if task == "classification" and labels.dtype.kind == "f":
        if not (labels == np.rint(labels)).all():
            raise UsageError("Expected labels that are whole numbers for classification; got others. Leave task out.")
        return labels.astype(np.int64)
    return labels


def _complete(
    sets: Mapping[str, ExampleSet], seed: int, validation_share: float, test_share: float
) -> tuple[ExampleSet, ExampleSet, ExampleSet]:
    """Return the three splits: as given, or cut from `train`."""
    whole = sets["train"]
    shares = (0.0 if "validation" in sets else validation_share, 0.0 if "test" in sets else test_share)
    train, validation, test = cut_positions(whole.labels, seed, *shares)
    return whole[train], sets.get("validation", whole[validation]), sets.get("test", whole[test])


# Names


def _find_parts(arrays: Mapping[str, Array], others: Sequence[str]) -> tuple[Parts, tuple[str, ...] | None]:
    """Sort the arrays by role and split, and check that inputs and labels belong together."""
    keys: dict[tuple[str, str], str] = {}
    for key in arrays:
        place = role_of(key) or ("", "")
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


def _inputs(arrays: Mapping[str, Array], reading: ArrayReading | None) -> tuple[dict[str, Tensor], str, int | None]:
    """Turn the arrays of all splits into inputs in the same way; say in words which, and the factor to levels."""
    first = arrays["train"]
    for split, array in arrays.items():
        if array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
            raise UsageError(
                f"All splits must have inputs of one type and shape; got {first.dtype} {first.shape} to train and "
                f"{array.dtype} {array.shape} for {split}. Save them alike."
            )
    plan = _plan_inputs(list(arrays.values()), reading)
    inputs = {split: _apply(plan, array, split) for split, array in arrays.items()}
    shape = inputs["train"].shape[1:]
    what = "images" if plan.scale else {1: "rows", 2: "series", 3: "numbers", 4: "volumes"}[len(shape)]
    axes = {1: "(F,)", 2: "(C, L)", 3: "(C, H, W)", 4: "(C, D, H, W)"}[len(shape)]
    moved = ", channels moved from last to first" if plan.is_channels_last else ""
    levels = f"; {first.dtype} values times {plan.scale} are exact 8-bit levels" if first.dtype != np.uint8 else ""
    told = f"inputs {first.dtype} (N, {str(first.shape[1:])[1:-1].rstrip(',')}) read as {what}"
    return (
        inputs,
        f"{told} {axes} = {tuple(shape)}{moved}{levels if plan.scale else ''}{_hint(first, plan)}",
        plan.scale,
    )


def _hint(array: Array, plan: _Plan) -> str:
    if array.ndim == 3 and not plan.scale and min(array.shape[1:]) > 4:
        return "; if they are grey images, save them as uint8, or as (N, 1, H, W)"
    if array.ndim == 4 and not plan.scale and array.dtype.kind == "f" and {array.shape[1], array.shape[-1]} & {1, 3}:
        return "; if they are images, save them as uint8: numbers are neither resized nor augmented"
    if array.ndim == 2 and array.dtype == np.uint8:
        return "; if they are flattened images, save them as (N, H, W) or (N, C, H, W)"
    return ""


def _plan_inputs(arrays: Sequence[Array], reading: ArrayReading | None = None) -> _Plan:
    """Plan how to read inputs: by type, shape and values, or as others were read."""
    if reading is not None:
        return _plan_alike(arrays, reading)
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


def _plan_alike(arrays: Sequence[Array], reading: ArrayReading) -> _Plan:
    """Plan to read inputs as images or as numbers, as others were; the shape alone says where channels stand."""
    first = arrays[0]
    shape = first.shape[1:]
    if first.dtype.kind not in "buif" or not 1 <= first.ndim <= 5:
        raise UsageError(f"Inputs must be real numbers with 1 to 5 axes; got {first.dtype} {first.shape}.")
    is_last = first.ndim >= 4 and shape[-1] in (1, 3) and shape[0] not in (1, 3)
    if not reading.is_image:
        return _Plan((-1, *shape) if shape else (-1, 1), is_last)
    if first.ndim not in (3, 4):
        raise UsageError(f"Expected images (N, H, W) or (N, C, H, W), as at training; got {first.dtype} {first.shape}.")
    scale = 1 if first.dtype == np.uint8 else _level_scale(arrays, reading.scale)
    if scale is None:
        raise UsageError(
            f"Expected images with 8-bit levels, 0..255 or whole 255ths in 0..1, as at training; got {first.dtype} "
            "values that are none. Save them as uint8."
        )
    return _Plan((-1, 1, *shape) if first.ndim == 3 else (-1, *shape), is_last, scale)


def _level_scale(arrays: Sequence[Array], known: int | None = None) -> int | None:
    """Return the factor that makes the values of all `arrays` whole numbers in 0..255, or None where none does.

    It is `known` for floats and booleans where that is given; else 255 for those that lie in 0..1, and 1 for others. A
    float may be off by two roundings of its own type.
    """
    dtype = arrays[0].dtype
    low, high = np.min([array.min() for array in arrays]), np.max([array.max() for array in arrays])
    if not (low >= 0 and high <= 255):
        return None
    scale = (known or (255 if high <= 1 else 1)) if dtype.kind in "fb" else 1
    if high * scale > 255 * (1 + 1e-3):
        return None
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
