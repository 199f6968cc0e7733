"""WebDataset shards: whatever way they come, the images are those of a folder, bit for bit."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import glassnet as gn
from glassnet._errors import UsageError, WorkError
from glassnet.data.checks import check_dataset
from glassnet.data.content import Loaded, Slice, Streamed, in_order
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.image_cache import cached_pixels
from glassnet.data.image_files import ImageFiles
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.data.sources import load_data
from glassnet.data.tars import expanded, index_tar, sample_key

COLOURS = {"cat": (200, 40, 40), "dog": (40, 40, 200)}
RECORD = Preprocessing(class_names=("cat", "dog"), mode="RGB", size=(12, 10), mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLASSNET_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(seed: int, label: str = "cat", kind: str = "jpeg") -> bytes:
    generator = np.random.default_rng(seed)
    shape = (20 + seed % 5, 24, 3)
    pixels = np.clip(np.array(COLOURS[label]) + generator.integers(-30, 30, shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def pack(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(first: int, count: int) -> dict[str, bytes]:
    """Return samples of alternating classes in the folders of their classes."""
    labels = list(COLOURS)
    return {
        f"{labels[seed % 2]}/{seed:04}.jpg": picture(seed, labels[seed % 2]) for seed in range(first, first + count)
    }


def labelled(first: int, count: int, suffix: str = "cls") -> dict[str, bytes]:
    """Return samples with their labels, 0 or 1, in files beside them."""
    found: dict[str, bytes] = {}
    for seed in range(first, first + count):
        found[f"{seed:04}.jpg"] = picture(seed, list(COLOURS)[seed % 2])
        found[f"{seed:04}.{suffix}"] = (
            str(seed % 2).encode() if suffix == "cls" else json.dumps({"label": seed % 2}).encode()
        )
    return found


def unpack(members: Mapping[str, bytes], root: Path) -> Path:
    for name, content in members.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names(examples: ExampleSet) -> list[str]:
    assert isinstance(examples.inputs, ImageFiles)
    return [str(entry) for entry in examples.inputs.paths]


def reasons(data: Dataset) -> dict[str, str]:
    return {item.source: item.reason for item in data.set_aside}


def pixels_by_digest(examples: ExampleSet) -> dict[str, bytes]:
    assert isinstance(examples.inputs, ImageFiles)
    pixels, set_aside = cached_pixels(examples.inputs, RECORD, progress=False)
    assert not set_aside
    return {digest: row.numpy().tobytes() for digest, row in zip(examples.inputs.digests, pixels, strict=True)}


def all_pixels(data: Dataset) -> dict[str, bytes]:
    return {k: v for split in (data.train, data.validation, data.test) for k, v in pixels_by_digest(split).items()}


@pytest.mark.parametrize("how", ["indexed", "gzip", "pipe"])
def test_images_in_shards_have_the_pixels_and_labels_that_they_have_in_a_folder(tmp_path: Path, how: str) -> None:
    members = samples(0, 20)
    folder = load_data(unpack(members, tmp_path / "folder"))
    path = pack(tmp_path / "pets.tar", members)
    source = str(path)
    if how == "gzip":
        source = f"{path}.gz"
        Path(source).write_bytes(gzip.compress(path.read_bytes()))
    elif how == "pipe":
        source = f"pipe:cat {path}"
    shards = load_data(source)
    assert shards.class_names == folder.class_names == ("cat", "dog")
    assert not shards.set_aside
    # the same seed cuts the same images, since members stand in the order of the folder's files or not
    assert all_pixels(shards) == all_pixels(folder)
    assert len(all_pixels(shards)) == 20
    for split in (shards.train, shards.test):
        assert [name.split("!")[1].split("/")[0] for name in names(split)] == [
            split.class_names[label] for label in split.labels.tolist()
        ]


def test_a_member_is_read_where_it_lies_and_named_after_its_archive(tmp_path: Path) -> None:
    members = samples(0, 4)
    path = pack(tmp_path / "train-000.tar", members)
    slices = list(index_tar(path))
    assert [item.read() for item in slices if isinstance(item, Slice)] == list(members.values())
    assert str(slices[0]) == f"{path}!cat/0000.jpg"


def test_shards_are_indexed_as_webdataset_reads_them(tmp_path: Path) -> None:
    theirs_of = pytest.importorskip("webdataset.tariterators")
    path = pack(tmp_path / "a.tar", {"x/1.seg.png": b"a", "x/1.jpg": b"b", "x/1.cls": b"0", "x.y/2.JPG": b"c"})
    with path.open("rb") as stream:
        theirs = {
            (sample["__key__"], extension): content
            for sample in theirs_of.group_by_keys(
                {**file, "__url__": ""} for file in theirs_of.tar_file_iterator(stream)
            )
            for extension, content in sample.items()
            if not extension.startswith("__")
        }
    ours = {sample_key(item.name): item.read() for item in index_tar(path) if isinstance(item, Slice)}
    assert ours == theirs


@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_numbers_in_label_files_are_classes_in_the_order_of_the_numbers(tmp_path: Path, suffix: str) -> None:
    members = labelled(0, 8, suffix)
    members["0100.jpg"] = picture(100)
    members[f"0100.{suffix}"] = b"10" if suffix == "cls" else b'{"label": "10"}'
    assert load_data(pack(tmp_path / "a.tar", members)).class_names == ("0", "1", "10")


def test_a_file_beside_the_shards_names_the_classes_even_where_two_share_a_name(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {**labelled(0, 8), "9.jpg": picture(9), "9.cls": b"2", "8.jpg": picture(8), "8.cls": b"3"})
    (tmp_path / "classes.txt").write_text("zebra\ncrane\ncrane\n")
    data = load_data(tmp_path)
    assert data.class_names == ("zebra", "crane (1)", "crane (2)")
    assert reasons(data) == {"a.tar!8.jpg": "label 3, but 3 classes are named, from 0"}


@pytest.mark.parametrize(
    "places",
    [
        ("train-000.tar", "train-001.tar", "val-000.tar", "test-000.tar"),
        ("train/000.tar", "train/001.tar", "dev/000.tar", "test/000.tar"),
        ("pets_train_0.tar", "pets_train_1.tar", "pets_valid_0.tar", "pets-TEST.tar"),
    ],
)
def test_shards_or_their_folders_name_the_splits(tmp_path: Path, places: tuple[str, ...]) -> None:
    for number, place in enumerate(places):
        pack(tmp_path / place, labelled(10 * number, 4 + number))
    data = load_data(tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [9, 6, 7]
    assert {name.split("!")[0] for name in names(data.test)} == {str(tmp_path / places[3])}


def test_a_pattern_names_shards_and_those_that_are_missing_are_set_aside(tmp_path: Path) -> None:
    for number in (0, 2):
        pack(tmp_path / f"train-{number:03}.tar", samples(10 * number, 6))
    data = load_data(str(tmp_path / "train-{000..002}.tar"))
    assert len(data.train) + len(data.validation) + len(data.test) == 12
    assert reasons(data) == {"train-001.tar": "no such file"}
    assert data.source == str(tmp_path / "train-{000..002}.tar")


def test_patterns_expand_as_a_shell_expands_them() -> None:
    assert expanded("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expanded("{train,val}-{0..1}.tar") == ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]
    assert expanded("pipe:awk '{a,b}' {0..1}.tar") == ["pipe:awk '{a,b}' 0.tar", "pipe:awk '{a,b}' 1.tar"]
    with pytest.raises(UsageError, match="counts up"):
        expanded("{3..1}.tar")


def test_samples_that_cannot_be_used_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    bad = {
        "no label.jpg": picture(50),
        "no image.cls": b"1",
        "two.jpg": picture(51),
        "two.png": picture(52, kind="png"),
        "two.cls": b"1",
        "empty.jpg": b"",
        "empty.cls": b"1",
        "text.jpg": b"no image at all",
        "text.cls": b"1",
        "half.jpg": picture(53)[:200],
        "half.cls": b"1",
        "listed.jpg": picture(54),
        "listed.json": b'{"label": [1, 2]}',
        "hidden.jpg": picture(55),
        "hidden.cls": b"-1",
        "weights.pth": b"\x80\x04cos\nsystem\n",
        "._0001.jpg": b"what a Mac leaves",
    }
    data = load_data(pack(tmp_path / "a.tar", {**labelled(0, 8), **bad}))
    told = reasons(data)
    assert len(data.train) + len(data.validation) + len(data.test) == 8
    assert told["a.tar!no label.jpg"] == "a sample without a label (.cls or .json)"
    assert told["a.tar!no image"] == told["a.tar!weights"] == "a sample without an image"
    assert told["a.tar!two"].startswith("a sample with 2 images (jpg, png)")
    assert "empty file (0 bytes)" in told["a.tar!empty.jpg"]
    assert "another kind of file" in told["a.tar!text.jpg"]
    assert "damaged" in told["a.tar!half.jpg"]
    assert told["a.tar!listed.jpg"] == "its .json holds no label, a number or text"
    assert told["a.tar!hidden.jpg"] == "no label: its number is -1"
    assert len(told) == 9


def test_a_mask_beside_the_image_is_not_a_second_image(tmp_path: Path) -> None:
    members = labelled(0, 6)
    members |= {f"{seed:04}.seg.png": picture(seed, kind="png") for seed in range(6)}
    data = load_data(pack(tmp_path / "a.tar", members))
    assert not data.set_aside
    assert all(name.endswith(".jpg") for name in names(data.train))


@pytest.mark.parametrize("how", ["indexed", "pipe"])
def test_an_archive_that_is_cut_off_gives_what_stands_before_the_cut(tmp_path: Path, how: str) -> None:
    path = pack(tmp_path / "train-0.tar", samples(0, 10))
    last = [item for item in index_tar(path) if isinstance(item, Slice)][-1]
    whole = path.read_bytes()
    source = str(path) if how == "indexed" else f"pipe:cat {path}"
    for cut, lost in ((last.offset + 100, 1), (last.offset - 512, 1), (last.offset - 200, 1)):
        path.write_bytes(whole[:cut])
        data = load_data(source)
        assert len(data.train) + len(data.validation) + len(data.test) == 10 - lost
        assert len(data.set_aside) == 1
    damaged = bytearray(whole)
    damaged[last.offset - 512 : last.offset] = b"\xff" * 512
    path.write_bytes(damaged)
    assert "damaged" in load_data(source).set_aside[0].reason


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in samples(0, 6).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("cat/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert reasons(load_data(path)) == {"a.tar!cat/link.jpg": "a link within an archive: not followed"}


def test_sources_without_a_shard_that_can_be_read_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").touch()
    with pytest.raises(WorkError, match=r"none can be read.*empty.tar: expected a tar archive, got an empty file"):
        load_data(tmp_path / "empty.tar")
    (tmp_path / "text.tar").write_text("no archive" * 200)
    with pytest.raises(WorkError, match="expected a tar archive, got another kind of file"):
        load_data(tmp_path / "text.tar")
    (tmp_path / "lost.tar").symlink_to("nowhere")
    with pytest.raises(UsageError):
        load_data(tmp_path / "lost.tar")
    with pytest.raises(UsageError, match=r"none of the 3 files that it names exists"):
        load_data(str(tmp_path / "train-{0..2}.tar"))
    with pytest.raises(WorkError, match="ended with status 3"):
        load_data("pipe:exit 3")
    pack(tmp_path / "s" / "val-0.tar", samples(0, 4))
    pack(tmp_path / "s" / "test-0.tar", samples(0, 4))
    with pytest.raises(UsageError, match="only 'test', 'validation'"):
        load_data(tmp_path / "s")
    with pytest.raises(UsageError, match="shards have none"):
        load_data(pack(tmp_path / "fine.tar", samples(0, 4)), target="label")


def test_an_archive_beside_class_folders_does_not_make_them_shards(tmp_path: Path) -> None:
    unpack(samples(0, 8), tmp_path)
    pack(tmp_path / "backup.tar", samples(0, 8))
    data = load_data(tmp_path)
    assert reasons(data) == {"backup.tar": "lies in no class folder"}


def test_an_unreadable_shard_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "a-0.tar", samples(0, 8))
    pack(tmp_path / "a-1.tar", samples(8, 8))
    really_open = tarfile.open

    def guarded(name: Any = None, *args: Any, **options: Any) -> Any:
        if str(name).endswith("a-1.tar"):
            raise PermissionError(13, "Permission denied", str(name))
        return really_open(name, *args, **options)

    monkeypatch.setattr(tarfile, "open", guarded)
    assert reasons(load_data(tmp_path)) == {"a-1.tar": "the file may not be read (permission denied)"}


# Streams


def counting(path: Path, log: Path) -> str:
    return f"pipe:echo pass >> {log}; cat {path}"


def num_passes(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_stream_is_passed_once_to_look_at_it_and_once_a_size_of_input(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = counting(pack(tmp_path / "a.tar", samples(0, 30)), log)
    data = load_data(source)
    assert num_passes(log) == 1
    record = make_preprocessing(data.train, (8, 8), Framing())
    record.fit_inputs(data.train.inputs)
    assert num_passes(log) == 2
    make_preprocessing(data.train, (10, 10), Framing())
    assert num_passes(log) == 3
    check_dataset(data)
    assert num_passes(log) == 6  # a pass a split


def test_entries_of_a_stream_come_in_any_order_that_is_asked_for(tmp_path: Path) -> None:
    members = samples(0, 6)
    data = load_data(f"pipe:cat {pack(tmp_path / 'a.tar', members)}")
    assert isinstance(data.train.inputs, ImageFiles)
    chosen = data.train.inputs[torch.tensor([3, 0, 0, 2])].paths
    read = [entry.read() for entry in in_order(chosen) if isinstance(entry, Loaded)]
    assert read == [members[str(entry).split("!")[1]] for entry in chosen]
    assert isinstance(chosen[0], Streamed)
    assert chosen[0].read() == read[0]


def test_a_stream_that_changed_or_broke_off_after_it_was_examined_is_an_error(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", samples(0, 12))
    data = load_data(f"pipe:cat {path}")
    pack(path, samples(1, 12))
    with pytest.raises(WorkError, match="other bytes stand there now"):
        RECORD.fit_inputs(data.train.inputs)
    pack(path, samples(0, 2))
    with pytest.raises(WorkError, match="ends before that|other bytes"):
        RECORD.fit_inputs(data.train.inputs)
    path.unlink()
    with pytest.raises(WorkError, match=r"Expected to read a.tar!cat/.* from its stream"):
        RECORD.fit_inputs(data.train.inputs)


def test_shards_come_from_a_web_server_and_a_missing_one_is_set_aside(tmp_path: Path, server: Any) -> None:
    for number in (0, 1):
        server.files[f"/train-{number}.tar"] = pack(tmp_path / f"{number}.tar", samples(10 * number, 8)).read_bytes()
    data = load_data(f"{server.base}/train-{{0..2}}.tar")
    assert len(data.train) + len(data.validation) + len(data.test) == 16
    assert list(reasons(data)) == ["train-2.tar"]
    assert "404" in reasons(data)["train-2.tar"]
    assert len(all_pixels(data)) == 16
    with pytest.raises(WorkError, match="none can be read"):
        load_data(f"{server.base}/other.tar")


# From end to end


@pytest.mark.parametrize("how", ["indexed", "pipe"])
def test_a_network_trains_on_shards_and_the_run_finds_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pack(Path("shards/train-0.tar"), samples(0, 24))
    pack(Path("shards/test-0.tar"), samples(100, 8))
    source = "shards" if how == "indexed" else f"pipe:cat {tmp_path}/shards/train-{{0..0}}.tar"
    data = load_data(source)
    model = gn.build_model("lenet5", input_shape=(3, 32, 32), num_classes=2)
    run = gn.train(model, data, gn.TrainConfig(epochs=2, batch_size=8), out=tmp_path / "run", progress=False)
    monkeypatch.chdir("/")
    assert "data:image" in run.report_path.read_text()
    if how == "pipe":
        with pytest.raises(UsageError, match="a command that stands in a run folder is not executed"):
            run.load_data()
        return
    assert run.load_data().fingerprint() == data.fingerprint()
    assert run.evaluate().num_examples == 8


def test_checks_name_members_and_find_copies_across_shards(tmp_path: Path) -> None:
    members = samples(0, 8)
    pack(tmp_path / "train-0.tar", members)
    pack(tmp_path / "test-0.tar", {**samples(20, 4), "cat/copy.jpg": members["cat/0000.jpg"]})
    found = {finding.kind: finding for finding in check_dataset(load_data(tmp_path)).findings}
    assert set(found["leakage"].files) == {"train-0.tar!cat/0000.jpg", "test-0.tar!cat/copy.jpg"}


def test_strict_refuses_shards_with_a_part_that_cannot_be_used(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", {**samples(0, 6), "cat/bad.jpg": b"x"})
    with pytest.raises(WorkError, match=r"strict.*a.tar!cat/bad.jpg|a.tar!cat/bad.jpg"):
        load_data(path, strict=True)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "win32", reason="the shell of POSIX")
def test_a_command_that_is_left_early_is_ended(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", samples(0, 6))
    data = load_data(f"pipe:cat {path}; true")
    assert isinstance(data.train.inputs, ImageFiles)
    entry = data.train.inputs.paths[0]
    assert isinstance(entry, Streamed)
    endless = Streamed(type(entry.stream)([f"pipe:cat {path}; yes"]), 0, 0, entry.name, entry.digest)  # type: ignore[call-arg]
    assert endless.read()


def test_shares_that_leave_nothing_to_train_on_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"together below 1; got 0.95 and 0.1"):
        load_data(f"pipe:touch {tmp_path}/ran", validation_share=0.95)
    assert not (tmp_path / "ran").exists()
