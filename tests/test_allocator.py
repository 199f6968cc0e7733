"""Memory that is kept from one batch to the next."""

from __future__ import annotations

import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from glassnet import _allocator
from glassnet._allocator import LARGEST_KEPT, MMAP_THRESHOLD, TRIM_THRESHOLD, memory_kept

PROGRAM = """
import ctypes, resource
import torch
from glassnet._allocator import memory_kept

def faults_of_blocks():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.zeros(24 * 2**20, dtype=torch.uint8).fill_(1), torch.zeros(80 * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

usual = faults_of_blocks()
with memory_kept():
    faults_of_blocks()
    with memory_kept():
        pass
    kept = faults_of_blocks()
    inside = resident_mib()
print(usual, kept, inside - resident_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of this system is not glibc's")
def test_blocks_that_come_again_are_mapped_once_within_the_block_and_given_back_at_its_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    usual, kept, given_back_mib = (float(value) for value in done.stdout.split())
    if usual < 1000:
        pytest.skip("this kernel maps large blocks in large pages, whoever frees them")
    assert kept < usual / 50
    assert given_back_mib > 50


@dataclass
class Recorder:
    """Stands for glibc and notes what is asked of it."""

    calls: list[tuple[str, int, int]] = field(default_factory=list)

    def mallopt(self, parameter: int, value: int) -> None:
        self.calls.append(("mallopt", parameter, value))

    def malloc_trim(self, padding: int) -> None:
        self.calls.append(("malloc_trim", padding, 0))


def test_the_outermost_block_sets_the_thresholds_and_puts_them_back_also_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    libc = Recorder()
    monkeypatch.setattr(_allocator, "_glibc", lambda: libc)
    kept = [("mallopt", MMAP_THRESHOLD, LARGEST_KEPT), ("mallopt", TRIM_THRESHOLD, LARGEST_KEPT)]
    with suppress(ZeroDivisionError), memory_kept():
        assert libc.calls == kept
        with memory_kept():
            pass
        assert libc.calls == kept
        1 / 0  # noqa: B018
    usual = [("mallopt", MMAP_THRESHOLD, 32 * 2**20), ("mallopt", TRIM_THRESHOLD, 64 * 2**20)]
    assert libc.calls == [*kept, *usual, ("malloc_trim", 0, 0)]
