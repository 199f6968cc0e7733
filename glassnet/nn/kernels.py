"""The classic kernels of image processing, and images filtered with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet.nn.functional import Numbers, as_tensors, convolve, pad_sides

Rows = tuple[tuple[float, float, float], ...]
Picture = TypeVar("Picture", Image.Image, Tensor)


def _mean(size: int, sigma: float | None) -> Tensor:
    return torch.full((size, size), 1 / size**2)


def _gaussian(size: int, sigma: float | None) -> Tensor:
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8 if sigma is None else sigma
    distance = torch.arange(size, dtype=torch.float64) - size // 2
    bell = torch.exp(-(distance**2) / (2 * sigma**2))
    return (torch.outer(bell, bell) / bell.sum() ** 2).float()


@dataclass(frozen=True, kw_only=True)
class ClassicKernel:
    """One entry of `KERNELS`."""

    weights: Rows | Callable[[int, float | None], Tensor]
    """The rows of a 3x3 kernel, or a function of an odd size and sigma for a kernel of any size."""
    shows: str
    """What an image filtered with it shows."""


KERNELS: dict[str, ClassicKernel] = {
    "identity": ClassicKernel(weights=((0, 0, 0), (0, 1, 0), (0, 0, 0)), shows="the image as it is"),
    "mean": ClassicKernel(weights=_mean, shows="the moving average: a blur, noise spread evenly"),
    "moving-average": ClassicKernel(weights=_mean, shows="the same as mean"),
    "gaussian": ClassicKernel(weights=_gaussian, shows="a blur in which near pixels count more"),
    "sharpen": ClassicKernel(weights=((0, -1, 0), (-1, 5, -1), (0, -1, 0)), shows="the image plus its edges"),
    "edge": ClassicKernel(weights=((0, -1, 0), (-1, 4, -1), (0, -1, 0)), shows="edges; the negative Laplacian"),
    "strong-edge": ClassicKernel(
        weights=((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)), shows="edges, the diagonal neighbours counted too"
    ),
    "sobel-x": ClassicKernel(
        weights=((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), shows="brightness growing to the right: vertical edges"
    ),
    "sobel-y": ClassicKernel(
        weights=((-1, -2, -1), (0, 0, 0), (1, 2, 1)), shows="brightness growing downwards: horizontal edges"
    ),
    "prewitt-x": ClassicKernel(
        weights=((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)), shows="as sobel-x, with the three rows counted alike"
    ),
    "prewitt-y": ClassicKernel(
        weights=((-1, -1, -1), (0, 0, 0), (1, 1, 1)), shows="as sobel-y, with the three columns counted alike"
    ),
}
"""The classic kernels by name, written as they lie on the image (not flipped)."""

NEGATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "clip": lambda values: values,
    "absolute": torch.abs,
    "shift": lambda values: values + 128,
}
"""What becomes of a filter's values before they are rounded and clipped to 0..255."""

BORDERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "reflect": lambda at, size: size - 1 - (size - 1 - at % max(2 * size - 2, 1)).abs(),
    "replicate": lambda at, size: at.clamp(0, size - 1),
    "wrap": lambda at, size: at % size,
    "zero": lambda at, size: at.where((at >= 0) & (at < size), size),
}
"""The position in a row of `size` pixels that stands in for position `at`; `size` itself is a pixel of zeros."""

COLOUR_CHANNELS = {1: 1, 2: 1, 3: 3, 4: 3}
"""How many of the channels are colour: grey, grey and alpha, RGB, RGB and alpha."""

PIL_MODES = {mode: mode for mode in ("L", "LA", "RGB", "RGBA")} | {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
}
"""The Pillow mode in which an image of each mode is filtered: one whose numbers are brightness."""


def kernel(name: str, size: int = 3, sigma: float | None = None) -> Tensor:
    """Return the classic kernel `name` as a float32 tensor `(size, size)`, not flipped; the names are in `KERNELS`.

    `mean` and `gaussian` have any odd `size`, the others are 3x3. `sigma` is the Gaussian's standard deviation in
    pixels, by default `0.3 ((size - 1)/2 - 1) + 0.8` (as in OpenCV's `getGaussianKernel`). The weights of `identity`,
    `mean`, `gaussian` and `sharpen` sum to 1, those of the edge kernels to 0. Gonzalez and Woods, "Digital Image
    Processing" (4th edition, 2018), sections 3.5 and 3.6. Raises `UsageError` for an unknown name, a size that the
    kernel does not have, and a sigma that is not above 0 or not for a Gaussian.
    """
    if name not in KERNELS:
        raise unknown_name("kernel", name, KERNELS)
    weights = KERNELS[name].weights
    if sigma is not None and (name != "gaussian" or not sigma > 0):
        raise UsageError(f"sigma is the width of kernel 'gaussian', above 0 pixels; got sigma={sigma} for '{name}'.")
    if isinstance(weights, tuple):
        if size != 3:
            raise UsageError(f"Kernel '{name}' is 3x3; got size={size}. Only mean and gaussian have other sizes.")
        return torch.tensor(weights, dtype=torch.float32)
    if size < 1 or size % 2 == 0:
        raise UsageError(f"size must be odd, such as 3 or 5, so that the kernel has a middle pixel; got {size}.")
    return weights(size, sigma)


def filter_image(
    image: Picture,
    kernel: str | Numbers,
    *,
    border: str | None = None,
    negative: str | None = None,
    where_zero: bool = False,
    flip: bool = False,
) -> Picture:
    """Return `image` filtered with `kernel`: the same kind, the same size, each colour channel by itself.

    `image` is a Pillow image or a `uint8` tensor `(C, H, W)` of grey, grey and alpha, RGB, or RGB and alpha channels.
    Alpha is left alone. A Pillow image without brightness in its numbers comes back in another mode: 1-bit as `L`,
    palette, CMYK and such as `RGB`, with a transparent colour or palette as `LA` or `RGBA`.

    `kernel` is a name of `KERNELS` (3x3) or weights `(kh, kw)`. They lie on the image as written
    (cross-correlation); `flip=True` turns them first (the textbook's convolution). `border` says what surrounds the
    image: `reflect` mirrors it about its edge pixels (the default), `replicate` repeats the edge pixel, `wrap` goes on
    at the other side, `zero` is black. `negative` says what a value below 0 becomes: `clip` makes it 0 (the default),
    `absolute` shows its size (the default for weights that sum to 0, edge kernels, whose sign is the edge's
    direction), `shift` adds 128 to every value, so that 0 is mid-grey. Then values are rounded to the nearest
    integer, halves to even, and clipped to 0..255.

    `where_zero=True` repairs instead: only lost pixels, 0 in every colour channel, change; each becomes the average
    of the pixels under the kernel that are not lost, weighted by the kernel (`mean`: the plain average), rounded
    likewise. `border` is then `zero` by default: only the image's own pixels count. A lost pixel with none to average
    stays 0; a larger kernel or a second pass reaches further.

    Raises `UsageError` for other kinds of images, unknown words, and `where_zero` with negative weights.
    """
    weights = _weights(kernel)
    _check_words(weights, border, negative, where_zero)
    pixels = image if isinstance(image, Tensor) else _pixels(image)
    _check_pixels(pixels)
    num_colours = COLOUR_CHANNELS[len(pixels)]
    colours = pixels[:num_colours].to(torch.float64 if pixels.is_cuda else torch.float32)  # CUDA may round to TF32
    if where_zero:
        values = _repaired(colours, weights, border or "zero", flip)
    else:
        shown = NEGATIVES[negative or ("absolute" if _sums_to_zero(weights) else "clip")]
        values = shown(_filtered(colours, weights, border or "reflect", flip))
    whole = values.round().clamp(0, 255).to(torch.uint8)
    result = torch.cat((whole, pixels[num_colours:]))
    return result if isinstance(image, Tensor) else _picture(result, image)


def _filtered(channels: Tensor, weights: Tensor, border: str, flip: bool) -> Tensor:
    """Return `(C, H, W)` filtered one channel at a time, the surroundings made by `border`."""
    surrounded = torch.nn.functional.pad(channels, (0, 1, 0, 1))
    size_2d = tuple(channels.shape[1:])
    pads = pad_sides("same", size_2d, tuple(weights.shape), (1, 1), (1, 1), flip=flip)
    for axis, size, (before, after) in zip((1, 2), size_2d, pads, strict=True):
        at = torch.arange(-before, size + after, device=channels.device)
        surrounded = surrounded.index_select(axis, BORDERS[border](at, size))
    # One at a time: the channels of a photograph as a batch take twice the memory.
    return torch.stack([convolve(plane, weights.to(channels), flip=flip) for plane in surrounded])


def _repaired(channels: Tensor, weights: Tensor, border: str, flip: bool) -> Tensor:
    """Return `(C, H, W)` with lost pixels averaged: `sum w x / sum w`, both over the pixels that are not lost."""
    is_lost = (channels == 0).all(0)
    relative = weights / weights.max()  # equal weights are 1 then, and sums of pixels exact
    total = _filtered(channels, relative, border, flip)
    share = _filtered((~is_lost)[None].to(channels), relative, border, flip)
    return torch.where(is_lost & (share > 0), total / share, channels)


def _sums_to_zero(weights: Tensor) -> bool:
    return bool(weights.sum().abs() <= 1e-6 * weights.abs().sum())


def _weights(given: str | Numbers) -> Tensor:
    weights = kernel(given) if isinstance(given, str) else as_tensors(kernel=given)[0].detach().double()
    if weights.ndim != 2 or not weights.numel() or not weights.isfinite().all():
        raise UsageError(
            "A kernel for images must be a name or finite weights (height, width); "
            f"got {weights.numel()} weights of shape {tuple(weights.shape)}."
        )
    return weights


def _check_words(weights: Tensor, border: str | None, negative: str | None, where_zero: bool) -> None:
    if border is not None and border not in BORDERS:
        raise unknown_name("border", border, BORDERS)
    if negative is not None and negative not in NEGATIVES:
        raise unknown_name("treatment of negative values", negative, NEGATIVES)
    if where_zero and negative is not None:
        raise UsageError(f"where_zero averages, which gives no negative values; leave out negative='{negative}'.")
    if where_zero and (weights.min() < 0 or weights.max() <= 0):
        raise UsageError(
            "where_zero needs weights to average with, none below 0 and one above, such as kernel 'mean' or "
            f"'gaussian'; got weights from {weights.min():g} to {weights.max():g}."
        )


def _check_pixels(pixels: Tensor) -> None:
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or len(pixels) not in COLOUR_CHANNELS or not pixels.numel():
        raise UsageError(
            "image must be a Pillow image or a uint8 tensor (C, H, W) with 1 to 4 channels and at least one pixel; got "
            f"{pixels.dtype} {tuple(pixels.shape)}. A grey (H, W) image is image[None]; values 0..1 are "
            "(image * 255).round().to(torch.uint8)."
        )


def _pixels(image: Image.Image) -> Tensor:
    """Return a Pillow image as `uint8` `(C, H, W)`, in a mode whose numbers are brightness."""
    if not isinstance(image, Image.Image):
        raise UsageError(f"image must be a Pillow image or a uint8 tensor (C, H, W); got {type(image).__name__}.")
    if image.mode not in PIL_MODES:
        raise UsageError(
            f"image must have 8 bits a channel; got Pillow mode '{image.mode}'. Convert it to 'L' or 'RGB'."
        )
    mode = PIL_MODES[image.mode]
    if image.has_transparency_data and mode in ("L", "RGB"):
        mode += "A"
    pixels = torch.from_numpy(np.array(image.convert(mode)))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _picture(pixels: Tensor, original: Image.Image) -> Image.Image:
    picture = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
    if picture.mode == original.mode and "icc_profile" in original.info:
        picture.info["icc_profile"] = original.info["icc_profile"]
    return picture
