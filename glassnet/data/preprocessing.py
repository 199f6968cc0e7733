"""The preprocessing contract: one record that turns any image into what a network was trained on.

It is made once, at training, stored with the run, and used by everything afterwards; nothing else resizes or
normalises. Fitting works on `uint8` pixels in integers (`resizing`), which gives the same pixels on every machine;
normalising is one multiplication and one addition in float32.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glassnet._errors import UsageError, WorkError, unknown_name
from glassnet._types import PathArg, Shape
from glassnet.data.content import Content
from glassnet.data.decoding import Opened, open_reduced
from glassnet.data.examples import FITS, ExampleSet, Framing
from glassnet.data.image_cache import cached_pixels
from glassnet.data.image_files import ImageFiles
from glassnet.data.images import SetAside
from glassnet.data.pixel_file import release_pages
from glassnet.data.resizing import INTERPOLATIONS, centre, resized

MODES = {1: "L", 3: "RGB"}
"""Pillow's colour mode by number of channels."""
STATISTICS_BLOCK_BYTES = 1 << 24
"""How much of a data set is counted at a time: 16 MiB."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes a network's input. Raises `UsageError` for values that make no sense together."""

    class_names: tuple[str, ...]
    """Names of the network's outputs, in order."""
    mode: str
    """`L` (one grey channel) or `RGB`."""
    size: tuple[int, int]
    """Height and width of the network's input in pixels."""
    mean: tuple[float, ...]
    """Mean of each channel over the training images after fitting, in units of full scale (0..1)."""
    std: tuple[float, ...]
    """Standard deviation of each channel, likewise."""
    fit: str = "stretch"
    """How an image meets another aspect ratio: `stretch` it, `crop` its centre, or `pad` it with `fill`."""
    margin: int = 0
    """Pixels of `fill` kept free on each side; the image is fitted into what remains."""
    fill: int = 0
    """Value of padding, of the margin, and of what lies behind transparent pixels: 0..255."""
    interpolation: str = "bilinear"
    """`nearest`, `bilinear`, `bicubic` or `lanczos`; each averages over what it shrinks, except `nearest`."""
    array_scale: int | None = None
    """What the values of arrays in a file are multiplied by to become 8-bit levels; None: found by the values."""

    def __post_init__(self) -> None:
        for name in ("class_names", "size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(set(self.class_names)) != len(self.class_names):
            raise UsageError(f"Class names must differ; got {self.class_names}.")
        for kind, value, known in (
            ("fit", self.fit, FITS),
            ("interpolation", self.interpolation, tuple(INTERPOLATIONS)),
            ("colour mode", self.mode, tuple(MODES.values())),
        ):
            if value not in known:
                raise unknown_name(kind, str(value), known)
        if not len(self.mean) == len(self.std) == self.num_channels or min(self.std, default=0) <= 0:
            raise UsageError(
                f"Mode {self.mode} needs {self.num_channels} means and positive standard deviations; "
                f"got mean {self.mean} and std {self.std}."
            )
        if self.margin < 0 or min(self.content_size) < 1:
            raise UsageError(
                f"A margin of {self.margin} leaves no room in an input of {self.size[0]}x{self.size[1]}; "
                "use a smaller margin."
            )
        if not 0 <= self.fill <= 255:
            raise UsageError(f"fill must lie in 0..255; got {self.fill}.")
        if self.array_scale not in (None, 1, 255):
            raise UsageError(f"array_scale must be 1 or 255, or None; got {self.array_scale!r}.")

    @property
    def num_channels(self) -> int:
        """1 for `L`, 3 for `RGB`."""
        return 3 if self.mode == "RGB" else 1

    @property
    def input_shape(self) -> Shape:
        """Shape of one input, `(C, H, W)`."""
        return (self.num_channels, *self.size)

    @property
    def content_size(self) -> tuple[int, int]:
        """Height and width that the image itself is fitted into: the size without the margin."""
        return self.size[0] - 2 * self.margin, self.size[1] - 2 * self.margin

    @property
    def fitting(self) -> dict[str, object]:
        """Everything that decides the pixels of a fitted image, beside the image."""
        return {name: getattr(self, name) for name in ("mode", "size", "fit", "margin", "fill", "interpolation")}

    def fit_image(self, source: PathArg | Content | Image.Image) -> Tensor:
        """Return one image file or Pillow image as pixels `uint8 (C, H, W)` of the network's input size.

        A JPEG far larger than the input is decoded reduced (see `decoding`), from its file or from a Pillow image
        that is still unread. Pixels decoded elsewhere are taken as they are, and then differ by a level or so.

        Raises `UnreadableImageError` for what is not an image.
        """
        return self._placed(open_reduced(source, self.mode, self.fill, self._shrinkage))

    def fit_inputs(self, inputs: Tensor | ImageFiles) -> Tensor:
        """Return `inputs`, `uint8 (N, C, h, w)` or N files, fitted to `uint8 (N, C, H, W)`; as `fit_image` on each.

        Files are decoded once, into the cache on disk, and the tensor lies there: see `cached_pixels`.

        Raises `UsageError` where the number of channels is another, `WorkError` for a file that cannot be decoded.
        """
        fitted, set_aside = self.fit_readable(inputs)
        if set_aside:
            raise WorkError(
                f"Expected {len(inputs)} images; {len(set_aside)} of them cannot be read, the first is "
                f"{set_aside[0].source}: {set_aside[0].reason}. Repair or remove the files."
            )
        return fitted

    def fit_readable(self, inputs: Tensor | ImageFiles) -> tuple[Tensor, tuple[SetAside, ...]]:
        """Return `fit_inputs` of all but the files that cannot be decoded, and these with the reason.

        `readable_files` tells which rows are left. Raises `UsageError` as `fit_inputs` does.
        """
        if isinstance(inputs, ImageFiles):
            return cached_pixels(inputs, self)
        return self._fit_pixels(inputs), ()

    def _fit_pixels(self, pixels: Tensor) -> Tensor:
        is_empty = pixels.ndim == 4 and 0 in pixels.shape[2:]
        if pixels.ndim != 4 or pixels.shape[1] != self.num_channels or pixels.dtype != torch.uint8 or is_empty:
            raise UsageError(
                f"Expected images as uint8 (N, {self.num_channels}, height, width); "
                f"got {pixels.dtype} {tuple(pixels.shape)}."
            )
        if tuple(pixels.shape[2:]) == self.size and not self.margin:
            return pixels
        canvas = torch.full((len(pixels), *self.input_shape), self.fill, dtype=torch.uint8)
        if tuple(pixels.shape[2:]) == self.content_size:
            (height, width), margin = self.content_size, self.margin
            canvas[:, :, margin : margin + height, margin : margin + width] = pixels
            return canvas
        for index, array in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
            image = Image.fromarray(array.squeeze(-1) if self.mode == "L" else array)
            canvas[index] = self._placed(Opened(image, (0, 0, *image.size), 1))
        return canvas

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return `(pixels / 255 - mean) / std` as float32, channel by channel: `(N, C, H, W)` -> `(N, C, H, W)`.

        Computed as one multiplication and one addition, `pixels * scale + shift`.
        """
        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        if len(scale) == 1:
            return pixels.float().mul_(scale[0]).add_(shift[0])
        scales, shifts = (columns_on(tuple(values), 4, pixels.device) for values in (scale, shift))
        return pixels.float().mul_(scales).add_(shifts)

    def _shrinkage(self, width: int, height: int) -> float:
        """Return how many pixels of an image become one when it is fitted, along the axis that shrinks least."""
        if self.interpolation == "nearest":  # takes single pixels as they are: there must be all of them
            return 1.0
        ratios = width / self.content_size[1], height / self.content_size[0]
        return max(ratios) if self.fit == "pad" else min(ratios)

    def _placed(self, opened: Opened) -> Tensor:
        """Return the picture in an opened image, resized by `fit` into the content box, as `uint8 (C, H, W)`."""
        image, box, reduction = opened
        (height, width), (left, upper, right, lower) = self.content_size, box
        from_width, from_height = right - left, lower - upper
        target = (width, height)
        if self.fit == "crop":
            scale = max(width / from_width, height / from_height)
            box = centre(box, width / scale, height / scale, 1 / reduction)
        elif self.fit == "pad":
            scale = min(width / from_width, height / from_height)
            target = (max(1, round(from_width * scale)), max(1, round(from_height * scale)))
        pixels = resized(image, target, self.interpolation, box).transpose(2, 0, 1)
        if target == (self.size[1], self.size[0]):
            return torch.from_numpy(np.ascontiguousarray(pixels))
        canvas = np.full(self.input_shape, self.fill, np.uint8)
        row, column = (self.size[0] - target[1]) // 2, (self.size[1] - target[0]) // 2
        canvas[:, row : row + target[1], column : column + target[0]] = pixels
        return torch.from_numpy(canvas)

    def example(self) -> Tensor:
        """Return one fitted black image, `uint8 (1, C, H, W)`."""
        return torch.zeros(1, *self.input_shape, dtype=torch.uint8)


@cache
def columns_on(values: tuple[float, ...], num_axes: int, device: torch.device) -> Tensor:
    """Return one value a channel as `(1, C, 1, ...)` on the device, made once: a copy each step would halt it."""
    return torch.tensor(values, device=device).view(1, -1, *(1 for _ in range(num_axes - 2)))


def make_preprocessing(examples: ExampleSet, size: tuple[int, int], framing: Framing | None = None) -> Preprocessing:
    """Make the record for training on `examples` at `size` `(H, W)`: measure mean and spread after fitting.

    A margin is kept only where the input is larger than the images, so that images of the input's own size stay
    untouched. Raises `UsageError` for images that have neither 1 nor 3 channels.
    """
    framing = framing or Framing()
    channels, *image_size = examples.input_shape
    if channels not in MODES:
        raise UsageError(f"Expected images with 1 (grey) or 3 (RGB) channels; got {channels}.")
    margin = 0 if tuple(image_size) == tuple(size) else round(framing.margin * min(size))
    unmeasured = Preprocessing(
        class_names=examples.class_names,
        mode=MODES[channels],
        size=size,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        fit=framing.fit,
        margin=margin,
        interpolation=framing.interpolation,
        array_scale=framing.array_scale,
    )
    mean, std = channel_statistics(unmeasured.fit_readable(examples.inputs)[0])
    return Preprocessing(**{**asdict(unmeasured), "mean": mean, "std": std})


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of `uint8 (N, C, H, W)`, in units of full scale (0..1).

    Counted from the histogram of the 256 values in integers, so that the order of the images does not matter, and a
    block of images at a time, so that they may lie on disk. A constant channel has the spread 1, so that normalising
    it gives zeros instead of a division by zero.
    """
    histograms = torch.zeros(pixels.shape[1], 256, dtype=torch.int64)
    for block in pixels.split(max(1, STATISTICS_BLOCK_BYTES // max(1, pixels[:1].nbytes))):
        for histogram, channel in zip(histograms, block.unbind(1), strict=True):
            histogram += torch.bincount(channel.reshape(-1), minlength=256)
        release_pages(pixels)
    means, stds = zip(*(_mean_and_spread(histogram.tolist()) for histogram in histograms), strict=True)
    return means, stds


def _mean_and_spread(histogram: list[int]) -> tuple[float, float]:
    count = sum(histogram)
    total = sum(value * times for value, times in enumerate(histogram))
    squares = sum(value * value * times for value, times in enumerate(histogram))
    variance = (squares * count - total * total) / (count * count)
    return total / count / 255, math.sqrt(variance) / 255 if variance > 0 else 1.0


def cropped_share(sizes: Tensor, content_size: tuple[int, int]) -> float:
    """Return the share (0..1) of all pixels that `fit="crop"` throws away over images of `sizes` `(N, 2)`.

    Each size is a height and a width in pixels; `content_size` is what the images are fitted into; only its
    proportions matter. 0 where there is no image.
    """
    if not len(sizes):
        return 0.0
    height, width = sizes.double().unbind(1)
    scale = torch.maximum(content_size[0] / height, content_size[1] / width)
    kept = (content_size[0] / scale) * (content_size[1] / scale)
    return max(0.0, 1 - float(kept.sum() / (height * width).sum()))
