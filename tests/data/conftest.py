"""Writers of idx files and CIFAR-10 batches, made from the published formats alone, and a server on this machine."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

CIFAR_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx_bytes(values: NDArray[np.uint8]) -> bytes:
    """Write an idx file: two zeros, type 8, the number of axes, the sizes big-endian, the values in C order."""
    sizes = b"".join(struct.pack(">I", size) for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + bytes(values.flatten().tolist())


def batch_pickle(rows: NDArray[np.uint8], labels: list[int], before: bytes = b"") -> bytes:
    """Write a batch as Python 2 pickled it, opcode by opcode (protocol 2); `before` are opcodes that come first."""

    def text(content: bytes) -> bytes:
        if len(content) < 256:
            return b"U" + bytes([len(content)]) + content
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    shape = number(rows.shape[0]) + number(rows.shape[1]) + b"\x86"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = empty + b"(" + number(1) + shape + kind + b"\x89" + text(rows.tobytes()) + b"tb"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    items = text(b"batch_label") + text(b"a batch") + text(b"labels") + listed + text(b"data") + array
    return b"\x80\x02" + before + b"}(" + items + b"u."


def cifar_archive(batches: dict[str, bytes]) -> bytes:
    """Pack batches as published: in a folder, in another order than that of their numbers, with files besides."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        folder = tarfile.TarInfo("cifar-10-batches-py")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in {"readme.html": b"<html>", **dict(reversed(batches.items()))}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@dataclass(frozen=True)
class Cifar:
    """Six small batches with what was written into them."""

    rows: dict[str, NDArray[np.uint8]]
    labels: dict[str, list[int]]
    pickles: dict[str, bytes]

    @property
    def archive(self) -> bytes:
        return cifar_archive(self.pickles)

    @property
    def md5(self) -> dict[str, str]:
        return {name: md5(content) for name, content in self.pickles.items()}


def cifar(count: int = 2) -> Cifar:
    generator = np.random.default_rng(7)
    rows = {name: generator.integers(0, 256, (count, 3072), dtype=np.uint8) for name in CIFAR_BATCHES}
    labels = {name: generator.integers(0, 10, count).tolist() for name in CIFAR_BATCHES}
    return Cifar(rows, labels, {name: batch_pickle(rows[name], labels[name]) for name in CIFAR_BATCHES})


@dataclass
class Server:
    """A web server on this machine: what it answers by path, and what it was asked for."""

    base: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut_at: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    user_agents: list[str] = field(default_factory=list)
    announces_length: bool = True


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            server.user_agents.append(self.headers["User-Agent"])
            if self.path not in server.files:
                self.send_error(404)
                return
            content = server.files[self.path]
            self.send_response(200)
            if server.announces_length:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: server.cut_at.get(self.path)])

        def log_message(self, *_: object) -> None:
            """Say nothing on stderr."""

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    answers = Server("")
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers)) as listening:
        answers.base = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield answers
        listening.shutdown()
        thread.join()


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the data sets of this machine; return the folder that stands for the user's cache, not made yet."""
    cache = tmp_path / "cache"
    monkeypatch.delenv("GLASSNET_DATA", raising=False)
    monkeypatch.setattr("glassnet.data.fetch.user_cache_dir", lambda *_, **__: str(cache))
    return cache


@pytest.fixture(name="idx_bytes", scope="session")
def _idx_bytes() -> Callable[[NDArray[np.uint8]], bytes]:
    return idx_bytes


@pytest.fixture(name="batch_pickle", scope="session")
def _batch_pickle() -> Callable[..., bytes]:
    return batch_pickle


@pytest.fixture(name="cifar_archive", scope="session")
def _cifar_archive() -> Callable[[dict[str, bytes]], bytes]:
    return cifar_archive


@pytest.fixture(name="cifar", scope="session")
def _cifar() -> Cifar:
    return cifar()
