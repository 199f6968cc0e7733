"""Processes that may be killed: a server that forks them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import glassnet

SERVER = Path(__file__).with_name("fork_server.py")


@dataclass(frozen=True)
class Forks:
    """The server of `fork_server.py`, and where its children write what they say."""

    server: subprocess.Popen[str]
    log: Path

    def start(self, job: str, arguments: Mapping[str, object], environment: Mapping[str, str] | None = None) -> int:
        """Start a child and return its process number."""
        return self._ask({"job": job, "log": str(self.log), "environment": environment or {}, "arguments": arguments})

    def wait(self, child: int) -> int:
        """Return a child's exit code when it has ended; that of a signal is below zero."""
        return self._ask({"wait": child})

    def run(self, job: str, arguments: Mapping[str, object]) -> int:
        """Start a child and wait for it."""
        return self.wait(self.start(job, arguments))

    def run_together(self, job: str, arguments: Mapping[str, object], count: int) -> list[int]:
        """Start several children that share a training, and wait for them; return their exit codes."""
        return [self.wait(child) for child in self.start_together(job, arguments, count)]

    def start_together(self, job: str, arguments: Mapping[str, object], count: int) -> list[int]:
        """Start several children that share a training, as torchrun would; return their process numbers."""
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
        return [self.start(job, arguments, rank) for rank in ranks]

    def said(self) -> str:
        """Return what children have written on their output and error streams."""
        return self.log.read_text() if self.log.exists() else ""

    def _ask(self, request: Mapping[str, object]) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


def free_port() -> str:
    """Return a port that nobody listens to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


@pytest.fixture(scope="session")
def fork_server() -> Iterator[subprocess.Popen[str]]:
    """One server for all tests: importing torch takes seconds."""
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked, which this system cannot")
    package = Path(glassnet.__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline(), "the server of forks does not start"
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture
def forks(fork_server: subprocess.Popen[str], tmp_path: Path) -> Forks:
    """The server, with a log of this test's own."""
    return Forks(fork_server, tmp_path / "said.txt")
