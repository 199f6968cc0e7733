"""Images that are no files of their own: members of an archive, cells of a table, parts of a stream.

An entry of `ImageFiles` is a path, or one of these. Content with an address is read where it lies, in any order. What
streams past has no address: it is read in passes, in its order, and `in_order` makes one pass of as many entries as
follow each other.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from glassnet._errors import WorkError


class Content(ABC):
    """One image as bytes that can be had. `str` of it names it for a reader, and nothing else by the same name."""

    @abstractmethod
    def read(self) -> bytes:
        """Return the bytes of the file. Raises `OSError` where they are out of reach."""

    @property
    def folder(self) -> Path | None:
        """The folder of the local file in which the content lies, if there is one."""
        return None


Entry = Path | Content
"""An image: a file, or content."""


@dataclass(frozen=True, slots=True)
class Slice(Content):
    """Bytes of a local file, such as a member of a tar archive that is not compressed."""

    path: Path
    offset: int
    """Where the bytes begin in the file."""
    length: int
    """How many they are."""
    name: str
    """What the archive calls them."""

    def __str__(self) -> str:
        return f"{self.path}!{self.name}"

    @property
    def folder(self) -> Path:
        """The folder of the archive."""
        return self.path.parent

    def read(self) -> bytes:
        """Return the bytes; the archive is opened, and none of it but these is read."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            content = stream.read(self.length)
        if len(content) < self.length:
            raise OSError(f"the archive ends {self.length - len(content):,} bytes before the end of this member")
        return content


@dataclass(frozen=True, slots=True)
class Loaded(Content):
    """Bytes in memory."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """Return the bytes."""
        return self.content


class StreamMember(NamedTuple):
    """One file as it streams past."""

    name: str
    size: int | None
    """Length in bytes; None where the stream does not say before it is read."""
    read: Callable[[], bytes]
    """To be called before the next member is asked for, or not at all."""
    label: object = None
    """What the stream says of it along with it, if it does."""


class Stream(Protocol):
    """What can be passed through as often as is wanted, always in the same order; in parts, each from its beginning."""

    def members(self, part: int) -> Generator[StreamMember, None, None]:
        """Yield the members of a part. Raises `OSError` where it cannot be reached or ends too early."""


@dataclass(frozen=True, slots=True)
class Streamed(Content):
    """A member of a stream; to read one alone is a pass through its part up to there."""

    stream: Stream
    part: int
    position: int
    """Which member of the part it is, from 0."""
    name: str
    digest: str
    """`content_digest`, as the first pass found it."""

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """Return the bytes. Raises `WorkError` as `in_order` does."""
        return next(in_order([self])).read()  # type: ignore[union-attr]


def in_order(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield `entries`; of a stream, as content in memory, read in one pass for as long as the positions ascend.

    Raises `WorkError` where a stream breaks off, or is not what it was at the first pass.
    """
    current: _Pass | None = None
    try:
        for entry in entries:
            if not isinstance(entry, Streamed):
                yield entry
                continue
            if current is None or not current.leads_to(entry):
                if current is not None:
                    current.members.close()
                current = _Pass(entry)
            yield Loaded(entry.name, current.content(entry))
    finally:
        if current is not None:
            current.members.close()


class _Pass:
    """A pass through a part of a stream, as far as it has come."""

    def __init__(self, first: Streamed) -> None:
        self.stream, self.part, self.position = first.stream, first.part, -1
        self.members = first.stream.members(first.part)

    def leads_to(self, entry: Streamed) -> bool:
        return self.stream is entry.stream and self.part == entry.part and self.position < entry.position

    def content(self, entry: Streamed) -> bytes:
        """Go on to `entry` and return its bytes."""
        try:
            member = None
            while self.position < entry.position:
                member = next(self.members)
                self.position += 1
            assert member is not None
            content = member.read()
        except StopIteration:
            raise _changed(entry, "it ends before that") from None
        except OSError as error:
            raise WorkError(
                f"Expected to read {entry.name} from its stream; got {error.strerror or error}. Check the connection "
                "and run it again, which goes on where it stopped."
            ) from error
        if content_digest(content) != entry.digest:
            raise _changed(entry, "other bytes stand there")
        return content


def _changed(entry: Streamed, fault: str) -> WorkError:
    return WorkError(
        f"Expected the stream that was examined, with {entry.name}; {fault} now. Load the data again, once it rests."
    )


def content_digest(content: bytes) -> str:
    """Return the digest of a file's bytes by which it is known: BLAKE2b of 128 bits, in hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
