"""What a run has saved survives the loss of power, a full disk and damaged files; it goes on to the same end."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import glassnet as gn
from glassnet import TrainConfig, WorkError
from glassnet.data.examples import Dataset
from glassnet.experiments import resume
from glassnet.runs import Run, open_run
from glassnet.training import epoch as epoch_file
from glassnet.training.fit import SilentObserver
from glassnet.training.history import EpochRow

CONFIG = TrainConfig(epochs=2, batch_size=30, checkpoint_s=1e-9, precision="fp32", max_shift=1)
STATE, PREVIOUS, WEIGHTS = "last.ckpt", "previous-last.ckpt", "model.safetensors"


def train(data: Dataset, out: Path, config: TrainConfig = CONFIG) -> Run:
    model = gn.build_model("cnn2d", num_classes=3, input_shape=(1, 8, 8), channels=(4,), batch_norm=True, dropout=0.2)
    return gn.train(model, data, config, out=out, progress=False)


def end_of(path: Path) -> tuple[bytes, list[tuple[object, ...]], object]:
    """Return the best weights, the history without times, and the figures of a run."""
    run = open_run(path)
    rows = [(row.epoch, row.step, row.train_loss, row.validation_loss, row.validation_accuracy) for row in run.history]
    return (path / WEIGHTS).read_bytes(), rows, run.record["result"]


@pytest.fixture(autouse=True)
def _save_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_file, "STATE_SHARE", 1e9)


class Disk:
    """What would be left in the folders below `root` if the power went out, as the weakest file system has it.

    A file has the content it was flushed with, else none. A name that was made, moved or removed is so for certain
    when its folder was flushed; until then any part of what was done may have come to the disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.identities: dict[int, int] = {}
        self.new = itertools.count()
        self.contents: dict[int, bytes] = {}
        self.names: dict[Path, dict[str, int]] = {}
        self.pending: list[tuple[Path, str, int | None]] = []
        """Names in folders, and what they have come to stand for since the folder was flushed; None for nothing."""
        self.trees: list[dict[Path, bytes]] = []
        self.num_states = 0

    def identity(self, path: Path | int) -> int:
        """Return what stands for a file whatever its name; an inode is used again when its file is gone."""
        return self.identities.setdefault(os.stat(path).st_ino, next(self.new))

    def flushed(self, descriptor: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if place.is_dir():
            self.names[place] = {entry.name: self.identity(place / entry.name) for entry in os.scandir(place)}
            self.pending = [change for change in self.pending if change[0] != place]
        else:
            self.contents[self.identity(descriptor)] = place.read_bytes()
        self._note()

    def moving(self, source: Path, target: Path) -> None:
        moved = self.identity(source)
        if target.exists():
            self.identities.pop(target.stat().st_ino, None)
        self.pending += [(target.parent, target.name, moved), (source.parent, source.name, None)]
        self.num_states += target.name == STATE
        self._note()

    def removing(self, path: Path) -> None:
        if path.exists():
            self.identities.pop(path.stat().st_ino, None)
            self.pending.append((path.parent, path.name, None))
            self._note()

    def _note(self) -> None:
        """Keep every tree that may be on the disk now, once there is a state to go on from."""
        moves = [self.pending[:count] for count in range(len(self.pending) + 1)]
        for changes in (*moves, *([change] for change in self.pending if change[2] is not None)):
            names = {folder: dict(entries) for folder, entries in self.names.items()}
            for folder, name, identity in changes:
                names.setdefault(folder, {})[name] = identity  # type: ignore[assignment]
            tree = dict(self._files(self.root, names))
            is_begun = any(path.name in (STATE, PREVIOUS) for path in tree)
            if (is_begun or self.num_states > 1) and tree not in self.trees:
                self.trees.append(tree)

    def _files(self, folder: Path, names: dict[Path, dict[str, int]]) -> Iterator[tuple[Path, bytes]]:
        for name, identity in names.get(folder, {}).items():
            path = folder / name
            if path in names or path.is_dir():
                yield from self._files(path, names)
            elif identity is not None and not name.startswith("."):
                yield path, self.contents.get(identity, b"")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The folder `disk`, on which everything that is flushed, moved and removed is written down."""
    root = tmp_path / "disk"
    root.mkdir()
    watched, fsync, replace, unlink = Disk(root), os.fsync, os.replace, os.unlink

    def is_below(path: object) -> bool:
        return Path(str(path)).is_relative_to(root)

    def watch_fsync(descriptor: int) -> None:
        fsync(descriptor)
        if is_below(os.readlink(f"/proc/self/fd/{descriptor}")):
            watched.flushed(descriptor)

    def watch_replace(source: Any, target: Any, **options: Any) -> None:
        if is_below(target):
            watched.moving(Path(source), Path(target))
        replace(source, target, **options)

    def watch_unlink(path: Any, **options: Any) -> None:
        if is_below(path):
            watched.removing(Path(path))
        unlink(path, **options)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(os, "replace", watch_replace)
    monkeypatch.setattr(os, "unlink", watch_unlink)
    return watched


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files are told by /proc, which is Linux's")
def test_whenever_the_power_goes_out_the_run_goes_on_to_the_same_end(
    small_data: Dataset, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = end_of(train(small_data, disk.root / "run").path)
    monkeypatch.undo()
    states = {tree.get(disk.root / "run" / STATE) for tree in disk.trees}
    assert len(states - {None}) == 5  # before the first step, after each of four
    assert None in states, "also between the two moves of a save"
    for number, tree in enumerate(disk.trees):
        path = tmp_path / str(number)
        path.mkdir()
        for file, content in tree.items():
            (path / file.name).write_bytes(content)
        if (path / "report.html").exists():  # that was the end of it
            assert end_of(path) == expected
            continue
        assert end_of(resume(path, data=small_data, progress=False).path) == expected
        shutil.rmtree(path)
    assert number > 15


class FullDisk:
    """Fails once, at one of the calls that make, fill or flush a file of a folder."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.num_calls, self.at = 0, at
        self.write_bytes = Path.write_bytes
        mkstemp, fsync = tempfile.mkstemp, os.fsync
        monkeypatch.setattr(tempfile, "mkstemp", lambda **options: self.count() or mkstemp(**options))
        monkeypatch.setattr(os, "fsync", lambda descriptor: self.count() or fsync(descriptor))
        monkeypatch.setattr(Path, "write_bytes", lambda path, content: self.write(path, content))

    def count(self) -> None:
        self.num_calls += 1
        if self.num_calls == self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, path: Path, content: bytes) -> None:
        self.write_bytes(path, content[: len(content) // 2])
        self.count()
        self.write_bytes(path, content)


def test_whichever_write_finds_the_disk_full_the_last_state_stays_and_the_run_goes_on(
    small_data: Dataset, tmp_path: Path
) -> None:
    config = TrainConfig(epochs=1, batch_size=30, checkpoint_s=1e-9, precision="fp32")
    expected = end_of(train(small_data, tmp_path / "whole", config).path)
    num_failures = num_resumed = 0
    for at in itertools.count(1):
        path = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(tmp_path, patch, at)
            try:
                train(small_data, path, config)
                break
            except WorkError as error:
                num_failures += 1
                text = str(error)
        assert "No space left on device" in text
        if not path.exists():
            assert "--resume" not in text
            continue
        assert text.endswith(f"`glassnet train --resume {path}` goes on from the last state that was saved.")
        num_resumed += 1
        assert not list(path.glob(".*")), "no half file is left to fill the disk"
        if not (path / "report.html").exists():  # the report is the last thing to be written
            resume(path, data=small_data, progress=False)
        assert end_of(path) == expected
        shutil.rmtree(path)
    assert num_failures > 30
    assert num_resumed > 15


@pytest.fixture
def begun(small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped at once at the end of its second epoch of four."""

    class Stopper(SilentObserver):
        def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
            if row.epoch == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("glassnet.experiments.make_observer", lambda is_wanted: Stopper())
        with pytest.raises(KeyboardInterrupt):
            train(small_data, tmp_path / "begun", TrainConfig(epochs=4, batch_size=30, precision="fp32"))
    return tmp_path / "begun"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda content: content[:-600] + bytes([content[-600] ^ 1]) + content[-599:],
    "half a file": lambda content: content[: len(content) // 2],
    "an empty file": lambda content: b"",
}


def damage(path: Path, name: str) -> None:
    path.write_bytes(DAMAGES[name](path.read_bytes()))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_named_and_the_one_before_it_used(
    name: str, begun: Path, small_data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = end_of(
        train(small_data, tmp_path / "whole", TrainConfig(epochs=4, batch_size=30, precision="fp32")).path
    )
    damage(begun / STATE, name)
    run = resume(begun, data=small_data)
    assert end_of(run.path) == expected
    said = capsys.readouterr().err
    assert f"Expected a training state in {begun / STATE}; the file is damaged" in said
    assert "The one before it is used." in said


@pytest.mark.parametrize("name", DAMAGES)
def test_where_both_states_are_damaged_both_are_named(name: str, begun: Path, small_data: Dataset) -> None:
    damage(begun / STATE, name)
    damage(begun / PREVIOUS, name)
    with pytest.raises(WorkError) as caught:
        resume(begun, data=small_data, progress=False)
    assert f"{begun / STATE}; the file is damaged" in str(caught.value)
    assert f"{begun / PREVIOUS}; the file is damaged" in str(caught.value)


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_weights_are_named_before_the_training_goes_on(name: str, begun: Path, small_data: Dataset) -> None:
    damage(begun / WEIGHTS, name)
    with pytest.raises(WorkError, match=rf"{begun / WEIGHTS}; .*(does not load|damaged).* Restore it, or train again"):
        resume(begun, data=small_data, progress=False)
    with pytest.raises(WorkError, match=rf"{begun / WEIGHTS}; .*(does not load|damaged).* Restore it, or train again"):
        open_run(begun)


def test_other_data_and_a_finished_run_are_refused(begun: Path, small_data: Dataset) -> None:
    with pytest.raises(WorkError, match="The data is not what the run in .*begun was begun with"):
        resume(begun, data=replace(small_data, train=small_data.train[:30]), progress=False)
    resume(begun, data=small_data, progress=False)
    with pytest.raises(gn.UsageError, match=r"is complete \(all epochs done\)"):
        resume(begun, data=small_data, progress=False)
