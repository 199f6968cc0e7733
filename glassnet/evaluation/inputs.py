"""What a user gives to be predicted, as a network's inputs: images, arrays, tables, one or many, by what they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glassnet._errors import GlassnetError, UsageError
from glassnet._types import PathArg
from glassnet.data.array_file import ARRAY_SUFFIXES
from glassnet.data.arrays import NOT_FINITE, load_inputs
from glassnet.data.delimited_file import TABLE_SUFFIXES
from glassnet.data.encoded_table import encode_file, encode_mappings
from glassnet.data.images import SetAside, UnreadableImageError
from glassnet.data.records import InputRecord, reading_of, stored_encoding

InputArg = PathArg | Image.Image | Tensor | np.ndarray | Mapping[str, object]


@dataclass(frozen=True, eq=False, kw_only=True)
class GatheredInputs:
    """Inputs from one source or many, in the order given."""

    inputs: Tensor
    """Fitted, not yet normalised: `(N, *input_shape)`."""
    sources: tuple[str, ...]
    """What each input is called: a file, a place in one, or its position among those given."""
    set_aside: tuple[SetAside, ...] = ()
    """What cannot be used, and why."""
    notes: tuple[str, ...] = ()
    """What a reader should know, a sentence each."""


def gather_inputs(given: InputArg | Sequence[InputArg], record: InputRecord) -> GatheredInputs:
    """Make inputs of image files, Pillow images and arrays, of files of arrays, and of tables and rows of them.

    An array is one image `(H, W)` or `(C, H, W)`, or a batch `(N, C, H, W)`; numbers are one input of the record's
    shape, or a batch of them. A row of a table is a mapping from columns to cells. An image that cannot be read is set
    aside with the reason, and so is any file among several, and an input with numbers that are not finite.

    Raises `UsageError` for input of another kind, and what a single file that cannot be used raises.
    """
    rows = [given] if isinstance(given, Mapping) else given
    if isinstance(rows, Sequence) and not isinstance(rows, str) and rows and isinstance(rows[0], Mapping):
        return _gather_mappings(rows, record)
    named = _named(given, len(record.input_shape))
    parts = [_one(source, part, record, is_single=len(named) == 1) for source, part in named]
    example = record.example()
    return GatheredInputs(
        inputs=torch.cat([part.inputs for part in parts]) if parts else example[:0],
        sources=tuple(source for part in parts for source in part.sources),
        set_aside=tuple(item for part in parts for item in part.set_aside),
        notes=tuple(note for part in parts for note in part.notes),
    )


def _gather_mappings(rows: Sequence[object], record: InputRecord) -> GatheredInputs:
    encoding = stored_encoding(record, "given in Python")
    found = [row for row in rows if isinstance(row, Mapping)]
    if len(found) < len(rows):
        kind = next(type(row).__name__ for row in rows if not isinstance(row, Mapping))
        raise UsageError(f"Expected rows that map columns to cells; got a {kind} among them. Give rows alone.")
    encoded = encode_mappings(found, encoding)
    return GatheredInputs(
        inputs=record.fit_inputs(encoded.inputs),
        sources=encoded.sources,
        set_aside=encoded.set_aside,
        notes=encoded.notes,
    )


def _one(source: str, given: InputArg, record: InputRecord, *, is_single: bool) -> GatheredInputs:
    """Return the inputs of one source; a file among several that cannot be used is set aside."""
    if not isinstance(given, str | os.PathLike):
        return _finite(source, _fit(given, record)[None])
    try:
        return _from_file(Path(given), record)
    except UnreadableImageError as error:
        return _nothing(source, error, record)
    except GlassnetError as error:
        if is_single:
            raise
        return _nothing(source, error, record)


def _from_file(path: Path, record: InputRecord) -> GatheredInputs:
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        encoded = encode_file(path, stored_encoding(record, path))
        return GatheredInputs(
            inputs=record.fit_inputs(encoded.inputs),
            sources=encoded.sources,
            set_aside=encoded.set_aside,
            notes=encoded.notes,
        )
    if suffix in ARRAY_SUFFIXES:
        arrays = load_inputs(path, reading_of(record), record.input_shape)
        try:
            inputs = record.fit_inputs(arrays.inputs)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        return GatheredInputs(inputs=inputs, sources=arrays.sources, set_aside=arrays.set_aside)
    return GatheredInputs(inputs=record.fit_image(path)[None], sources=(str(path),))


def _finite(source: str, inputs: Tensor) -> GatheredInputs:
    """Return one input `(1, ...)`, set aside where it has numbers that are not finite."""
    if not inputs.is_floating_point() or bool(inputs.isfinite().all()):
        return GatheredInputs(inputs=inputs, sources=(source,))
    return GatheredInputs(inputs=inputs[:0], sources=(), set_aside=(SetAside(source, NOT_FINITE),))


def _nothing(source: str, error: GlassnetError, record: InputRecord) -> GatheredInputs:
    reason = str(error).removeprefix(f"{source}: ")
    return GatheredInputs(inputs=record.example()[:0], sources=(), set_aside=(SetAside(source, reason),))


def _named(given: InputArg | Sequence[InputArg], num_axes: int) -> list[tuple[str, InputArg]]:
    return list(_names(given, num_axes))


def _names(given: InputArg | Sequence[InputArg], num_axes: int) -> Iterator[tuple[str, InputArg]]:
    """Yield each input with what it is called; an array with one axis more than an input is a batch."""
    if isinstance(given, np.ndarray):
        given = _tensor(given)
    parts: Sequence[InputArg]
    if isinstance(given, Tensor):
        parts = list(given) if given.ndim == num_axes + 1 else [given]
    elif isinstance(given, str | os.PathLike | Image.Image | Mapping) or not isinstance(given, Sequence):
        parts = [given]
    else:
        parts = given
    for position, part in enumerate(parts):
        yield (str(part) if isinstance(part, str | os.PathLike) else f"image {position}"), part


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise UsageError(f"An array of images or numbers must hold numbers; got {array.dtype}.")
    return torch.from_numpy(np.array(array))  # a copy: an array of Pillow's may not be written


def _fit(image: InputArg, record: InputRecord) -> Tensor:
    if isinstance(image, np.ndarray):
        image = _tensor(image)
    if isinstance(image, Tensor):
        is_grey = image.ndim == 2 and len(record.input_shape) == 3
        image = image[None] if is_grey else image
        if image.ndim != len(record.input_shape):
            shapes = "(H, W) or (C, H, W) as uint8" if len(record.input_shape) == 3 else str(record.input_shape)
            raise UsageError(f"An input is {shapes}; got shape {tuple(image.shape)}.")
        return record.fit_inputs(image[None].cpu())[0]
    if isinstance(image, Image.Image):
        return record.fit_image(image)
    raise UsageError(f"Expected an image file, a Pillow image or a uint8 array; got {type(image).__name__}.")
