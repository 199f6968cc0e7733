"""What examining image files found, kept in the cache's folder: the next start need not read all of them again.

A file counts as unchanged while its length, its times of change and its number on the disk are the same. As git does
("Racy Git"), what changed within the last seconds before it was examined is not kept: a later change could bear the
same time. Only what can be used is kept; a file that was set aside is examined each time. A file of verdicts that is
damaged, or was written by another version of Pillow, is as good as none, and where none can be written, none is.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout
from PIL import Image, ImageFile, __version__

from glassnet.data.checks import LARGEST_FILE_BYTES, ImageFacts
from glassnet.data.content import Content, Entry
from glassnet.data.image_cache import VERDICTS, VERDICTS_PARTIAL, cache_folder
from glassnet.data.images import UnreadableImageError

FORMAT = 2
"""Raised when the layout changes, or when examining a file would find something else than before."""
SETTLED_S = 2.0
"""How long before its examination a file must have changed last: the coarsest time of a file system, FAT's."""

Verdict: TypeAlias = ImageFacts | UnreadableImageError
Stamp: TypeAlias = tuple[int, int, int, int]
"""Length in bytes, times of the last change of content and of the entry in ns, and number on the disk."""
Known: TypeAlias = dict[str, tuple[Stamp, ImageFacts]]


def remembered_verdicts(
    paths: Sequence[Entry], folder: Path, examine: Callable[[Sequence[Entry]], Sequence[Verdict]]
) -> list[Verdict]:
    """Return the verdict on each of `paths`: as it was found before where the file is the same, else by `examine`.

    Verdicts are kept by `folder`, below which the files lie, or most of them. Content is examined each time.
    """
    if not any(isinstance(path, Path) for path in paths):
        return list(examine(paths))
    file = cache_folder() / f"{_key(folder)}{VERDICTS}"
    names, begun_ns = _names(paths, folder), time.time_ns()
    stamps = [_stamp(path) for path in paths]
    known = _load(file)
    found: list[Verdict | None] = [
        _unchanged(known.get(name), stamp) for name, stamp in zip(names, stamps, strict=True)
    ]
    missing = [index for index, verdict in enumerate(found) if verdict is None]
    fresh: Known = {}
    for index, verdict in zip(missing, examine([paths[index] for index in missing]), strict=True):
        found[index], stamp = verdict, stamps[index]
        if isinstance(verdict, ImageFacts) and stamp is not None and _is_settled(stamp, begun_ns):
            fresh[names[index]] = stamp, verdict
    if fresh:
        _save(file, _pruned({**known, **fresh}, names))
    return [verdict for verdict in found if verdict is not None]


def _key(folder: Path) -> str:
    decides = [FORMAT, __version__, Image.MAX_IMAGE_PIXELS, LARGEST_FILE_BYTES, ImageFile.LOAD_TRUNCATED_IMAGES]
    text = json.dumps([os.path.abspath(folder), *decides])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _names(paths: Iterable[Entry], folder: Path) -> list[str]:
    top = os.path.join(os.path.abspath(folder), "")
    return [str(path) if isinstance(path, Content) else os.path.abspath(path).removeprefix(top) for path in paths]


def _stamp(path: Entry) -> Stamp | None:
    """Return what tells whether a file changed; None for content, and for a file out of reach."""
    if isinstance(path, Content):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_settled(stamp: Stamp, now_ns: int) -> bool:
    return max(stamp[1], stamp[2]) < now_ns - SETTLED_S * 1e9


def _unchanged(kept: tuple[Stamp, ImageFacts] | None, stamp: Stamp | None) -> ImageFacts | None:
    return kept[1] if kept is not None and kept[0] == stamp else None


def _pruned(known: Known, names: Sequence[str]) -> Known:
    """Drop files that were not asked for, where they are more than those that were: most of them will be gone."""
    if len(known) <= 2 * len(names):
        return known
    return {name: known[name] for name in names if name in known}


def _load(file: Path) -> Known:
    try:
        head, body = file.read_bytes().split(b"\n", 1)
        if json.loads(head) != _head(body):
            return {}
        return {name: ((*stamp,), _facts(values)) for name, stamp, values in json.loads(body)}
    except (OSError, ValueError, TypeError):
        return {}


def _facts(values: Sequence[Any]) -> ImageFacts:
    (height, width), mode, is_grey, has_more_pages, digest = values
    return ImageFacts(size=(height, width), mode=mode, is_grey=is_grey, has_more_pages=has_more_pages, digest=digest)


def _save(file: Path, known: Known) -> None:
    body = json.dumps([(name, stamp, astuple(facts)) for name, (stamp, facts) in known.items()]).encode()
    partial = file.with_suffix(VERDICTS_PARTIAL)
    with suppress(OSError, Timeout):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")).acquire(timeout=0):
            partial.touch(mode=0o600)
            partial.write_bytes(json.dumps(_head(body)).encode() + b"\n" + body)
            os.replace(partial, file)


def _head(body: bytes) -> Mapping[str, object]:
    return {"format": f"glassnet verdicts {FORMAT}", "crc": zlib.crc32(body)}
