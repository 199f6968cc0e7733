"""What a trained network says about images: logits, and the classes in words."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from glassnet._device import autocast
from glassnet._errors import UsageError
from glassnet._modes import evaluating, refuse_lazy
from glassnet._types import PathArg
from glassnet._user_code import in_line, words_of
from glassnet.data.images import SetAside, UnreadableImageError
from glassnet.data.loader import batch_bounds
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord

MOST_VALUES = 2**22
"""Input values in one forward pass, such as 27 images of 3x224x224; inner layers hold some tens of times that."""

ImageArg = PathArg | Image.Image | Tensor | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says about one image."""

    source: str
    """The file's path, or the position of the image among those given."""
    class_name: str
    """The most probable class."""
    probability: float
    """Its softmax probability, 0..1. Of a perceptron, whose scores are no logits, it only ranks."""
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


def predict_outputs(
    model: nn.Module,
    inputs: Tensor,
    record: InputRecord,
    *,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Tensor:
    """Return the model's outputs `(N, num_outputs)`, float32, for fitted `inputs` `(N, ...)`, on the model's device.

    `batch_size` inputs pass at a time, by default as many as `MOST_VALUES` allows and 512 at most. The model runs in
    evaluation mode without gradients and is left in the modes it was in.
    """
    if batch_size is None:
        batch_size = max(1, min(512, MOST_VALUES // math.prod(record.input_shape)))
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    with evaluating(model), autocast(device, precision):
        batches = [
            model(record.normalise(inputs[start:stop].to(device))).float()
            for start, stop in batch_bounds(len(inputs), batch_size)
        ]
    return torch.cat(batches) if batches else torch.zeros(0, len(record.class_names), device=inputs.device)


def num_outputs(model: nn.Module, record: InputRecord) -> int:
    """Return how many outputs the model gives for an input of the record's shape.

    Raises `UsageError` where the model does not take such an input or does not give one row of outputs.
    """
    refuse_lazy(model)
    like = next((parameter for parameter in model.parameters()), None)
    example = record.example() if like is None else record.example().to(like.device)
    shape = "x".join(str(size) for size in record.input_shape)
    try:
        with evaluating(model):
            outputs = model(record.normalise(example))
    except Exception as error:  # the user's own code may raise anything
        what = "images" if isinstance(record, Preprocessing) else "inputs"
        raise UsageError(
            f"The model does not take float32 {what} of {shape}: {words_of(error)}{in_line(error)}. "
            "Build it for the data: build_model(name, input_shape=...), channels or features first. On the command "
            "line, --size N resizes images."
        ) from None
    if not isinstance(outputs, Tensor):
        raise UsageError(f"A model gives one tensor of outputs (B, K); this one gave {type(outputs).__name__}.")
    if outputs.ndim != 2 or len(outputs) != 1:
        raise UsageError(f"A model gives a row of outputs (B, K); for one input this gave {tuple(outputs.shape)}.")
    return int(outputs.shape[1])


def predict_images(
    model: nn.Module,
    images: ImageArg | Sequence[ImageArg],
    record: InputRecord,
    *,
    device: torch.device,
    top_k: int = 5,
    to_logits: Callable[[Tensor], Tensor] = lambda outputs: outputs,
) -> Predictions:
    """Classify image files, Pillow images or `uint8` arrays, one or many; or arrays of numbers, for their networks.

    An array is one image `(H, W)` or `(C, H, W)`, or a batch `(N, C, H, W)`; numbers are one input of the record's
    shape, or a batch of them. `to_logits` makes one logit a class of the model's outputs. An image that cannot be
    read is set aside with the reason, and the others are answered.

    Raises `UsageError` for other input and for `top_k` below 1.
    """
    if not isinstance(top_k, int) or top_k < 1:
        raise UsageError(f"top_k must be a whole number of at least 1; got {top_k!r}.")
    sources: list[str] = []
    fitted: list[Tensor] = []
    set_aside: list[SetAside] = []
    for source, image in _named_images(images, len(record.input_shape)):
        try:
            fitted.append(_fit(image, record))
            sources.append(source)
        except UnreadableImageError as error:
            set_aside.append(SetAside(source, str(error)))
    if not fitted:
        return Predictions((), tuple(set_aside))
    logits = to_logits(predict_outputs(model, torch.stack(fitted).to(device), record))
    rows = describe_logits(logits, sources, record.class_names, top_k)
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


def _named_images(images: ImageArg | Sequence[ImageArg], num_axes: int) -> list[tuple[str, ImageArg]]:
    if isinstance(images, np.ndarray):
        images = _tensor(images)
    if isinstance(images, Tensor):
        images = list(images) if images.ndim == num_axes + 1 else [images]
    elif isinstance(images, str | os.PathLike | Image.Image) or not isinstance(images, Sequence):
        images = [images]
    return [
        (str(image) if isinstance(image, str | os.PathLike) else f"image {position}", image)
        for position, image in enumerate(images)
    ]


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise UsageError(f"An array of images or numbers must hold numbers; got {array.dtype}.")
    return torch.from_numpy(np.array(array))  # a copy: an array of Pillow's may not be written


def _fit(image: ImageArg, record: InputRecord) -> Tensor:
    if isinstance(image, np.ndarray):
        image = _tensor(image)
    if isinstance(image, Tensor):
        is_grey = image.ndim == 2 and len(record.input_shape) == 3
        image = image[None] if is_grey else image
        if image.ndim != len(record.input_shape):
            shapes = "(H, W) or (C, H, W) as uint8" if len(record.input_shape) == 3 else str(record.input_shape)
            raise UsageError(f"An input is {shapes}; got shape {tuple(image.shape)}.")
        return record.fit_inputs(image[None].cpu())[0]
    if isinstance(image, str | os.PathLike | Image.Image):
        return record.fit_image(image)
    raise UsageError(f"Expected an image file, a Pillow image or a uint8 array; got {type(image).__name__}.")
