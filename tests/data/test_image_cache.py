"""The cache of decoded images: what it holds, and that no interruption, damage or rival makes it hold anything else."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glassnet import UsageError, WorkError
from glassnet.data import image_cache, pixel_file, preprocessing
from glassnet.data.examples import ExampleSet, Framing
from glassnet.data.image_cache import cache_folder, cache_size, cached_pixels, clear_cache, readable_files
from glassnet.data.image_files import ImageFiles, content_digest
from glassnet.data.images import UnreadableImageError
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import Preprocessing, channel_statistics, cropped_share, make_preprocessing

CPU = torch.device("cpu")
NUM_FILES = 11


def make_record(mode: str = "L", size: tuple[int, int] = (6, 5), **values: object) -> Preprocessing:
    channels = 1 if mode == "L" else 3
    given = {"class_names": ("ant", "bee"), "mean": (0.5,) * channels, "std": (0.25,) * channels}
    return Preprocessing(**{**given, "mode": mode, "size": size, **values})


def files_of(paths: list[Path], mode: str = "L") -> ImageFiles:
    digests = tuple(content_digest(path.read_bytes()) for path in paths)
    return ImageFiles(tuple(paths), mode, torch.full((len(paths), 2), 8), digests)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    """Eleven grey images of 9x7, each another."""
    paths = [tmp_path / f"{index}.png" for index in range(NUM_FILES)]
    for index, path in enumerate(paths):
        Image.fromarray(noise(index, 9, 7)).save(path)
    return files_of(paths)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache."""
    monkeypatch.setenv("GLASSNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven images make four blocks."""
    monkeypatch.setattr(image_cache, "BLOCK_IMAGES", 3)


@dataclass
class Counting:
    """A record that notes which files it fits, and may have something done before."""

    record: Preprocessing
    before: Callable[[Path], None] = lambda path: None
    names: list[str] = field(default_factory=list)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.record.input_shape

    @property
    def fitting(self) -> dict[str, object]:
        return self.record.fitting

    def fit_image(self, source: Path) -> torch.Tensor:
        self.names.append(Path(source).name)
        self.before(Path(source))
        return self.record.fit_image(source)


def expected_pixels(files: ImageFiles, record: Preprocessing) -> torch.Tensor:
    return torch.stack([record.fit_image(path) for path in files.paths])


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_same_file_gives_the_same_pixels_through_each_path(
    tmp_path: Path, root: Path, fit: str, mode: str, suffix: str
) -> None:
    record = make_record(mode, (12, 10), fit=fit, margin=1, fill=99)
    paths = []
    for index, (height, width, orientation) in enumerate(
        [(15, 21, 1), (14, 9, 6), (120, 203, 8), (99, 207, 3), (8, 10, 1)]
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        shape = (height, width) if mode == "L" else (height, width, 3)
        paths.append(tmp_path / f"{index}.{suffix}")
        Image.fromarray(noise(index, *shape)).save(paths[-1], exif=exif)
    files = files_of(paths, mode)
    cached, set_aside = cached_pixels(files, record)
    assert set_aside == ()
    assert torch.equal(record.fit_inputs(files), cached)
    examples = ExampleSet(files, torch.tensor([0, 1, 0, 1, 0]), ("ant", "bee"))
    assert torch.equal(to_device(examples, record, CPU).inputs, cached)
    for path, pixels in zip(paths, cached, strict=True):
        assert torch.equal(record.fit_image(path), pixels)
        assert torch.equal(record.fit_image(str(path)), pixels)
        with Image.open(path) as opened:
            assert torch.equal(record.fit_image(opened), pixels)
            is_reduced = suffix == "jpg" and min(opened.size) > 90
            upright = np.asarray(preprocessing.open_reduced(path, mode, 0, lambda width, height: 1.0)[0])
        array = torch.from_numpy(
            upright.reshape(1, *upright.shape[:2], record.num_channels).transpose(0, 3, 1, 2).copy()
        )
        assert torch.equal(record.fit_inputs(array)[0], pixels) != is_reduced  # decoded elsewhere, at full size


def test_a_finished_cache_is_opened_without_decoding(files: ImageFiles, root: Path) -> None:
    counting = Counting(make_record())
    first, _ = cached_pixels(files, counting)
    second, _ = cached_pixels(files, counting)
    assert sorted(counting.names) == sorted(path.name for path in files.paths)
    assert torch.equal(first, second)
    assert torch.equal(first, expected_pixels(files, counting.record))


def test_a_renamed_file_is_found_again_and_a_changed_one_is_decoded_anew(files: ImageFiles, root: Path) -> None:
    counting = Counting(make_record())
    cached_pixels(files, counting)
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in files.paths]
    cached_pixels(files_of(moved), counting)
    assert len(counting.names) == NUM_FILES
    Image.fromarray(noise(99, 9, 7)).save(moved[4])
    changed = files_of(moved)
    assert torch.equal(cached_pixels(changed, counting)[0], expected_pixels(changed, counting.record))
    assert len(counting.names) == 2 * NUM_FILES


@pytest.mark.parametrize(
    "values",
    [{"mode": "RGB"}, {"size": (5, 6)}, {"fit": "pad"}, {"margin": 1}, {"fill": 7}, {"interpolation": "bicubic"}],
    ids=lambda values: next(iter(values)),
)
def test_another_way_of_fitting_is_another_cache(files: ImageFiles, root: Path, values: dict[str, object]) -> None:
    cached_pixels(files, make_record())
    other = make_record(**values)
    assert torch.equal(cached_pixels(files, other)[0], expected_pixels(files, other))
    assert cache_size()[0] == 2


def test_mean_spread_and_classes_do_not_make_another_cache(files: ImageFiles, root: Path) -> None:
    cached_pixels(files, make_record())
    cached_pixels(files, make_record(mean=(0.1,), std=(0.9,), class_names=("cow",)))
    assert cache_size()[0] == 1


def test_a_new_decoder_makes_another_cache(files: ImageFiles, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_pixels(files, make_record())
    monkeypatch.setattr(image_cache.PIL, "__version__", "999")
    cached_pixels(files, make_record())
    assert cache_size()[0] == 2


def test_writing_to_the_tensor_does_not_change_the_cache(files: ImageFiles, root: Path) -> None:
    pixels, _ = cached_pixels(files, make_record())
    pixels.fill_(1)
    assert torch.equal(cached_pixels(files, make_record())[0], expected_pixels(files, make_record()))


def test_no_files_need_no_cache(files: ImageFiles, root: Path) -> None:
    pixels, set_aside = cached_pixels(files[:0], make_record())
    assert (pixels.shape, set_aside) == ((0, 1, 6, 5), ())
    assert not root.exists()


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_the_number_of_threads_changes_nothing(files: ImageFiles, root: Path, num_threads: int) -> None:
    pixels, _ = cached_pixels(files, make_record(), num_threads=num_threads)
    assert torch.equal(pixels, expected_pixels(files, make_record()))


def test_fewer_than_one_thread_is_refused(files: ImageFiles, root: Path) -> None:
    with pytest.raises(UsageError, match="num_threads must be at least 1, or None for the default; got 0"):
        cached_pixels(files, make_record(), num_threads=0)


# Interruptions


class Killed(BaseException):
    """The process is gone."""


def killed() -> None:
    raise Killed


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, share: float, action: Callable[[], None]) -> None:
    """Call `action` when the `at`-th write has written only a `share` of its bytes."""
    count, write = 0, pixel_file.write

    def interrupted(file, content):
        nonlocal count
        count += 1
        if count - 1 == at:
            write(file, memoryview(content)[: int(len(content) * share)])
            action()
        write(file, content)

    monkeypatch.setattr(pixel_file, "write", interrupted)


NUM_WRITES = 1 + 2 * 4 + 2
"""The journal's head, pixels and a line of the journal for each of four blocks, trailer, header."""


@pytest.mark.parametrize("share", [0, 0.5, 1])
@pytest.mark.parametrize("at", range(NUM_WRITES))
def test_a_build_that_is_killed_at_any_write_goes_on_where_it_stopped(
    files: ImageFiles, root: Path, tmp_path: Path, at: int, share: float
) -> None:
    as_killed = tmp_path / "as killed"

    def kill() -> None:
        shutil.copytree(root, as_killed)  # the disk as a kill leaves it, before anything is tidied up
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, at, share, kill)
        with pytest.raises(Killed):
            cached_pixels(files, make_record())
    assert not list(as_killed.glob("*.pixels"))
    num_done = min((at - 1 + (share == 1)) // 2 * 3, NUM_FILES) if at else 0
    for folder in (as_killed, root):
        counting = Counting(make_record())
        pixels, _ = cached_pixels(files, counting, cache_root=folder)
        assert torch.equal(pixels, expected_pixels(files, counting.record))
        assert sorted(counting.names) == sorted(path.name for path in files.paths[num_done:])
        assert [path.suffix for path in folder.iterdir() if path.suffix != ".lock"] == [".pixels"]


def test_there_are_as_many_writes_as_the_test_above_interrupts(files: ImageFiles, root: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, NUM_WRITES, 1, pytest.fail)
        cached_pixels(files, make_record())


def test_a_block_is_on_the_disk_before_it_is_marked_done(
    files: ImageFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    write, fsync, replace_ = pixel_file.write, os.fsync, os.replace
    monkeypatch.setattr(pixel_file, "write", lambda file, content: (events.append("w"), write(file, content)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("s"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("r"), replace_(*paths)))
    cached_pixels(files, make_record())
    assert "".join(events) == "w" + 4 * "wsw" + "wws" + "rs"


def test_an_interrupt_while_decoding_stops_the_threads_and_keeps_the_blocks(files: ImageFiles, root: Path) -> None:
    def interrupt_at_the_seventh(path: Path) -> None:
        if path.name == "7.png":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_pixels(files, Counting(make_record(), interrupt_at_the_seventh))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    counting = Counting(make_record())
    pixels, _ = cached_pixels(files, counting)
    assert torch.equal(pixels, expected_pixels(files, counting.record))
    assert sorted(counting.names) == sorted(f"{index}.png" for index in range(6, NUM_FILES))


@pytest.mark.parametrize("damage", ["pixels", "short", "journal", "foreign journal"])
def test_a_block_that_is_not_as_the_journal_says_is_decoded_again(files: ImageFiles, root: Path, damage: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 5, 0, no_space)
        with pytest.raises(WorkError):
            cached_pixels(files, make_record())
    (partial,), (journal,) = root.glob("*.partial"), root.glob("*.journal")
    content, lines = bytearray(partial.read_bytes()), journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3  # its head and two blocks
    content[4096 + 3 * 30 + 5] ^= 1
    partial.write_bytes({"pixels": content, "short": content[: 4096 + 4 * 30]}.get(damage, partial.read_bytes()))
    if damage == "journal":
        journal.write_bytes(b"".join([*lines[:2], lines[2][:-9], b"\n"]))
    elif damage == "foreign journal":
        journal.write_bytes(b"".join([lines[0].replace(b"images", b"pictures"), *lines[1:]]))
    counting = Counting(make_record())
    pixels, _ = cached_pixels(files, counting)
    assert torch.equal(pixels, expected_pixels(files, counting.record))
    assert len(counting.names) == NUM_FILES - (0 if damage == "foreign journal" else 3)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-1],
    "extended": lambda content: content + b"\0",
    "no header": lambda content: bytes(4096) + content[4096:],
    "a header of other images": lambda content: content.replace(b'"num_images": 11', b'"num_images": 12'),
    "a header that is a list": lambda content: b"[]".ljust(4096) + content[4096:],
    "a negative number of rows": lambda content: content.replace(b'"num_rows": 11', b'"num_rows": -1'),
    "another trailer": lambda content: content[:-2] + b"[]",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_anew(files: ImageFiles, root: Path, damage: str) -> None:
    cached_pixels(files, make_record())
    (path,) = root.glob("*.pixels")
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert path.read_bytes() != whole
    counting = Counting(make_record())
    pixels, _ = cached_pixels(files, counting)
    assert len(counting.names) == NUM_FILES
    assert torch.equal(pixels, expected_pixels(files, counting.record))
    assert path.read_bytes() == whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a child process is made by fork")
@pytest.mark.parametrize("seed", range(5))
def test_builds_that_are_killed_at_any_moment_end_as_one_that_was_not(tmp_path: Path, root: Path, seed: int) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(40)]
    for index, path in enumerate(paths):
        Image.fromarray(noise(index, 9, 7)).save(path)
    paths[7].write_bytes(b"damaged")
    files, record = files_of(paths), make_record()
    moments = np.random.default_rng(seed)
    for _ in range(3):  # each goes on where the one before was killed
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                cached_pixels(files, Counting(record, lambda path: time.sleep(0.002)), num_threads=2)
            os._exit(0)
        time.sleep(moments.uniform(0, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    pixels, set_aside = cached_pixels(files, record)
    whole, also_aside = cached_pixels(files, record, cache_root=tmp_path / "uninterrupted")
    assert torch.equal(pixels, whole)
    assert set_aside == also_aside
    key = next(root.glob("*.pixels")).name
    assert (root / key).read_bytes() == (tmp_path / "uninterrupted" / key).read_bytes()
    assert not [*root.glob("*.partial"), *root.glob("*.journal")]


# A full disk


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("at", [0, 3, 4, NUM_WRITES - 2, NUM_WRITES - 1])
def test_a_disk_that_fills_gives_a_message_and_the_next_attempt_goes_on(files: ImageFiles, root: Path, at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, at, 0.5, no_space)
        with pytest.raises(WorkError, match=r"need 0\.0 MB in .*cache; .* MB are free \(No space left.*GLASSNET_CACHE"):
            cached_pixels(files, make_record())
    assert not list(root.glob("*.pixels"))
    counting = Counting(make_record())
    pixels, _ = cached_pixels(files, counting)
    assert torch.equal(pixels, expected_pixels(files, counting.record))
    assert len(counting.names) == NUM_FILES - max(0, at - 1) // 2 * 3 if at < 9 else not counting.names


def test_too_little_room_is_said_before_anything_is_decoded(
    files: ImageFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(files.paths[0])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=NUM_FILES * 30 - 1))
    counting = Counting(make_record())
    with pytest.raises(WorkError, match="No space left"):
        cached_pixels(files, counting)
    assert counting.names == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=NUM_FILES * 30))
    assert len(cached_pixels(files, counting)[0]) == NUM_FILES


def test_a_folder_that_cannot_be_made_is_refused_with_the_remedy(files: ImageFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="Expected to write decoded images to .*file; got .*set GLASSNET_CACHE"):
        cached_pixels(files, make_record(), cache_root=tmp_path / "file")


# Rivals


def test_threads_that_want_the_same_cache_build_it_once(files: ImageFiles, root: Path) -> None:
    counting = Counting(make_record(), lambda path: time.sleep(0.002))
    results: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(cached_pixels(files, counting)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(pixels, expected_pixels(files, counting.record)) for pixels in results)
    assert len(counting.names) == NUM_FILES


def test_a_process_waits_for_another_and_goes_on_where_that_one_was_killed(
    files: ImageFiles, root: Path, tmp_path: Path
) -> None:
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from tests_of_cache import Counting, files_of, image_cache, make_record
        image_cache.BLOCK_IMAGES = 3
        def slowly(path):
            if int(path.stem) >= 6:
                time.sleep(60)
        paths = [Path({str(tmp_path)!r}, f"{{index}}.png") for index in range({NUM_FILES})]
        image_cache.cached_pixels(files_of(paths), Counting(make_record(), slowly))
        """
    )
    shutil.copy(__file__, tmp_path / "tests_of_cache.py")
    places = [str(Path(image_cache.__file__).parents[2]), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "GLASSNET_CACHE": str(root)}
    counting = Counting(make_record())
    results: list[torch.Tensor] = []
    waiting = threading.Thread(target=lambda: results.append(cached_pixels(files, counting)[0]))
    with subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=tmp_path) as other:
        try:
            deadline = time.monotonic() + 60
            while sum(path.read_bytes().count(b"\n") for path in root.glob("*.journal")) < 3:
                assert other.poll() is None, "the other process failed"
                assert time.monotonic() < deadline, "the other process is too slow"
                time.sleep(0.02)
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
            assert counting.names == []
        finally:
            other.send_signal(signal.SIGKILL)
    waiting.join(30)
    assert torch.equal(results[0], expected_pixels(files, counting.record))
    assert sorted(counting.names) == sorted(f"{index}.png" for index in range(6, NUM_FILES))


# Files that cannot be decoded


def test_a_file_that_cannot_be_decoded_is_set_aside_with_the_reason(files: ImageFiles, root: Path) -> None:
    for index in (0, 4, 10):
        files.paths[index].write_bytes(files.paths[index].read_bytes()[:-30])
    files = files_of(list(files.paths))
    for _ in range(2):  # built, and opened
        pixels, set_aside = cached_pixels(files, make_record())
        assert [failure.source for failure in set_aside] == [str(files.paths[index]) for index in (0, 4, 10)]
        assert all("truncated" in failure.reason or "damaged" in failure.reason for failure in set_aside)
        is_left = readable_files(files, set_aside)
        assert is_left.nonzero().flatten().tolist() == [1, 2, 3, 5, 6, 7, 8, 9]
        assert torch.equal(pixels, expected_pixels(files[is_left], make_record()))


def test_what_is_set_aside_has_no_example_and_the_others_keep_their_labels(files: ImageFiles, root: Path) -> None:
    files.paths[2].write_bytes(b"")
    examples = ExampleSet(files, torch.arange(NUM_FILES) % 2, ("bee", "ant"))
    on_device = to_device(examples, make_record(), CPU)
    assert [failure.reason for failure in on_device.set_aside] == ["expected an image, got an empty file (0 bytes)"]
    assert on_device.positions is not None
    assert on_device.positions.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert on_device.labels.tolist() == [1, 0, 0, 1, 0, 1, 0, 1, 0, 1]  # the record counts in (ant, bee)
    assert len(on_device.inputs) == len(on_device) == 10
    present = on_device.present(examples)
    assert isinstance(present.inputs, ImageFiles)
    assert torch.equal(on_device.inputs, expected_pixels(present.inputs, make_record()))
    assert to_device(present, make_record(), CPU).present(present) is present
    record = make_preprocessing(examples, (6, 5), Framing("crop"))
    assert (record.mean, record.std) == channel_statistics(record.fit_readable(files)[0])


def test_fitting_all_of_the_files_is_refused_where_one_cannot_be_decoded(files: ImageFiles, root: Path) -> None:
    files.paths[2].write_bytes(b"")
    with pytest.raises(
        WorkError, match=r"Expected 11 images; 1 of them cannot be read, the first is .*2\.png: .*empty"
    ):
        make_record().fit_inputs(files)


@pytest.mark.parametrize(
    "error", [UnreadableImageError("no such file"), PermissionError(errno.EACCES, "Permission denied")]
)
def test_a_file_that_was_out_of_reach_is_decoded_when_it_is_back(
    files: ImageFiles, root: Path, error: Exception
) -> None:
    def out_of_reach(path: Path) -> None:
        if path.name in ("3.png", "8.png"):
            raise error

    pixels, set_aside = cached_pixels(files, Counting(make_record(), out_of_reach))
    assert (len(pixels), len(set_aside)) == (9, 2)
    assert str(error.args[-1]) in set_aside[0].reason
    pixels, set_aside = cached_pixels(files, make_record())
    assert set_aside == ()
    assert torch.equal(pixels, expected_pixels(files, make_record()))


def test_a_file_that_was_out_of_reach_before_an_interruption_is_decoded_when_it_is_back(
    files: ImageFiles, root: Path
) -> None:
    def out_of_reach(path: Path) -> None:
        if path.name == "1.png":
            raise UnreadableImageError("gone")

    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 5, 0, killed)
        with pytest.raises(Killed):
            cached_pixels(files, Counting(make_record(), out_of_reach))
    pixels, set_aside = cached_pixels(files, make_record())
    assert set_aside == ()
    assert torch.equal(pixels, expected_pixels(files, make_record()))


def test_where_no_file_can_be_decoded_that_is_an_error_and_it_is_tried_again(files: ImageFiles, root: Path) -> None:
    def out_of_reach(path: Path) -> None:
        raise UnreadableImageError("gone")

    with pytest.raises(WorkError, match=r"none of the 11 files can be decoded. The first is .*0\.png: gone"):
        cached_pixels(files, Counting(make_record(), out_of_reach))
    assert len(cached_pixels(files, make_record())[0]) == NUM_FILES


def test_a_decompression_bomb_among_the_files_is_set_aside_by_whichever_thread_meets_it(
    files: ImageFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in (1, 5, 9):
        Image.fromarray(noise(index, 9, 8)).save(files.paths[index])
    files, filters = files_of(list(files.paths)), list(warnings.filters)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9 * 7)
    _, set_aside = cached_pixels(files, make_record(), num_threads=4)
    assert [Path(failure.source).name for failure in set_aside] == ["1.png", "5.png", "9.png"]
    assert all("decompression bomb" in failure.reason for failure in set_aside)
    assert warnings.filters == filters


# What is shown


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_with_images_a_second_is_shown_in_a_terminal_and_nowhere_else(
    files: ImageFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream, is_wanted, is_shown in (
        (Terminal(), True, True),
        (Terminal(), False, False),
        (io.StringIO(), True, False),
    ):
        clear_cache()
        monkeypatch.setattr(sys, "stderr", stream)
        cached_pixels(files, make_record(), progress=is_wanted)
        assert ("11/11" in stream.getvalue() and "images/s" in stream.getvalue()) == is_shown
        assert is_shown or not stream.getvalue()


# Keeping house


def test_the_cache_lies_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLASSNET_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder(tmp_path / "own") == tmp_path / "own"
    monkeypatch.delenv("GLASSNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert cache_folder().name == "images"
    assert "glassnet" in cache_folder().parts


def test_clearing_deletes_the_caches_and_nothing_else(files: ImageFiles, root: Path) -> None:
    assert (cache_size(), clear_cache()) == ((0, 0), (0, 0))
    cached_pixels(files, make_record())
    pixels, _ = cached_pixels(files, make_record(fill=1, fit="pad"))
    (root / "mine.pixels").write_text("not a cache")
    num_bytes = sum(path.stat().st_size for path in root.glob("*.pixels")) - len("not a cache")
    assert cache_size() == (2, num_bytes)
    assert clear_cache() == (2, num_bytes)
    assert {path.name for path in root.iterdir() if path.suffix != ".lock"} == {"mine.pixels"}
    assert all(path.stat().st_size == 0 for path in root.glob("*.lock"))
    assert torch.equal(pixels, expected_pixels(files, make_record(fill=1, fit="pad")))  # still readable


def test_clearing_leaves_what_is_being_built(files: ImageFiles, root: Path) -> None:
    cleared: list[tuple[int, int]] = []

    def clear(path: Path) -> None:
        if path.name == "7.png":
            cleared.append(clear_cache())

    pixels, _ = cached_pixels(files, Counting(make_record(), clear))
    assert cleared == [(0, 0)]
    assert torch.equal(pixels, expected_pixels(files, make_record()))


# Memory


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind; what is mapped from the cache is not counted."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the system does not tell how much memory is anonymous")
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_a_set_above_the_memory_budget_is_built_measured_and_read_in_bounded_memory(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "BLOCK_IMAGES", 1024)
    monkeypatch.setattr(image_cache, "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(preprocessing, "STATISTICS_BLOCK_BYTES", 1 << 20)
    Image.fromarray(noise(0, 16, 16)).save(tmp_path / "one.png")
    one = files_of([tmp_path / "one.png"])
    count = 1000
    files = ImageFiles(one.paths * count, "L", one.sizes.repeat(count, 1), one.digests * count)
    examples = ExampleSet(files, torch.zeros(count, dtype=torch.int64), ("ant",))
    whole_bytes = count * 256 * 256  # 64 MB
    tracemalloc.start()
    try:
        record = make_preprocessing(examples, (256, 256), Framing("stretch"))
        assert tracemalloc.get_traced_memory()[1] < whole_bytes / 8
    finally:
        tracemalloc.stop()
    before = anonymous_bytes()
    on_device = to_device(examples, record, CPU, memory_budget_bytes=whole_bytes - 1)
    largest, expected = 0, record.fit_image(one.paths[0])
    for pixels, _ in on_device.batches(50, torch.arange(count).flip(0)):
        assert (pixels == expected).all()
        largest = max(largest, anonymous_bytes())
    assert largest - before < whole_bytes / 4
    in_memory = to_device(examples, record, CPU, memory_budget_bytes=whole_bytes)
    assert anonymous_bytes() - before > whole_bytes * 3 / 4
    assert torch.equal(in_memory.inputs, on_device.inputs)


def test_the_statistics_do_not_depend_on_the_size_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.from_numpy(noise(0, 23, 3, 5, 4))
    expected, counted = channel_statistics(pixels), []
    bincount = torch.bincount
    monkeypatch.setattr(
        torch, "bincount", lambda x, minlength: (counted.append(len(x)), bincount(x, minlength=minlength))[1]
    )
    for num_bytes in (1, 130, 60 * 23, 1 << 20):
        monkeypatch.setattr(preprocessing, "STATISTICS_BLOCK_BYTES", num_bytes)
        counted.clear()
        assert channel_statistics(pixels) == expected
        assert max(counted) <= max(20, num_bytes)
    scaled = pixels.numpy() / 255
    assert np.allclose(expected, (scaled.mean((0, 2, 3)), scaled.std((0, 2, 3))), rtol=0, atol=1e-12)


def test_inputs_above_the_budget_stay_off_the_device_and_batches_come_to_it(files: ImageFiles, root: Path) -> None:
    meta = torch.device("meta")  # takes tensors without their values: enough to see where they are
    for inputs in (files, expected_pixels(files, make_record())):
        examples = ExampleSet(inputs, torch.arange(NUM_FILES) % 2, ("ant", "bee"))
        outside = to_device(examples, make_record(), meta, memory_budget_bytes=NUM_FILES * 30 - 1)
        inside = to_device(examples, make_record(), meta, memory_budget_bytes=NUM_FILES * 30)
        assert (outside.inputs.device, outside.device) == (CPU, meta)
        assert (inside.inputs.device, inside.device) == (meta, meta)
        for on_device in (outside, inside):
            shapes = [(pixels.device, pixels.shape, labels.device) for pixels, labels in on_device.batches(6)]
            assert shapes == [(meta, (6, 1, 6, 5), meta), (meta, (5, 1, 6, 5), meta)]


def test_a_network_of_numbers_takes_no_image_files(files: ImageFiles) -> None:
    from glassnet.data.standardisation import Standardisation

    record = Standardisation(class_names=("ant",), input_shape=(3,), mean=(0.0,) * 3, std=(1.0,) * 3)
    examples = ExampleSet(files, torch.zeros(NUM_FILES, dtype=torch.int64), ("ant",))
    with pytest.raises(UsageError, match=r"takes numbers of shape \(3,\); got ExampleSet\(11 image files"):
        to_device(examples, record, CPU)


# What a crop throws away


def test_the_cropped_share_is_that_of_all_pixels() -> None:
    sizes = torch.tensor([[10, 30], [40, 40], [60, 20]])  # a square keeps 100, 1600 and 400 of 300, 1600 and 1200
    assert cropped_share(sizes, (8, 8)) == pytest.approx(1 - 2100 / 3100)
    assert cropped_share(sizes[:1], (8, 12)) == pytest.approx(1 - 150 / 300)
    assert cropped_share(sizes[:1], (6, 10)) == pytest.approx(1 - 10 * 50 / 3 / 300)


def test_nothing_is_cropped_at_the_same_proportions() -> None:
    sizes = torch.tensor([[10, 30], [20, 60]])
    assert cropped_share(sizes, (5, 15)) == pytest.approx(0)
    assert cropped_share(sizes[:0], (8, 8)) == 0
