"""Methods that change the image and look at the output alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._modes import evaluating
from glassnet._seed import seeded
from glassnet._types import Shape, by
from glassnet.inspection.attribution.gradients import check_count
from glassnet.inspection.attribution.question import Answer, Question

MOST_PATCHES = 64
"""Parts that an image is cut into for Shapley values, unless said."""


def occlusion(question: Question, *, window: int | None = None, stride: int | None = None) -> Answer:
    """Return how much the output falls while a window of the baseline covers each place, mean over the windows.

    `window` is its side in pixels, by default an eighth of the image's, `stride` its step, by default half a window.
    Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014), section 4.2.
    """
    from captum.attr import Occlusion

    shape = tuple(question.image.shape[1:])
    places = shape[1:] or shape
    window = window if window is not None else max(1, round(max(places) / 8))
    stride = stride if stride is not None else max(1, window // 2)
    check_count("window", window)
    check_count("stride", stride)
    if window > max(places):
        raise UsageError(f"window must not be larger than the image, {by(places)}; got {window}.")
    if stride > window:
        raise UsageError(
            f"stride must not be larger than the window of {window}, or places are left out; got {stride}."
        )
    sizes = tuple(min(window, size) for size in places)
    steps = tuple(min(stride, size) for size in sizes)
    channels = shape[:1] if len(shape) > 1 else ()
    with evaluating(question.model):
        found = Occlusion(question.score).attribute(
            question.image,
            sliding_window_shapes=(*channels, *sizes),
            strides=(*channels, *steps),
            baselines=question.baseline,
            perturbations_per_eval=question.batch_size,
        )
    scores = found[0].to(question.image.dtype)
    return Answer(scores=scores / math.prod(channels or (1,)), notes=(f"window {by(sizes)}, stride {by(steps)}",))


def shapley_sampling(question: Question, *, samples: int = 16, patch: int | None = None) -> Answer:
    """Return the mean change of the output when a patch is put into the baseline, over `samples` random orders.

    `patch` is its side in pixels; by default the image is cut into at most 64. A patch's score is spread evenly over
    its values. The scores of each order sum up to the output's difference to the baseline. Castro, Gomez and Tejada,
    "Polynomial calculation of the Shapley value based on sampling" (2009).
    """
    from captum.attr import ShapleyValueSampling

    shape = tuple(question.image.shape[1:])
    patches = patches_of(shape, patch).to(question.image.device)
    check_count("samples", samples)
    with evaluating(question.model), seeded(question.seed, "attribution"):
        found = ShapleyValueSampling(question.score).attribute(
            question.image,
            baselines=question.baseline,
            feature_mask=patches[None],
            n_samples=samples,
            perturbations_per_eval=question.batch_size,
        )
        start, end = (float(question.score(part)) for part in (question.baseline, question.image))
    sizes = torch.bincount(patches.flatten())[patches]
    scores = found[0].to(question.image.dtype) / sizes
    return Answer(scores=scores, promised=end - start, notes=(f"{int(patches.max()) + 1} patches, {samples} orders",))


def patches_of(shape: Shape, patch: int | None) -> Tensor:
    """Return the number of the patch that each value of `shape` `(C, ...)` is in, `int64`; all channels share them."""
    places = shape[1:] or shape
    if patch is None:
        patch = next(side for side in range(1, max(places) + 1) if _count(places, side) <= MOST_PATCHES)
    check_count("patch", patch)
    numbers = torch.zeros((), dtype=torch.int64)
    for size in places:
        numbers = numbers[..., None] * math.ceil(size / patch) + torch.arange(size) // patch
    return numbers.expand(shape).contiguous()


def _count(places: Shape, side: int) -> int:
    return math.prod(math.ceil(size / side) for size in places)
