"""LeNet-5."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape
from glassnet.arithmetic import output_shape

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


def lenet5(
    *,
    num_classes: int = 10,
    input_shape: Shape = (1, 32, 32),
    activation: str = "relu",
    pooling: str = "max",
) -> nn.Module:
    """LeNet-5 in its common form: the layer sizes of 1998, every C3 map sees every S2 map, linear output.

    `(C, 32, 32)` -> C1 6x28x28 -> S2 6x14x14 -> C3 16x10x10 -> S4 16x5x5 -> C5 120x1x1 -> F6 84 -> logits; 61,706
    parameters for one input channel and 10 classes. The 32x32 input leaves room around a 28x28 digit, so that
    stroke ends reach the centre of C5's receptive field. A larger input gives C5 more positions and F6 more inputs.

    `activation` is `relu` or `tanh`; `pooling` is `max` or `average`. LeCun, Bottou, Bengio and Haffner,
    "Gradient-based learning applied to document recognition" (1998), section II.B and figure 2.

    Raises `UsageError` for an input below 32x32, where C5 has no pixel left.
    """
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    if pooling not in POOLINGS:
        raise unknown_name("pooling", pooling, POOLINGS)
    if len(input_shape) != 3:
        raise UsageError(f"lenet5 takes images: input_shape (channels, height, width); got {input_shape}.")
    channels, *size = input_shape
    if min(size) < 32:
        raise UsageError(
            f"lenet5 needs at least 32x32 pixels: below, C5's 5x5 kernel has no room (28x28 -> C1 24 -> S2 12 -> "
            f"C3 8 -> S4 4). Got {size[0]}x{size[1]}; pad or resize the images to 32x32."
        )
    activate, pool = ACTIVATIONS[activation], POOLINGS[pooling]
    map_size = tuple(size)
    for kernel, stride in ((5, 1), (2, 2), (5, 1), (2, 2), (5, 1)):
        map_size = output_shape(map_size, kernel, stride=stride)
    return nn.Sequential(
        OrderedDict(
            c1=nn.Conv2d(channels, 6, 5),
            act1=activate(),
            s2=pool(2),
            c3=nn.Conv2d(6, 16, 5),
            act3=activate(),
            s4=pool(2),
            c5=nn.Conv2d(16, 120, 5),
            act5=activate(),
            flatten=nn.Flatten(),
            f6=nn.Linear(120 * map_size[0] * map_size[1], 84),
            act6=activate(),
            output=nn.Linear(84, num_classes),
        )
    )
