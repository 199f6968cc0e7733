"""What flows through a network: the spread of each layer's outputs, and of the gradients that reach them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet._modes import refuse_lazy
from glassnet._seed import seeded, seeded_generator
from glassnet._types import Shape
from glassnet.nn.activation import ScaledTanh
from glassnet.nn.threshold import Sign, Step

SATURATION = 0.025
"""An output is saturated where it lies within this share of the function's range from a bound: |tanh| >= 0.95."""

BOUNDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-1.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
    nn.Sigmoid: (0.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    Step: (0.0, 1.0),
    Sign: (-1.0, 1.0),
}
"""The bounds of activation functions that have fixed ones."""


@dataclass(frozen=True, kw_only=True)
class LayerStatistics:
    """One call of one layer, over a batch."""

    layer: str
    """The layer's dotted path in the model."""
    call: int
    """0 for the layer's first call in the pass, 1 for its second."""
    kind: str
    """The name of the layer's class."""
    shape: Shape
    """Of one image's output."""
    mean: float
    spread: float
    """Standard deviation of the outputs, over images, channels and positions."""
    zero_share: float
    """Share of the outputs that are exactly 0: silent units after a ReLU."""
    saturated_share: float | None
    """Share of the outputs within `SATURATION` of a bound; None for a layer without bounds."""
    gradient_spread: float | None
    """Standard deviation of dL/d(output), L of one image; None where autograd does not reach the output."""


@dataclass(frozen=True, kw_only=True)
class ActivationStatistics:
    """What `activation_statistics` returns."""

    rows: tuple[LayerStatistics, ...]
    """In the order of the calls."""
    loss: float
    """L, mean over the images."""
    loss_kind: str
    """`cross-entropy`, or `random projection` where no labels were given."""
    left_out: tuple[str, ...]
    """Layers that returned something other than one tensor of floating numbers with a row for each image."""

    def __str__(self) -> str:
        lines = [("layer", "kind", "mean", "spread", "zeros", "saturated", "gradient spread")]
        for row in self.rows:
            saturated = "" if row.saturated_share is None else f"{row.saturated_share:.1%}"
            gradient = "none" if row.gradient_spread is None else f"{row.gradient_spread:.3g}"
            figures = f"{row.mean:.3g}", f"{row.spread:.3g}", f"{row.zero_share:.1%}", saturated, gradient
            lines.append((row.layer, row.kind, *figures))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )

    def __repr__(self) -> str:
        return f"ActivationStatistics({len(self.rows)} rows, {self.loss_kind} {self.loss:.4g})"


def activation_statistics(
    model: nn.Module, images: Tensor, labels: Tensor | None = None, *, seed: int = 0
) -> ActivationStatistics:
    """Measure every layer's outputs on a batch, and the gradients that reach them: does a signal vanish or explode?

    A layer is a module without children; there is a row for each of its calls. `images` `(B, C, H, W)` as the model
    takes them. With `labels` `(B,)`, L is the cross-entropy of an image's logits; without, L is the scalar product of
    its output with a random vector of standard normal numbers, another for each image, drawn from `seed`. Gradients
    are those of the sum of L over the batch: their scale does not depend on the number of images.

    The model runs in the modes it is in: after `model.train()` batch normalisation uses the batch and dropout drops
    (by `seed`), after `model.eval()` neither. Nothing of the model changes, also after an error in its forward pass:
    modes, parameters, `.grad`, buffers (running statistics are written to copies), hooks, random state. Each layer
    hands on a copy of its output, so that operations in place do not touch what was measured.

    For the spread from layer to layer as a measure of initial weights see Glorot and Bengio, "Understanding the
    difficulty of training deep feedforward neural networks" (2010), figures 2 to 7.

    Raises `UsageError` where the model is lazy and has never run, where its output is not one tensor with a row for
    each image, and where the labels do not fit it.
    """
    refuse_lazy(model)
    if not isinstance(images, Tensor) or (images.dtype == torch.uint8 and images.ndim == 4):
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise UsageError(
            f"images must be a tensor as the model takes it, of normalised floating numbers; got {got}. "
            "For the pixels of a run: run.preprocessing.normalise(run.preprocessing.fit_inputs(pixels))."
        )
    # GoogLeNet's forward leaves these behind when it trains.
    left = [(module, module.auxiliary_logits) for module in model.modules() if hasattr(module, "auxiliary_logits")]
    with ExitStack() as stack:
        for module, logits in left:
            stack.callback(setattr, module, "auxiliary_logits", logits)
        for context in (torch.inference_mode(False), torch.enable_grad(), seeded(seed, "activation statistics")):
            stack.enter_context(context)
        recorded = _Recorded(len(images))
        output = _forward(model, images, recorded)
        losses = _losses(output, labels, len(images), seed)
        gradients = _gradients(losses, [call.output for call in recorded.calls])
    return ActivationStatistics(
        rows=tuple(_row(call, gradient) for call, gradient in zip(recorded.calls, gradients, strict=True)),
        loss=float(losses.detach().mean()),
        loss_kind="random projection" if labels is None else "cross-entropy",
        left_out=tuple(dict.fromkeys(recorded.left_out)),
    )


@dataclass(frozen=True, eq=False)
class _Call:
    layer: str
    number: int
    module: nn.Module
    output: Tensor


class _Recorded:
    """The calls of one forward pass, as the hooks write them down."""

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self.calls: list[_Call] = []
        self.left_out: list[str] = []

    def add(self, layer: str, module: nn.Module, args: tuple[object, ...], output: object) -> Tensor | None:
        """Keep a layer's `output`; return the copy that goes on in its place."""
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.shape[:1] != (self.num_images,):
            self.left_out.append(layer)
            return None
        if any(output is arg for arg in args):
            output = output.clone()  # an identity: its input may also go elsewhere and have a gradient from there
        self.calls.append(_Call(layer, sum(call.layer == layer for call in self.calls), module, output))
        return output.clone()


def _forward(model: nn.Module, images: Tensor, recorded: _Recorded) -> object:
    """Run `model` on a copy of `images` with copies of its buffers, every layer's output into `recorded`."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    pixels = images.detach().clone()
    if pixels.is_floating_point():
        pixels = pixels.requires_grad_().clone()  # gradients reach every layer; a leaf bears no operation in place
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if next(module.children(), None) is not None:
                continue

            def record(module: nn.Module, args: tuple[object, ...], output: object, name: str = name) -> Tensor | None:
                return recorded.add(name, module, args, output)

            hooks.callback(module.register_forward_hook(record).remove)
        return functional_call(model, buffers, (pixels,))


def _losses(output: object, labels: Tensor | None, num_images: int, seed: int) -> Tensor:
    """Return L of each image, `(B,)`."""
    if not isinstance(output, Tensor) or output.shape[:1] != (num_images,) or num_images == 0:
        received = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(
            f"The model must return one tensor with a row for each of the {num_images} images, at least one; got "
            f"{received}. Wrap the model so that it returns its logits."
        )
    if labels is None:
        generator = seeded_generator(seed, "random projection")
        projection = torch.randn(output.shape, generator=generator, device="cpu").to(output)
        return (output * projection).flatten(1).sum(1)
    if output.ndim != 2 or labels.shape != output.shape[:1] or not 0 <= labels.min() <= labels.max() < output.shape[1]:
        raise UsageError(
            f"Labels must be ({num_images},), each the number of a class among logits (images, classes); got labels "
            f"{tuple(labels.shape)} from {int(labels.min())} to {int(labels.max())} and logits {tuple(output.shape)}. "
            "Leave the labels out to measure with a random projection."
        )
    return F.cross_entropy(output, labels, reduction="none")


def _gradients(losses: Tensor, outputs: list[Tensor]) -> list[Tensor | None]:
    """Return the gradient of the summed `losses` at each of `outputs`, without touching any `.grad`."""
    reached = [output for output in outputs if output.requires_grad and losses.requires_grad]
    found = torch.autograd.grad(losses.sum(), reached, materialize_grads=True) if reached else ()
    by_output = dict(zip(map(id, reached), found, strict=True))
    return [by_output.get(id(output)) for output in outputs]


def _row(call: _Call, gradient: Tensor | None) -> LayerStatistics:
    values = call.output.detach()
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return LayerStatistics(
        layer=call.layer,
        call=call.number,
        kind=type(call.module).__name__,
        shape=tuple(values.shape[1:]),
        mean=float(values.mean()),
        spread=_spread(values),
        zero_share=float((values == 0).float().mean()),
        saturated_share=_saturated_share(call.module, values),
        gradient_spread=None if gradient is None else _spread(gradient),
    )


def _spread(values: Tensor) -> float:
    return float(values.to(torch.promote_types(values.dtype, torch.float32)).std(correction=0))


def bounds_of(module: nn.Module) -> tuple[float, float] | None:
    """Return the lowest and highest value that an activation function can give; None for a layer without bounds."""
    if isinstance(module, ScaledTanh):
        return -module.amplitude, module.amplitude
    if isinstance(module, nn.Hardtanh):
        return module.min_val, module.max_val
    return BOUNDS.get(type(module))


def _saturated_share(module: nn.Module, values: Tensor) -> float | None:
    bounds = bounds_of(module)
    if bounds is None:
        return None
    low, high = bounds
    margin = SATURATION * (high - low)
    return float(((values <= low + margin) | (values >= high - margin)).float().mean())
