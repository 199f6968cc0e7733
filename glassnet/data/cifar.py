"""CIFAR-10 in its Python version: pickled batches in a tar archive, read without running what a pickle may say."""

from __future__ import annotations

import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from glassnet._errors import WorkError
from glassnet.data.fetch import broken_file, check_md5, unreadable_file

TRAIN_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
TEST_BATCHES = ("test_batch",)
IMAGE_SHAPE = (3, 32, 32)
NUM_CLASSES = 10

MAX_BATCH_BYTES = 1 << 26
"""A batch of the published set has 31 MB; a member that claims more than twice that is not read into memory."""

STREAM_BYTES = 1 << 20
"""Bytes read from the archive at a time."""


class Batch(NamedTuple):
    """Images `uint8` `(N, C, H, W)` and their labels `int64` `(N,)`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_cifar(path: Path, md5: Mapping[str, str]) -> tuple[Batch, Batch]:
    """Read the training and the test examples of CIFAR-10, in the order of the published batches.

    `path` is `cifar-10-python.tar.gz`, which is read once as a stream and never unpacked, or the folder that it
    unpacks to. `md5` gives the digest (hex) of each batch, which is checked before the batch is decoded. A row of a
    batch is one image of 3 x 1024 values: its red plane, its green and its blue, each row by row (Krizhevsky,
    cs.toronto.edu/~kriz/cifar.html).

    Raises `BrokenFileError` for an archive that is truncated or altered, and `WorkError` for a batch that asks for
    any Python object besides an array.
    """

    def decode(part: tuple[str, bytes]) -> tuple[str, Batch]:
        name, content = part
        check_md5(content, md5[name], path, f"{name} as published")
        return name, decode_batch(content, path, name)

    with ThreadPoolExecutor(max_workers=1) as pool:  # one batch is checked while the next is gunzipped
        batches = dict(pool.map(decode, _batches(path)))
    train, test = (_joined([batches[name] for name in names]) for names in (TRAIN_BATCHES, TEST_BATCHES))
    return train, test


def check_cifar(path: Path, md5: Mapping[str, str]) -> None:
    """Raise `BrokenFileError`, as `read_cifar`, unless every batch at `path` is there and has its digest."""
    for name, content in _batches(path):
        check_md5(content, md5[name], path, f"{name} as published")


def _batches(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each of the six batches in the archive or folder at `path`, in its order."""
    missing = dict.fromkeys((*TRAIN_BATCHES, *TEST_BATCHES))
    for name, content in _folder_files(path) if path.is_dir() else _archive_members(path):
        if name in missing:
            del missing[name]
            yield name, content
        if not missing:
            return
    raise broken_file(path, "the six batches of CIFAR-10", f"no {', '.join(missing)}")


def _folder_files(path: Path) -> Iterator[tuple[str, bytes]]:
    for name in (*TRAIN_BATCHES, *TEST_BATCHES):
        try:
            yield name, (path / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unreadable_file(path / name, error) from error


def _archive_members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r|gz", bufsize=STREAM_BYTES) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if not member.isfile() or name not in (*TRAIN_BATCHES, *TEST_BATCHES):
                    continue
                if member.size > MAX_BATCH_BYTES:
                    raise broken_file(path, f"{name} of at most {MAX_BATCH_BYTES:,} bytes", f"{member.size:,} bytes")
                file = archive.extractfile(member)
                assert file is not None, "a regular member always opens"
                yield name, file.read()
    except OSError as error:
        raise unreadable_file(path, error) from error
    except (tarfile.TarError, zlib.error, EOFError, ValueError, TypeError) as error:  # TypeError: cut in its header
        raise broken_file(path, "a whole .tar.gz archive", f"a file that does not decode ({error})") from error


def decode_batch(content: bytes, path: Path, name: str) -> Batch:
    """Return the examples in the pickled `content` of the batch `name`; `path` is for messages.

    Raises `WorkError`, as `read_cifar`; the images are a view of memory that cannot be written.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(content), fix_imports=False, encoding="bytes").load()
        data, labels = batch[b"data"], batch[b"labels"]
        images = data.values if type(data) is _PickledArray else np.empty(0, np.uint8)
    except WorkError as error:
        raise WorkError(f"{path}: {name}: {error}") from None
    except Exception as error:  # a broken pickle may raise anything
        raise broken_file(path, f"{name} as a pickled batch", f"{type(error).__name__}: {error}") from error
    row = math.prod(IMAGE_SHAPE)
    if images.ndim != 2 or images.shape[1] != row:
        raise broken_file(path, f"{name} with images of {row:,} values in a row", f"data of shape {images.shape}")
    if not isinstance(labels, list) or len(labels) != len(images):
        count = len(labels) if isinstance(labels, list) else "no list of"
        raise broken_file(path, f"{name} with {len(images):,} labels, one for each image", f"{count} labels")
    wrong = next((label for label in labels if type(label) is not int or not 0 <= label < NUM_CLASSES), None)
    if wrong is not None:
        raise broken_file(path, f"{name} with labels in 0..{NUM_CLASSES - 1}", f"label {wrong!r}")
    return Batch(images.reshape(-1, *IMAGE_SHAPE), np.array(labels, dtype=np.int64))


def _joined(batches: list[Batch]) -> Batch:
    images, labels = zip(*batches, strict=True)
    return Batch(np.concatenate(images), np.concatenate(labels))


class _PickledType:
    """Stand-in for `numpy.dtype`, of which a batch has one kind: `u1`, the unsigned byte."""

    def __init__(self, code: bytes, *_: object) -> None:
        if code != b"u1":
            raise ValueError(f"values of type {code!r} where unsigned bytes belong")

    def __setstate__(self, state: object) -> None:
        """Take byte order and alignment, which mean nothing for single bytes."""


class _PickledArray:
    """Stand-in for `numpy.ndarray`: takes the same state, and checks it, as numpy's own does not."""

    values: NDArray[np.uint8]

    def __init__(self, *_: object) -> None:
        """Take the arguments of `_reconstruct`, which makes an empty array for `__setstate__` to fill."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, is_fortran, content = state
        if type(kind) is not _PickledType or type(content) is not bytes or is_fortran:
            raise ValueError("an array that is no block of bytes in C order")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)


_STAND_INS = {
    "numpy.core.multiarray._reconstruct": _PickledArray,
    "numpy.ndarray": _PickledArray,
    "numpy.dtype": _PickledType,
}
"""The three globals that the published batches name, and the classes here that stand for them.

A pickle says which functions to call, so one from a stranger could call any. With this table it reaches no function
outside this file: not even numpy's, whose own state-setters trust what they are given.
"""


class _BatchUnpickler(pickle.Unpickler):
    """An unpickler that knows the names in `_STAND_INS` and refuses every other."""

    def find_class(self, module_name: str, global_name: str) -> type:
        name = f"{module_name}.{global_name}"
        if name not in _STAND_INS:
            raise WorkError(
                f"expected a batch that is made of arrays, numbers and text; got a pickle that asks for '{name}', "
                "which was not run. Delete the file and take it from its authors."
            )
        return _STAND_INS[name]

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("a reference to an object outside the file")
