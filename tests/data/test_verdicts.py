"""What examining files found is kept while they are the same, and is never wrong about one that changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glassnet.data import verdicts
from glassnet.data.checks import each_file, examine_image
from glassnet.data.content import Entry, Loaded
from glassnet.data.image_cache import cache_size, clear_cache
from glassnet.data.images import UnreadableImageError
from glassnet.data.sources import load_data
from glassnet.data.verdicts import Verdict, remembered_verdicts


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache; files count as settled at once."""
    monkeypatch.setenv("GLASSNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "SETTLED_S", -3600.0)
    return tmp_path / "cache"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five images, 4 to 8 pixels high, in two folders."""
    found = [tmp_path / "images" / "ab"[index % 2] / f"{index}.bmp" for index in range(5)]
    for index, path in enumerate(found):
        write(path, index)
    return found


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (4 + seed, 6, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def verdicts_on(paths: Sequence[Entry], folder: Path) -> tuple[list[Verdict], list[str]]:
    """Return the verdicts and the names of the files that were examined for them."""
    examined: list[str] = []

    def examine(some: Sequence[Entry]) -> Sequence[Verdict]:
        examined.extend(Path(str(path)).name for path in some)
        return each_file(some, examine_image, "Examining")

    return remembered_verdicts(paths, folder, examine), examined


def test_files_are_examined_once_and_the_verdicts_stay_the_same(tmp_path: Path, paths: list[Path]) -> None:
    first, examined = verdicts_on(paths, tmp_path / "images")
    assert examined == [path.name for path in paths]
    assert first == [examine_image(path) for path in paths]
    assert verdicts_on(paths, tmp_path / "images") == (first, [])
    assert verdicts_on(paths[::-2], tmp_path / "images") == (first[::-2], [])


def test_a_file_that_changed_is_examined_again_though_length_and_time_are_the_same(
    tmp_path: Path, paths: list[Path]
) -> None:
    verdicts_on(paths, tmp_path / "images")
    before = paths[2].stat()
    content = bytearray(paths[2].read_bytes())
    content[-1] ^= 1
    paths[2].write_bytes(content)
    os.utime(paths[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    found, examined = verdicts_on(paths, tmp_path / "images")
    assert (examined, found[2]) == (["2.bmp"], examine_image(paths[2]))


def test_a_file_put_in_the_place_of_another_is_examined(tmp_path: Path, paths: list[Path]) -> None:
    verdicts_on(paths, tmp_path / "images")
    os.replace(paths[3], paths[1])
    write(paths[3], 7)
    found, examined = verdicts_on(paths, tmp_path / "images")
    assert examined == ["1.bmp", "3.bmp"]
    assert found == [examine_image(path) for path in paths]


def test_what_changed_a_moment_ago_is_not_kept(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "SETTLED_S", 3600.0)
    for _ in range(2):
        assert verdicts_on(paths, tmp_path / "images")[1] == [path.name for path in paths]


def test_files_that_cannot_be_used_are_examined_each_time(tmp_path: Path, paths: list[Path]) -> None:
    paths[0].write_bytes(b"words")
    paths[1].unlink()
    for expected in (paths, paths[:2]):
        found, examined = verdicts_on(paths, tmp_path / "images")
        assert examined == [path.name for path in expected]
        assert [isinstance(verdict, UnreadableImageError) for verdict in found] == [True, True, False, False, False]


def test_another_limit_for_bombs_or_another_folder_examines_anew(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts_on(paths, tmp_path / "images")
    assert len(verdicts_on(paths, tmp_path)[1]) == 5
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    found, examined = verdicts_on(paths, tmp_path / "images")
    assert len(examined) == 5
    assert [isinstance(verdict, UnreadableImageError) for verdict in found] == [False, False, True, True, True]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]\n[]", b"\xff" * 40])
def test_damaged_verdicts_are_as_good_as_none(tmp_path: Path, root: Path, paths: list[Path], damage: bytes) -> None:
    expected, _ = verdicts_on(paths, tmp_path / "images")
    (kept,) = root.glob("*.verdicts")
    kept.write_bytes(damage)
    assert verdicts_on(paths, tmp_path / "images") == (expected, [path.name for path in paths])
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert verdicts_on(paths, tmp_path / "images") == (expected, [path.name for path in paths])


def test_content_is_examined_each_time_and_files_beside_it_are_not(
    tmp_path: Path, root: Path, paths: list[Path]
) -> None:
    content = Loaded("inside.bmp", paths[4].read_bytes())
    mixed = [paths[0], content, paths[1]]
    first, _ = verdicts_on(mixed, tmp_path / "images")
    assert first == [examine_image(entry) for entry in mixed]
    assert verdicts_on(mixed, tmp_path / "images") == (first, ["inside.bmp"])
    clear_cache()
    assert verdicts_on([content], tmp_path / "images")[0] == first[1:2]
    assert not list(root.glob("*.verdicts"))


def test_where_nothing_can_be_kept_files_are_examined_each_time(root: Path, tmp_path: Path, paths: list[Path]) -> None:
    root.write_text("a file where the folder should be")
    for _ in range(2):
        assert len(verdicts_on(paths, tmp_path / "images")[1]) == 5


def test_files_that_are_gone_are_forgotten_once_they_are_many(tmp_path: Path, root: Path, paths: list[Path]) -> None:
    verdicts_on(paths, tmp_path / "images")
    for path in paths[1:]:
        path.unlink()
    write(paths[0], 9)
    verdicts_on(paths[:1], tmp_path / "images")
    (kept,) = root.glob("*.verdicts")
    assert b"0.bmp" in kept.read_bytes()
    assert b"3.bmp" not in kept.read_bytes()


def test_clearing_the_cache_removes_the_verdicts(tmp_path: Path, root: Path, paths: list[Path]) -> None:
    verdicts_on(paths, tmp_path / "images")
    (kept,) = root.glob("*.verdicts")
    length = kept.stat().st_size
    assert cache_size() == clear_cache() == (1, length)
    assert len(verdicts_on(paths, tmp_path / "images")[1]) == 5


def test_a_folder_loads_the_same_from_verdicts(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images" / "a" / "notes.txt").write_text("not an image")
    first = load_data(tmp_path / "images")
    opened: list[Path] = []
    monkeypatch.setattr(
        "glassnet.data.labelled_images.examine_image", lambda path: (opened.append(path), examine_image(path))[1]
    )
    second = load_data(tmp_path / "images")
    assert [path.name for path in opened] == ["notes.txt"]
    assert second.fingerprint() == first.fingerprint()
    assert (second.set_aside, second.notes) == (first.set_aside, first.notes)
