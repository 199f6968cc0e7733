"""How much memory there is to keep data in."""

from __future__ import annotations

import os
from pathlib import Path

import torch

MACHINE = Path("/proc/meminfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")
UNKNOWN_BYTES = 4 << 30
"""What is assumed to be available where the system does not say: 4 GiB."""


def available_bytes(device: torch.device) -> int:
    """Return how many bytes of a device's memory can be had at this moment; for the CPU, of the machine's.

    On Linux that is what the kernel can give without swapping, and no more than the limit of the control group that
    the process runs in (a container, a batch job) leaves. Elsewhere, half of the memory that is built in.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    free = _figure(MACHINE, "MemAvailable:")
    if free is not None:
        return min(free * 1024, _left_in_control_group(CONTROL_GROUP))
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_BYTES


def _left_in_control_group(folder: Path) -> int:
    """Return what the control group's limit leaves, not counting files that the kernel keeps and can drop."""
    try:
        limit = int((folder / "memory.max").read_text())  # "max" where there is no limit
        used = int((folder / "memory.current").read_text()) - (_figure(folder / "memory.stat", "file") or 0)
    except (OSError, ValueError):
        return 1 << 62
    return max(0, limit - used)


def _figure(path: Path, name: str) -> int | None:
    """Return the number after `name` at the start of a line, None where there is none."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return None
    return next((int(words[1]) for words in lines if words and words[0] == name), None)
