"""Published files: where they are looked for, how one is fetched, and how its content is known to be right."""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from os.path import isdir, isfile
from pathlib import Path

from platformdirs import user_cache_dir

from glassnet._errors import UsageError, WorkError
from glassnet._types import PathArg
from glassnet._version import __version__

DATA_VARIABLE = "GLASSNET_DATA"
"""The environment variable that names a folder of data sets."""

CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A published file of a data set, and how its content is known to be right: one of three kinds of digest."""

    name: str
    """Its published name, by which it is looked for."""
    url: str
    content_md5: str | None = None
    """MD5 (hex) of the gunzipped content. The better mark: it holds for a file that was compressed again."""
    archive_md5: str | None = None
    """MD5 of the file as published, where its authors gave no other: compressed again or unpacked, it is refused."""
    member_md5: Mapping[str, str] = field(default_factory=dict)
    """MD5 of each member of the archive that is read, by name."""
    unpacked: str | None = None
    """The name under which it is accepted unpacked as well; a final `/` marks a folder."""

    def find(self, folders: Sequence[Path]) -> Path | None:
        """Return the first path in `folders` at which the file lies, as published or unpacked, or None."""
        for folder in folders:
            if isfile(folder / self.name):
                return folder / self.name
            if self.unpacked is not None:
                path = folder / self.unpacked
                if isdir(path) if self.unpacked.endswith("/") else isfile(path):
                    return path
        return None


class BrokenFileError(WorkError):
    """A data file is not what it must be; `finding` says what was expected and what came, without path and remedy."""

    finding = ""


def broken_file(path: Path, expected: str, received: str) -> BrokenFileError:
    """Return the error for a data file at `path` that is truncated, altered or something else altogether."""
    finding = f"expected {expected}; got {received}"
    error = BrokenFileError(
        f"{path}: {finding}. "
        "Delete it, or move it away if it belongs to another data set, and load again to fetch a fresh copy."
    )
    error.finding = finding
    return error


def unreadable_file(path: Path, error: OSError) -> WorkError:
    """Return the error for a data file at `path` that the system does not let us read."""
    return WorkError(
        f"{path}: expected a file that can be read; got {error.strerror or error}. "
        "Correct its permissions, or delete it and load again to fetch a fresh copy."
    )


def check_md5(content: bytes, expected: str, path: Path, part: str) -> None:
    """Raise `BrokenFileError` unless the MD5 of `content`, the `part` of the file at `path`, is `expected` (hex).

    MD5 is what the authors of these sets published. It guards against accidents, and against a changed file (that
    takes a second preimage, which MD5 still resists); it would not guard against authors who want two versions.
    """
    received = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if received != expected:
        raise broken_file(path, f"{part} with MD5 {expected}", f"{len(content):,} bytes with MD5 {received}")


def data_folders(root: PathArg | None) -> list[Path]:
    """Return the folders that hold data sets, in the order of search.

    That is `root` alone where it is given; else the folder that `$GLASSNET_DATA` names, then the user's cache.

    Raises `UsageError` for a `root` that is no folder.
    """
    if root is not None:
        path = Path(root).expanduser()
        if not path.is_dir():
            fault = "which is a file" if path.exists() else "which does not exist"
            raise UsageError(
                f"root must be a folder that exists; got '{root}', {fault}. "
                f"Create it, or leave root out to use ${DATA_VARIABLE} or the user's cache."
            )
        return [path]
    named = os.environ.get(DATA_VARIABLE)
    cache = Path(user_cache_dir("glassnet", appauthor=False))
    return [Path(named).expanduser(), cache] if named else [cache]


def writable_folder(folders: Sequence[Path]) -> Path:
    """Return the first of `folders` that can be written or created, or the last where none can."""
    for folder in folders:
        nearest = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
        if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
            return folder
    return folders[-1]


def by_hand(urls: Sequence[str], folder: Path) -> str:
    """Return the remedy for missing files: which address to download, and the exact path to put each at."""
    lines = [f"  {url} -> {folder / url.rpartition('/')[2]}" for url in urls]
    remedy = f"Download by hand and put it there, or set {DATA_VARIABLE} to a folder that has it:"
    return "\n".join([remedy, *lines])


def fetch(
    url: str,
    target: Path,
    check: Callable[[Path], None],
    *,
    what: str | None = None,
    remedy: str | None = None,
    timeout_s: float = 30.0,
) -> None:
    """Download `url` to `target`, which appears whole and checked or not at all.

    The bytes go to a temporary file beside `target` (its name ends like the target's). `check` may refuse it by
    raising `BrokenFileError`; only then is it moved into place. Whatever happens, the temporary file is gone
    afterwards, and so is a folder that was made for it in vain. `what` names the file in messages, `remedy` is their
    last sentence; `timeout_s` bounds each wait for the network, in seconds. A progress bar shows on stderr where
    that is a terminal.

    Raises `WorkError` where the network, the server, the content or the disk is at fault.
    """
    what = what or target.name
    remedy = remedy or by_hand([url], target.parent)
    try:
        with _temporary_beside(target) as temporary:
            _write(temporary, _chunks(url, timeout_s))
            check(temporary)
            os.replace(temporary, target)
    except _DownloadError as error:
        raise WorkError(f"{what}: expected to download {url}; got {error}. {remedy}") from error
    except BrokenFileError as error:
        raise WorkError(f"{what}: the download of {url} was refused: {error.finding}. Try again. {remedy}") from error
    except OSError as error:
        raise WorkError(
            f"{what}: expected to write {target}; got {error.strerror or error}. "
            f"Pass as root, or set {DATA_VARIABLE} to, a folder that can be written and has room."
        ) from error


@contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    """Yield a path for a temporary file in the folder of `target`, which is made; leaves nothing but `target`."""
    is_new_folder = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".part-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        if is_new_folder and not target.exists():
            with suppress(OSError):  # another process may have put something there
                target.parent.rmdir()


class _DownloadError(Exception):
    """What went wrong on the way from the server."""


def _write(path: Path, chunks: Generator[bytes, None, None]) -> None:
    with closing(chunks), open(path, "xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _chunks(url: str, timeout_s: float) -> Generator[bytes, None, None]:
    """Yield the bytes behind `url`; every fault of network or server becomes a `_DownloadError`."""
    request = urllib.request.Request(url, headers={"User-Agent": f"glassnet/{__version__}"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            yield from _read(response, url.rpartition("/")[2])
    except urllib.error.HTTPError as error:
        error.close()
        raise _DownloadError(f"HTTP status {error.code} ({error.reason})") from error
    except urllib.error.URLError as error:
        raise _DownloadError(f"no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _DownloadError(f"a broken connection ({str(error) or type(error).__name__})") from error


def _read(response: http.client.HTTPResponse, name: str) -> Iterator[bytes]:
    total, received = response.length, 0
    with _progress(name, total) as advance:
        while chunk := response.read(CHUNK_BYTES):
            received += len(chunk)
            advance(len(chunk))
            yield chunk
    if total is not None and received != total:
        raise _DownloadError(f"{received:,} of {total:,} bytes before the connection ended")


@contextmanager
def _progress(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr where it is a terminal; yield what is to be called with each number of bytes."""
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=total)
        yield lambda num_bytes: bar.advance(task, num_bytes)
