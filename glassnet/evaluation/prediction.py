"""What a trained network says about images: logits, and the classes in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from glassnet._device import autocast
from glassnet._errors import UsageError
from glassnet._modes import evaluating
from glassnet._types import PathArg
from glassnet.data.images import SetAside, UnreadableImageError
from glassnet.data.loader import DeviceExamples, batch_bounds
from glassnet.data.preprocessing import Preprocessing

BATCH_SIZE = 512
"""Images in one forward pass; small sets fit in one."""

ImageArg = PathArg | Image.Image | Tensor | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says about one image."""

    source: str
    """The file's path, or the position of the image among those given."""
    class_name: str
    """The most probable class."""
    probability: float
    """Its softmax probability, 0..1."""
    top: tuple[tuple[str, float], ...]
    """The most probable classes with their probabilities, best first."""


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """The answers for the images that could be read, in the order given, and those that were set aside."""

    rows: tuple[Prediction, ...]
    set_aside: tuple[SetAside, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.rows[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.rows)


def predict_logits(
    model: nn.Module,
    pixels: Tensor,
    preprocessing: Preprocessing,
    *,
    batch_size: int = BATCH_SIZE,
    precision: str = "fp32",
) -> Tensor:
    """Return the logits `(N, num_classes)`, float32, for fitted `pixels` `uint8 (N, C, H, W)`, on their device.

    The model runs in evaluation mode without gradients and is left in the modes it was in.
    """
    if not len(pixels):
        return torch.zeros(0, len(preprocessing.class_names), device=pixels.device)
    with evaluating(model), autocast(pixels.device, precision):
        batches = [
            model(preprocessing.normalise(pixels[start:stop])).float()
            for start, stop in batch_bounds(len(pixels), batch_size)
        ]
    return torch.cat(batches)


def predict_examples(model: nn.Module, examples: DeviceExamples, preprocessing: Preprocessing) -> Tensor:
    """Return the logits `(N, num_classes)` for a split on the device."""
    return predict_logits(model, examples.pixels, preprocessing)


def predict_images(
    model: nn.Module,
    images: ImageArg | Sequence[ImageArg],
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    top_k: int = 5,
) -> Predictions:
    """Classify image files, Pillow images or `uint8` arrays, one or many.

    An array is one image `(H, W)` or `(C, H, W)`, or a batch `(N, C, H, W)`. An image that cannot be read is set
    aside with the reason, and the others are answered. Raises `UsageError` for other input and for `top_k` below 1.
    """
    if top_k < 1:
        raise UsageError(f"top_k must be at least 1; got {top_k}.")
    sources: list[str] = []
    fitted: list[Tensor] = []
    set_aside: list[SetAside] = []
    for source, image in _named_images(images):
        try:
            fitted.append(_fit(image, preprocessing))
            sources.append(source)
        except UnreadableImageError as error:
            set_aside.append(SetAside(source, str(error)))
    if not fitted:
        return Predictions((), tuple(set_aside))
    logits = predict_logits(model, torch.stack(fitted).to(device), preprocessing)
    rows = describe_logits(logits, sources, preprocessing.class_names, top_k)
    return Predictions(rows, tuple(set_aside))


def describe_logits(
    logits: Tensor, sources: Sequence[str], class_names: Sequence[str], top_k: int
) -> tuple[Prediction, ...]:
    """Return softmax probabilities of the `top_k` classes for each row of `logits` `(N, num_classes)`."""
    probabilities, classes = logits.softmax(1).topk(min(top_k, len(class_names)), dim=1)
    rows = []
    for source, row, indices in zip(sources, probabilities.tolist(), classes.tolist(), strict=True):
        top = tuple((class_names[index], probability) for index, probability in zip(indices, row, strict=True))
        rows.append(Prediction(source=source, class_name=top[0][0], probability=top[0][1], top=top))
    return tuple(rows)


def _named_images(images: ImageArg | Sequence[ImageArg]) -> list[tuple[str, ImageArg]]:
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if isinstance(images, Tensor):
        images = list(images) if images.ndim == 4 else [images]
    elif isinstance(images, str | Path | Image.Image) or not isinstance(images, Sequence):
        images = [images]
    return [
        (str(image) if isinstance(image, str | Path) else f"image {position}", image)
        for position, image in enumerate(images)
    ]


def _fit(image: ImageArg, preprocessing: Preprocessing) -> Tensor:
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image))
    if isinstance(image, Tensor):
        if image.ndim == 2:
            image = image[None]
        if image.ndim != 3:
            raise UsageError(f"An image is (H, W) or (C, H, W) as uint8; got shape {tuple(image.shape)}.")
        return preprocessing.fit_pixels(image[None].cpu())[0]
    if isinstance(image, str | Path | Image.Image):
        return preprocessing.fit_image(image)
    raise UsageError(f"Expected an image file, a Pillow image or a uint8 array; got {type(image).__name__}.")
