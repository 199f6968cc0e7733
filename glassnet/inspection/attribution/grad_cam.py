"""Grad-CAM: where the channels of a late layer speak for the target."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet._types import by
from glassnet.inspection.attribution.question import Answer, Question
from glassnet.inspection.capture import capture_output, layer_of, module_paths
from glassnet.inspection.tracing import trace

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""Interpolation by the number of axes behind the channels."""


def grad_cam(question: Question, *, layer: str | None = None) -> Answer:
    """Return the maps of a layer, each times the mean of the target's gradient over it, summed, negative parts cut off.

    `layer` is by default the last convolution with more than one position, or the last module behind it that gives
    maps of its size (its ReLU, its residual block): the answer says which. Selvaraju et al., "Grad-CAM: visual
    explanations from deep networks via gradient-based localization" (2017).
    """
    is_chosen = layer is None
    if layer is None:
        layer = last_maps(question)
    else:
        layer_of(question.model, layer)
    question.check_differentiable()
    with question.differentiating() as image, capture_output(question.model, layer) as found:
        score = question.score(image).sum()
        maps = found.output
        if maps.ndim < 3 or math.prod(maps.shape[2:]) < 2 or maps.ndim != image.ndim:
            raise UsageError(
                f"Grad-CAM needs a layer with channels at more than one position; '{layer}' gives "
                f"{by(tuple(maps.shape[1:]))}. Choose a convolution, or leave the layer out."
            )
        (gradient,) = torch.autograd.grad(score, maps, allow_unused=True) if maps.requires_grad else (None,)
        if gradient is None:
            raise UsageError(f"No gradient leads from the output to '{layer}'. Choose a layer on the way to it.")
    cam = (maps * gradient.flatten(2).mean(2).reshape(*gradient.shape[:2], *(1,) * (maps.ndim - 2))).sum(1)
    cam = cam.detach().clamp(min=0)
    notes: tuple[str, ...] = (f"layer {layer}" + (", chosen as the last with positions" if is_chosen else ""),)
    if not cam.any():
        notes += ("No place of the layer speaks for the target: every score is 0.",)
    return Answer(scores=_enlarged(cam, question.image), layer=layer, notes=notes)


def _enlarged(cam: Tensor, image: Tensor) -> Tensor:
    """Return a map `(1, h, w)` at the image's size, the same for each channel, so that they sum up to it."""
    size = tuple(image.shape[2:])
    large = F.interpolate(cam[:, None], size=size, mode=MODES[len(size)], align_corners=False)[0]
    return (large / image.shape[1]).expand(image.shape[1:]).contiguous()


def last_maps(question: Question) -> str:
    """Return the module behind which a model's last maps lie; raise `UsageError` where it has none."""
    traced = trace(question.model, question.image)
    convolutions = [
        step
        for step in traced.steps
        if step.op.startswith("conv") and len(step.shape) > 2 and math.prod(step.shape[2:]) > 1
    ]
    if not convolutions:
        raise UsageError(
            "Grad-CAM needs a convolution with more than one position; this model has none. Choose another method, "
            "such as integrated_gradients."
        )
    first, size = convolutions[-1].index, convolutions[-1].shape[2:]
    stop = min((step.index for step in traced.steps[first:] if "pool" in step.op), default=len(traced.steps))
    known = module_paths(question.model)
    fitting = [
        (value.step, -path.count("."), path)
        for path, value in traced.modules.items()
        if path in known
        and f"{path}_1" not in traced.modules  # used twice: which of its maps are meant would be a guess
        and value.step is not None
        and first <= value.step < stop
        and value.shape[2:] == size
    ]
    if not fitting:
        raise UsageError(
            "Grad-CAM needs a module that gives the last maps, and none that runs once does. Say which layer: "
            "layer=name."
        )
    return max(fitting)[2]
