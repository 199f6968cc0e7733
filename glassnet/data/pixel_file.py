"""Fitted images in one file on disk: its layout, writing it so that any interruption is survived, and mapping it.

A finished file is a header of one page, the images as rows of `uint8` in the order of their sources, and a trailer
that names the sources without a row. While it is written it has another name and no header; beside it a journal tells
which blocks are whole. A block's pixels are flushed to the disk before its line is written, and a line counts only
where the pixels it speaks of have its checksum, so that neither a kill nor a crash can leave a block that is taken for
whole and is not. The header comes last; then the file gets its name in one step.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import sys
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from glassnet._types import Shape

FORMAT = 2
"""Raised when the layout changes, or when the same image would give other pixels than before."""
HEADER_BYTES = 4096
CHUNK_BYTES = 1 << 24
_mappings: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()
"""The files that are mapped, by the address of their images; one that no tensor lies in any more is gone from here."""
SUFFIXES = (PIXELS, PARTIAL, JOURNAL) = (".pixels", ".partial", ".journal")


@dataclass(frozen=True, kw_only=True)
class PixelLayout:
    """What a file of fitted images holds."""

    key: str
    """A digest of everything that decides the pixels; the file is named after it."""
    num_images: int
    """Number of sources; those that could not be read have no row."""
    image_shape: Shape
    """`(C, H, W)`."""

    @property
    def image_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.image_shape))

    @property
    def total_bytes(self) -> int:
        """Bytes of the file where every source has a row."""
        return HEADER_BYTES + self.num_images * self.image_bytes

    def head(self) -> dict[str, Any]:
        """Return what the header and the journal begin with."""
        return {
            "format": f"glassnet images {FORMAT}",
            "key": self.key,
            "num_images": self.num_images,
            "image_shape": list(self.image_shape),
        }

    def path(self, folder: Path, suffix: str) -> Path:
        """Return where the file lies in a `folder`: finished, in the making, or its journal."""
        return folder / f"{self.key}{suffix}"


def open_pixels(folder: Path, layout: PixelLayout) -> tuple[Tensor, dict[int, str]] | None:
    """Return the finished images `uint8` `(K, C, H, W)`, mapped, and why each of the other sources has no row.

    They are read from the disk as they are used; writing to them changes memory only, until `release_pages`. None where
    there is no such file or its header, length or trailer is not as it must be; the pixels are not read for this.
    """
    try:
        with layout.path(folder, PIXELS).open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
            if {name: header.get(name) for name in layout.head()} != layout.head():
                return None
            num_rows, trailer_start = header["num_rows"], HEADER_BYTES + header["num_rows"] * layout.image_bytes
            if file.seek(0, os.SEEK_END) != trailer_start + header["trailer_bytes"]:
                return None
            file.seek(trailer_start)
            trailer = file.read()
            if zlib.crc32(trailer) != header["trailer_crc"]:
                return None
            failures = {int(index): str(reason) for index, reason in json.loads(trailer).items()}
            mapping = _mapping(file)
            rows = np.frombuffer(mapping, np.uint8, num_rows * layout.image_bytes, HEADER_BYTES)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    pixels = torch.from_numpy(rows.reshape(num_rows, *layout.image_shape))
    _mappings[pixels.untyped_storage().data_ptr()] = mapping
    return pixels, failures


def release_pages(pixels: Tensor) -> None:
    """Give back the memory through which the images of `open_pixels` were read; they are read anew when needed.

    `pixels` may be a part of such images; all of them are released. The system keeps what it has read for as long as it
    has room, so that this costs little. Nothing is done to another tensor, nor where the system cannot do it.
    """
    mapping = _mappings.get(pixels.untyped_storage().data_ptr())
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(file: io.BufferedReader) -> mmap.mmap:
    """Map a file copy-on-write, without reserving memory for the copies: it may be larger than the memory."""
    if sys.platform == "win32":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
    return mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


@dataclass(eq=False)
class PixelWriter:
    """A file of fitted images in the making; opened where an earlier writer was stopped.

    One writer at a time: the caller holds a lock. What the disk raises comes through as `OSError`.
    """

    folder: Path
    layout: PixelLayout
    num_done: int = 0
    """Sources dealt with, with or without a row."""
    num_rows: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    """Why a source has no row, by its position."""

    def __enter__(self) -> PixelWriter:
        self._data = _open_for_update(self.layout.path(self.folder, PARTIAL))
        self._journal = _open_for_update(self.layout.path(self.folder, JOURNAL))
        try:
            self._resume()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        self._journal.close()

    def add(self, rows: np.ndarray, failures: Mapping[int, str]) -> None:
        """Append the next block: `rows` `uint8` `(K, C, H, W)`, and the sources that have none, by position."""
        content = np.ascontiguousarray(rows).reshape(-1).data
        write(self._data, content)
        os.fsync(self._data.fileno())
        entry = {"done": self.num_done, "rows": len(rows), "crc": zlib.crc32(content), "failures": dict(failures)}
        write(self._journal, _line(entry))
        self._count(len(rows), failures)

    def finish(self) -> None:
        """Write trailer and header and give the file its name, in one step."""
        trailer = json.dumps(self.failures).encode()
        header = {"num_rows": self.num_rows, "trailer_bytes": len(trailer), "trailer_crc": zlib.crc32(trailer)}
        write(self._data, trailer)
        self._data.seek(0)
        write(self._data, _line({**self.layout.head(), **header}).ljust(HEADER_BYTES))
        os.fsync(self._data.fileno())
        self._data.close()
        os.replace(self.layout.path(self.folder, PARTIAL), self.layout.path(self.folder, PIXELS))
        _flush_folder(self.folder)
        self._journal.close()
        self.layout.path(self.folder, JOURNAL).unlink(missing_ok=True)

    def restart(self) -> None:
        """Begin anew, with nothing done."""
        self.num_done, self.num_rows, self.failures = 0, 0, {}
        self._cut(0)

    def _resume(self) -> None:
        """Take up the blocks that are whole."""
        accepted = 0
        self._data.seek(HEADER_BYTES)
        for line in self._journal.read().splitlines(keepends=True):
            if not (self._accept(line) if accepted else line == _line(self.layout.head())):
                break
            accepted += len(line)
        self._cut(accepted)

    def _cut(self, journal_bytes: int) -> None:
        """Cut off what follows the blocks that are done, of which so many bytes of the journal tell."""
        self._journal.truncate(journal_bytes)
        self._journal.seek(journal_bytes)
        if not journal_bytes:
            write(self._journal, _line(self.layout.head()))
        end = HEADER_BYTES + self.num_rows * self.layout.image_bytes
        self._data.truncate(end)
        self._data.seek(end)

    def _accept(self, line: bytes) -> bool:
        """Count a block that the journal tells of, where its pixels are on the disk as they were written."""
        try:
            entry = json.loads(line) if line.endswith(b"\n") else {}
            is_next = entry["done"] == self.num_done
            failures = {int(index): str(reason) for index, reason in entry["failures"].items()}
            num_bytes = int(entry["rows"]) * self.layout.image_bytes
            is_whole = bool(is_next and self._checksum(num_bytes) == entry["crc"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return False
        if is_whole:
            self._count(entry["rows"], failures)
        return is_whole

    def _checksum(self, num_bytes: int) -> int | None:
        """Return the checksum of the next `num_bytes` on the disk, None where there are fewer."""
        checksum = 0
        while num_bytes:
            chunk = self._data.read(min(num_bytes, CHUNK_BYTES))
            if not chunk:
                return None
            checksum, num_bytes = zlib.crc32(chunk, checksum), num_bytes - len(chunk)
        return checksum

    def _count(self, num_rows: int, failures: Mapping[int, str]) -> None:
        self.num_rows += num_rows
        self.num_done += num_rows + len(failures)
        self.failures.update(failures)


def write(file: io.FileIO, content: bytes | memoryview) -> None:
    """Write all of `content` to an unbuffered file, which may take it in parts where the disk is nearly full."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _open_for_update(path: Path) -> io.FileIO:
    path.touch(mode=0o600)
    return path.open("r+b", buffering=0)


def _flush_folder(folder: Path) -> None:
    """Flush a folder's table of names, on systems that have such a call."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
