"""The pixels that a unit depends on, by a gradient: an independent check of the arithmetic of receptive fields.

A gradient at the user's weights misses pixels: a rectifier is shut, a maximum lies elsewhere, two paths cancel. So the
model runs with other numbers in the same places. Weights and inputs are positive and drawn at random, so that nothing
cancels; biases and running statistics leave values as they are; rectifiers, thresholds and the like pass everything,
and a maximum becomes a mean over the same places. Weights are divided by their number of inputs, so that values neither
explode nor vanish, and all is done in float64: the corner of a deep network's field is reached by few of very many
paths. What then has a gradient is what the unit depends on for some weights and some image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from glassnet._errors import UsageError
from glassnet._modes import evaluating
from glassnet._seed import seeded_generator
from glassnet._types import Shape
from glassnet.inspection.calls import plain_name
from glassnet.inspection.capture import capture_output
from glassnet.inspection.units import Unit, unit_sum

PASSED = {
    "relu", "relu6", "leaky_relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "threshold", "elu", "selu", "celu",
    "prelu", "rrelu", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "sign", "dropout", "sigmoid", "tanh",
}  # fmt: skip
"""Functions that hand on their argument. Sigmoid and tanh are among them because their gradient may round to 0."""
AVERAGED = {"max_pool1d": 1, "max_pool2d": 2, "max_pool3d": 3}
"""Maximum poolings, with their number of axes."""
REDUCED = {"amax": "mean", "amin": "mean"}


class _Open(TorchFunctionMode):
    """Replaces what may hide a dependence by what passes all of it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = plain_name(func)
        if name in PASSED and args and isinstance(args[0], Tensor):
            return args[0].clone()  # an operation, so that the call is seen
        if name in AVERAGED:
            return _average(AVERAGED[name], *args, **kwargs)
        if name.startswith("adaptive_max_pool"):
            return getattr(F, name.replace("max", "avg"))(args[0], args[1] if len(args) > 1 else kwargs["output_size"])
        if name in REDUCED:
            return torch.mean(*args, **kwargs)
        if name in ("maximum", "minimum"):
            return args[0] + args[1]
        if name in ("max", "min") and len(args) + len(kwargs) > 1:
            if len(args) > 1 and isinstance(args[1], Tensor):
                return args[0] + args[1]
            return getattr(torch.return_types, name)((torch.mean(*args, **kwargs), torch.argmax(*args, **kwargs)))
        return func(*args, **kwargs)


def _average(
    axes: int, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Tensor:  # fmt: skip
    """Return the mean over the places that a maximum pooling compares; a dilated one as a convolution."""
    if dilation in (1, (1,) * axes, [1] * axes):
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
        pooled: Tensor = pool(x, kernel_size, stride, padding, ceil_mode)
        return pooled
    kernel = (kernel_size,) * axes if isinstance(kernel_size, int) else tuple(kernel_size)
    weight = x.new_ones(x.shape[1], 1, *kernel) / math.prod(kernel)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    return convolve(x, weight, None, stride or kernel, padding, dilation, groups=x.shape[1])


def field_mask(model: nn.Module, input_shape: Shape, unit: Unit, *, seed: int = 0) -> Tensor:
    """Return which pixels of an input `(C, H, W)` a unit depends on: bool `(H, W)`, or as many axes as the input has.

    Without a channel, those that any channel depends on. Raises `UsageError` where no gradient reaches the input.
    """
    generator = seeded_generator(seed, "field mask")
    try:
        gradient = _gradient(model, input_shape, unit, generator, torch.float64)
    except RuntimeError:  # a constant of the model's is of its own number format
        gradient = _gradient(model, input_shape, unit, generator, None)
    mask = gradient != 0
    return mask.any(0) if len(input_shape) > 1 else mask


def _gradient(
    model: nn.Module, input_shape: Shape, unit: Unit, generator: torch.Generator, dtype: torch.dtype | None
) -> Tensor:
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    kind, device = dtype or like.dtype, like.device
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.inference_mode(False))
        image = 0.5 + torch.rand(1, *input_shape, generator=generator, dtype=torch.float64)
        image = image.to(device, kind).requires_grad_()
        numbers = {name: _positive(name, value, generator).to(device, kind) for name, value in model.named_parameters()}
        for name, value in model.named_buffers():
            numbers[name] = _neutral(name, value).to(kind) if value.is_floating_point() else value.clone()
        for context in (torch.enable_grad(), _Open()):
            stack.enter_context(context)
        found = stack.enter_context(capture_output(model, unit.layer))
        functional_call(model, numbers, (image,))
        value = unit_sum(found.output, unit)
        if not value.requires_grad:
            raise UsageError(
                f"A mask needs a gradient from '{unit.layer}' to the input; none comes through. "
                "Use .seen(unit), which needs none."
            )
        (gradient,) = torch.autograd.grad(value, image)
    return gradient[0].cpu()


def _positive(name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Return positive numbers that keep the size of what they are multiplied with; zeros for a bias."""
    if name.rpartition(".")[2].endswith("bias") or "bias_" in name:
        return torch.zeros(parameter.shape, dtype=torch.float64)
    drawn = 0.5 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    return drawn / max(math.prod(parameter.shape[1:]), 1)


def _neutral(name: str, buffer: Tensor) -> Tensor:
    """Return the running statistics under which a normalisation changes nothing; other buffers as they are."""
    if name.endswith("running_mean"):
        return torch.zeros_like(buffer)
    return torch.ones_like(buffer) if name.endswith("running_var") else buffer.clone()
