"""A file of arrays, .npz, .npy or .pt: read by name, and nothing in it is run."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassnet._errors import GlassnetError, UsageError, WorkError
from glassnet._types import Shape
from glassnet.data.splits import SPLIT_WORDS

ARRAY_SUFFIXES = (".npz", ".npy", ".pt", ".pth")
INPUT_NAMES = ("x", "inputs", "images", "data")
LABEL_NAMES = ("y", "labels", "targets")
CLASS_NAMES = "class_names"
T = TypeVar("T")
Array = NDArray[Any]


def read_file(path: Path, needs_labels: bool = True) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays of a file that have a known name, and the names of the others.

    Without `needs_labels`, a file that holds one array and no name for it holds the inputs, `x`.
    """
    if not path.is_file():
        received = "a folder" if path.is_dir() else "no such file"
        raise WorkError(f"{path}: expected a file of arrays; got {received}.")
    readers: dict[str, Callable[[Path, bool], tuple[dict[str, Array], list[str]]]]
    readers = {".npz": _read_npz, ".npy": _read_npy, ".pt": _read_torch, ".pth": _read_torch}
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path}: expected a name that ends in {', '.join(readers)}; got '{path.suffix}'.")
    return readers[path.suffix.lower()](path, needs_labels)


def _read_npz(path: Path, needs_labels: bool) -> tuple[dict[str, Array], list[str]]:
    def read() -> tuple[dict[str, Array], list[str]]:
        with zipfile.ZipFile(path) as archive:
            keys = {name.removesuffix(".npy"): name for name in archive.namelist()}
            known = {key: name for key, name in keys.items() if role_of(key)}
            if len(keys) == 1 and not needs_labels:
                known = {"x": next(iter(keys.values()))}
            arrays = {}
            for key, name in known.items():
                with archive.open(name) as stream:
                    arrays[key] = _read_stream(stream, f"{path}, '{key}'")
        return arrays, [key for key, name in keys.items() if name not in known.values()]

    return _guarded(path, "a whole .npz archive", read)


def _read_npy(path: Path, needs_labels: bool) -> tuple[dict[str, Array], list[str]]:
    if not needs_labels:
        return {"x": _read_one(path)}, []
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


def _read_torch(path: Path, needs_labels: bool) -> tuple[dict[str, Array], list[str]]:
    content = _guarded(
        path, "a whole file of torch.save", lambda: torch.load(path, map_location="cpu", weights_only=True)
    )
    if isinstance(content, Tensor) and not needs_labels:
        content = {"x": content}
    if isinstance(content, tuple | list) and len(content) == 2:
        content = dict(zip(("x", "y"), content, strict=True))
    if not isinstance(content, dict):
        raise UsageError(
            f"{path}: expected a dict of tensors with the keys x and y, or a pair (x, y); got "
            f"{type(content).__name__}. Save one so: torch.save({{'x': x, 'y': y}}, path)."
        )
    if len(content) == 1 and not needs_labels:
        content = {"x": next(iter(content.values()))}
    keys = [str(key) for key in content]
    known = {str(key): value for key, value in content.items() if role_of(str(key))}
    return {key: _from_torch(value, key, path) for key, value in known.items()}, [k for k in keys if not role_of(k)]


def _from_torch(value: object, key: str, path: Path) -> Array:
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return np.array(value)
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        sizes = (
            {tuple(part.shape) for part in value if isinstance(part, Tensor)} if isinstance(value, list | tuple) else ()
        )
        of = f" of tensors of {len(sizes)} shapes" if len(sizes) > 1 else ""
        raise UsageError(
            f"{path}, '{key}': expected a plain, dense tensor; got {type(value).__name__}{of}. Bring all to one shape "
            "and save one tensor: torch.stack(tensors)."
        )
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
        said = (str(error).splitlines() or [""])[0]
        reason = said if re.search("[a-z]{2}", said) else type(error).__name__
        raise WorkError(f"{path}: expected {expected}; it is damaged or cut short ({reason}). Copy it again.") from None


def role_of(key: str) -> tuple[str, str] | None:
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
