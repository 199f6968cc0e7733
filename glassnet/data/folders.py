"""Folders of images as data sets: classes by folder or by CSV, splits by folder or by seed.

Each file is decoded when it is listed, before the splits are cut: so they are cut over images that can be used, and
none has to be taken out again with its label. What was found is kept (`verdicts`) until the file changes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from glassnet._errors import UsageError, WorkError, nearest_names
from glassnet.data.checks import ImageFacts, each_file, examine_image
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.image_files import ImageFiles
from glassnet.data.images import SetAside, UnreadableImageError
from glassnet.data.label_files import (
    SPLIT_NAMES,
    SPLITS,
    SUFFIXES,
    LabelledFile,
    LabelledFiles,
    class_name,
    counted,
    find_label_file,
    listed,
    printable,
    read_label_file,
    shown,
)
from glassnet.data.splits import stratified_cut
from glassnet.data.verdicts import remembered_verdicts

SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir"})
"""What systems leave beside files, in lower case; ignored without a word, like names that begin with a dot."""
MOST_LINES = 10
"""How many files an error names."""
FOLDER_WORDS = (
    "a folder for each class, or train/, validation/ and test/ with a folder for each class, or images with a CSV "
    "(filename,label)"
)


@dataclass(frozen=True, kw_only=True)
class FolderData:
    """A folder of images as a data set, with what was understood on the way."""

    dataset: Dataset
    """Its inputs are `ImageFiles`."""
    set_aside: tuple[SetAside, ...]
    """Files that were not used, by their path from the folder."""
    notes: tuple[str, ...]
    """What was decided, and what looks wrong; a sentence each."""
    layout: str
    """How the folder was understood, in words."""


class _Example(NamedTuple):
    file: LabelledFile
    facts: ImageFacts


def load_folder(
    root: Path, *, seed: int, validation_share: float = 0.1, test_share: float = 0.1, strict: bool = False
) -> FolderData:
    """Load the images in the folder `root`, or those that the CSV `root` labels, as a data set.

    Layouts: `<class>/*`; `train/<class>/*` with `validation` (or `val`, `valid`) and `test` beside it; or a CSV with a
    file column, a label column and, if wanted, `split`. A split that is not given is cut off the training images by
    `seed`: `validation_share` and `test_share` are shares of all that is to be cut. Copies of a file within a class
    stay on one side of a cut. Classes are the sorted names of the training split. Colour is kept unless every
    image is stored as grey.

    Raises `UsageError` for what is no such folder, fewer than two classes, or a class that training lacks, and
    `WorkError` where the folder cannot be read or, with `strict`, a file had to be set aside.
    """
    shares = {"test": test_share, "validation": validation_share}
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise UsageError(
            "validation_share and test_share must be at least 0 and together below 1; "
            f"got {validation_share} and {test_share}. Try 0.1 each."
        )
    root = Path(os.path.abspath(root))
    files = _labelled_files(root)
    folder = root.parent if root.is_file() else root
    # Before the long work, on what seems to be there; and again on the images that can be used.
    seeming = [file for file in files.files if file.split in ("", "train") or _is_image_name(file.path)]
    _check_classes(root, seeming, files.set_aside)
    examples, broken = _examined(files.files, folder)
    set_aside = (*files.set_aside, *broken)
    if strict and set_aside:
        raise _refusal(root, set_aside)
    if not examples:
        raise _no_images(root, set_aside)
    _check_classes(root, [example.file for example in examples], set_aside)
    splits, cuts = _cut_splits(examples, shares, seed)
    dataset = _dataset(root, folder.name or "images", examples, splits, seed, validation_share)
    notes = (*files.notes, *cuts, *_class_notes(dataset, files), *_image_notes(examples, folder))
    return FolderData(dataset=dataset, set_aside=set_aside, notes=notes, layout=files.layout)


def _labelled_files(root: Path) -> LabelledFiles:
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
        return read_label_file(root, _Walk(root.parent).image_files())
    walk = _Walk(root)
    label_file = find_label_file(walk.entries(root)[1])
    if label_file is not None:
        return read_label_file(label_file, walk.image_files())
    files = _by_folders(walk)
    return replace(files, set_aside=tuple(walk.set_aside))


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
        return [path for path in self.files_below(self.root) if _is_image_name(path)]

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


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions()


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
        by_split[SPLIT_NAMES.get(folder.name.lower(), "")].append(folder)
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
    with_images = [folder for folder in others if any(map(_is_image_name, walk.files_below(folder)))]
    if with_images and len(named) == 1:
        raise UsageError(
            f"Expected splits or classes in {walk.root}; got 'train' with class folders in it, and images in "
            f"{listed(_names(with_images))} beside it. Move those elsewhere, or rename 'train' if it is a class."
        )
    walk.set_aside += [SetAside(walk.name(folder), "a folder beside the splits: not used") for folder in others]
    return {split: by_split[split][0] for split in SPLITS if split in by_split}, []


def _holds_classes(walk: _Walk, folder: Path) -> bool:
    folders, files = walk.entries(folder)
    return bool(folders) and not any(map(_is_image_name, files))


def _names(paths: Sequence[Path]) -> list[str]:
    return [path.name for path in paths]


def _no_class_folders(walk: _Walk, tops: Sequence[Path]) -> UsageError:
    loose = [path for top in tops for path in walk.entries(top)[1] if _is_image_name(path)]
    if loose:
        got = f"{counted(len(loose), 'image')} in no class folder ({listed(walk.name(path) for path in loose)})"
    else:
        folders, files = walk.entries(walk.root)
        inside = f"{counted(len(folders), 'folder')} and {counted(len(files), 'file')}, no image among them"
        got = inside if folders or files else "an empty folder"
    return UsageError(f"Expected {FOLDER_WORDS} in {walk.root}; got {got}. Sort the images into class folders.")


def _check_classes(root: Path, files: Sequence[LabelledFile], set_aside: Sequence[SetAside]) -> None:
    """Raise `UsageError` for fewer than two classes to learn, or a class that only another split has."""
    classes = {file.label for file in files if file.split in ("", "train")}
    if len(classes) < 2:
        raise UsageError(
            f"Expected at least two classes to tell apart in {root}; got {listed(classes) or 'none'} to train on"
            f"{_set_aside_words(set_aside)}. Add images of another class."
        )
    unknown = Counter((file.label, file.split) for file in files if file.label not in classes)
    for (label, split), count in sorted(unknown.items()):
        near = nearest_names(label, classes)
        remedy = f"Did you mean {listed(near)}?" if near else "Rename it."
        raise UsageError(
            f"Unknown class '{printable(label)}' in the {split} split: expected one of the {len(classes):,} classes of "
            f"train; got {counted(count, 'image')} of a class that train lacks. {remedy} Or add its images to train."
        )
    broken = next((name for name in classes if any("\ud800" <= letter <= "\udfff" for letter in name)), None)
    if broken is not None:
        raise UsageError(f"Expected class names as UTF-8; got '{printable(broken)}'. Rename its folder.")


def _examined(files: Sequence[LabelledFile], folder: Path) -> tuple[list[_Example], list[SetAside]]:
    """Return the files that are images, with what they are, and those that are not, with the reason."""
    examples, broken = [], []
    paths = [file.path for file in files]
    facts = remembered_verdicts(paths, folder, lambda some: each_file(some, examine_image, "Examining images"))
    for file, found in zip(files, facts, strict=True):
        if isinstance(found, UnreadableImageError):
            broken.append(SetAside(shown(file.path, folder), str(found)))
        else:
            examples.append(_Example(file, found))
    return examples, broken


def _cut_splits(examples: Sequence[_Example], shares: Mapping[str, float], seed: int) -> tuple[list[str], list[str]]:
    """Return the split of each example, with those that the source does not give cut off train; and notes on it.

    `shares` are of what would be there without the cuts: after a tenth is gone, the next tenth is a ninth of the rest.
    """
    splits = [example.file.split or "train" for example in examples]
    notes, left = [], 1.0
    for name, share in shares.items():
        if name in splits or not share:
            continue
        learned = [index for index, split in enumerate(splits) if split == "train"]
        cut = _cut_off([examples[index] for index in learned], share / left, seed, name)
        left -= share
        for index in cut:
            splits[learned[index]] = name
        if cut:
            what = f"{100 * share:.3g} % of each class, {counted(len(cut), 'image')}"
            notes.append(f"No images are given for {name}: cut off train by seed {seed} ({what}).")
        else:
            notes.append(f"No images are given for {name}, and no class has enough to cut {100 * share:.3g} % off.")
    return splits, notes


def _cut_off(examples: Sequence[_Example], share: float, seed: int, name: str) -> list[int]:
    """Return the positions of a `share` of each class; copies of one file within a class go together."""
    numbers: dict[tuple[str, str], int] = {}
    group = [numbers.setdefault((example.file.label, example.facts.digest), len(numbers)) for example in examples]
    class_numbers = {label: number for number, label in enumerate(sorted({label for label, _ in numbers}))}
    labels = torch.tensor([class_numbers[label] for label, _ in numbers])
    cut = set(stratified_cut(labels, share, seed, name)[1].tolist())
    return [index for index, number in enumerate(group) if number in cut]


def _dataset(
    root: Path, name: str, examples: Sequence[_Example], splits: Sequence[str], seed: int, validation_share: float
) -> Dataset:
    learned = {example.file.label for example, split in zip(examples, splits, strict=True) if split == "train"}
    class_names = tuple(sorted(learned))
    position = {label: index for index, label in enumerate(class_names)}
    everything = ExampleSet(
        ImageFiles(
            paths=tuple(example.file.path for example in examples),
            mode="L" if all(example.facts.is_grey for example in examples) else "RGB",
            sizes=torch.tensor([example.facts.size for example in examples]),
            digests=tuple(example.facts.digest for example in examples),
        ),
        torch.tensor([position[example.file.label] for example in examples]),
        class_names,
    )
    train, validation, test = (everything[torch.tensor([split == name for split in splits])] for name in SPLITS)
    return Dataset(name, train, validation, test, seed=seed, validation_share=validation_share, root=str(root))


def _class_notes(dataset: Dataset, files: LabelledFiles) -> Iterator[str]:
    names = dataset.class_names
    counts = {split: getattr(dataset, split).class_counts() for split in SPLITS}
    without = sorted({file.label for file in files.files} - set(names))
    if without:
        yield f"No image could be used of: {listed(without)}. They are no classes here."
    single = [name for name, *of_class in zip(names, *counts.values(), strict=True) if sum(of_class) == 1]
    if single:
        yield f"{counted(len(single), 'class', 'classes')} with a single image, kept in train: {listed(single)}."
    for split in SPLITS[1:]:
        missing = [name for name, count in zip(names, counts[split], strict=True) if not count]
        if missing and len(missing) < len(names):
            yield f"Without an image in {split}: {len(missing):,} of {len(names):,} classes, {listed(missing)}."
    spellings = Counter(name.casefold() for name in names)
    alike = [name for name in names if spellings[name.casefold()] > 1]
    if alike:
        yield f"Classes that differ only in upper and lower case; are they the same? {listed(alike)}."


def _image_notes(examples: Sequence[_Example], folder: Path) -> Iterator[str]:
    moving = [shown(example.file.path, folder) for example in examples if example.facts.has_more_frames]
    if moving:
        count = counted(len(moving), "file")
        yield f"Animated or of several pages, of which the first is used: {count}, {listed(moving)}."
    modes = Counter(example.facts.mode for example in examples)
    if len(modes) > 1:
        stored = ", ".join(f"{mode} {count:,}" for mode, count in modes.most_common())
        read_as = "grey" if all(example.facts.is_grey for example in examples) else "colour (RGB)"
        yield f"The files are stored in several modes ({stored}); all are read in {read_as}."


def _refusal(root: Path, set_aside: Sequence[SetAside]) -> WorkError:
    lines = [f"  {item.source}: {item.reason}" for item in set_aside[:MOST_LINES]]
    more = [f"  and {len(set_aside) - MOST_LINES:,} more"] if len(set_aside) > MOST_LINES else []
    return WorkError(
        f"Expected that every file in {root} can be used (strict); got {len(set_aside):,} that cannot:\n"
        + "\n".join([*lines, *more])
        + "\nRepair or remove them, or go on without strict: they are then set aside."
    )


def _no_images(root: Path, set_aside: Sequence[SetAside]) -> UsageError:
    return UsageError(f"Expected images in {root}; got none that can be used{_set_aside_words(set_aside)}. Add some.")


def _set_aside_words(set_aside: Sequence[SetAside]) -> str:
    if not set_aside:
        return ""
    return f", and {counted(len(set_aside), 'file')} set aside, such as '{set_aside[0].source}': {set_aside[0].reason}"
