from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch
from torch import nn

from glassnet import WorkError
from glassnet.training.checkpoint import (
    MAGIC,
    load_training_state,
    load_weights,
    save_weights,
    write_atomically,
    write_text,
)


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(WorkError, match=r"Could not write .*config.yaml: No space left on device. Free space"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="Could not write .*absent/x: No such file"):
        write_text(tmp_path / "absent" / "x", "")


def test_weights_survive_their_file_bit_for_bit(tmp_path: Path) -> None:
    model, other = nn.Linear(5, 3), nn.Linear(5, 3)
    save_weights(tmp_path / "w", model.state_dict(), 1)
    load_weights(tmp_path / "w", other)
    assert torch.equal(model.weight, other.weight)


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_weights(tmp_path / "w", model.state_dict(), 1)
    load_weights(tmp_path / "w", model)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Linear(5, 4), r"'bias' must be \(4,\), got \(3,\)|'weight' must be \(4, 5\), got \(3, 5\)"),
        (nn.Linear(5, 3, bias=False), "foreign: bias"),
        (nn.Sequential(nn.Linear(5, 3)), "Missing: 0.bias, 0.weight; foreign: bias, weight"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(tmp_path: Path, other: nn.Module, message: str) -> None:
    save_weights(tmp_path / "w", nn.Linear(5, 3).state_dict(), 1)
    with pytest.raises(WorkError, match=message):
        load_weights(tmp_path / "w", other)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_damaged_weights_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(WorkError, match=r"Expected weights as safetensors in .*w; it does not load"):
        load_weights(tmp_path / "w", nn.Linear(1, 1))


def test_a_damaged_or_hostile_training_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="Expected a training state in .*s; it cannot be read: No such file"):
        load_training_state(tmp_path / "s")
    (tmp_path / "s").write_bytes(b"half a file")
    with pytest.raises(WorkError, match="Expected a training state in .*s; the file is damaged"):
        load_training_state(tmp_path / "s")
    buffer = io.BytesIO()
    torch.save({"format": 2, "history": Path("x")}, buffer)  # an object, which only executing code could rebuild
    content = buffer.getvalue()
    (tmp_path / "p").write_bytes(content + MAGIC + hashlib.sha256(content).digest())
    with pytest.raises(WorkError, match="does not load"):
        load_training_state(tmp_path / "p")
