"""The kernels of a convolution, as numbers to look at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from glassnet._errors import UsageError, unknown_name


@dataclass(frozen=True, eq=False)
class Filters:
    """The kernels of one convolution."""

    layer: str
    weights: Tensor
    """`(out_channels, in_channels, height, width)`, float32 on the CPU, a copy."""

    def __repr__(self) -> str:
        return f"Filters('{self.layer}', {tuple(self.weights.shape)})"


def filters(model: nn.Module, layer: str | None = None) -> Filters:
    """Return the kernels of the 2-D convolution called `layer`, or of the first one.

    Raises `UsageError` for a name that is no 2-D convolution, and for a model that has none.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a model (nn.Module); got {type(model).__name__}. For a run, pass run.model.")
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if not convolutions:
        raise UsageError(f"Filters are the kernels of a convolution, and {type(model).__name__} has no 2-D one.")
    if layer is None:
        layer = next(iter(convolutions))
    if layer not in convolutions:
        raise unknown_name("convolution", str(layer), convolutions)
    return Filters(layer, convolutions[layer].weight.detach().float().cpu().clone())
