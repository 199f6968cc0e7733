"""Labelled examples, in memory or as image files, and the splits of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape
from glassnet.data.columns import TableEncoding
from glassnet.data.image_files import ImageFiles
from glassnet.data.images import SetAside
from glassnet.data.resizing import INTERPOLATIONS

FITS = ("crop", "pad", "stretch")


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """Inputs with their labels, or with values to predict; one split of a data set.

    Raises `UsageError` where formats or lengths differ or a label lies outside the classes.
    """

    inputs: Tensor | ImageFiles
    """Images `uint8` `(N, C, H, W)`, or their files where the sizes differ; or numbers `float32`: rows `(N, F)`,
    signals `(N, C, L)`, volumes `(N, C, D, H, W)`."""
    labels: Tensor
    """`int64` `(N,)`, each an index into `class_names`; for regression the values, `float32` `(N,)` or `(N, K)`."""
    class_names: tuple[str, ...]
    """Empty for regression."""

    def __post_init__(self) -> None:
        _check_kinds(self.inputs, self.labels)
        if not isinstance(self.inputs, ImageFiles):
            _check_inputs(self.inputs)
        if self.is_regression:
            _check_values(self.labels, len(self.inputs))
            return
        if self.labels.dtype != torch.int64 or self.labels.shape != (len(self.inputs),):
            raise UsageError(
                f"labels must be int64 ({len(self.inputs)},), one for each of the inputs; "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}."
            )
        _check_labels(self.labels, self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> ExampleSet:
        """Return the examples at `index` (a slice, positions or a mask) as a set of its own."""
        chosen = index if isinstance(index, slice | Tensor) else torch.as_tensor(index)
        if isinstance(chosen, Tensor):
            if chosen.ndim != 1:
                raise UsageError(f"Choose examples by a slice, a list of positions or a mask; got {index!r}.")
            chosen = chosen if chosen.dtype == torch.bool else chosen.long()
        return replace(self, inputs=self.inputs[chosen], labels=self.labels[chosen])

    def __repr__(self) -> str:
        what = "values to predict" if self.is_regression else f"{self.num_classes} classes"
        kind = (
            "image files, typically" if isinstance(self.inputs, ImageFiles) else "images" if self.is_image else "inputs"
        )
        return f"ExampleSet({len(self)} {kind} {self.input_shape}, {what})"

    @property
    def is_image(self) -> bool:
        """True where the inputs are images, in memory or as files."""
        return isinstance(self.inputs, ImageFiles) or self.inputs.dtype == torch.uint8

    @property
    def is_regression(self) -> bool:
        """True where there are values to predict instead of classes."""
        return not self.class_names

    @property
    def input_shape(self) -> Shape:
        """Shape of one input: `(C, H, W)` for images; for image files the median height and width."""
        return self.inputs.typical_shape if isinstance(self.inputs, ImageFiles) else tuple(self.inputs.shape[1:])

    @property
    def num_classes(self) -> int:
        """Number of classes, present in this split or not."""
        return len(self.class_names)

    @property
    def num_outputs(self) -> int:
        """Outputs of a network for this set: one a class, or one a value to predict."""
        return self.num_classes or (self.labels.shape[1] if self.labels.ndim == 2 else 1)

    def image_sizes(self) -> Tensor:
        """Return height and width of each image in pixels, `int64` `(N, 2)`; for images only."""
        if isinstance(self.inputs, ImageFiles):
            return self.inputs.sizes
        assert self.is_image, "numbers have no size in pixels"
        return torch.tensor(self.inputs.shape[2:]).expand(len(self), 2)

    def class_counts(self) -> list[int]:
        """Return how many examples each class has, in the order of `class_names`."""
        return torch.bincount(self.labels, minlength=self.num_classes).tolist()

    def aligned_to(self, class_names: Sequence[str]) -> ExampleSet:
        """Return the same examples with labels that count in `class_names`: classes are matched by name.

        Raises `UsageError` for a class that occurs here and is not among `class_names`.
        """
        if tuple(class_names) == self.class_names:
            return self
        if self.is_regression or not class_names:
            kinds = ("classes", "values to predict")
            raise UsageError(
                f"Expected examples with {kinds[not class_names]}; these have {kinds[self.is_regression]}. "
                "They are for another network."
            )
        position = {name: index for index, name in enumerate(class_names)}
        counts = self.class_counts()
        for name, count in zip(self.class_names, counts, strict=True):
            if count and name not in position:
                raise unknown_name("class", name, class_names, f"{count} examples have this label.")
        new_label = torch.tensor([position.get(name, 0) for name in self.class_names], dtype=torch.int64)
        return ExampleSet(self.inputs, new_label[self.labels], tuple(class_names))


def _check_kinds(inputs: object, labels: object) -> None:
    if not isinstance(inputs, Tensor | ImageFiles) or not isinstance(labels, Tensor):
        kinds = f"{type(inputs).__name__} and {type(labels).__name__}"
        raise UsageError(f"inputs and labels must be torch tensors; got {kinds}. Use torch.from_numpy(array).")


def _check_inputs(inputs: Tensor) -> None:
    is_images = inputs.dtype == torch.uint8 and inputs.ndim == 4
    if not is_images and (inputs.dtype != torch.float32 or inputs.ndim < 2):
        raise UsageError(
            "inputs must be images as uint8 (N, C, H, W), or numbers as float32 (N, features) or (N, C, ...); "
            f"got {inputs.dtype} {tuple(inputs.shape)}."
        )


def _check_values(values: Tensor, count: int) -> None:
    if values.dtype != torch.float32 or values.ndim not in (1, 2) or len(values) != count:
        raise UsageError(
            f"Without class names, labels must be values to predict as float32 ({count},) or ({count}, K); "
            f"got {values.dtype} {tuple(values.shape)}. For classes, give their names."
        )


def _check_labels(labels: Tensor, class_names: tuple[str, ...]) -> None:
    if not all(isinstance(name, str) for name in class_names):
        raise UsageError(f"Class names must be text; got {class_names!r}. Write tuple(map(str, names)).")
    if len(set(class_names)) != len(class_names):
        twice = next(name for name in class_names if class_names.count(name) > 1)
        raise UsageError(f"Class names must differ; '{twice}' stands more than once.")
    if not len(labels):
        return
    outside = ((labels < 0) | (labels >= len(class_names))).nonzero().flatten()
    if len(outside):
        first = int(outside[0])
        raise UsageError(
            f"Labels must lie in 0..{len(class_names) - 1} for {len(class_names)} classes; example {first} has label "
            f"{int(labels[first])} ({len(outside)} such labels in all). Add the class or correct the label."
        )


@dataclass(frozen=True)
class Framing:
    """How the examples of a data set become a network's input: what the preprocessing record is to keep of it.

    Raises `UsageError` for an unknown `fit` or `interpolation`.
    """

    fit: str = "stretch"
    """`crop`, `pad` or `stretch`: see `Preprocessing.fit`. Folders of images have `crop`: see `load_folder`."""
    interpolation: str = "bilinear"
    """`nearest`, `bilinear`, `bicubic` or `lanczos`: see `Preprocessing.interpolation`."""
    is_standardised: bool = True
    """False for inputs that are numbers and must reach the network as they are, such as the bits of a logic gate."""
    margin: float = 0.0
    """Background kept around the image, as a share of the input size, where the input is larger than the image."""
    encoding: TableEncoding | None = None
    """How the rows of a table became numbers; None where they were none."""
    array_scale: int | None = None
    """What the values of arrays in a file were multiplied by to become the images' 8-bit levels; None without such."""

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("fit", self.fit, FITS),
            ("interpolation", self.interpolation, tuple(INTERPOLATIONS)),
        ):
            if value not in known:
                raise unknown_name(kind, str(value), known)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three splits; what `load_data` returns."""

    name: str
    train: ExampleSet
    validation: ExampleSet
    test: ExampleSet
    seed: int
    """The seed by which `validation` was cut from the training examples."""
    framing: Framing = Framing()
    validation_share: float = 0.1
    """The share of each class that was cut off for `validation`."""
    root: str | None = None
    """The folder of data sets that the caller named, for a standard set; stored with a run, to find the data again."""
    source: str | None = None
    """What `load_data` made it of: a name or an absolute path; None for data put together in Python."""
    target: str | None = None
    """The column to predict, where the source is a table or labels images by one, and the caller named it."""
    task: str | None = None
    """`classification` or `regression`, where the caller said which."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else the caller gave to `load_data`, by name: `test_share`, a toy's `noise`; plain values."""
    notes: tuple[str, ...] = ()
    """What was understood of the source, and what looks wrong; a sentence each."""
    set_aside: tuple[SetAside, ...] = ()
    """Files or rows that were not used, and why."""

    def __post_init__(self) -> None:
        for split in ("validation", "test"):
            other: ExampleSet = getattr(self, split)
            if other.class_names != self.train.class_names:
                raise UsageError(
                    f"The {split} split must have the classes of the training split, in its order: "
                    f"{self.train.class_names}; got {other.class_names}. Use ExampleSet.aligned_to."
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, fixed by the training split."""
        return self.train.class_names

    def __repr__(self) -> str:
        sizes = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return f"Dataset('{self.name}', {sizes}, inputs {self.train.input_shape}, {self.train.num_classes} classes)"

    def image_sizes(self) -> Tensor:
        """Return height and width of each image of all splits in pixels, `int64` `(N, 2)`; for images only."""
        return torch.cat([split.image_sizes() for split in (self.train, self.validation, self.test)])

    def framed(self, fit: str | None = None, interpolation: str | None = None) -> Dataset:
        """Return the same data with another `Framing`: what is None stays as it is.

        Raises `UsageError` for an unknown word, and for data that is no images.
        """
        if fit is None and interpolation is None:
            return self
        if not self.train.is_image:
            raise UsageError(
                f"fit and interpolation are for images; the inputs of '{self.name}' are numbers. Leave them out."
            )
        framing = replace(
            self.framing,
            fit=self.framing.fit if fit is None else fit,
            interpolation=self.framing.interpolation if interpolation is None else interpolation,
        )
        return replace(self, framing=framing)

    def fingerprint(self) -> str:
        """Return a SHA-256 over every image and label of every split, in hexadecimal; of files, over their digests."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for split in (self.train, self.validation, self.test):
            if isinstance(split.inputs, ImageFiles):
                digest.update(f"{len(split)} files {split.inputs.mode} {' '.join(split.inputs.digests)}".encode())
            else:
                digest.update(repr(tuple(split.inputs.shape)).encode())
                digest.update(split.inputs.contiguous().numpy().data)
            digest.update(split.labels.contiguous().numpy().data)
        return digest.hexdigest()
