"""A small network for images like MNIST's, made to be trained in seconds on a CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.models.sizes import channels_of, check_width, walk_sizes, windows_of

FIRST_KERNEL = 5
"""Height and width in pixels of the kernels of stage 1; those of later stages are 3x3."""


def speednet(
    *,
    num_classes: int = 10,
    input_shape: Shape = (1, 28, 28),
    channels: Sequence[int] = (8, 32, 64),
) -> nn.Module:
    """Stages of convolution, 2x2 max pooling, batch normalisation and ReLU, then one linear layer.

    `(1, 28, 28)` -> stage 1 8x12x12 -> stage 2 32x5x5 -> stage 3 64x3x3 -> `logits` `(B, num_classes)`; 26,914
    parameters, 511,488 multiplications an image in the convolutions. `channels` holds the output channels of the
    stages, as many as there are numbers. The first convolution is 5x5, the others 3x3, all without padding; the last
    stage does not pool. Few channels where the maps are large is what makes it fast: 32 and 64 channels with 5x5
    kernels take seven times the multiplications and were less accurate on MNIST after as many examples.

    Pooling comes first because it leaves a quarter of the positions to normalise and rectify. For ReLU the order makes
    no difference: the maximum of the rectified is the rectified maximum. For batch normalisation it does: mean and
    variance are those of the maxima, not of all positions. The convolutions have no bias, which the normalisation
    would take off again.

    Raises `UsageError` for channels below 1 and for images that a stage leaves no pixel of.
    """
    if not channels:
        raise UsageError(f"channels of speednet must be one number a stage, such as (8, 32, 64); got {channels}.")
    for width in channels:
        check_width("speednet", channels=width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = channels_of("speednet", input_shape)
    for number, next_width in enumerate(channels, start=1):
        layers[f"conv{number}"] = nn.Conv2d(width, next_width, FIRST_KERNEL if number == 1 else 3, bias=False)
        if number < len(channels):
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers[f"bn{number}"] = nn.BatchNorm2d(next_width)
        layers[f"act{number}"] = nn.ReLU()
        width = next_width
    height, breadth = walk_sizes("speednet", input_shape, windows_of(nn.Sequential(layers)))
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(width * height * breadth, num_classes)
    return nn.Sequential(layers)
