"""Folders of images as data sets: classes by folder or by CSV, splits by folder or by seed."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from glassnet._errors import UsageError, WorkError, nearest_names
from glassnet.data.images import SetAside
from glassnet.data.label_files import (
    SUFFIXES,
    LabelledFile,
    LabelledFiles,
    class_name,
    counted,
    find_label_file,
    listed,
    read_label_file,
    shown,
)
from glassnet.data.labelled_images import SYSTEM_NAMES, LabelledDataset, check_shares, is_image_name, label_dataset
from glassnet.data.splits import SPLIT_WORDS, SPLITS

FOLDER_WORDS = (
    "a folder for each class, or train/, validation/ and test/ with a folder for each class, or images with a CSV "
    "(filename,label)"
)


def load_folder(
    root: Path,
    *,
    seed: int,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    strict: bool = False,
    target: str | None = None,
    task: str | None = None,
) -> LabelledDataset:
    """Load the images in the folder `root`, or those that the CSV `root` labels, as a data set.

    Layouts: `<class>/*`; `train/<class>/*` with `validation` (or `val`, `valid`) and `test` beside it; or a CSV with a
    file column, a label column and, if wanted, `split`. What is made of them: see `label_dataset`. The CSV's label
    column is `target`, and its numbers are classes, or values to predict, by `task` or by the rule for tables: see
    `read_label_file`.

    Raises `UsageError` for what is no such folder, fewer than two classes, or a class that training lacks, and
    `WorkError` where the folder cannot be read or, with `strict`, a file had to be set aside.
    """
    check_shares(validation_share, test_share)
    root = Path(os.path.abspath(root))
    files = _labelled_files(root, target, task)
    folder = root.parent if root.is_file() else root
    found = label_dataset(
        files,
        root,
        folder,
        folder.name or "images",
        seed=seed,
        validation_share=validation_share,
        test_share=test_share,
        strict=strict,
    )
    return replace(found, dataset=replace(found.dataset, root=str(root)))


def _labelled_files(root: Path, target: str | None, task: str | None) -> LabelledFiles:
    """Return the files with their labels, by whichever layout the source has."""
    if not os.path.exists(root):
        near = nearest_names(root.name, os.listdir(root.parent)) if os.access(root.parent, os.R_OK | os.X_OK) else []
        hint = f"Did you mean {listed(near)}?" if near else "Check the path."
        raise UsageError(f"Expected a folder of images; there is nothing at {root}. {hint}")
    if root.is_file():
        if root.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"Expected a folder of images, or a CSV that labels them; got the file {root}. "
                f"Give the folder that holds the class folders, for example {root.parent.parent}."
            )
        return read_label_file(root, _Walk(root.parent).image_files(), target=target, task=task)
    walk = _Walk(root)
    label_file = find_label_file(walk.entries(root)[1], target, takes_any_name=not _may_be_classes(walk))
    if label_file is not None:
        return read_label_file(label_file, walk.image_files(), target=target, task=task)
    if target is not None or task == "regression":
        asked = f"a column '{target}'" if target is not None else "values to predict"
        raise UsageError(
            f"Expected a CSV with {asked} for the images in {root}; there is none, and folders give classes only. "
            "Put one beside the images (filename,label), or leave target and task out."
        )
    files = _by_folders(walk)
    return replace(files, set_aside=tuple(walk.set_aside))


def _may_be_classes(walk: _Walk) -> bool:
    """Return whether the folders of the root may be classes or splits: then a CSV without a label column labels none.

    A single folder that holds images alone is where they are kept.
    """
    folders = walk.entries(walk.root)[0]
    return len(folders) > 1 or any(folder.name.lower() in SPLIT_WORDS or walk.entries(folder)[0] for folder in folders)


class _Walk:
    """Lists what lies below a folder: links are followed, hidden and system files left out.

    A link to a folder above the place it stands in is not followed, and below one class each folder is entered once:
    otherwise a link could lead images into a class that they do not belong to, or never end.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.set_aside: list[SetAside] = []
        self.above = {_identity(folder) for folder in (root, *root.resolve().parents)}
        self._seen: dict[Path, tuple[list[Path], list[Path]]] = {}
        if not _is_open(root):
            raise WorkError(f"{root} may not be read (permission denied). Change its permissions, or copy it.")

    def name(self, path: Path) -> str:
        """Return the path from the root as text."""
        return shown(path, self.root)

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Return the folders and the files that lie directly in `folder`, by name."""
        if folder not in self._seen:
            self._seen[folder] = self._listed(folder)
        return self._seen[folder]

    def files_below(self, folder: Path) -> list[Path]:
        """Return the files in `folder` and in folders below it."""
        found, entered, waiting = [], {_identity(folder)}, [folder]
        while waiting:
            folders, files = self.entries(waiting.pop())
            found += files
            for inner in folders:
                if (identity := _identity(inner)) not in entered:
                    entered.add(identity)
                    waiting.append(inner)
        return found

    def image_files(self) -> list[Path]:
        """Return the files below the root that have the suffix of an image."""
        return [path for path in self.files_below(self.root) if _is_image(path)]

    def _listed(self, folder: Path) -> tuple[list[Path], list[Path]]:
        by_kind: dict[str, list[Path]] = defaultdict(list)
        if not _is_open(folder):
            self.set_aside.append(SetAside(self.name(folder), "the folder may not be read (permission denied)"))
            return [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM_NAMES:
                    by_kind[self._kind(entry)].append(Path(entry.path))
        folders, files = sorted(by_kind.pop("folder", [])), sorted(by_kind.pop("file", []))
        self.set_aside += [SetAside(self.name(path), kind) for kind, paths in by_kind.items() for path in sorted(paths)]
        return folders, files

    def _kind(self, entry: os.DirEntry[str]) -> str:
        """Return `folder`, `file`, or why the entry is neither."""
        if entry.is_symlink() and not os.path.exists(entry.path):
            return "a link that leads nowhere"
        if os.path.isdir(entry.path):
            is_loop = entry.is_symlink() and _identity(Path(entry.path)) in self.above
            return "a link back to a folder that it lies in: not followed" if is_loop else "folder"
        return "file" if os.path.isfile(entry.path) else "neither a file nor a folder"


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a folder from every other, whatever link leads to it."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_image(path: Path) -> bool:
    return is_image_name(path.name)


def _by_folders(walk: _Walk) -> LabelledFiles:
    """Return the files of a folder whose class folders say what they are."""
    tops, notes = _split_folders(walk)
    files: list[LabelledFile] = []
    spellings: dict[tuple[str, str], list[str]] = defaultdict(list)
    empty: list[str] = []
    loose = {path for top in (walk.root, *tops.values()) for path in walk.entries(top)[1]}
    walk.set_aside += [SetAside(walk.name(path), "lies in no class folder") for path in sorted(loose)]
    for split, top in tops.items():
        class_folders = walk.entries(top)[0]
        if len(class_folders) == 1 and split in ("", "train") and len(inner := walk.entries(class_folders[0])[0]) > 1:
            raise UsageError(
                f"Expected at least two class folders in {top}; got one, '{class_folders[0].name}', which holds "
                f"{listed(_names(inner))}. If these are the classes, give {class_folders[0]}."
            )
        for folder in class_folders:
            found = walk.files_below(folder)
            files += [LabelledFile(path, class_name(folder.name), split) for path in found]
            spellings[split, class_name(folder.name)].append(folder.name)
            empty += [] if found else [walk.name(folder)]
    if not files:
        raise _no_class_folders(walk, list(tops.values()))
    if empty:
        notes.append(f"{counted(len(empty), 'class folder')} without a file: {listed(empty)}.")
    if merged := [names[0] for names in spellings.values() if len(names) > 1]:
        notes.append(f"Folders whose names differ only in how accents are encoded are one class: {listed(merged)}.")
    words = "a folder for each class"
    layout = words if "" in tops else f"a folder for each split ({', '.join(tops)}), in it {words}"
    return LabelledFiles(files=tuple(files), set_aside=(), notes=tuple(notes), layout=layout)


def _split_folders(walk: _Walk) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split, or the root for all of them under an empty name; and what to say about it.

    `train` with images in it, beside `bus`, is a class; `train` with class folders in it is a split.
    """
    by_split: dict[str, list[Path]] = defaultdict(list)
    for folder in walk.entries(walk.root)[0]:
        by_split[SPLIT_WORDS.get(folder.name.lower(), "")].append(folder)
    others = by_split.pop("", [])
    named = [folder for folders in by_split.values() for folder in folders]
    walk.above |= {_identity(folder) for folder in named}  # before a link in one of them is looked at
    has_classes = any(_holds_classes(walk, folder) for folder in by_split.get("train", []))
    if not named or (others and not has_classes):
        note = f"Taken for classes, not splits: {listed(_names(named))}; there are class folders beside them."
        return {"": walk.root}, [note] if named else []
    if "train" not in by_split or max(map(len, by_split.values())) > 1:
        raise UsageError(
            f"Expected one folder train, and at most one validation and one test, in {walk.root}; "
            f"got {listed(_names(named))}. Rename or merge them."
        )
    with_images = [folder for folder in others if any(map(_is_image, walk.files_below(folder)))]
    if with_images and len(named) == 1:
        raise UsageError(
            f"Expected splits or classes in {walk.root}; got 'train' with class folders in it, and images in "
            f"{listed(_names(with_images))} beside it. Move those elsewhere, or rename 'train' if it is a class."
        )
    walk.set_aside += [SetAside(walk.name(folder), "a folder beside the splits: not used") for folder in others]
    return {split: by_split[split][0] for split in SPLITS if split in by_split}, []


def _holds_classes(walk: _Walk, folder: Path) -> bool:
    folders, files = walk.entries(folder)
    return bool(folders) and not any(map(_is_image, files))


def _names(paths: Sequence[Path]) -> list[str]:
    return [path.name for path in paths]


def _no_class_folders(walk: _Walk, tops: Sequence[Path]) -> UsageError:
    loose = [path for top in tops for path in walk.entries(top)[1] if _is_image(path)]
    if loose:
        got = f"{counted(len(loose), 'image')} in no class folder ({listed(walk.name(path) for path in loose)})"
    else:
        folders, files = walk.entries(walk.root)
        inside = f"{counted(len(folders), 'folder')} and {counted(len(files), 'file')}, no image among them"
        got = inside if folders or files else "an empty folder"
    return UsageError(f"Expected {FOLDER_WORDS} in {walk.root}; got {got}. Sort the images into class folders.")
