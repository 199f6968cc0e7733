"""Random changes to a whole batch of images at once, on its device, while it is still `uint8`.

Names and options are torchvision's where it has them. Every image gets draws of its own. All draws come from one CPU
generator, and their number depends on the batch alone, so that every device sees the same changes, and another
option of one transform leaves those after it as they were. What only moves pixels is exact; what computes new ones
(warping, colours, mixing) rounds them to whole levels, and another device may round a tie to the level beside it.
"""

from __future__ import annotations

import math
import types
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape

PADDING_MODES = ("constant", "edge", "reflect")
ERASING_ATTEMPTS = 10
"""Boxes drawn for one erasure; the first that fits into the image is taken."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R BT.601, as in Pillow."""

# --- what all transforms share


@dataclass(frozen=True, kw_only=True)
class Transform(ABC):
    """One step of an augmentation. Raises `UsageError` for options of the wrong type or out of range."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in fields(self):
            value = _as_type(getattr(self, field.name), hints[field.name])
            self._require(field.name, value is not _WRONG, f"be {_type_words(hints[field.name])}")
            object.__setattr__(self, field.name, value)
        self._check_ranges()

    @abstractmethod
    def __call__(
        self, pixels: Tensor, labels: Tensor, generator: torch.Generator, *, num_classes: int = 0, fill: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return changed `pixels` `uint8` `(N, C, H, W)`, and `labels` that go with them; the arguments stay intact.

        `labels` is `int64` `(N,)` in 0..`num_classes`-1, soft `float32` `(N, num_classes)`, or values to predict. A
        transform that mixes images returns soft labels; any other returns `labels`. `fill` is the level that free
        pixels get where the transform names none.
        """

    def check(self, input_shape: Shape) -> None:  # noqa: B027 (most transforms take any shape)
        """Raise `UsageError` where images of `input_shape` `(C, H, W)` cannot be changed in this way."""

    def _check_ranges(self) -> None:
        if (p := getattr(self, "p", None)) is not None:
            self._require("p", 0 <= p <= 1, "lie in 0..1")
        if (fill := getattr(self, "fill", None)) is not None:
            self._require("fill", 0 <= fill <= 255, "lie in 0..255")

    def _require(self, name: str, is_so: bool, rule: str) -> None:
        if not is_so:
            raise UsageError(f"{type(self).__name__}: {name} must {rule}; got {getattr(self, name)!r}.")


class PixelTransform(Transform):
    """A transform of each image by itself, which leaves the labels alone."""

    def __call__(
        self, pixels: Tensor, labels: Tensor, generator: torch.Generator, *, num_classes: int = 0, fill: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return changed `pixels` and the same `labels`; see `Transform.__call__`."""
        own_fill: int | None = getattr(self, "fill", None)
        return self.change(pixels, generator, fill if own_fill is None else own_fill), labels

    @abstractmethod
    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return changed `pixels`, `uint8` `(N, C, H, W)` like those given."""


_WRONG = object()


def _as_type(value: object, hint: object) -> object:
    """Return `value` as the type that an option declares, or `_WRONG`."""
    if isinstance(hint, types.UnionType):
        return None if value is None else _as_type(value, typing.get_args(hint)[0])
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple | list) or len(value) != 2:
            return _WRONG
        pair = tuple(_as_type(part, float) for part in value)
        return _WRONG if _WRONG in pair else pair
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if is_number else _WRONG  # type: ignore[arg-type]
    return value if isinstance(value, hint) and not isinstance(value, bool) else _WRONG  # type: ignore[arg-type]


def _type_words(hint: object) -> str:
    if isinstance(hint, types.UnionType):
        return _type_words(typing.get_args(hint)[0]) + " or none"
    words = {int: "a whole number", float: "a number", str: "a word"}
    return words.get(hint, "two numbers (low, high)")  # type: ignore[call-overload, no-any-return]


def column_on(pixels: Tensor, values: Tensor) -> Tensor:
    """Return `values` `(N,)` on the device of `pixels` as a column `(N, 1, 1, 1)`; the device is not waited for."""
    return values.to(pixels.device, non_blocking=pixels.is_cuda)[:, None, None, None]


def _uniform(u: Tensor, low: float, high: float) -> Tensor:
    """Return `u`, uniform in 0..1, as uniform in `low`..`high`."""
    return low + u * (high - low)


def to_levels(values: Tensor) -> Tensor:
    """Round to whole levels, `uint8`."""
    return values.round().clamp(0, 255).to(torch.uint8)


# --- moving whole pixels


def random_shift(pixels: Tensor, max_shift: int, fill: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to `max_shift` pixels up, down, left and right; what becomes free gets `fill`.

    `pixels` `(N, C, H, W)` -> `(N, C, H, W)`. The shifts are whole pixels, uniform and independent for each image and
    axis, drawn from `generator` (a CPU generator, so that every device sees the same shifts).
    """
    return _random_windows(F.pad(pixels, (max_shift,) * 4, value=fill), max_shift, generator)


def _random_windows(padded: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Cut a window at random out of each image: `(N, C, H + 2 padding, W + 2 padding)` -> `(N, C, H, W)`."""
    num_images, _, height, width = padded.shape
    # (N, C, 2 padding + 1, 2 padding + 1, H, W), a view
    windows = padded.unfold(2, height - 2 * padding, 1).unfold(3, width - 2 * padding, 1)
    corners = torch.randint(0, 2 * padding + 1, (2, num_images), generator=generator)
    down, right = corners.to(padded.device, non_blocking=padded.is_cuda)
    return windows[torch.arange(num_images, device=padded.device), :, down, right]


@dataclass(frozen=True, kw_only=True)
class RandomCrop(PixelTransform):
    """Pad each image on every side, then cut its own size out at random (He et al. 2016, section 4.2).

    torchvision's `RandomCrop(size, padding)` with `size` that of the image.
    """

    padding: int
    """Pixels on each side; fewer than the image has."""
    padding_mode: str = "constant"
    """What is padded with: `constant` (`fill`), `edge` (the outermost pixel), or `reflect` (the mirror image)."""
    fill: int | None = None
    """Level 0..255 of constant padding; None: the fill of the preprocessing."""

    def _check_ranges(self) -> None:
        super()._check_ranges()
        self._require("padding", self.padding >= 0, "be at least 0")
        if self.padding_mode not in PADDING_MODES:
            raise unknown_name("padding_mode", self.padding_mode, PADDING_MODES)
        if self.fill is not None and self.padding_mode != "constant":
            raise UsageError(f"RandomCrop: fill has no effect with padding_mode={self.padding_mode}. Leave one out.")

    def check(self, input_shape: Shape) -> None:
        """Raise `UsageError` where a crop could miss the image."""
        _check_reach("RandomCrop", "padding", self.padding, input_shape)

    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return a random crop of each padded image."""
        if self.padding_mode == "constant":
            return random_shift(pixels, self.padding, fill, generator)
        rows, columns = (self._sources(length, pixels.device) for length in pixels.shape[2:])
        return _random_windows(pixels[:, :, rows][:, :, :, columns], self.padding, generator)

    def _sources(self, length: int, device: torch.device) -> Tensor:
        """Return which pixel of an axis each pixel of the padded axis shows: `(length + 2 padding,)`."""
        index, last = torch.arange(-self.padding, length + self.padding, device=device), length - 1
        return index.clamp(0, last) if self.padding_mode == "edge" else last - (last - index.abs()).abs()


@dataclass(frozen=True, kw_only=True)
class RandomShift(PixelTransform):
    """Move each image by whole pixels, both ways; what becomes free gets `fill`. The config's `max_shift`."""

    max_shift: int
    """Pixels; fewer than the image has."""
    fill: int | None = None
    """Level 0..255; None: the fill of the preprocessing."""

    def _check_ranges(self) -> None:
        super()._check_ranges()
        self._require("max_shift", self.max_shift >= 0, "be at least 0")

    def check(self, input_shape: Shape) -> None:
        """Raise `UsageError` where an image could be moved out of its frame."""
        _check_reach("RandomShift", "max_shift", self.max_shift, input_shape)

    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return each image moved by its own shift."""
        return random_shift(pixels, self.max_shift, fill, generator)


def _check_reach(kind: str, name: str, reach: int, input_shape: Shape) -> None:
    height, width = input_shape[-2:]
    if reach >= min(height, width):
        raise UsageError(
            f"{kind}: {name} must be below the images' height and width; got {reach} with images of {height}x{width}. "
            f"Try {name}={min(height, width) // 8}."
        )


def mirrored(pixels: Tensor, is_mirrored: Tensor) -> Tensor:
    """Return `pixels` `(N, C, H, W)`, mirrored left to right where `is_mirrored` `(N,)`."""
    return torch.where(column_on(pixels, is_mirrored), pixels.flip(3), pixels)


@dataclass(frozen=True, kw_only=True)
class RandomHorizontalFlip(PixelTransform):
    """Mirror an image left to right with probability `p`. Not for classes that a mirror changes: letters, digits."""

    p: float = 0.5

    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return each image mirrored or as it is."""
        return mirrored(pixels, torch.rand(len(pixels), generator=generator) < self.p)


@dataclass(frozen=True, kw_only=True)
class RandomVerticalFlip(PixelTransform):
    """Turn an image upside down, as in a mirror, with probability `p`."""

    p: float = 0.5

    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return each image mirrored or as it is."""
        return torch.where(
            column_on(pixels, torch.rand(len(pixels), generator=generator) < self.p), pixels.flip(2), pixels
        )


@dataclass(frozen=True, kw_only=True)
class RandomErasing(PixelTransform):
    """Fill a box at random with one level, with probability `p` (Zhong et al. 2020, algorithm 1).

    Up to ten boxes are drawn; an image that none of them fits into stays as it is. Without the paper's noise inside.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    """Least and greatest area of the box as a share of the image."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Least and greatest height of the box per width; even in its logarithm."""
    fill: int | None = None
    """Level 0..255 in the box; None: the fill of the preprocessing."""

    def _check_ranges(self) -> None:
        super()._check_ranges()
        self._require("scale", 0 < self.scale[0] <= self.scale[1] <= 1, "be (low, high) with 0 < low <= high <= 1")
        self._require("ratio", 0 < self.ratio[0] <= self.ratio[1], "be (low, high) with 0 < low <= high")

    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return each image with a box erased, or as it is."""
        num_images, _, height, width = pixels.shape
        is_erased = torch.rand(num_images, generator=generator) < self.p
        u = torch.rand(4, num_images, ERASING_ATTEMPTS, generator=generator, dtype=torch.float64)
        area = _uniform(u[0], *self.scale) * height * width
        ratio = _uniform(u[1], math.log(self.ratio[0]), math.log(self.ratio[1])).exp()
        heights, widths = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (heights < height) & (widths < width)
        top, left = (u[2] * (height - heights + 1)).floor(), (u[3] * (width - widths + 1)).floor()
        boxes = torch.stack([top, left, top + heights, left + widths])
        first = fits.int().argmax(1)
        box = boxes[:, torch.arange(num_images), first] * (is_erased & fits.any(1))
        return torch.where(inside_boxes(pixels, box.long()), fill, pixels)


def inside_boxes(pixels: Tensor, box: Tensor) -> Tensor:
    """Return which pixels lie in each image's `box` `(4, N)`, top, left, bottom, right: bool `(N, 1, H, W)`."""
    top, left, bottom, right = (column_on(pixels, side) for side in box)
    rows = torch.arange(pixels.shape[2], device=pixels.device)[:, None]
    columns = torch.arange(pixels.shape[3], device=pixels.device)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


# --- warping: bilinear


def warped(pixels: Tensor, inverse: Tensor, shift: Tensor, fill: int) -> Tensor:
    """Return images `uint8` `(N, C, H, W)` under the map `p -> A p + shift` in pixels from the image's centre.

    `inverse` `(N, 2, 2)` is `A^-1` and `shift` `(N, 2)`, both x before y, y downwards: the output at `p` is read at
    `A^-1 (p - shift)`, bilinearly between pixel centres; outside of the image lies `fill`.
    """
    height, width = pixels.shape[2:]
    a, b, c, d, right, down = (column_on(pixels, part)[:, 0] for part in (*inverse.flatten(1).T, *shift.T))
    x = torch.arange(width, device=pixels.device) + 0.5 - width / 2 - right
    y = torch.arange(height, device=pixels.device)[:, None] + 0.5 - height / 2 - down
    # By hand, because affine_grid multiplies matrices, for which a GPU may be set to 10 bits of precision.
    grid = torch.stack([(a * x + b * y) * (2 / width), (c * x + d * y) * (2 / height)], dim=-1)
    # Zero is what grid_sample finds outside: with `fill` as zero, edges blend into it.
    sampled = F.grid_sample(pixels.float() - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return to_levels(sampled + fill)


@dataclass(frozen=True, kw_only=True)
class RandomAffine(PixelTransform):
    """Turn, scale, shear and move each image about its centre, in this order from the right: move R scale shear."""

    degrees: float = 0.0
    """Turned by an angle uniform in -degrees..degrees."""
    translate: tuple[float, float] = (0.0, 0.0)
    """Greatest move to either side as a share of the width, then of the height; in whole pixels."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Least and greatest factor of size."""
    shear: float = 0.0
    """Upright lines lean by an angle uniform in -shear..shear degrees."""
    fill: int | None = None
    """Level 0..255 outside of the image; None: the fill of the preprocessing."""

    def _check_ranges(self) -> None:
        super()._check_ranges()
        self._require("degrees", 0 <= self.degrees <= 180, "lie in 0..180")
        self._require("translate", all(0 <= part < 1 for part in self.translate), "be two shares (x, y) in [0, 1)")
        self._require("scale", 0 < self.scale[0] <= self.scale[1], "be (low, high) with 0 < low <= high")
        self._require("shear", 0 <= self.shear < 90, "be at least 0 and below 90")

    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return each image under its own affine map."""
        u = torch.rand(5, len(pixels), generator=generator)
        angle = torch.deg2rad(_uniform(u[0], -self.degrees, self.degrees))
        scale = _uniform(u[1], *self.scale)
        lean = torch.deg2rad(_uniform(u[2], -self.shear, self.shear)).tan()
        cos, sin = angle.cos(), angle.sin()
        # (R scale S)^-1 = S^-1 R^-1 / scale with R^-1 = [[cos, -sin], [sin, cos]] and S^-1 = [[1, lean], [0, 1]]
        inverse = torch.stack([cos + lean * sin, lean * cos - sin, sin, cos]) / scale
        reach = (self.translate[0] * pixels.shape[3], self.translate[1] * pixels.shape[2])
        shift = torch.stack([_uniform(v, -most, most).round() for v, most in zip(u[3:], reach, strict=True)], dim=1)
        return warped(pixels, inverse.T.reshape(-1, 2, 2), shift, fill)


@dataclass(frozen=True, kw_only=True)
class RandomRotation(PixelTransform):
    """Turn each image about its centre by an angle uniform in -degrees..degrees, counter-clockwise where positive."""

    degrees: float
    fill: int | None = None
    """Level 0..255 outside of the image; None: the fill of the preprocessing."""

    def _check_ranges(self) -> None:
        super()._check_ranges()
        self._require("degrees", 0 <= self.degrees <= 180, "lie in 0..180")

    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return each image turned by its own angle."""
        return RandomAffine(degrees=self.degrees).change(pixels, generator, fill)


# --- colours


@dataclass(frozen=True, kw_only=True)
class ColorJitter(PixelTransform):
    """Change brightness, contrast, saturation and hue of each image by factors of its own, in this order.

    The factor of the first three is uniform in `max(0, 1 - x)..1 + x` for an option `x`; 1 changes nothing, and 0
    leaves black, the image's mean grey, or its grey image, as in Pillow's `ImageEnhance`. torchvision draws the order
    as well.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """The hue turns by a share of the colour circle uniform in -hue..hue; at most 0.5."""

    def _check_ranges(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            self._require(name, getattr(self, name) >= 0, "be at least 0")
        self._require("hue", 0 <= self.hue <= 0.5, "lie in 0..0.5")
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise UsageError(
                "ColorJitter needs one of brightness, contrast, saturation and hue above 0; got none. "
                "Write, for example, ColorJitter(brightness=0.2, contrast=0.2)."
            )

    def check(self, input_shape: Shape) -> None:
        """Raise `UsageError` where colours are to be changed and there are none."""
        if input_shape[0] != 3 and (self.saturation or self.hue):
            raise UsageError(
                f"ColorJitter: saturation and hue need red, green and blue; got images of {input_shape[0]} channel(s). "
                "Use brightness and contrast alone."
            )

    def change(self, pixels: Tensor, generator: torch.Generator, fill: int) -> Tensor:
        """Return each image in its own light and colours."""
        u = torch.rand(4, len(pixels), generator=generator)
        images = pixels.float() / 255
        if self.brightness:
            images = _blended(torch.zeros_like(images), images, column_on(pixels, _factor(u[0], self.brightness)))
        if self.contrast:
            mean = _grey(images).mean((1, 2, 3), keepdim=True)
            images = _blended(mean, images, column_on(pixels, _factor(u[1], self.contrast)))
        if self.saturation:
            images = _blended(_grey(images), images, column_on(pixels, _factor(u[2], self.saturation)))
        if self.hue:
            images = _hue_turned(images, column_on(pixels, _uniform(u[3], -self.hue, self.hue)))
        return to_levels(images * 255)


def _factor(u: Tensor, strength: float) -> Tensor:
    return _uniform(u, max(0.0, 1 - strength), 1 + strength)


def _blended(start: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Return `start` for a factor of 0, `images` for 1, further away beyond, within 0..1."""
    return (start + factor * (images - start)).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Return the grey image, `(N, 1, H, W)`."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = (images[:, channel : channel + 1] for channel in range(3))
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _hue_turned(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of `images` `(N, 3, H, W)` in 0..1 by `turn` `(N, 1, 1, 1)` circles; value and chroma stay."""
    red, green, blue = (images[:, channel : channel + 1] for channel in range(3))
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    divisor = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    # HSV to RGB in one line a channel: V - C max(0, min(k, 4 - k, 1)), k = (n + 6 hue) mod 6, n = 5, 3, 1
    offset = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    k = (offset + sector + 6 * turn).remainder(6)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
