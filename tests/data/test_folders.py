"""Folders of images: whatever lies in them, an image has the label of its folder, or is set aside by name."""

from __future__ import annotations

import builtins
import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glassnet._errors import UsageError, WorkError
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.folders import load_folder
from glassnet.data.image_files import ImageFiles, content_digest
from glassnet.data.images import UnreadableImageError, open_image
from glassnet.data.labelled_images import LabelledDataset

GENERATOR = np.random.default_rng(0)


def image(height: int = 6, width: int = 8, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(GENERATOR.integers(0, 256, shape, dtype=np.uint8))


def write(path: Path, picture: Image.Image | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture or image()).save(path, **options)
    return path


def fill(root: Path, **counts: int) -> Path:
    """Write `count` images into each class folder, named after it."""
    for name, count in counts.items():
        for index in range(count):
            write(root / name / f"{name} {index}.png")
    return root


def load(root: Path, **options: Any) -> LabelledDataset:
    return load_folder(root, **{"seed": 0, **options})


def told(examples: ExampleSet, root: Path) -> dict[str, str]:
    """Return the class name of each file of a split."""
    assert isinstance(examples.inputs, ImageFiles)
    names = [path.relative_to(root).as_posix() for path in examples.inputs.paths]
    assert len(set(names)) == len(names)
    return dict(zip(names, [examples.class_names[label] for label in examples.labels.tolist()], strict=True))


def all_told(data: Dataset, root: Path) -> dict[str, str]:
    splits = [told(examples, root) for examples in (data.train, data.validation, data.test)]
    assert sum(map(len, splits)) == len(set().union(*splits)), "a file stands in two splits"
    return {name: label for split in splits for name, label in split.items()}


def reasons(data: LabelledDataset) -> dict[str, str]:
    return {item.source: item.reason for item in data.set_aside}


def notes(data: LabelledDataset) -> str:
    return "\n".join(data.notes)


# Layouts


def test_class_folders_are_split_by_seed_with_a_share_of_each_class(tmp_path: Path) -> None:
    fill(tmp_path, cat=20, dog=40)
    found = load(tmp_path, validation_share=0.1, test_share=0.2)
    data = found.dataset
    assert data.class_names == ("cat", "dog")
    assert [split.class_counts() for split in (data.train, data.validation, data.test)] == [[14, 28], [2, 4], [4, 8]]
    assert all(name.startswith(label) for name, label in all_told(data, tmp_path).items())
    assert len(all_told(data, tmp_path)) == 60
    assert (data.name, data.root, found.layout) == (tmp_path.name, str(tmp_path), "a folder for each class")
    assert found.set_aside == ()
    assert "for validation: cut off train by seed 0 (10 % of each class, 6 images)" in notes(found)


def test_the_cut_depends_on_the_seed_and_the_names_alone(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a", cat=20, dog=20), tmp_path / "b"
    for path in sorted(first.rglob("*.png"), reverse=True):
        (second / path.parent.name).mkdir(parents=True, exist_ok=True)
        (second / path.relative_to(first)).write_bytes(path.read_bytes())
    cuts = [told(load(root, seed=seed).dataset.test, root) for root, seed in ((first, 3), (second, 3), (first, 4))]
    assert cuts[0] == cuts[1] != cuts[2]


def test_copies_of_a_file_in_a_class_stay_on_one_side_of_the_cut(tmp_path: Path) -> None:
    for index in range(20):
        content = write(tmp_path / "cat" / f"{index}.png").read_bytes()
        (tmp_path / "cat" / f"{index} copy.png").write_bytes(content)
    data = load(fill(tmp_path, dog=20), test_share=0.3).dataset
    sides = [set(split.inputs.digests) for split in (data.train, data.validation, data.test)]
    assert not sides[0] & (sides[1] | sides[2])
    assert not sides[1] & sides[2]
    assert data.test.class_counts() == [12, 6]


@pytest.mark.parametrize("word", ["val", "valid", "validation", "VAL"])
def test_split_folders_are_kept_as_they_are(tmp_path: Path, word: str) -> None:
    fill(tmp_path / "train", cat=3, dog=4)
    fill(tmp_path / word, cat=2, dog=1)
    fill(tmp_path / "Test", dog=2, cat=1)
    found = load(tmp_path)
    assert [len(found.dataset.train), len(found.dataset.validation), len(found.dataset.test)] == [7, 3, 3]
    assert told(found.dataset.validation, tmp_path)[f"{word}/dog/dog 0.png"] == "dog"
    assert set(told(found.dataset.test, tmp_path).values()) == {"cat", "dog"}
    assert found.layout == "a folder for each split (train, validation, test), in it a folder for each class"
    assert found.notes == ()


@pytest.mark.parametrize(("given", "cut"), [("val", "test"), ("test", "validation")])
def test_a_split_without_a_folder_is_cut_off_train_and_said(tmp_path: Path, given: str, cut: str) -> None:
    fill(tmp_path / "train", cat=20, dog=20)
    fill(tmp_path / given, cat=3, dog=3)
    found = load(tmp_path)
    assert len(getattr(found.dataset, cut)) == 4
    assert all(name.startswith("train/") for name in told(getattr(found.dataset, cut), tmp_path))
    assert f"No images are given for {cut}: cut off train by seed 0 (10 % of each class, 4 images)." in found.notes


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    write(tmp_path / "cat" / "2021" / "may" / "1.png")
    write(tmp_path / "cat" / "2022" / "1.png")
    write(tmp_path / "dog" / "1.png")
    assert all_told(load(tmp_path).dataset, tmp_path) == {
        "cat/2021/may/1.png": "cat",
        "cat/2022/1.png": "cat",
        "dog/1.png": "dog",
    }


def test_a_class_that_is_called_train_is_a_class_beside_other_classes(tmp_path: Path) -> None:
    found = load(fill(tmp_path, train=2, bus=2))
    assert found.dataset.class_names == ("bus", "train")
    assert "Taken for classes, not splits: 'train'" in notes(found)


def test_a_folder_beside_the_splits_is_set_aside(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=2, dog=2)
    fill(tmp_path / "test", cat=2, dog=2)
    write(tmp_path / "unlabelled" / "1.png")
    write(tmp_path / "loose.png")
    (tmp_path / "test" / "notes.txt").write_text("a note")
    assert reasons(load(tmp_path)) == {
        "unlabelled": "a folder beside the splits: not used",
        "loose.png": "lies in no class folder",
        "test/notes.txt": "lies in no class folder",
    }


def test_thousands_of_classes_keep_their_labels(tmp_path: Path) -> None:
    content = write(tmp_path / "one.png", image(2, 2)).read_bytes()
    (tmp_path / "one.png").unlink()
    for number in range(2000):
        folder = tmp_path / f"class {number:04}"
        folder.mkdir()
        for index in range(2):
            (folder / f"{index}.png").write_bytes(content + bytes([index]))
    data = load(tmp_path, test_share=0.5, validation_share=0).dataset
    assert data.train.class_counts() == data.test.class_counts() == [1] * 2000
    assert all(name.startswith(label) for name, label in all_told(data, tmp_path).items())


def test_a_csv_in_the_folder_gives_labels_and_splits(tmp_path: Path) -> None:
    for name in "abcdef":
        write(tmp_path / "pictures" / f"{name}.png")
    rows = [
        f"pictures/{name}.png,{label},{'test' if name > 'd' else 'train'}"
        for name, label in zip("abcdef", "xyxyxy", strict=True)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label,split", *rows]))
    for source in (tmp_path, tmp_path / "labels.csv"):
        data = load(source).dataset
        assert told(data.test, tmp_path) == {"pictures/e.png": "x", "pictures/f.png": "y"}
        assert set(told(data.train, tmp_path)) == {f"pictures/{name}.png" for name in "abcd"}
        assert data.name == tmp_path.name
        assert data.root == str(source)


# Names and suffixes


def test_suffixes_are_read_in_any_case_and_content_decides(tmp_path: Path) -> None:
    write(tmp_path / "cat" / "a.PNG", format="PNG")
    write(tmp_path / "cat" / "b.JpEg", format="JPEG")
    write(tmp_path / "cat" / "none", format="PNG")
    write(tmp_path / "cat" / "photo.2023", format="JPEG")
    write(tmp_path / "cat" / "really a png.jpg", format="PNG")
    found = load(fill(tmp_path, dog=1))
    assert len(all_told(found.dataset, tmp_path)) == 6
    assert found.set_aside == ()


def test_names_in_any_script_are_kept_and_accents_are_matched(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    fill(tmp_path / "train", **{composed: 2, "日本": 2, "🐈": 2})
    fill(tmp_path / "test", **{decomposed: 2, "日本": 1})
    data = load(tmp_path).dataset
    assert data.class_names == (composed, "日本", "🐈")
    assert data.test.class_counts() == [2, 1, 0]


def test_folders_that_differ_in_the_encoding_of_accents_are_one_class_and_said(tmp_path: Path) -> None:
    found = load(fill(tmp_path, **dict.fromkeys(("caf\u00e9", "cafe\u0301", "dog"), 2)))
    assert found.dataset.class_names == ("caf\u00e9", "dog")
    assert "are one class" in notes(found)


def test_classes_that_differ_in_case_alone_are_kept_and_said(tmp_path: Path) -> None:
    found = load(fill(tmp_path, Cat=2, cat=2, dog=2))
    assert found.dataset.class_names == ("Cat", "cat", "dog")
    assert "differ only in upper and lower case; are they the same? 'Cat', 'cat'." in notes(found)


def test_a_class_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, cat=1)
    try:
        write(tmp_path / os.fsdecode(b"d\xffg") / "1.png")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(UsageError, match="class names as UTF-8; got 'd\ufffdg'"):
        load(tmp_path)


def test_a_name_that_would_write_to_the_terminal_is_made_printable(tmp_path: Path) -> None:
    fill(tmp_path, cat=1, dog=1)
    (tmp_path / "cat" / "a\x1b[2J\n.png").write_bytes(b"")
    assert list(reasons(load(tmp_path))) == ["cat/a\ufffd[2J\ufffd.png"]


def test_hidden_and_system_files_are_ignored_silently(tmp_path: Path) -> None:
    fill(tmp_path, cat=2, dog=2)
    for name in (".DS_Store", "cat/Thumbs.db", "cat/._cat 0.png", "__MACOSX/cat/1.png", ".git/x/1.png", "desktop.ini"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"system")
    found = load(tmp_path)
    assert found.dataset.class_names == ("cat", "dog")
    assert found.set_aside == ()


# Links


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", cat=3, dog=1)
    root = tmp_path / "root"
    (root / "dog").mkdir(parents=True)
    (root / "cat").symlink_to(store / "cat", target_is_directory=True)
    (root / "dog" / "a dog.png").symlink_to(store / "dog" / "dog 0.png")
    data = load(root).dataset
    assert sorted(all_told(data, root).values()) == ["cat", "cat", "cat", "dog"]


def test_links_that_lead_back_are_not_followed_and_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", cat=2, dog=2)
    (root / "again").symlink_to(root)
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "far up").symlink_to(tmp_path)
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "cat" / "itself").symlink_to(root / "cat" / "itself")
    (root / "cat" / "inner").mkdir()
    (root / "cat" / "inner" / "back").symlink_to(root / "cat")
    found = load(root)
    assert all_told(found.dataset, root) == {f"{name}/{name} {i}.png": name for name in ("cat", "dog") for i in (0, 1)}
    back = "a link back to a folder that it lies in: not followed"
    assert reasons(found) == {
        "again": back,
        "cat/far up": back,
        "cat/up": back,
        "cat/itself": "a link that leads nowhere",
    }


def test_a_link_from_a_class_to_its_split_does_not_label_the_whole_split(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=2, dog=2)
    fill(tmp_path / "test", cat=2, dog=2)
    (tmp_path / "train" / "cat" / "all").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "loop").symlink_to(tmp_path / "train")
    found = load(tmp_path, validation_share=0)
    assert told(found.dataset.train, tmp_path) == {
        f"train/{name}/{name} {index}.png": name for name in ("cat", "dog") for index in (0, 1)
    }
    assert set(reasons(found)) == {"train/cat/all", "train/loop"}


def test_folders_that_link_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    for index in range(8):
        write(tmp_path / "cat" / str(index) / "1.png")
    for index in range(8):
        for other in range(8):
            (tmp_path / "cat" / str(index) / f"to {other}").symlink_to(tmp_path / "cat" / str(other))
    assert len(all_told(load(fill(tmp_path, dog=1)).dataset, tmp_path)) == 9


# Files that cannot be used


def test_every_kind_of_unusable_file_is_named_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, cat=2, dog=2)
    cat = tmp_path / "cat"
    (cat / "empty.png").write_bytes(b"")
    (cat / "notes.txt").write_text("a cat")
    (cat / "text.jpg").write_text("not an image")
    for suffix in ("png", "jpg", "gif", "bmp"):
        content = write(tmp_path / f"whole.{suffix}", image(60, 60)).read_bytes()
        (cat / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
        (tmp_path / f"whole.{suffix}").unlink()
    write(cat / "bomb.png", Image.new("1", (2000, 2000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000_000)
    monkeypatch.setattr("glassnet.data.checks.LARGEST_FILE_BYTES", 2_000_000)
    write(cat / "huge.bmp", image(1000, 1000))
    (cat / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(cat / "pipe.png")
    (tmp_path / "README.md").write_text("cats and dogs")
    found = load(tmp_path)
    assert len(all_told(found.dataset, tmp_path)) == 4
    said = reasons(found)
    for name, text in {
        "cat/empty.png": "expected an image, got an empty file (0 bytes)",
        "cat/notes.txt": "another kind of file",
        "cat/text.jpg": "another kind of file",
        "cat/cut.png": "damaged",
        "cat/cut.jpg": "damaged",
        "cat/cut.gif": "damaged",
        "cat/cut.bmp": "damaged",
        "cat/bomb.png": "more than 3 million pixels",
        "cat/huge.bmp": "larger than 1 MiB",
        "cat/gone.png": "a link that leads nowhere",
        "cat/pipe.png": "neither a file nor a folder",
        "README.md": "lies in no class folder",
    }.items():
        assert text in said.pop(name), name
    assert not said


def test_strict_stops_with_a_list_of_the_files(tmp_path: Path) -> None:
    fill(tmp_path, cat=2, dog=2)
    load(tmp_path, strict=True)
    for index in range(12):
        (tmp_path / "cat" / f"bad {index:02}.png").write_bytes(b"")
    with pytest.raises(
        WorkError, match=r"got 12 that cannot:\n  cat/bad 00.png: .*empty file[\s\S]*and 2 more\nRepair"
    ):
        load(tmp_path, strict=True)


def test_files_and_folders_that_may_not_be_read_are_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, cat=2, dog=2)
    write(tmp_path / "cat" / "secret.png")
    write(tmp_path / "cat" / "locked" / "1.png")
    really_open, really_access = io.open, os.access

    def guarded_open(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith("secret.png"):
            raise PermissionError(13, "Permission denied")
        return really_open(path, *args, **options)

    monkeypatch.setattr(io, "open", guarded_open)
    monkeypatch.setattr(builtins, "open", guarded_open)
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path) and really_access(path, mode))
    assert reasons(load(tmp_path)) == {
        "cat/secret.png": "the file may not be read (permission denied)",
        "cat/locked": "the folder may not be read (permission denied)",
    }
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WorkError, match=r"may not be read \(permission denied\). Change"):
        load(tmp_path)


def test_a_class_of_which_nothing_can_be_read_is_no_class_and_said(tmp_path: Path) -> None:
    fill(tmp_path, cat=2, dog=2)
    (tmp_path / "emu").mkdir()
    (tmp_path / "emu" / "1.png").write_bytes(b"")
    (tmp_path / "fox").mkdir()
    found = load(tmp_path)
    assert found.dataset.class_names == ("cat", "dog")
    assert "No image could be used of: 'emu'. They are no classes here." in notes(found)
    assert "1 class folder without a file: 'fox'." in notes(found)


def test_animations_are_set_aside_and_of_pages_the_first_counts(tmp_path: Path) -> None:
    fill(tmp_path, cat=2, dog=2)
    frames = [image(), image()]
    for name in ("moving.gif", "moving.png", "pages.tif", "moving.webp"):
        write(tmp_path / "cat" / name, frames[0], save_all=True, append_images=frames[1:])
    write(tmp_path / "cat" / "phone.mpo", frames[0], format="MPO", save_all=True, append_images=frames[1:])
    found = load(tmp_path)
    assert len(all_told(found.dataset, tmp_path)) == 6
    assert "Of several pages, of which the first is used: 1 file, 'cat/pages.tif'." in found.notes
    assert {item.source for item in found.set_aside} == {"cat/moving.gif", "cat/moving.png", "cat/moving.webp"}
    assert {item.reason for item in found.set_aside} == {
        "expected a still image, got an animation; save the frame that is meant"
    }


def test_of_200_damaged_files_none_stops_the_work_or_gets_another_label(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    kinds = {"PNG": {}, "JPEG": {}, "GIF": {}, "TIFF": {"compression": "tiff_lzw"}, "BMP": {}, "WEBP": {}}
    contents = []
    for kind, options in kinds.items():
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(buffer, kind, **options)
        contents.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    labels = ("a", "b", "c")
    fill(tmp_path, a=1, b=1, c=1)
    for index in range(200):
        damaged = contents[index % 6].copy()
        damaged[generator.integers(0, len(damaged), 1 + index % 9)] = generator.integers(0, 256)
        kept = len(damaged) if index % 4 else generator.integers(0, len(damaged))
        (tmp_path / labels[index % 3] / f"{labels[index % 3]} damaged {index}").write_bytes(damaged[:kept].tobytes())
    found = load(tmp_path)
    used, unused = all_told(found.dataset, tmp_path), reasons(found)
    assert len(used) + len(unused) == 203
    assert 20 < len(unused) < 180
    assert all(name.startswith(f"{label}/{label} ") for name, label in used.items())
    for name in used:
        assert open_image(tmp_path / name, "RGB")
    for name in unused:
        with pytest.raises(UnreadableImageError):
            open_image(tmp_path / name, "RGB")


# Facts of the images


def test_sizes_are_those_of_the_upright_image_and_digests_those_of_the_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [
        write(tmp_path / "cat" / "turned.jpg", image(40, 90), exif=exif),
        write(tmp_path / "cat" / "upright.jpg", image(41, 91)),
        write(tmp_path / "dog" / "small.png", image(1, 3)),
    ]
    inputs = load(tmp_path).dataset.train.inputs
    assert inputs.sizes.tolist() == [[90, 40], [41, 91], [1, 3]]
    assert inputs.digests == tuple(content_digest(path.read_bytes()) for path in paths)
    assert inputs.paths == tuple(paths)


def test_images_that_are_all_stored_as_grey_are_read_as_grey(tmp_path: Path) -> None:
    grey = image(mode="L")
    write(tmp_path / "cat" / "a.png", grey)
    write(tmp_path / "cat" / "bits.png", grey.convert("1"))
    write(tmp_path / "cat" / "deep.png", Image.fromarray(np.asarray(grey).astype(np.uint16) * 257))
    write(tmp_path / "cat" / "palette.png", grey.quantize(16))
    write(tmp_path / "dog" / "alpha.png", grey.convert("LA"))
    found = load(tmp_path)
    assert found.dataset.train.inputs.mode == "L"
    assert found.dataset.train.input_shape == (1, 6, 8)
    assert "all are read in grey" in notes(found)
    write(tmp_path / "dog" / "colour.png", Image.new("P", (8, 6)))
    palette = Image.new("P", (8, 6))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    write(tmp_path / "dog" / "colour.png", palette)
    found = load(tmp_path)
    assert found.dataset.train.inputs.mode == "RGB"
    assert "all are read in colour (RGB)" in notes(found)


# What is off


def test_a_class_with_one_image_keeps_it_for_training_and_is_said(tmp_path: Path) -> None:
    found = load(fill(tmp_path, cat=20, dog=20, emu=1))
    assert found.dataset.train.class_counts()[2] == 1
    assert "1 class with a single image, kept in train: 'emu'." in notes(found)
    assert "Without an image in test: 1 of 3 classes, 'emu'." in notes(found)


def test_a_class_missing_from_a_split_is_said_and_the_others_keep_their_labels(tmp_path: Path) -> None:
    fill(tmp_path / "train", ant=2, bee=2, cat=2)
    fill(tmp_path / "val", ant=1, bee=1, cat=1)
    fill(tmp_path / "test", ant=1, cat=3)
    found = load(tmp_path)
    assert found.dataset.test.class_names == ("ant", "bee", "cat")
    assert found.dataset.test.labels.tolist() == [0, 2, 2, 2]
    assert found.notes == ("Without an image in test: 1 of 3 classes, 'bee'.",)


def test_an_unknown_class_in_another_split_is_an_error_before_any_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassnet.data.labelled_images.examine_image", None)
    fill(tmp_path / "train", cat=2, **{"golden retriever": 2})
    fill(tmp_path / "test", cat=2, **{"golden retreiver": 3})
    with pytest.raises(
        UsageError,
        match=r"Unknown class 'golden retreiver' in the test split: .* 2 classes of train; got 3 images .* "
        r"Did you mean 'golden retriever'\?",
    ):
        load(tmp_path)


def test_a_folder_of_other_files_in_a_split_is_no_unknown_class(tmp_path: Path) -> None:
    fill(tmp_path / "train", cat=2, dog=2)
    fill(tmp_path / "test", cat=2, dog=2)
    (tmp_path / "test" / "annotations").mkdir()
    (tmp_path / "test" / "annotations" / "a.xml").write_text("<a/>")
    assert set(reasons(load(tmp_path))) == {"test/annotations/a.xml"}


def test_too_few_images_for_a_cut_leave_a_split_empty_and_said(tmp_path: Path) -> None:
    found = load(fill(tmp_path, cat=3, dog=3))
    assert (len(found.dataset.train), len(found.dataset.test)) == (6, 0)
    assert "No images are given for test, and there are not enough to cut 10 % off." in found.notes


def test_of_many_small_classes_some_give_an_image_each(tmp_path: Path) -> None:
    found = load(fill(tmp_path, **{f"bird {index:02}": 3 for index in range(20)}, dodo=1))
    data = found.dataset
    assert [len(data.train), len(data.validation), len(data.test)] == [49, 6, 6]
    assert min(data.train.class_counts()) == 1
    assert max(data.validation.class_counts()) == max(data.test.class_counts()) == 1
    assert data.train.class_counts()[data.class_names.index("dodo")] == 1
    assert all(name.startswith(label) for name, label in all_told(data, tmp_path).items())
    assert "cut off train by seed 0 (10 % of all, as no class has enough of its own, 6 images)" in notes(found)
    assert "Without an image in test: 15 of 21 classes" in notes(found)
    assert all_told(load(tmp_path, seed=0).dataset, tmp_path) == all_told(data, tmp_path)
    assert told(load(tmp_path, seed=1).dataset.test, tmp_path) != told(data.test, tmp_path)


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.1, 1.0), (0.5, 0.5)])
def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path: Path, shares: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"together below 1; got .* Try 0.1 each"):
        load(fill(tmp_path, cat=2, dog=2), validation_share=shares[0], test_share=shares[1])


def case_empty(root: Path) -> Path:
    root.mkdir()
    return root


def case_no_images(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "1.txt").write_text("no image")
    return root


def case_empty_class_folders(root: Path) -> Path:
    (root / "cat").mkdir(parents=True)
    (root / "dog").mkdir()
    return root


def case_loose(root: Path) -> Path:
    write(root / "a.png")
    return write(root / "b.png").parent


def case_flat_splits(root: Path) -> Path:
    write(root / "train" / "cat.1.png")
    return write(root / "test" / "1.png").parent.parent


def case_one_class(root: Path) -> Path:
    return fill(root, cat=3)


def case_wrapper(root: Path) -> Path:
    fill(root / "photos", cat=2, dog=2)
    return root


def case_one_readable_class(root: Path) -> Path:
    fill(root, cat=2)
    (root / "dog").mkdir()
    (root / "dog" / "1.png").write_bytes(b"")
    return root


def case_a_file(root: Path) -> Path:
    return write(root / "cat" / "1.png")


def case_a_typing_error(root: Path) -> Path:
    fill(root / "photos", cat=2, dog=2)
    return root / "fotos"


def case_no_train(root: Path) -> Path:
    fill(root / "test", cat=2, dog=2)
    fill(root / "val", cat=2, dog=2)
    return root


def case_two_of_one_split(root: Path) -> Path:
    for name in ("train", "val", "valid"):
        fill(root / name, cat=2, dog=2)
    return root


def case_train_as_class_or_split(root: Path) -> Path:
    fill(root / "train", steam=2, diesel=2)
    return fill(root, bus=2)


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (case_empty, r"a folder for each class, or train/.*; got an empty folder\. Sort"),
        (
            case_no_images,
            r"Expected images in .*; got none that can be used, and 2 files set aside, such as 'cat/1.txt'",
        ),
        (case_empty_class_folders, r"got 2 folders and 0 files, no image among them"),
        (case_loose, r"got 2 images in no class folder \('a.png', 'b.png'\)\. Sort the images into class folders"),
        (case_flat_splits, r"got 2 images in no class folder \('train/cat.1.png', 'test/1.png'\)"),
        (case_one_class, r"at least two classes .*; got 'cat' to train on\. Add images"),
        (case_wrapper, r"got one, 'photos', which holds 'cat', 'dog'\. If these are the classes, give .*photos"),
        (case_one_readable_class, r"got 'cat' to train on, and 1 file set aside, such as 'dog/1.png': .*empty file"),
        (case_a_file, r"Expected a folder of images, .*; got the file .*1\.png\. Give the folder"),
        (case_a_typing_error, r"there is nothing at .*fotos\. Did you mean 'photos'\?"),
        (case_no_train, r"Expected one folder train, .*; got 'test', 'val'\. Rename"),
        (case_two_of_one_split, r"at most one validation .*; got 'train', 'val', 'valid'\. Rename or merge"),
        (case_train_as_class_or_split, r"got 'train' with class folders in it, and images in 'bus' beside it\. Move"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_folder_that_is_no_data_set_is_refused_with_what_it_is(tmp_path: Path, case: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        load(case(tmp_path / "data"))


# Progress


def test_progress_shows_on_a_terminal_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(fill(tmp_path, cat=2, dog=2))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    load(tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Examining images" in err
