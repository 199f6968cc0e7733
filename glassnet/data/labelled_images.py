"""Labelled images made a data set: each is examined, what cannot be used set aside, and missing splits are cut.

Each image is decoded when it is listed, before the splits are cut: so they are cut over images that can be used, and
none has to be taken out again with its label. What was found in a file is kept (`verdicts`) until the file changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from glassnet._errors import UsageError, WorkError, nearest_names
from glassnet.data.checks import ImageFacts, each_file, examine_image
from glassnet.data.content import Entry
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.image_files import ImageFiles
from glassnet.data.images import SetAside, UnreadableImageError
from glassnet.data.label_files import LabelledFile, LabelledFiles, counted, listed, printable, shown
from glassnet.data.splits import SPLITS, scattered_cut, stratified_cut
from glassnet.data.verdicts import remembered_verdicts

TEST_SHARE = 0.1
"""What is cut off for testing where the source has no test split."""
EXAMINING = "Examining images"
MOST_LINES = 10
"""How many files an error names."""

SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir"})
"""What systems leave beside files, in lower case; ignored without a word, like names that begin with a dot."""
Facts = Sequence[ImageFacts | UnreadableImageError | None]
"""What examining each image found; None for one that was not examined."""


@dataclass(frozen=True, kw_only=True)
class LabelledDataset:
    """Images as a data set, with what was understood on the way."""

    dataset: Dataset
    """Its inputs are `ImageFiles`."""
    set_aside: tuple[SetAside, ...]
    """Files that were not used, by their path from the folder."""
    notes: tuple[str, ...]
    """What was decided, and what looks wrong; a sentence each."""
    layout: str
    """How the source was understood, in words."""


class _Example(NamedTuple):
    file: LabelledFile
    facts: ImageFacts


def label_dataset(
    files: LabelledFiles,
    root: Path | str,
    folder: Path,
    name: str,
    *,
    seed: int,
    validation_share: float,
    test_share: float = TEST_SHARE,
    strict: bool = False,
    facts: Facts | None = None,
) -> LabelledDataset:
    """Make a data set of labelled images. `root` is the source as errors call it; paths are told from `folder`.

    A split that is not given is cut off the training images by `seed`: `validation_share` and `test_share` are shares
    of all that is to be cut. Copies of a file within a class stay on one side of a cut. Classes are those of the
    training split, sorted, or in the order that `files` gives. Colour is kept unless every image is stored as grey.
    `facts` are what is known of `files.files`, where some have been examined as they streamed past.

    The images are fitted by `crop`, the centre at its own proportions, as networks for photographs are mostly trained
    and tested: `stretch` would change shapes, by another factor in each image, and `pad` spends input on borders.
    `cropped_share` tells what that throws away; `gn.load_data(path, fit="pad")` keeps all of it.

    Raises `UsageError` for fewer than two classes, or a class that training lacks, and `WorkError` where, with
    `strict`, a file had to be set aside.
    """
    # Before the long work, on what seems to be there; and again on the images that can be used.
    seeming = [file for file in files.files if file.split in ("", "train") or is_image_name(str(file.path))]
    is_regression = files.task == "regression"
    if not is_regression:
        _check_classes(root, seeming, files.set_aside)
    examples, broken = _examined(files.files, folder, facts)
    set_aside = (*files.set_aside, *broken)
    if strict and set_aside:
        raise _refusal(root, set_aside)
    if not examples:
        raise _no_images(root, set_aside)
    if not is_regression:
        _check_classes(root, [example.file for example in examples], set_aside)
    shares = {"test": test_share, "validation": validation_share}
    splits, cuts = _cut_splits(examples, shares, seed, is_regression)
    if "train" not in splits:
        raise UsageError(f"Expected images to train on in {root}; all are given for validation or test.")
    dataset = _dataset(name, examples, splits, files, seed, validation_share)
    told = _value_notes(dataset) if is_regression else _class_notes(dataset, files)
    notes = (*files.notes, *cuts, *told, *_image_notes(examples, folder))
    return LabelledDataset(dataset=dataset, set_aside=set_aside, notes=notes, layout=files.layout)


def check_shares(validation_share: float, test_share: float = TEST_SHARE) -> None:
    """Raise `UsageError` for shares that leave nothing to train on."""
    if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
        raise UsageError(
            "validation_share and test_share must be at least 0 and together below 1; "
            f"got {validation_share} and {test_share}. Try 0.1 each."
        )


def is_image_name(name: str) -> bool:
    """Return whether a file's name ends as that of an image."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and f"{dot}{suffix.lower()}" in Image.registered_extensions()


def _check_classes(root: Path | str, files: Sequence[LabelledFile], set_aside: Sequence[SetAside]) -> None:
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


def _examined(
    files: Sequence[LabelledFile], folder: Path, facts: Facts | None
) -> tuple[list[_Example], list[SetAside]]:
    """Return the files that are images, with what they are, and those that are not, with the reason."""
    examples, broken = [], []
    known: Facts = facts or [None] * len(files)
    paths: list[Entry] = [file.path for file, found in zip(files, known, strict=True) if found is None]
    rest = iter(remembered_verdicts(paths, folder, lambda some: each_file(some, examine_image, EXAMINING, len(some))))
    all_facts = [next(rest) if found is None else found for found in known]
    for file, found in zip(files, all_facts, strict=True):
        if isinstance(found, UnreadableImageError):
            broken.append(SetAside(shown(file.path, folder), str(found)))
        else:
            examples.append(_Example(file, found))
    return examples, broken


def _cut_splits(
    examples: Sequence[_Example], shares: Mapping[str, float], seed: int, is_regression: bool
) -> tuple[list[str], list[str]]:
    """Return the split of each example, with those that the source does not give cut off train; and notes on it.

    `shares` are of what would be there without the cuts: after a tenth is gone, the next tenth is a ninth of the rest.
    """
    splits = [example.file.split or "train" for example in examples]
    notes, left = [], 1.0
    for name, share in shares.items():
        if name in splits or not share:
            continue
        learned = [index for index, split in enumerate(splits) if split == "train"]
        cut, whole = _cut_off([examples[index] for index in learned], share / left, seed, name, is_regression)
        left -= share
        for index in cut:
            splits[learned[index]] = name
        if cut:
            what = f"{100 * share:.3g} % of {whole}, {counted(len(cut), 'image')}"
            notes.append(f"No images are given for {name}: cut off train by seed {seed} ({what}).")
        else:
            notes.append(f"No images are given for {name}, and there are not enough to cut {100 * share:.3g} % off.")
    return splits, notes


def _cut_off(
    examples: Sequence[_Example], share: float, seed: int, name: str, is_regression: bool
) -> tuple[list[int], str]:
    """Return the positions of a `share`, and of what it is one in words; copies of one file go together.

    It is one of each class; of all images for regression, and where every class is too small to give any.
    """
    numbers: dict[tuple[str, str], int] = {}
    classes = ["" if is_regression else example.file.label for example in examples]
    keys = [(label, example.facts.digest) for label, example in zip(classes, examples, strict=True)]
    group = [numbers.setdefault(key, len(numbers)) for key in keys]
    class_numbers = {label: number for number, label in enumerate(sorted({label for label, _ in numbers}))}
    labels = torch.tensor([class_numbers[label] for label, _ in numbers])
    cut, whole = stratified_cut(labels, share, seed, name)[1], "all" if is_regression else "each class"
    if not len(cut) and not is_regression:
        cut, whole = scattered_cut(labels, share, seed, name), "all, as no class has enough of its own"
    chosen = set(cut.tolist())
    return [index for index, number in enumerate(group) if number in chosen], whole


def _dataset(
    name: str,
    examples: Sequence[_Example],
    splits: Sequence[str],
    files: LabelledFiles,
    seed: int,
    validation_share: float,
) -> Dataset:
    texts = [example.file.label for example in examples]
    if files.task == "regression":
        class_names: tuple[str, ...] = ()
        labels = torch.tensor([float(text) for text in texts], dtype=torch.float32)
    else:
        learned = {label for label, split in zip(texts, splits, strict=True) if split == "train"}
        class_names = tuple(name for name in files.class_order if name in learned) or tuple(sorted(learned))
        position = {label: index for index, label in enumerate(class_names)}
        labels = torch.tensor([position[text] for text in texts])
    everything = ExampleSet(
        ImageFiles(
            paths=tuple(example.file.path for example in examples),
            mode="L" if all(example.facts.is_grey for example in examples) else "RGB",
            sizes=torch.tensor([example.facts.size for example in examples]),
            digests=tuple(example.facts.digest for example in examples),
        ),
        labels,
        class_names,
    )
    train, validation, test = (everything[torch.tensor([split == name for split in splits])] for name in SPLITS)
    framing = Framing(fit="crop")
    return Dataset(name, train, validation, test, seed=seed, framing=framing, validation_share=validation_share)


def _value_notes(dataset: Dataset) -> Iterator[str]:
    low, high = (float(limit) for limit in dataset.train.labels.aminmax())
    yield f"Values to predict from {low:g} to {high:g} in train" + (", all the same." if low == high else ".")


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
    paged = [shown(example.file.path, folder) for example in examples if example.facts.has_more_pages]
    if paged:
        yield f"Of several pages, of which the first is used: {counted(len(paged), 'file')}, {listed(paged)}."
    modes = Counter(example.facts.mode for example in examples)
    if len(modes) > 1:
        stored = ", ".join(f"{mode} {count:,}" for mode, count in modes.most_common())
        read_as = "grey" if all(example.facts.is_grey for example in examples) else "colour (RGB)"
        yield f"The files are stored in several modes ({stored}); all are read in {read_as}."


def _refusal(root: Path | str, set_aside: Sequence[SetAside]) -> WorkError:
    lines = [f"  {item.source}: {item.reason}" for item in set_aside[:MOST_LINES]]
    more = [f"  and {len(set_aside) - MOST_LINES:,} more"] if len(set_aside) > MOST_LINES else []
    return WorkError(
        f"Expected that every file in {root} can be used (strict); got {len(set_aside):,} that cannot:\n"
        + "\n".join([*lines, *more])
        + "\nRepair or remove them, or go on without strict: they are then set aside."
    )


def _no_images(root: Path | str, set_aside: Sequence[SetAside]) -> UsageError:
    return UsageError(f"Expected images in {root}; got none that can be used{_set_aside_words(set_aside)}. Add some.")


def _set_aside_words(set_aside: Sequence[SetAside]) -> str:
    if not set_aside:
        return ""
    return f", and {counted(len(set_aside), 'file')} set aside, such as '{set_aside[0].source}': {set_aside[0].reason}"
