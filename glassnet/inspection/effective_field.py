"""The effective receptive field: how much each pixel of the field counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._modes import evaluating
from glassnet._seed import seeded_generator
from glassnet._types import Shape, by
from glassnet.inspection.capture import capture_output
from glassnet.inspection.units import Unit, unit_sum

SHARE = 1 - 0.9545
"""A pixel belongs to the effective field where its gradient is above this share of the largest: beyond two standard
deviations a normal curve has as much."""
NUM_NOISE = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class EffectiveField:
    """How much each pixel of the input counts for one unit.

    Luo, Li, Urtasun and Zemel, "Understanding the effective receptive field in deep convolutional neural networks"
    (2016): it is far smaller than the receptive field, and near a normal curve in shape.
    """

    unit: Unit
    weights: Tensor
    """Mean size of the gradient `(H, W)`, float32, summed over input channels; the largest is 1."""
    num_pixels: int
    """Pixels above `SHARE` of the largest."""
    num_images: int
    source: str
    """What the images were, in words."""

    @property
    def size(self) -> float:
        """Side of a square with as many pixels (area to the power of one over the number of axes)."""
        return float(self.num_pixels ** (1 / self.weights.ndim))

    def to_dict(self) -> dict[str, object]:
        """Return everything but the weights as plain values for JSON."""
        return {
            "unit": str(self.unit),
            "size": self.size,
            "num_pixels": self.num_pixels,
            "num_images": self.num_images,
            "source": self.source,
        }

    def __str__(self) -> str:
        sides = by((round(self.size),) * self.weights.ndim)
        return (
            f"Effectively it sees about {sides}: {self.num_pixels:,} pixels count for more than {SHARE:.1%} of what "
            f"the most important one does, over {self.source}."
        )


def effective_field(
    model: nn.Module, input_shape: Shape, unit: Unit, *, images: Tensor | None = None, seed: int = 0
) -> EffectiveField:
    """Measure how much each pixel counts for `unit`: the mean absolute gradient over images, at the model's weights.

    `images` `(N, *input_shape)` as the model takes them; without, 16 images of normal noise drawn from `seed`. Without
    a channel, the unit's channels are summed up. The model is left as it was.

    Raises `UsageError` where the images do not have the input's shape or no gradient reaches them.
    """
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    source = f"{NUM_NOISE} images of normal noise"
    if images is None:
        generator = seeded_generator(seed, "effective field")
        images = torch.randn(NUM_NOISE, *input_shape, generator=generator)
    elif images.ndim != len(input_shape) + 1 or tuple(images.shape[1:]) != tuple(input_shape) or not len(images):
        raise UsageError(f"images must be (N, {', '.join(map(str, input_shape))}); got {tuple(images.shape)}.")
    else:
        source = f"{len(images)} image{'s' if len(images) > 1 else ''}"
    with (
        evaluating(model),
        torch.inference_mode(False),
        torch.enable_grad(),
        capture_output(model, unit.layer) as found,
    ):
        pixels = images.clone().to(device=like.device, dtype=like.dtype).detach().requires_grad_()
        model(pixels)
        value = unit_sum(found.output, unit)
        if not value.requires_grad:
            raise UsageError(
                f"An effective field needs a gradient from '{unit.layer}' to the input; none comes through."
            )
        (gradient,) = torch.autograd.grad(value, pixels)
    sizes = gradient.abs().float().mean(0).cpu()
    weights = sizes.sum(0) if sizes.ndim > 1 else sizes
    largest = float(weights.max())
    weights = weights / largest if largest > 0 and math.isfinite(largest) else torch.zeros_like(weights)
    num_pixels = int((weights > SHARE).sum())
    return EffectiveField(unit=unit, weights=weights, num_pixels=num_pixels, num_images=len(images), source=source)
