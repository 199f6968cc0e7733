"""The preprocessing contract: one record that turns any image into what a network was trained on.

It is made once, at training, stored with the run, and used by everything afterwards; nothing else resizes or
normalises. Fitting works on `uint8` pixels with Pillow, whose fixed-point resampling gives the same pixels on every
machine; normalising is one multiplication and one addition in float32.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet._types import PathArg, Shape
from glassnet.data.examples import ExampleSet, Framing
from glassnet.data.images import open_image

FITS = ("crop", "pad", "stretch")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MODES = {1: "L", 3: "RGB"}
"""Pillow's colour mode by number of channels."""


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

    def __post_init__(self) -> None:
        for name in ("class_names", "size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for kind, value, known in (
            ("fit", self.fit, FITS),
            ("interpolation", self.interpolation, tuple(INTERPOLATIONS)),
            ("colour mode", self.mode, tuple(MODES.values())),
        ):
            if value not in known:
                raise unknown_name(kind, value, known)
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

    def fit_image(self, source: PathArg | Image.Image) -> Tensor:
        """Return one image file or Pillow image as pixels `uint8 (C, H, W)` of the network's input size.

        Raises `UnreadableImageError` for what is not an image.
        """
        image = self._place(open_image(source, self.mode, self.fill))
        pixels = np.array(image).reshape(*self.size, self.num_channels)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def fit_inputs(self, pixels: Tensor) -> Tensor:
        """Return `pixels` `uint8 (N, C, h, w)` fitted to `uint8 (N, C, H, W)`; equal to `fit_image` on each.

        Raises `UsageError` where the number of channels is another.
        """
        if pixels.ndim != 4 or pixels.shape[1] != self.num_channels or pixels.dtype != torch.uint8:
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
        for index, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
            placed = self._place(Image.fromarray(image.squeeze(-1) if self.mode == "L" else image))
            fitted = np.array(placed).reshape(*self.size, self.num_channels)
            canvas[index] = torch.from_numpy(fitted).permute(2, 0, 1)
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

    def _place(self, image: Image.Image) -> Image.Image:
        """Resize an image by `fit` into the content box and surround it by the margin."""
        (height, width), resample = self.content_size, INTERPOLATIONS[self.interpolation]
        box: tuple[float, float, float, float] = (0, 0, image.width, image.height)
        target = (width, height)
        if self.fit == "crop":
            scale = max(width / image.width, height / image.height)
            cut_x = max(0.0, (image.width - width / scale) / 2)
            cut_y = max(0.0, (image.height - height / scale) / 2)
            box = (cut_x, cut_y, image.width - cut_x, image.height - cut_y)
        elif self.fit == "pad":
            scale = min(width / image.width, height / image.height)
            target = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        if target != image.size or box != (0, 0, *image.size):
            image = image.resize(target, resample, box=box)
        if image.size == (self.size[1], self.size[0]):
            return image
        canvas = Image.new(self.mode, (self.size[1], self.size[0]), (self.fill,) * self.num_channels)
        left, top = (self.size[1] - image.width) // 2, (self.size[0] - image.height) // 2
        canvas.paste(image, (left, top))
        return canvas

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
    )
    mean, std = channel_statistics(unmeasured.fit_inputs(examples.inputs))
    return Preprocessing(**{**asdict(unmeasured), "mean": mean, "std": std})


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of `uint8 (N, C, H, W)`, in units of full scale (0..1).

    Counted from the histogram of the 256 values in integers, so that the order of the images does not matter. A
    constant channel has the spread 1, so that normalising it gives zeros instead of a division by zero.
    """
    means, stds = [], []
    for channel in pixels.unbind(1):
        histogram = torch.bincount(channel.reshape(-1), minlength=256).tolist()
        count = sum(histogram)
        total = sum(value * times for value, times in enumerate(histogram))
        squares = sum(value * value * times for value, times in enumerate(histogram))
        variance = (squares * count - total * total) / (count * count)
        means.append(total / count / 255)
        stds.append(math.sqrt(variance) / 255 if variance > 0 else 1.0)
    return tuple(means), tuple(stds)
