"""Multiplications and additions of a forward pass, operation by operation; textbook conventions, in integers.

A bias is added, not multiplied. A sum of n products has n multiplications and n - 1 additions, those with a padded
zero included. A division counts as a multiplication, a difference as an addition. What compares, moves or looks up
numbers has none, and neither has an activation function (also softmax), as in published tables. A normalisation
multiplies each of its outputs once and adds once (scale and shift are known by then), also where it measures mean and
spread first; an average divides each of its outputs once. What is computed of weights alone is the same for every
input and is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet.nn as layers
from glassnet.inspection.calls import Call, Operation

Given = dict[str, Any]
"""The arguments of an operation by their names in ATen's schema."""


@dataclass(frozen=True)
class Count:
    """How often numbers are multiplied and added."""

    multiplications: int = 0
    additions: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.multiplications + other.multiplications, self.additions + other.additions)


NONE = Count()

ACTIVATIONS = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.CELU,
    nn.Threshold, nn.Softmax, nn.LogSoftmax, layers.ScaledTanh, layers.ScaledSoftmax, layers.Step, layers.Sign,
)  # fmt: skip
"""Layers whose arithmetic is not counted, however they are computed."""


def count_call(call: Call, depends: Callable[[Operation], bool]) -> Count | None:
    """Return the multiplications and additions of a layer or function; None where it has an operation without a rule.

    The sum over the operations that have to do with the model's input, as `depends` says, except for layers whose
    definition says less than what computes them.
    """
    if isinstance(call.module, ACTIVATIONS):
        return NONE
    for kinds, rule in LAYERS.items():
        if isinstance(call.module, kinds):
            return rule(call)
    if call.kind == F.local_response_norm.__name__ and call.module is None:
        return _local_response(call)
    total = NONE
    for operation in filter(depends, call.operations):
        count = count_operation(operation)
        if count is None:
            return None
        total += count
    return total


def count_operation(operation: Operation) -> Count | None:
    """Return the multiplications and additions of one operation; None without a rule."""
    if operation.name in RULES:
        try:
            return RULES[operation.name](operation.given, operation.outputs)
        except LookupError:  # an overload with other arguments than the rule's
            return None
    num_tensors = sum(isinstance(value, Tensor) for value in operation.given.values())
    if operation.is_view or operation.name in FREE or (operation.is_pointwise and num_tensors == 1):
        return NONE
    return None


# --- layers that are defined by less than what computes them


def _table(call: Call) -> Count:
    """A connection table: the kernels of the table at each position, though they are computed inside a full kernel."""
    layer = call.module
    assert isinstance(layer, layers.TableConv2d)
    batch, maps, *size = call.outputs[0].shape
    positions = batch * math.prod(size)
    products = layer.weight.numel() * positions
    return Count(products, products - maps * positions + (maps * positions if layer.bias is not None else 0))


def _local_response(call: Call) -> Count:
    """Each input squared once, its sum over the maps that exist scaled once, and the input divided once."""
    maps = call.inputs[0]
    reach = call.module.size if isinstance(call.module, nn.LocalResponseNorm | layers.LocalResponseNorm) else None
    if reach is None:  # F.local_response_norm(input, size): the size as its padding shows it
        padded = next(op for op in call.operations if op.name == "constant_pad_nd")
        reach = padded.outputs[0].shape[-maps.ndim + 1] - maps.shape[1] + 1
    channels, each = maps.shape[1], maps.numel() // maps.shape[1]
    before, after = reach // 2, (reach - 1) // 2
    terms = sum(min(c + after, channels - 1) - max(c - before, 0) + 1 for c in range(channels))
    return Count(3 * maps.numel(), (terms - channels) * each + maps.numel())


LAYERS: dict[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[Call], Count]] = {
    layers.TableConv2d: _table,
    (nn.LocalResponseNorm, layers.LocalResponseNorm): _local_response,
}


# --- operations


def _size(outputs: Sequence[Tensor]) -> int:
    return outputs[0].numel()


def _multiplied(given: Given, outputs: Sequence[Tensor]) -> Count:
    return Count(multiplications=_size(outputs))


def _added(given: Given, outputs: Sequence[Tensor]) -> Count:
    is_scaled = given.get("alpha", 1) != 1
    return Count(_size(outputs) if is_scaled else 0, _size(outputs))


def _scaled_and_shifted(given: Given, outputs: Sequence[Tensor]) -> Count:
    return Count(_size(outputs), _size(outputs))


def _power(given: Given, outputs: Sequence[Tensor]) -> Count | None:
    exponent = given["exponent"]
    if isinstance(exponent, Tensor):
        return None
    is_product = exponent in (2, 3, 4)  # others are functions, as square roots are
    return Count(multiplications=(int(exponent) - 1) * _size(outputs) if is_product else 0)


def _convolution(given: Given, outputs: Sequence[Tensor]) -> Count:
    weight, bias = given["weight"], given["bias"]
    if given["transposed"]:
        return _transposed_convolution(given, outputs)
    terms = weight.shape[1] * math.prod(weight.shape[2:])
    return _sums(terms, _size(outputs), has_bias=bias is not None)


def _transposed_convolution(given: Given, outputs: Sequence[Tensor]) -> Count:
    """Each input times its kernels, spread over the outputs; products that padding cuts off are not computed."""
    weight, maps = given["weight"], given["input"]
    products, reached = weight.shape[0] * weight.shape[1], 1
    for axis, size in enumerate(outputs[0].shape[2:]):
        stride, padding, dilation = (given[name][axis] for name in ("stride", "padding", "dilation"))
        starts, taps = range(maps.shape[2 + axis]), range(weight.shape[2 + axis])
        landed = [i * stride + tap * dilation - padding for i in starts for tap in taps]
        landed = [place for place in landed if 0 <= place < size]
        products, reached = products * len(landed), reached * len(set(landed))
    batch, channels = outputs[0].shape[:2]
    biases = _size(outputs) if given["bias"] is not None else 0
    return Count(batch * products, batch * (products - channels * reached) + biases)


def _sums(terms: int, count: int, *, has_bias: bool = False) -> Count:
    """Return the count of `count` sums of `terms` products each."""
    return Count(terms * count, (max(terms - 1, 0) + has_bias) * count)


def _matrix_product(given: Given, outputs: Sequence[Tensor]) -> Count:
    first = given.get("mat1", given.get("batch1", given.get("self")))
    assert isinstance(first, Tensor)
    return _sums(first.shape[-1], _size(outputs))


def _matrix_product_and_sum(given: Given, outputs: Sequence[Tensor]) -> Count:
    first = next(given[name] for name in ("mat1", "batch1", "mat", "vec1") if name in given)
    beta, alpha = given.get("beta", 1), given.get("alpha", 1)
    scaled = ((beta not in (0, 1)) + (alpha != 1)) * _size(outputs)
    return _sums(first.shape[-1], _size(outputs), has_bias=beta != 0) + Count(multiplications=scaled)


def _sum(given: Given, outputs: Sequence[Tensor]) -> Count:
    return Count(additions=given["self"].numel() - _size(outputs))


def _mean(given: Given, outputs: Sequence[Tensor]) -> Count:
    return Count(_size(outputs), given["self"].numel() - _size(outputs))


def _variance(given: Given, outputs: Sequence[Tensor]) -> Count:
    """The mean, the differences from it, their squares, the sum of these, and its division."""
    inputs, results = given["self"].numel(), _size(outputs)
    return Count(inputs + 2 * results, 3 * inputs - 2 * results)


def _norm(given: Given, outputs: Sequence[Tensor]) -> Count | None:
    if given.get("ord", given.get("p")) != 2:
        return None
    return Count(given["self"].numel(), given["self"].numel() - _size(outputs))


def _cumulative_sum(given: Given, outputs: Sequence[Tensor]) -> Count:
    rows = _size(outputs) // max(given["self"].shape[given["dim"]], 1) if given["self"].ndim else 1
    return Count(additions=_size(outputs) - rows)


def _average_pool(given: Given, outputs: Sequence[Tensor]) -> Count:
    """Windows as large as the kernel, padded zeros included."""
    axes = outputs[0].ndim - 2 if outputs[0].ndim > 2 else 1
    kernel = given["kernel_size"]
    terms = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** axes
    divided = given.get("divisor_override") != 1
    return Count(_size(outputs) if divided else 0, (terms - 1) * _size(outputs))


def _adaptive_average_pool(given: Given, outputs: Sequence[Tensor]) -> Count:
    sizes, wanted = given["self"].shape[-len(given["output_size"]) :], given["output_size"]
    terms = math.prod(
        sum(-(-(i + 1) * n // out) - i * n // out for i in range(out)) for n, out in zip(sizes, wanted, strict=True)
    )
    channels = _size(outputs) // math.prod(wanted)
    return Count(_size(outputs), (terms - math.prod(wanted)) * channels)


RULES: dict[str, Callable[[Given, Sequence[Tensor]], Count | None]] = {
    "convolution": _convolution,
    "pow": _power,
    "cumsum": _cumulative_sum,
    **dict.fromkeys(("mul", "div", "square", "reciprocal"), _multiplied),
    **dict.fromkeys(("add", "sub", "rsub"), _added),
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _matrix_product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _matrix_product_and_sum),
    **dict.fromkeys(("sum", "nansum"), _sum),
    "mean": _mean,
    **dict.fromkeys(("var", "std"), _variance),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _norm),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _average_pool),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), _adaptive_average_pool),
    **dict.fromkeys(
        (
            "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
            "miopen_batch_norm", "native_layer_norm", "native_group_norm", "_fused_rms_norm", "addcmul",
        ),
        _scaled_and_shifted,
    ),
}  # fmt: skip
"""By ATen's name. In `addcmul` each output is a product and a sum too."""

FREE = {
    # compare
    "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d", "max", "min",
    "amax", "amin", "argmax", "argmin", "maximum", "minimum", "fmax", "fmin", "sort", "topk", "any", "all", "eq", "ne",
    "lt", "le", "gt", "ge", "equal", "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "clamp",
    "nonzero", "kthvalue", "median", "mode", "fractional_max_pool2d", "max_pool2d", "max_pool3d",
    # move, look up and make
    "cat", "stack", "clone", "copy", "_to_copy", "contiguous", "constant_pad_nd", "reflection_pad1d",
    "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d", "im2col",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "flip", "roll", "repeat", "repeat_interleave", "index",
    "index_select", "index_put", "gather", "scatter", "masked_fill", "masked_select", "where", "embedding", "one_hot",
    "unsafe_split", "unsafe_split_with_sizes", "_unsafe_view", "_reshape_copy", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_nearest3d", "tril", "triu", "empty", "empty_like", "empty_strided", "zeros",
    "zeros_like", "ones", "ones_like", "full", "full_like", "new_zeros", "new_ones", "new_empty", "new_full", "arange",
    "eye", "scalar_tensor", "fill", "zero", "lift_fresh", "_local_scalar_dense", "resize", "set", "rot90",
    "native_dropout", "bernoulli", "rand", "randn", "rand_like", "randn_like", "uniform", "normal", "detach", "alias",
    # activation functions
    "_softmax", "_log_softmax", "_safe_softmax", "_prelu_kernel", "logsumexp", "glu", "rrelu_with_noise", "copysign",
    "atan2", "hypot", "xlogy",
}  # fmt: skip
"""Operations without a multiplication or an addition, by these conventions."""
