"""Augmentation of a whole batch at once, on the device, while it is still `uint8`; for training, never evaluation.

An augmentation is a sequence of transforms: those of each image by itself (`transforms.py`), and here those that mix
two images and their labels. Images are mixed as `uint8` and rounded: normalising is affine, so that it commutes with
mixing, what rounding adds (at most half a level of 255) is less than a camera's own noise, and everything from loading
to the one normalising step keeps a single format.
"""

from __future__ import annotations

import ast
import itertools
import re
import typing
import unicodedata
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet._seed import seeded_generator
from glassnet._types import Shape
from glassnet.data.examples import ExampleSet
from glassnet.data.label_files import printable
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord
from glassnet.data.transforms import (
    ColorJitter,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomRotation,
    RandomShift,
    RandomVerticalFlip,
    Transform,
    column_on,
    inside_boxes,
    random_shift,
    to_levels,
)

__all__ = [
    "DEFAULT",
    "TRANSFORMS",
    "Augmentation",
    "CutMix",
    "MixUp",
    "augmentation_sheet",
    "default_augmentation",
    "parse_augmentation",
    "random_shift",
    "resolve_augmentation",
]

# --- mixing images and labels


@dataclass(frozen=True, kw_only=True)
class LabelMix(Transform):
    """A transform that mixes each image with another of the batch, and their labels in the same shares."""

    alpha: float = 1.0
    """The shares of the two are drawn from Beta(alpha, alpha): 1 is uniform, less keeps nearly all of one of them. An
    image keeps the greater share, so that each leads one mixture; which two are mixed in which shares stays as likely.
    """
    p: float = 1.0
    """Probability that an image is mixed at all."""

    def __call__(
        self, pixels: Tensor, labels: Tensor, generator: torch.Generator, *, num_classes: int = 0, fill: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return mixed images and soft labels `float32` `(N, num_classes)`, or mixed values to predict."""
        partners = torch.randperm(len(pixels), generator=generator).to(pixels.device, non_blocking=pixels.is_cuda)
        share = _beta(self.alpha, len(pixels), generator)
        kept = torch.maximum(share, 1 - share)
        kept[torch.rand(len(pixels), generator=generator) >= self.p] = 1
        mixed, share = self.mix(pixels, pixels[partners], kept, generator)
        soft = soft_labels(labels, num_classes)
        share = column_on(pixels, share).view(-1, *[1] * (soft.ndim - 1))
        return mixed, share * soft + (1 - share) * soft[partners]

    @abstractmethod
    def mix(self, pixels: Tensor, others: Tensor, kept: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return mixed `pixels` and the share `(N,)` that each image keeps; `kept` `(N,)` is the share wanted."""

    def _check_ranges(self) -> None:
        super()._check_ranges()
        self._require("alpha", self.alpha > 0, "be above 0")


@dataclass(frozen=True, kw_only=True)
class MixUp(LabelMix):
    """Average two images: `s x + (1 - s) x'`, rounded to whole levels (Zhang et al. 2018, section 2)."""

    def mix(self, pixels: Tensor, others: Tensor, kept: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the averages."""
        share = column_on(pixels, kept)
        return to_levels(share * pixels + (1 - share) * others), kept


@dataclass(frozen=True, kw_only=True)
class CutMix(LabelMix):
    """Paste a box of another image; labels are mixed by the area that was pasted (Yun et al. 2019, section 3).

    The box has the image's proportions and its centre anywhere in it; what sticks out is cut off and not counted.
    """

    def mix(self, pixels: Tensor, others: Tensor, kept: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the images with the boxes pasted."""
        lengths = torch.tensor([pixels.shape[2:]]).T  # (2, 1): height, width
        sides = (lengths * (1 - kept).sqrt()).long()
        centres = (lengths * torch.rand(2, len(pixels), generator=generator)).long()
        start = (centres - sides // 2).clamp(min=0)
        stop = torch.minimum(centres - sides // 2 + sides, lengths)
        share = 1 - (stop - start).prod(0) / lengths.prod()
        return torch.where(inside_boxes(pixels, torch.cat([start, stop])), others, pixels), share


def soft_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Return integer `labels` `(N,)` as `float32` `(N, num_classes)` with a single 1; others as they are."""
    if labels.is_floating_point():
        return labels
    if num_classes < 1:
        raise UsageError("Mixing images needs num_classes, the number of soft labels of each; got 0.")
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()


def _beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw from Beta(alpha, alpha): `float32` `(count,)`. By NumPy, as torch's takes no generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count).astype(np.float32))


# --- the sequence

TRANSFORMS: dict[str, type[Transform]] = {
    kind.__name__: kind
    for kind in (
        RandomCrop,
        RandomShift,
        RandomHorizontalFlip,
        RandomVerticalFlip,
        RandomRotation,
        RandomAffine,
        RandomErasing,
        ColorJitter,
        MixUp,
        CutMix,
    )
}
"""The transforms by name."""


@dataclass(frozen=True)
class Augmentation:
    """Transforms in the order in which they are applied. `str()` is what `parse_augmentation` reads."""

    transforms: tuple[Transform, ...] = ()

    def __call__(
        self, pixels: Tensor, labels: Tensor, generator: torch.Generator, *, num_classes: int = 0, fill: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return a changed batch: `pixels` `uint8` `(N, C, H, W)`, and its labels.

        `labels` is `int64` `(N,)`, or values to predict. Where `mixes_labels`, integer labels come back soft, as
        `float32` `(N, num_classes)`; else `labels` comes back. `fill` is the level of what becomes free, the record's.
        `generator` is a CPU generator. The arguments stay intact. Raises `UsageError` as `check` does.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise UsageError(
                f"Augmentation changes images, uint8 (N, C, H, W); got {pixels.dtype} {tuple(pixels.shape)}. "
                "Leave it out for inputs that are numbers."
            )
        self.check(tuple(pixels.shape[1:]))
        for transform in self.transforms:
            pixels, labels = transform(pixels, labels, generator, num_classes=num_classes, fill=fill)
        return pixels, labels

    def check(self, input_shape: Shape) -> None:
        """Raise `UsageError` where images of `input_shape` `(C, H, W)` cannot be changed in this way."""
        for transform in self.transforms:
            transform.check(input_shape)

    @property
    def mixes_labels(self) -> bool:
        """True where labels come back soft."""
        return any(isinstance(transform, LabelMix) for transform in self.transforms)

    @property
    def mirrors(self) -> bool:
        """True where images may be mirrored left to right."""
        return any(isinstance(transform, RandomHorizontalFlip) for transform in self.transforms)

    def without_mirrors(self) -> Augmentation:
        """Return the other transforms."""
        return Augmentation(tuple(kept for kept in self.transforms if not isinstance(kept, RandomHorizontalFlip)))

    def __bool__(self) -> bool:
        return bool(self.transforms)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)

    def __str__(self) -> str:
        return ", ".join(_transform_text(transform) for transform in self.transforms) or "none"


def _transform_text(transform: Transform) -> str:
    """Write a transform with every option that has a value, so that a record does not hang on today's defaults."""
    values = {field.name: getattr(transform, field.name) for field in fields(transform)}
    options = (f"{name}={_value_text(value)}" for name, value in values.items() if value is not None)
    return f"{type(transform).__name__}({', '.join(options)})"


def _value_text(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_value_text, value))})"
    return str(value).removesuffix(".0")


# --- reading what a user wrote


def parse_augmentation(text: str) -> Augmentation:
    """Read `RandomCrop(padding=4), RandomHorizontalFlip`: transforms in order; `none` or nothing for no change.

    Options are written `name=value`, where a value is a number, a pair such as `(0.8, 1.2)` or a word. Capitals in
    names do not count: `mixup` is `MixUp`. The text is only taken apart, never evaluated. Raises `UsageError` for what
    is not written so, and for unknown names.
    """
    if text.strip().lower() in ("", "none"):
        return Augmentation()
    if text.strip().lower() == DEFAULT:
        raise UsageError(f"'{DEFAULT}' depends on the data: expected transforms, or resolve_augmentation before.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on odd numbers and strings
            tree = ast.parse(f"({text.strip().removesuffix(',')},)", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise _unreadable(text) from None
    if not isinstance(tree, ast.Tuple):
        raise _unreadable(text)
    return Augmentation(tuple(_parse_transform(node, text) for node in tree.elts))


def _parse_transform(node: ast.expr, text: str) -> Transform:
    name_node, arguments, keywords = (
        (node.func, node.args, node.keywords) if isinstance(node, ast.Call) else (node, [], [])
    )
    if not isinstance(name_node, ast.Name):
        raise _unreadable(text)
    name = {known.lower(): known for known in TRANSFORMS}.get(name_node.id.lower(), name_node.id)
    if name not in TRANSFORMS:
        raise unknown_name("augmentation", name, TRANSFORMS)
    options = {field.name: field for field in fields(TRANSFORMS[name])}
    if arguments:
        raise UsageError(
            f"{name}: options are written name=value; got a bare value. Write {name}({next(iter(options))}=...)."
        )
    values: dict[str, object] = {}
    for keyword in keywords:
        if keyword.arg is None or keyword.arg in values:
            raise _unreadable(text)
        if keyword.arg not in options:
            raise unknown_name(f"option of {name}", keyword.arg, options)
        values[keyword.arg] = _parse_value(keyword.value, text)
    for option, field in options.items():
        if field.default is MISSING and option not in values:
            raise UsageError(f"{name} needs {option}; got none. Write {name}({option}=...) with a number.")
    return TRANSFORMS[name](**values)


def _parse_value(node: ast.expr, text: str) -> object:
    if isinstance(node, ast.Name):
        return None if node.id.lower() == "none" else node.id
    try:
        return typing.cast(object, ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _unreadable(text) from None


def _unreadable(text: str) -> UsageError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return UsageError(
        "An augmentation is written as transforms with their options, such as "
        f"'RandomCrop(padding=4), RandomHorizontalFlip'; got '{shown}'. Use commas between them and name=value inside."
    )


# --- what to do where nothing is said

DEFAULT = "default"
"""Stands in a config for the augmentation that suits the data."""
NUMBER_WORDS = frozenset(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
TELLING_WORDS = NUMBER_WORDS | {"digit", "letter", "character", "class", "label", "east", "west"}
"""Words in class names whose pictures a mirror may turn into another class, or that do not say what is pictured."""
HANDED_PARTS = ("left", "right", "clockwise")
"""Likewise, also within a word such as `TurnLeft`."""
GREY_THINGS = frozenset(("fashion-mnist",))
"""Grey sets of things that a mirror leaves what they are."""


def default_augmentation(
    data_name: str, class_names: Sequence[str], channels: int, *, size: tuple[int, int] = (32, 32)
) -> Augmentation:
    """Return an augmentation that leaves every class what it is, for images of `size` (height, width).

    Colour images of things are mirrored and moved by up to an eighth of their size (4 of 32 pixels: He et al. 2016,
    section 4.2). Grey images, and characters (class names that are digits, letters, signs or numbers, or that speak of
    left and right), are moved by a sixteenth and not mirrored: a mirror could change the class. Values to predict (no
    class names) and images below 16 pixels get nothing, as moving one may change what it is.
    """
    shorter = min(size)
    if not class_names or shorter < 16:
        return Augmentation()
    if data_name not in GREY_THINGS and (channels != 3 or any(map(_may_be_handed, class_names))):
        return Augmentation((RandomShift(max_shift=shorter // 16),))
    mode = "reflect" if channels == 3 else "constant"
    return Augmentation((RandomCrop(padding=shorter // 8, padding_mode=mode), RandomHorizontalFlip()))


def resolve_augmentation(text: str, data_name: str, record: InputRecord) -> str:
    """Return `text` with the word `default` replaced by what `default_augmentation` gives for inputs of the `record`.

    For numbers that is nothing.
    """
    if text.strip().lower() != DEFAULT:
        return text
    if not isinstance(record, Preprocessing):
        return ""
    found = default_augmentation(data_name, record.class_names, record.num_channels, size=record.size)
    return str(found) if found else ""


def _may_be_handed(class_name: str) -> bool:
    """Return whether a mirror could make another class of it: a character, a number, something left or right."""
    name = class_name.lower()
    if any(part in name for part in HANDED_PARTS):
        return True
    words = re.findall(r"[^\W_]+", name)
    return all(word.isdigit() for word in words) or any(len(word) == 1 or word in TELLING_WORDS for word in words)


# --- a sheet to look at

CELL = 96
"""Pixels: images are enlarged by a whole factor to at most this, or reduced to it."""
GAP = 8
LINE_HEIGHT = 16
INK, PAPER = (32, 32, 32), (255, 255, 255)
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def augmentation_sheet(
    examples: ExampleSet,
    augmentation: Augmentation,
    *,
    record: Preprocessing,
    seed: int = 0,
    count: int = 6,
    columns: int = 7,
) -> Image.Image:
    """Draw `count` examples, chosen by `seed`, a row each: as fitted, then augmented versions of it.

    There are `columns` pictures in a row, fitted by `record` as the network gets them. Each column is one call on the
    `count` images as a batch, so mixing takes place among them. Captions name the classes; mixed ones with shares.

    Raises `UsageError` for numbers below 1 or 2, examples that are no images, or what the augmentation cannot take.
    """
    if not examples.is_image or not len(examples) or count < 1 or columns < 2:
        raise UsageError(
            "A sheet needs images, a count of at least 1 and at least 2 columns; "
            f"got {examples!r}, count {count} and {columns} columns."
        )
    generator = seeded_generator(seed, "augmentation sheet")
    examples = examples[torch.randperm(len(examples), generator=generator)[:count]]
    pictures = [(record.fit_inputs(examples.inputs), examples.labels)]
    for _ in range(columns - 1):
        pictures.append(augmentation(*pictures[0], generator, num_classes=examples.num_classes, fill=record.fill))
    return _drawn(pictures, f"{_framing_words(record)}; augmentation: {augmentation}", examples.class_names)


def _framing_words(record: Preprocessing) -> str:
    """Say how the originals became what the sheet shows of them, as in `32x32, crop, bilinear, margin 2`."""
    height, width = record.size
    margin = f", margin {record.margin}" if record.margin else ""
    return f"{height}x{width}, {record.fit}, {record.interpolation}{margin}"


def _drawn(pictures: list[tuple[Tensor, Tensor]], title: str, class_names: Sequence[str]) -> Image.Image:
    """Lay out columns of `(pixels, labels)` with captions."""
    font, originals = ImageFont.load_default(12), pictures[0][0]
    width, height = _cell_size(originals.shape[3], originals.shape[2])
    paper_width = len(pictures) * (width + GAP) + GAP
    captions = [[_caption(label, class_names) for label in labels] for _, labels in pictures]
    heading = [*_wrapped(title, paper_width - 2 * GAP, font), "as fitted"]
    top = GAP + len(heading) * LINE_HEIGHT + GAP // 2
    row_height = height + max(map(len, itertools.chain(*captions))) * LINE_HEIGHT + GAP // 2
    paper = Image.new("RGB", (paper_width, top + len(originals) * row_height + GAP // 2), PAPER)
    draw = ImageDraw.Draw(paper)
    _write(draw, GAP, GAP, heading, font)
    _write(draw, 2 * GAP + width, top - GAP // 2 - LINE_HEIGHT, ["augmented"], font)
    for column, (pixels, _) in enumerate(pictures):
        for row, image in enumerate(pixels):
            left, upper = GAP + column * (width + GAP), top + row * row_height
            paper.paste(_picture(image, width, height), (left, upper))
            lines = [_shortened(line, width, font) for line in captions[column][row]]
            _write(draw, left, upper + height, lines, font)
    return paper


def _write(draw: ImageDraw.ImageDraw, left: int, upper: int, lines: Sequence[str], font: Font) -> None:
    for index, line in enumerate(lines):
        draw.text((left, upper + index * LINE_HEIGHT), line, INK, font)


def _cell_size(width: int, height: int) -> tuple[int, int]:
    longer = max(width, height)
    factor = CELL // longer if longer <= CELL else CELL / longer
    return max(1, round(width * factor)), max(1, round(height * factor))


def _picture(image: Tensor, width: int, height: int) -> Image.Image:
    """Return an image `uint8` `(C, H, W)` in colour for three channels, else the grey of their mean."""
    if len(image) != 3:
        image = to_levels(image.float().mean(0, keepdim=True)).expand(3, -1, -1)
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    # Enlarged pixels are shown as they are.
    return picture.resize((width, height), Image.Resampling.NEAREST if width >= picture.width else Image.Resampling.BOX)


def _caption(label: Tensor, class_names: Sequence[str]) -> list[str]:
    """Return a line for the class, or for each class of a mixed label with its share, the greatest first."""
    if not class_names:
        return [" ".join(f"{value:.3g}" for value in label.flatten().tolist())]
    if not label.ndim:
        return [_drawable(class_names[int(label)])]
    shares = sorted(zip(label.tolist(), map(_drawable, class_names), strict=True), reverse=True)
    return [f"{share:.0%} {name}" if share < 0.995 else name for share, name in shares if share >= 0.005]


def _drawable(name: str) -> str:
    """Return a name in one line and without accents, as the letters of Pillow's own font have none."""
    letters = unicodedata.normalize("NFKD", printable(name))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _shortened(text: str, width: int, font: Font) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """Break a text between words into lines of at most `width` pixels; a longer word is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_shortened(line, width, font) for line in lines]
