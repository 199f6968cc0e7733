"""Image files decoded once, in parallel, into a cache on disk that is mapped into memory.

A cache file is named after a digest of everything that decides its pixels: the content of the files and their order,
how they are fitted, and the version of the decoder. A file that is renamed, or copied elsewhere, is found again; one
that is changed is decoded anew. Processes and threads that want the same cache wait for each other at a lock file: the
first builds it, the others find it finished. The lock belongs to the process, not to the file, so that nothing is left
locked by a kill; and the next one goes on where the build was stopped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from PIL import features
from platformdirs import user_cache_dir
from torch import Tensor

from glassnet._errors import UsageError, WorkError
from glassnet._types import PathArg, Shape
from glassnet.data.content import Content, Streamed, in_order
from glassnet.data.decoding import SPARE
from glassnet.data.decoding_pool import decoded_blocks, pixels_or_reason
from glassnet.data.image_files import ImageFiles
from glassnet.data.images import SetAside
from glassnet.data.pixel_file import FORMAT, SUFFIXES, PixelLayout, PixelWriter, open_pixels

VERDICTS, VERDICTS_PARTIAL = ".verdicts", ".verdicts-partial"
"""Suffixes of what `verdicts` keeps in the same folder."""
CACHE_VARIABLE = "GLASSNET_CACHE"
"""The environment variable that names the folder of the cache."""
BLOCK_BYTES = 1 << 24
"""Pixels that are written at a time: 16 MiB. An interruption costs two such blocks at most."""
BLOCK_IMAGES = 1024
"""Most images in a block, for small images."""
MOST_THREADS = 6
"""By default. More wait for each other in Python: on 16 processors, 16 decode no more than 4."""
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
"""What the system says where a disk or a quota is full, or a file too large for its disk."""


class Fitting(Protocol):
    """What fits an image to a network's input: the part of `Preprocessing` that the cache needs."""

    @property
    def input_shape(self) -> Shape:
        """Shape of a fitted image, `(C, H, W)`."""

    @property
    def fitting(self) -> Mapping[str, object]:
        """Everything that decides the pixels of a fitted image, beside the image."""

    def fit_image(self, source: PathArg | Content) -> Tensor:
        """Return an image file, or its content, fitted, `uint8 (C, H, W)`; raises `UnreadableImageError`."""


def cached_pixels(
    files: ImageFiles,
    record: Fitting,
    *,
    cache_root: PathArg | None = None,
    progress: bool = True,
    num_threads: int | None = None,
) -> tuple[Tensor, tuple[SetAside, ...]]:
    """Return `files` fitted by `record` as `uint8` `(K, C, H, W)`, and those that cannot be decoded, with the reason.

    The first call decodes the files in `num_threads` threads (None: one for each processor, up to six), later ones
    map what it wrote. The tensor lies on disk and is read as it is used; writing to it changes memory only. It has a
    row for each file that is not set aside, in order: `readable_files` tells which. A file that was set aside is
    tried again each time, in case it was out of reach. The cache lies in `cache_root`, by default `$GLASSNET_CACHE`,
    or `images` in the user's cache. `progress` shows a bar on stderr where that is a terminal.

    Raises `UsageError` for `num_threads` below 1, `WorkError` where no file can be decoded or the cache cannot be
    written: after that, or after any interruption, the next call goes on where this one stopped.
    """
    if num_threads is not None and num_threads < 1:
        raise UsageError(f"num_threads must be at least 1, or None for the default; got {num_threads}.")
    if not len(files):
        return torch.zeros(0, *record.input_shape, dtype=torch.uint8), ()
    folder = cache_folder(cache_root)
    layout = PixelLayout(key=_key(files, record), num_images=len(files), image_shape=record.input_shape)
    opened = _open(folder, layout, files, record)
    if opened is None:
        with _writing(folder, layout), _locked(folder, layout.key, progress):
            opened = _open(folder, layout, files, record)  # another process may have built it in the meantime
            if opened is None:
                _build(folder, layout, files, record, progress, num_threads or _num_threads())
                opened = open_pixels(folder, layout)
    if opened is None:
        raise WorkError(f"Expected the images that were just written to {folder}; they are gone. Run it again.")
    pixels, failures = opened
    return pixels, tuple(SetAside(str(files.paths[index]), failures[index]) for index in sorted(failures))


def readable_files(files: ImageFiles, set_aside: tuple[SetAside, ...]) -> Tensor:
    """Return which of `files` are not `set_aside`, as `bool` `(N,)`: those that `cached_pixels` has a row for."""
    sources = {failure.source for failure in set_aside}
    return torch.tensor([str(path) not in sources for path in files.paths], dtype=torch.bool)


def cache_folder(cache_root: PathArg | None = None) -> Path:
    """Return the folder of the cache: `cache_root`, else `$GLASSNET_CACHE`, else `images` in the user's cache."""
    named = cache_root or os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(user_cache_dir("glassnet", appauthor=False)) / "images"


def cache_size(cache_root: PathArg | None = None) -> tuple[int, int]:
    """Return how many files the cache has, finished or not, and their length in bytes."""
    lengths = []
    for path in _cache_files(cache_folder(cache_root)):
        with suppress(OSError):
            lengths.append(path.stat().st_size)
    return len(lengths), sum(lengths)


def clear_cache(cache_root: PathArg | None = None) -> tuple[int, int]:
    """Delete the files of the cache; return how many they were and their length in bytes.

    What is being written at the time stays, and so do the lock files, which are empty: to delete a lock would let two
    processes hold it. Whoever has a deleted file open can read on.
    """
    num_files = num_bytes = 0
    for path in _cache_files(cache_folder(cache_root)):
        with suppress(OSError, Timeout), _lock(path.parent, path.stem).acquire(timeout=0):
            length = path.stat().st_size
            path.unlink()
            num_files, num_bytes = num_files + 1, num_bytes + length
    return num_files, num_bytes


def _cache_files(folder: Path) -> list[Path]:
    names, suffixes = re.compile(r"[0-9a-f]{32}"), (*SUFFIXES, VERDICTS, VERDICTS_PARTIAL)
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.suffix in suffixes and names.fullmatch(path.stem))


def _key(files: ImageFiles, record: Fitting) -> str:
    values = {
        "format": FORMAT,
        "decoder": [PIL.__version__, features.version("jpg"), torch.__version__, SPARE],
        "files": files.digests,
        "fitting": dict(record.fitting),
    }
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def _num_threads() -> int:
    num_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(num_processors, MOST_THREADS)


def _open(
    folder: Path, layout: PixelLayout, files: ImageFiles, record: Fitting
) -> tuple[Tensor, dict[int, str]] | None:
    """Open a finished cache, unless it lacks a file that can be decoded by now."""
    opened = open_pixels(folder, layout)
    return None if opened is None or _can_decode_any(files, opened[1], record) else opened


def _can_decode_any(files: ImageFiles, positions: Iterable[int], record: Fitting) -> bool:
    paths = (files.paths[position] for position in positions)
    again = (path for path in paths if not isinstance(path, Streamed))  # whose bytes are the same at each pass
    return any(not isinstance(pixels_or_reason(path, record.fit_image), str) for path in again)


def _build(
    folder: Path, layout: PixelLayout, files: ImageFiles, record: Fitting, progress: bool, num_threads: int
) -> None:
    """Decode what an earlier build has not, block by block; while one is written, the next is being decoded."""
    block_images = max(1, min(BLOCK_IMAGES, BLOCK_BYTES // layout.image_bytes))
    with PixelWriter(folder, layout) as writer:
        if _can_decode_any(files, writer.failures, record):
            writer.restart()
        _check_room(folder, layout, writer)
        rest = in_order(files.paths[writer.num_done :])
        with (
            _bar(len(files), writer.num_done, progress) as advance,
            closing(decoded_blocks(rest, record.fit_image, block_images, num_threads, advance)) as blocks,
        ):
            for rows, failures in blocks:
                _add(rows, failures, writer)
        if writer.num_rows:
            writer.finish()
            return
        index = min(writer.failures)
        reason = writer.failures[index]
        writer.restart()
    raise WorkError(
        f"Expected images; none of the {len(files)} files can be decoded. The first is {files.paths[index]}: {reason}."
    )


def _add(rows: np.ndarray, failures: Mapping[int, str], writer: PixelWriter) -> None:
    by_position = {writer.num_done + index: reason for index, reason in failures.items()}
    writer.add(rows if len(rows) else np.zeros((0, *writer.layout.image_shape), np.uint8), by_position)


def _lock(folder: Path, key: str) -> FileLock:
    return FileLock(folder / f"{key}.lock")


@contextmanager
def _locked(folder: Path, key: str, progress: bool) -> Iterator[None]:
    """Hold the lock of one cache; say so where another process has it first."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder, key)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress and sys.stderr.isatty():
            print("Waiting for another process, which decodes the same images.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_room(folder: Path, layout: PixelLayout, writer: PixelWriter) -> None:
    missing = (layout.num_images - writer.num_done) * layout.image_bytes
    if missing > _free_bytes(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _free_bytes(folder: Path) -> int:
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(nearest).free


@contextmanager
def _writing(folder: Path, layout: PixelLayout) -> Iterator[None]:
    """Turn what the disk raises into words."""
    try:
        yield
    except OSError as error:
        fault, remedy = error.strerror or error, f"set {CACHE_VARIABLE} to a folder that can be written and has room."
        if error.errno not in FULL:
            raise WorkError(
                f"Expected to write decoded images to {folder}; got {fault}. Correct it, or {remedy}"
            ) from error
        raise WorkError(
            f"The decoded images need {_megabytes(layout.total_bytes)} in {folder}; "
            f"{_megabytes(_free_bytes(folder))} are free ({fault}). Make room (`glassnet data --clear-cache` empties "
            f"this cache) and run it again, which goes on where it stopped; or {remedy}"
        ) from error


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


@contextmanager
def _bar(total: int, num_done: int, is_wanted: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr where that is a terminal; yield what is to be called with each number of images."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("decoding images"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]} images/s"),
        progress.TimeRemainingColumn(),
    )
    is_hidden = not is_wanted or not sys.stderr.isatty()
    started, count = time.perf_counter(), 0
    with progress.Progress(*columns, console=Console(stderr=True), disable=is_hidden, transient=True) as bar:
        task = bar.add_task("", total=total, completed=num_done, speed="")

        def advance(num_images: int) -> None:
            nonlocal count
            count += num_images
            bar.update(task, advance=num_images, speed=f"{count / (time.perf_counter() - started):,.0f}")

        yield advance
