"""Small convolutional networks over signals, images and volumes, in sizes of one's own."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape, by
from glassnet.arithmetic import output_shape

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
POOLINGS = ("max", "average", "none")
HEADS = ("average", "flatten")


@dataclass(frozen=True, kw_only=True)
class _Layers:
    """The layers for inputs with so many axes besides channels."""

    axes: str
    conv: type[nn.Conv1d | nn.Conv2d | nn.Conv3d]
    norm: type[nn.Module]
    poolings: dict[str, type[nn.Module]]
    global_average: type[nn.Module]


LAYERS = {
    1: _Layers(
        axes="channels, length",
        conv=nn.Conv1d,
        norm=nn.BatchNorm1d,
        poolings={"max": nn.MaxPool1d, "average": nn.AvgPool1d},
        global_average=nn.AdaptiveAvgPool1d,
    ),
    2: _Layers(
        axes="channels, height, width",
        conv=nn.Conv2d,
        norm=nn.BatchNorm2d,
        poolings={"max": nn.MaxPool2d, "average": nn.AvgPool2d},
        global_average=nn.AdaptiveAvgPool2d,
    ),
    3: _Layers(
        axes="channels, depth, height, width",
        conv=nn.Conv3d,
        norm=nn.BatchNorm3d,
        poolings={"max": nn.MaxPool3d, "average": nn.AvgPool3d},
        global_average=nn.AdaptiveAvgPool3d,
    ),
}


def cnn1d(
    *,
    num_classes: int = 10,
    input_shape: Shape = (1, 128),
    channels: Sequence[int] = (16, 32),
    kernel_size: int = 3,
    padding: int | None = None,
    activation: str = "relu",
    pooling: str = "max",
    batch_norm: bool = False,
    dropout: float = 0.0,
    head: str = "average",
) -> nn.Module:
    """Small convolutional network over signals `(B, C, L)`, such as sound or sensors. Options as for `cnn2d`."""
    return _cnn(
        1, num_classes, input_shape, channels, kernel_size, padding, activation, pooling, batch_norm, dropout, head
    )


def cnn2d(
    *,
    num_classes: int = 10,
    input_shape: Shape = (1, 28, 28),
    channels: Sequence[int] = (16, 32),
    kernel_size: int = 3,
    padding: int | None = None,
    activation: str = "relu",
    pooling: str = "max",
    batch_norm: bool = False,
    dropout: float = 0.0,
    head: str = "average",
) -> nn.Module:
    """Small convolutional network over images: `(B, C, H, W)` -> `logits` `(B, num_classes)`.

    For each number in `channels` a stage: convolution to that many channels, batch normalisation if `batch_norm`,
    activation, and a pooling of 2 that halves the size. Then the head and a linear layer.

    `kernel_size` is along every axis; `padding` in pixels on both sides, None for `kernel_size // 2`, which keeps the
    size where the kernel is odd. `activation` is `relu`, `leaky-relu`, `elu`, `tanh` or `sigmoid`; `pooling` `max`,
    `average` or `none`. `dropout` is the probability with which an input of the linear layer is silenced in training.
    `head` `average` hands it the mean of each channel (Lin, Chen and Yan, "Network in network", 2014, section 3.2),
    so that the trained network takes other sizes; `flatten` every pixel of every channel.

    Raises `UsageError` for unknown words, impossible numbers, and an input that a stage leaves no pixel of.
    """
    return _cnn(
        2, num_classes, input_shape, channels, kernel_size, padding, activation, pooling, batch_norm, dropout, head
    )


def cnn3d(
    *,
    num_classes: int = 10,
    input_shape: Shape = (1, 16, 16, 16),
    channels: Sequence[int] = (16, 32),
    kernel_size: int = 3,
    padding: int | None = None,
    activation: str = "relu",
    pooling: str = "max",
    batch_norm: bool = False,
    dropout: float = 0.0,
    head: str = "average",
) -> nn.Module:
    """Small convolutional network over volumes `(B, C, D, H, W)`, such as scans or video. Options as for `cnn2d`."""
    return _cnn(
        3, num_classes, input_shape, channels, kernel_size, padding, activation, pooling, batch_norm, dropout, head
    )


def _cnn(
    num_axes: int,
    num_classes: int,
    input_shape: Shape,
    channels: Sequence[int],
    kernel_size: int,
    padding: int | None,
    activation: str,
    pooling: str,
    batch_norm: bool,
    dropout: float,
    head: str,
) -> nn.Module:
    name, kind = f"cnn{num_axes}d", LAYERS[num_axes]
    _check_words(activation, pooling, head)
    _check_numbers(name, channels, kernel_size, padding, dropout)
    if len(input_shape) != num_axes + 1:
        raise UsageError(f"{name} takes input_shape ({kind.axes}); got {input_shape}.")
    padding = kernel_size // 2 if padding is None else padding
    size = _size_after(name, input_shape[1:], len(channels), kernel_size, padding, pooling)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = input_shape[0]
    for number, next_width in enumerate(channels, start=1):
        layers[f"conv{number}"] = kind.conv(width, next_width, kernel_size, padding=padding, bias=not batch_norm)
        if batch_norm:
            layers[f"bn{number}"] = kind.norm(next_width)
        layers[f"act{number}"] = ACTIVATIONS[activation]()
        if pooling != "none":
            layers[f"pool{number}"] = kind.poolings[pooling](2)
        width = next_width
    if head == "average":
        layers["average"] = kind.global_average(1)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["output"] = nn.Linear(width * (math.prod(size) if head == "flatten" else 1), num_classes)
    return nn.Sequential(layers)


def _check_words(activation: str, pooling: str, head: str) -> None:
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)


def _check_numbers(name: str, channels: Sequence[int], kernel_size: int, padding: int | None, dropout: float) -> None:
    if not channels or min(channels) < 1:
        raise UsageError(f"channels of {name} must be one positive number a stage, such as (16, 32); got {channels}.")
    if not isinstance(kernel_size, int) or kernel_size < 1:
        raise UsageError(f"kernel_size of {name} must be a whole number of at least 1; got {kernel_size!r}.")
    if padding is not None and (not isinstance(padding, int) or padding < 0):
        raise UsageError(f"padding of {name} must be 0 or more whole pixels; got {padding!r}.")
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout of {name} must be at least 0 and below 1; got {dropout}.")


def _size_after(name: str, size: Shape, num_stages: int, kernel_size: int, padding: int, pooling: str) -> Shape:
    """Return the size after all stages, without channels; name the layer that runs out of pixels."""
    given, passed = size, by(size)
    for number in range(1, num_stages + 1):
        windows = [(f"conv{number}", kernel_size, 1, padding), (f"pool{number}", 2, 2, 0)]
        for layer, kernel, stride, pad in windows[: 1 if pooling == "none" else 2]:
            room = min(size) + 2 * pad - kernel
            if room < 0:
                raise UsageError(
                    f"{name} needs pixels left in all of its {num_stages} stages; got {by(given)}: {passed} -> "
                    f"{layer} (kernel {kernel}, padding {pad}) has no room, {min(size)} + 2*{pad} - {kernel} = "
                    f"{room} < 0. Use larger inputs, fewer numbers in channels, more padding or pooling='none'."
                )
            size = output_shape(size, kernel, stride=stride, padding=pad)
            passed += f" -> {layer} {by(size)}"
    return size
