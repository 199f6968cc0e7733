from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glassnet.data import memory
from glassnet.data.memory import available_bytes

CPU = torch.device("cpu")


def system(folder: Path, available_kb: int | None, **group: str) -> None:
    """Write what Linux tells: the machine's memory, and the control group's."""
    (folder / "meminfo").write_text(
        "MemTotal: 9999 kB\n" + (f"MemAvailable: {available_kb} kB\n" if available_kb else "")
    )
    for name, text in group.items():
        (folder / f"memory.{name}").write_text(text)


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /proc and /sys/fs/cgroup."""
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTROL_GROUP", tmp_path)
    return tmp_path


def test_without_a_limit_it_is_what_the_machine_can_give(linux: Path) -> None:
    system(linux, 4000)
    assert available_bytes(CPU) == 4000 * 1024
    system(linux, 4000, max="max\n", current="123\n", stat="file 5\n")
    assert available_bytes(CPU) == 4000 * 1024


def test_a_control_group_leaves_its_limit_less_what_is_used_and_cannot_be_dropped(linux: Path) -> None:
    system(linux, 4000, max="1000000\n", current="700000\n", stat="anon 500000\nfile 200000\nfile_mapped 7\n")
    assert available_bytes(CPU) == 1_000_000 - (700_000 - 200_000)
    system(linux, 4000, max="1000\n", current="5000\n", stat="")
    assert available_bytes(CPU) == 0


def test_a_system_that_does_not_say_is_asked_for_what_is_built_in(linux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system(linux, None)
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert available_bytes(CPU) == 1000 * 4096 // 2
    monkeypatch.delattr(memory.os, "sysconf")
    assert available_bytes(CPU) == memory.UNKNOWN_BYTES


def test_this_machine_has_some() -> None:
    assert available_bytes(CPU) > 0
