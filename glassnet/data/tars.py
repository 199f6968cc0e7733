"""Tar archives read strictly: what is cut off or damaged is an error, where `tarfile` takes it for the end.

Nothing is unpacked. A plain archive on disk is indexed once, and a member is read where it lies; any other comes as a
stream, from a web server, from a command (`pipe:`), or decompressed on the way.
"""

from __future__ import annotations

import http.client
import lzma
import re
import subprocess
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from glassnet._errors import UsageError
from glassnet._version import __version__
from glassnet.data.content import Slice, StreamMember
from glassnet.data.images import SetAside

SUFFIXES = (".tar",)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PIPE = "pipe:"
WEB = ("http://", "https://")
REMOTE = (PIPE, *WEB)
TIMEOUT_S = 60.0
CHUNK_BYTES = 1 << 20
MOST_SHARDS = 100_000
"""In one range of a pattern; ImageNet-21k has fewer than 3,000."""


BROKEN = (tarfile.TarError, http.client.HTTPException, EOFError, zlib.error, lzma.LZMAError)
"""What reading a broken stream raises, beside `OSError`."""


class DamagedTarError(tarfile.ReadError):
    """An archive that does not hold together; the text says how."""


class _Header(tarfile.TarInfo):
    """A member's header. `tarfile` ends at one that is damaged or missing as at the end mark: here it is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            header = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the end mark
        except tarfile.HeaderError:
            what = (
                "cut off or damaged" if archive.offset else "expected a tar archive, got another kind of file: broken"
            )
            raise DamagedTarError(f"{what} at byte {archive.offset:,}") from None
        if header.size < 0:
            raise DamagedTarError(f"a member of negative size at byte {archive.offset:,}")
        return header


def index_tar(path: Path) -> Iterator[Slice | SetAside]:
    """Yield where the files in a plain archive lie; what is no file, and where the archive breaks off, is set aside."""
    try:
        num_bytes = path.stat().st_size
        if not num_bytes:
            yield SetAside(str(path), "expected a tar archive, got an empty file (0 bytes)")
            return
        with tarfile.open(path, "r:", tarinfo=_Header) as archive:
            for member in archive:
                if member.offset_data + member.size > num_bytes:
                    missing = member.offset_data + member.size - num_bytes
                    reason = f"the archive is cut off within this member: {missing:,} bytes are missing"
                    yield SetAside(f"{path}!{member.name}", reason)
                    return
                if reason := _fault(member):
                    yield SetAside(f"{path}!{member.name}", reason)
                elif not member.isdir():
                    yield Slice(path, member.offset_data, member.size, member.name)
    except FileNotFoundError:
        yield SetAside(str(path), "a link that leads nowhere" if path.is_symlink() else "no such file")
    except PermissionError:
        yield SetAside(str(path), "the file may not be read (permission denied)")
    except (tarfile.TarError, OSError, ValueError) as error:
        yield SetAside(str(path), f"{getattr(error, 'strerror', None) or error}")


def _fault(member: tarfile.TarInfo) -> str:
    """Return why a member is not to be read; empty text where it may be."""
    if member.issym() or member.islnk():
        return "a link within an archive: not followed"
    if member.issparse():
        return "a sparse member: pack it again with tar --format=ustar"
    return "" if member.isfile() or member.isdir() else "neither a file nor a folder"


def stream_tar(place: str) -> Generator[StreamMember, None, None]:
    """Yield the files in an archive as it streams from a web address, a `pipe:` command or a (compressed) file.

    Raises `OSError` where it cannot be opened, breaks off or is damaged.
    """
    try:
        with _opened(place) as raw, tarfile.open(fileobj=raw, mode="r|*", tarinfo=_Header) as archive:
            for member in archive:
                if not _fault(member) and not member.isdir():
                    yield StreamMember(member.name, member.size, partial(_read, archive, member))
            while raw.read(CHUNK_BYTES):  # else a command would see its pipe closed, and call that a failure
                pass
    except (*BROKEN, ValueError) as error:
        raise OSError(str(error) or type(error).__name__) from error


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        stream = archive.extractfile(member)
        content = b"" if stream is None else stream.read()
    except (*BROKEN, ValueError) as error:
        raise OSError(str(error) or type(error).__name__) from error
    if len(content) < member.size:
        raise OSError(f"the stream ends {member.size - len(content):,} bytes before the end of {member.name}")
    return content


@contextmanager
def _opened(place: str) -> Iterator[IO[bytes]]:
    if place.startswith(PIPE):
        with _piped(place.removeprefix(PIPE)) as stream:
            yield stream
    elif place.startswith(WEB):
        request = urllib.request.Request(place, headers={"User-Agent": f"glassnet/{__version__}"})
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            raise OSError(f"HTTP status {error.code} ({error.reason})") from error
        except urllib.error.URLError as error:
            raise OSError(f"no connection ({error.reason})") from error
        with response:
            yield cast(IO[bytes], response)
    else:
        with open(place, "rb") as stream:
            yield stream


@contextmanager
def _piped(command: str) -> Iterator[IO[bytes]]:
    """Run the shell command that the user gave and yield its output; a command that is left early is ended."""
    with subprocess.Popen(command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
            status = process.wait()
        except (tarfile.TarError, OSError):  # often because the command failed: then that is what to tell
            status = _ended(process)
            if status <= 0:
                raise
        except BaseException:
            process.terminate()
            raise
    if status:
        raise OSError(f"the command ended with status {status}: {command}")


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Return the status of a command whose output has ended, 0 where it had to be stopped."""
    try:
        return process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.terminate()
        return 0


def expanded(pattern: str) -> list[str]:
    """Return what a brace pattern stands for: `{000..012}` numbers of that width, and `{a,b}` each, but in a command.

    Raises `UsageError` for a range that counts down.
    """
    alternatives = r"" if pattern.startswith(PIPE) else r"|\{(?P<names>[^{}]*,[^{}]*)\}"
    found = re.search(r"\{(?P<first>\d+)\.\.(?P<last>\d+)\}" + alternatives, pattern)
    if found is None:
        return [pattern]
    if found["first"] is not None:
        first, last = int(found["first"]), int(found["last"])
        if last < first or last - first >= MOST_SHARDS:
            raise UsageError(
                f"Expected a range that counts up to {MOST_SHARDS:,} shards; got '{found[0]}'. Correct it."
            )
        width = len(found["first"])
        middles: Sequence[str] = [f"{number:0{width}}" for number in range(first, last + 1)]
    else:
        middles = found["names"].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [text for middle in middles for text in expanded(before + middle + after)]


def tar_suffix(name: str) -> str:
    """Return the suffix by which a name says that it is a tar archive, or empty text."""
    return next((suffix for suffix in (*SUFFIXES, *COMPRESSED) if name.lower().endswith(suffix)), "")


def tar_name(place: str) -> str:
    """Return what an archive at a web address or behind a command is called."""
    if place.startswith(PIPE):
        words = [word.strip("'\"") for word in place.removeprefix(PIPE).split()]
        place = next((word for word in reversed(words) if tar_suffix(word.partition("?")[0])), "pipe")
    return place.partition("?")[0].partition("#")[0]


def sample_key(name: str) -> tuple[str, str]:
    """Return the key of a member's sample and its extension: a name is cut at the first dot of its last part."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return (path.parent / stem).as_posix(), extension.lower()
