"""Multiplications of one layer on one input, by its kind; textbook conventions, in integers.

A bias is added, not multiplied. Layers that compare, move or add numbers have none. What an activation function
computes is not counted, as in published tables. A normalisation multiplies each of its outputs once (scale and shift
are known by then), an average divides each of its outputs once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

import glassnet.nn as layers
from glassnet._types import Shape
from glassnet.arithmetic import num_conv_multiplications, num_linear_multiplications, num_local_multiplications

ACTIVATIONS = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.CELU,
    nn.Threshold, nn.Softmax, nn.LogSoftmax, layers.ScaledTanh,
    layers.ScaledSoftmax, layers.Step, layers.Sign,
)  # fmt: skip
MOVES = (
    nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.MaxPool1d,
    nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.ZeroPad1d,
    nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad2d, nn.PixelShuffle,
    nn.UpsamplingNearest2d, layers.Maxout, layers.ZeroPadShortcut,
)  # fmt: skip
ONCE_AN_OUTPUT = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d,
    nn.InstanceNorm3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d, layers.TrainableSubsampling2d,
)  # fmt: skip


def num_multiplications(module: nn.Module, output_shape: Shape) -> int | None:
    """Return the multiplications of a layer whose output for one input has `output_shape`, with its batch axis.

    That axis is 1, unless the model folds positions into it. None where this kind of layer has no rule here.
    """
    if isinstance(module, nn.Sequential) and not len(module):  # an identity
        return 0
    if isinstance(module, ACTIVATIONS + MOVES):
        return 0
    if isinstance(module, ONCE_AN_OUTPUT):
        return math.prod(output_shape)
    for kind, rule in RULES.items():
        if isinstance(module, kind):
            return rule(module, output_shape)
    return None


def _convolution(module: nn.Module, output_shape: Shape) -> int:
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    channels, kernel_size = (module.in_channels, module.out_channels), tuple(module.kernel_size)
    once = num_conv_multiplications(*channels, kernel_size, output_shape[2:], groups=module.groups)
    return output_shape[0] * once


def _linear(module: nn.Module, output_shape: Shape) -> int:
    assert isinstance(module, nn.Linear)
    return num_linear_multiplications(module.in_features, module.out_features) * math.prod(output_shape[:-1])


def _table(module: nn.Module, output_shape: Shape) -> int:
    """A connection table: each kernel of the table at each position."""
    assert isinstance(module, layers.TableConv2d)
    return module.weight.numel() * output_shape[0] * math.prod(output_shape[2:])


def _local(module: nn.Module, output_shape: Shape) -> int:
    assert isinstance(module, layers.LocallyConnected2d)
    _, _, out_channels, in_channels, height, width = module.weight.shape
    return output_shape[0] * num_local_multiplications(in_channels, out_channels, (height, width), output_shape[2:])


def _rbf(module: nn.Module, output_shape: Shape) -> int:
    """A squared distance: one product for each feature and centre."""
    assert isinstance(module, layers.RBFOutput)
    return module.centres.numel() * output_shape[0]


def _local_response(module: nn.Module, output_shape: Shape) -> int:
    """Each input squared once, its sum scaled once, and the input divided once; the power is not counted."""
    return 3 * math.prod(output_shape)


RULES: dict[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[nn.Module, Shape], int]] = {
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    nn.Linear: _linear,
    layers.TableConv2d: _table,
    layers.LocallyConnected2d: _local,
    layers.RBFOutput: _rbf,
    (nn.LocalResponseNorm, layers.LocalResponseNorm): _local_response,
}
