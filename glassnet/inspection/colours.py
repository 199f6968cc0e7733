"""How the colours of images vary together: the axes that a visualisation is made in, so that they vary independently.

Olah, Mordvintsev and Schubert, "Feature visualization" (2017): of the covariance of red, green and blue over all
pixels a square root is taken, `A` with `A A' = covariance`, and its columns, scaled so that the longest has length 1,
are the colours that independent parts are put together with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from glassnet._errors import GlassnetError, UsageError, unknown_name
from glassnet.data.examples import ExampleSet
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Fitted, Images, Subject, gather, stream

CHOICES = ("auto", "imagenet")
IMAGENET = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
"""Square root of the covariance of ImageNet's colours, RGB by independent part, as published with the paper (Lucid,
`color_correlation_svd_sqrt`, Apache 2.0). Its first column is brightness, the others blue against yellow and so on."""
MOST_IMAGES = 256
"""That the covariance is taken of, evenly spaced among those there are."""


@runtime_checkable
class WithData(Protocol):
    """A run that can load the data it was trained on."""

    def load_data(self, root: Any = None, *, download: bool = True) -> Any:
        """Return the data set."""


@dataclass(frozen=True, eq=False)
class Colours:
    """Axes of colour, and where they are from."""

    axes: Tensor
    """`(3, 3)`, RGB by independent part, the most varied first; the longest column has length 1."""
    source: str
    """In words."""


def colours_of(
    subject: Subject, model: nn.Module, record: InputRecord | None, images: Images | None, choice: str = "auto"
) -> Colours:
    """Return the axes of the images that are given; else of a run's training images; else ImageNet's.

    A run's data are taken where they lie on this machine and are what the run was trained on; nothing is fetched.

    Raises `UsageError` for an unknown choice, for ImageNet's with images given, and for images of one colour.
    """
    if choice not in CHOICES:
        raise unknown_name("choice of colours", str(choice), CHOICES)
    if images is not None:
        if choice != "auto":
            raise UsageError("Expected images whose colours to take, or colours='imagenet'; got both. Leave one out.")
        return _measured(_spread(gather(images, model, record)), model, record, "given")
    if choice == "auto" and isinstance(subject, WithData):
        try:
            return _measured(_spread(subject.load_data(download=False).train), model, record, "of the run's data")
        except GlassnetError:  # the data are elsewhere, or others by now: the result says whose colours it has
            pass
    return Colours(_scaled(torch.tensor(IMAGENET)), "ImageNet")


def prepared(pixels: Tensor, record: InputRecord | None) -> Tensor:
    """Return pixels 0 to 1, `(N, C, H, W)`, as the model takes them, with autograd; without a record -1 to 1."""
    mean, std = _scale(record, pixels)
    return (pixels - mean) / std


def square_root(covariance: Tensor) -> Tensor:
    """Return `A` with `A A' = covariance`, by its axes, the longest first, each with its largest part above zero."""
    variances, axes = torch.linalg.eigh(covariance.double())
    columns = (axes * variances.clamp(min=0).sqrt()).flip(1)
    largest = columns.gather(0, columns.abs().argmax(0, keepdim=True))
    turned: Tensor = columns * torch.where(largest < 0, -1.0, 1.0)
    return turned


def _scale(record: InputRecord | None, like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (record.mean, record.std) if isinstance(record, Preprocessing) else ((0.5,), (0.5,))
    first, second = (torch.tensor(part, device=like.device).reshape(1, -1, 1, 1) for part in (mean, std))
    return first, second


def _spread(images: Tensor | ExampleSet | Fitted) -> Tensor | ExampleSet | Fitted:
    """Return at most `MOST_IMAGES` of the images, evenly spaced: those of one class may lie together."""
    count = len(images.inputs) if isinstance(images, Fitted) else len(images)
    places = torch.arange(0, count, max(1, -(-count // MOST_IMAGES)))
    return Fitted(images.inputs[places]) if isinstance(images, Fitted) else images[places]


def _measured(
    images: Tensor | ExampleSet | Fitted, model: nn.Module, record: InputRecord | None, origin: str
) -> Colours:
    products, sums, count, num_images = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3).double(), 0, 0
    for batch in stream(images, model, record).batches:
        if batch.inputs.ndim != 4 or batch.inputs.shape[1] != 3:
            raise UsageError(f"Expected RGB images to take colours of; got inputs of {tuple(batch.inputs.shape[1:])}.")
        mean, std = _scale(record, batch.inputs)
        pixels = (batch.inputs * std + mean).transpose(0, 1).flatten(1).double().cpu()
        products += pixels @ pixels.T
        sums += pixels.sum(1)
        count += pixels.shape[1]
        num_images += len(batch.inputs)
    mean_colour = sums / max(count, 1)
    root = square_root(products / max(count, 1) - mean_colour.outer(mean_colour))
    if not count or float(root.norm(dim=0).max()) < 1e-6:
        raise UsageError(
            f"Expected images in which colours vary; {num_images} were given that have one colour alone. Give others, "
            "or colours='imagenet'."
        )
    return Colours(_scaled(root.float()), f"{num_images} images {origin}")


def _scaled(root: Tensor) -> Tensor:
    scaled: Tensor = root / root.norm(dim=0).max()
    return scaled
