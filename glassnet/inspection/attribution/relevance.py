"""Carrying relevance back through the recorded steps of a pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from glassnet.inspection.tracing import Step, Trace, Value

Rule = Callable[[Step, Mapping[int, Tensor], Sequence[int]], Mapping[int, Tensor]]
"""Takes a step, what its outputs carry by number, and the positions of the inputs that depend on the image; returns
what each of those gets."""

ELEMENTWISE = frozenset({
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh",
    "hardswish", "hardsigmoid", "hardshrink", "softshrink", "softplus", "logsigmoid", "threshold", "tanh", "sigmoid",
    "sign", "square", "pow", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "sin", "cos",
    "atan", "erf", "clamp", "clamp_min", "clamp_max", "detach", "data",
})  # fmt: skip
"""Functions of one value each, of which no other input depends on the image."""
SELECTING = frozenset({
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "amax", "max", "maximum",
})  # fmt: skip
"""The largest of several values."""
MOVING = frozenset({
    "flatten", "view", "reshape", "unflatten", "permute", "transpose", "movedim", "swapaxes", "t", "T", "mT", "squeeze",
    "unsqueeze", "getitem", "select", "narrow", "index_select", "cat", "concat", "stack", "hstack", "chunk", "split",
    "unbind", "tensor_split", "pad", "contiguous", "clone", "expand", "expand_as", "view_as", "reshape_as", "flip",
    "roll", "index_put", "overwrite", "setitem", "pixel_shuffle", "channel_shuffle", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "identity", "to", "float",
})  # fmt: skip
"""What changes no value in evaluation mode, and only puts it elsewhere."""
WEIGHTED = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
"""Products with weights, which rules may treat by their sign."""
LINEAR = WEIGHTED | {
    "add", "sub", "neg", "sum", "mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "batch_norm", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "interpolate", "upsample", "rsub",
}  # fmt: skip
"""Linear up to a constant in all inputs that depend on the image, in evaluation mode."""
SCALING = frozenset({"mul", "div", "matmul", "mm", "bmm"})
"""Linear where one input alone depends on the image."""


def is_linear(step: Step, positions: Sequence[int]) -> bool:
    """Return whether a step is linear up to a constant in its inputs at `positions`, all that depend on the image."""
    is_scaling = step.op in SCALING and len(positions) == 1 and (step.op != "div" or positions[0] == 0)
    return step.op in LINEAR or is_scaling


def carried_back(traced: Trace, start: Tensor, rule: Rule) -> Tensor:
    """Return what reaches the model's input when its output carries `start`, of its shape; by `rule` at each step.

    What several steps hand to one value is added up.
    """
    dependent = depending(traced)
    carried: dict[Value, Tensor] = {traced.output_value: start}
    for step in reversed(traced.steps):
        given = {number: carried.pop(value) for number, value in enumerate(step.outputs) if value in carried}
        positions = [place for place, value in enumerate(step.inputs) if value in dependent]
        if not given or not positions:
            continue
        for position, share in rule(step, given, positions).items():
            value = step.inputs[position]
            carried[value] = carried[value] + share if value in carried else share
    image = traced.inputs[0]
    return carried.get(image, torch.zeros_like(image.tensor))


def depending(traced: Trace) -> frozenset[Value]:
    """Return the values of floating numbers that are computed from the model's input, the input among them."""
    found = set(traced.inputs)
    for step in traced.steps:
        if any(value in found for value in step.inputs):
            found.update(value for value in step.outputs if value.tensor.is_floating_point())
    return frozenset(found)


def pulled_back(
    step: Step,
    tensors: Mapping[int, Tensor],
    cotangents: Mapping[int, Tensor],
    others: Mapping[int, Tensor] | None = None,
) -> dict[int, Tensor]:
    """Return the vector-Jacobian product of a step at other inputs, by position; zeros where nothing comes through.

    `tensors` are the inputs to differentiate by, `others` stand for further inputs.
    """
    leaves = {position: tensor.detach().clone().requires_grad_() for position, tensor in tensors.items()}
    with torch.inference_mode(False), torch.enable_grad():
        outputs = step.replay_all({**(others or {}), **leaves})
        reached = [number for number in cotangents if outputs[number].requires_grad]
        if not reached:
            return {position: torch.zeros_like(leaf) for position, leaf in tensors.items()}
        found = torch.autograd.grad(
            [outputs[number] for number in reached],
            list(leaves.values()),
            [cotangents[number] for number in reached],
            allow_unused=True,
        )
    pairs = zip(leaves.items(), found, strict=True)
    return {
        position: torch.zeros_like(leaf.detach()) if gradient is None else gradient
        for (position, leaf), gradient in pairs
    }


def inputs_at(step: Step, positions: Sequence[int]) -> dict[int, Tensor]:
    """Return a step's recorded inputs by position."""
    return {position: step.inputs[position].tensor for position in positions}
