"""The idx format of MNIST: unsigned bytes behind a header of their sizes, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glassnet.data.fetch import broken_file, check_md5, unreadable_file

UNSIGNED_BYTE = 0x08
"""The type code in the third byte of an idx file; the sets read here have no other."""


def read_idx(path: Path, content_md5: str | None = None, archive_md5: str | None = None) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes and return its values, in the sizes its header gives.

    A name that ends in `.gz` is gunzipped. `content_md5` is the digest (hex) that the decoded content must have,
    `archive_md5` that of the file as it lies on disk. The format (LeCun, "The MNIST database"): two zero bytes, a
    type code, the number of axes, one big-endian 32-bit size per axis, then the values in C order.

    Raises `BrokenFileError` for a file that is truncated, has bytes too many, is no gzip or no idx, or has another
    digest.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise unreadable_file(path, error) from error
    content = _gunzip(raw, path) if path.suffix == ".gz" else raw
    values = parse_idx(content, path)
    if archive_md5 is not None:
        check_md5(raw, archive_md5, path, "the archive as published")
    if content_md5 is not None:
        check_md5(content, content_md5, path, "the content as published")
    return values.copy()  # memory of its own: torch refuses to share that of `bytes`


def parse_idx(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Return a view of the values in decoded idx `content`; `path` is for messages. Raises as `read_idx`."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTE or not content[3]:
        started = f"a file that begins {content[:4].hex(' ')}" if content else "an empty file"
        raise broken_file(path, "an idx file of unsigned bytes, which begins 00 00 08 and the number of axes", started)
    num_axes = content[3]
    start = 4 + 4 * num_axes
    if len(content) < start:
        raise broken_file(path, f"an idx header of {start} bytes for {num_axes} axes", f"{len(content)} bytes in all")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_axes, offset=4))
    num_values = math.prod(shape)
    if len(content) - start != num_values:
        product = " x ".join(str(size) for size in shape)
        raise broken_file(
            path, f"{product} = {num_values:,} bytes after the idx header", f"{len(content) - start:,} bytes"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _gunzip(raw: bytes, path: Path) -> bytes:
    if raw[:2] != b"\x1f\x8b":
        started = f"a file that begins {raw[:4].hex(' ')}" if raw else "an empty file"
        raise broken_file(path, "a gzip file, which begins 1f 8b", started)
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise broken_file(path, "a whole gzip file", f"{len(raw):,} bytes that do not decode ({error})") from error
