"""Layer-sequential unit variance: weights scaled, layer by layer, until the outputs on a batch have variance 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._modes import evaluating
from glassnet.nn.fan import WeightedLayer


def scale_to_unit_variance(
    model: nn.Module, layers: Sequence[WeightedLayer], images: Tensor, *, tolerance: float, max_iterations: int
) -> None:
    """Divide each layer's weight by the standard deviation of its outputs on `images`, first layer first.

    `images` `(B, C, H, W)`. The variance is over images, channels and positions, before the activation function, in
    evaluation mode (no dropout, batch normalisation by its running statistics). Layers come in the order in which the
    model calls them; one that is called more than once is measured at its first call, one that is never called keeps
    its weight. Mishkin and Matas (2016), algorithm 1.

    Raises `UsageError` for a layer whose outputs do not vary, or are not finite.
    """
    by_name = {layer.name: layer for layer in layers}
    with evaluating(model), torch.no_grad():
        for name in _output_variances(model, layers, images):
            layer = by_name[name]
            for _ in range(max_iterations):
                variance = _output_variances(model, [layer], images)[name]
                if abs(variance - 1) < tolerance:
                    break
                _check_variance(name, variance)
                layer.weight.div_(math.sqrt(variance))


def _check_variance(name: str, variance: float) -> None:
    if not 0 < variance < math.inf:
        raise UsageError(
            f"The outputs of layer '{name}' must vary over the images to be scaled to variance 1; their variance is "
            f"{variance}. Pass more images, and different ones, scaled as for training."
        )


def _output_variances(model: nn.Module, layers: Sequence[WeightedLayer], images: Tensor) -> dict[str, float]:
    """Return the variance of each layer's first output, by name, in the order of the calls."""
    variances: dict[str, float] = {}
    with ExitStack() as hooks:
        for layer in layers:

            def record(module: nn.Module, args: object, output: Tensor, name: str = layer.name) -> None:
                variances.setdefault(name, float(output.float().var(correction=0)))

            hooks.callback(layer.module.register_forward_hook(record).remove)
        model(images.clone())  # a model may start with an operation in place
    return variances
