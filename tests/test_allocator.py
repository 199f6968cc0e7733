"""Memory that is kept from one batch to the next."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
print(usual, kept, faults_of_blocks(), inside - resident_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of this system is not glibc's")
def test_blocks_that_come_again_are_mapped_once_within_the_block_and_given_back_after_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    usual, kept, after, given_back_mib = (float(value) for value in done.stdout.split())
    if usual < 1000:
        pytest.skip("this kernel maps large blocks in large pages, whoever frees them")
    assert kept < usual / 50
    assert after > usual / 2
    assert given_back_mib > 50
