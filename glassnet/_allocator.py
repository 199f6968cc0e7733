"""Memory that one batch gives back, kept for the next."""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, from its `malloc.h`."""
LARGEST_KEPT = 2**31 - 1
"""Bytes; the parameters are C ints."""
USUAL = {MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
"""Where glibc's own thresholds end up in a program that frees large blocks: it lets them grow to these."""

_lock, _depth = threading.Lock(), 0


@contextmanager
def memory_kept() -> Iterator[None]:
    """Have glibc's `malloc` keep freed blocks of any size for the duration of the block; give them back at its end.

    A training step frees all its maps and the next one asks for the same sizes. Without this, blocks above 32 MiB go
    back to the system each time, smaller ones whenever they lie at the end of the heap, and every page of them must
    be mapped and cleared anew: 10 to 20 % of a step on a CPU. Peak memory hardly changes: what is kept is what the
    next step takes. Elsewhere than on glibc nothing is done. Blocks may be nested, and run in several threads.
    """
    global _depth  # one process has one malloc
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            _set(libc, dict.fromkeys(USUAL, LARGEST_KEPT))
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _set(libc, USUAL)
                libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        libc.mallopt(parameter, value)


def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)
