"""A small network for images like MNIST's, made to be trained in seconds on a CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.models.sizes import channels_of, check_width, walk_sizes, windows_of


def speednet(
    *,
    num_classes: int = 10,
    input_shape: Shape = (1, 28, 28),
    channels: Sequence[int] = (32, 64),
    padding: int = 0,
) -> nn.Module:
    """Two stages of 5x5 convolution, 2x2 max pooling, batch normalisation and ReLU, then one linear layer.

    `(1, 28, 28)` -> stage 1 32x12x12 -> stage 2 64x4x4 -> `logits` `(B, num_classes)`; 62,442 parameters.
    `channels` holds the output channels of the stages, as many as there are numbers; `padding` is in pixels on each
    side, 2 keeps the size before the pooling.

    Pooling comes first because it leaves a quarter of the positions to normalise and rectify. For ReLU the order makes
    no difference: the maximum of the rectified is the rectified maximum. For batch normalisation it does: mean and
    variance are those of the maxima, not of all positions. The convolutions have no bias, which the normalisation
    would take off again.

    Raises `UsageError` for channels below 1 and for images that a stage leaves no pixel of.
    """
    if not channels:
        raise UsageError(f"channels of speednet must be one number a stage, such as (32, 64); got {channels}.")
    for width in channels:
        check_width("speednet", channels=width)
    if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
        raise UsageError(f"padding of speednet must be 0 or more whole pixels; got {padding!r}.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = channels_of("speednet", input_shape)
    for number, next_width in enumerate(channels, start=1):
        layers[f"conv{number}"] = nn.Conv2d(width, next_width, 5, padding=padding, bias=False)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers[f"bn{number}"] = nn.BatchNorm2d(next_width)
        layers[f"act{number}"] = nn.ReLU()
        width = next_width
    height, breadth = walk_sizes("speednet", input_shape, windows_of(nn.Sequential(layers)))
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(width * height * breadth, num_classes)
    return nn.Sequential(layers)
