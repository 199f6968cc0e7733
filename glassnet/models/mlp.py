"""Multi-layer perceptrons."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def mlp(
    *,
    num_classes: int = 10,
    input_shape: Shape = (1, 28, 28),
    hidden: Sequence[int] = (256, 128),
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """Fully connected layers of `hidden` units each, then a linear layer to `num_classes` logits.

    `hidden` may be empty (then it is softmax regression). `activation` is `relu`, `tanh` or `sigmoid`; `dropout`
    is the probability with which a hidden unit is silenced while training. Rumelhart, Hinton and Williams,
    "Learning representations by back-propagating errors" (1986).
    """
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    if any(width < 1 for width in hidden):
        raise UsageError(f"hidden must be positive layer widths, such as (256, 128); got {tuple(hidden)}.")
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout must be at least 0 and below 1; got {dropout}.")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = math.prod(input_shape)
    for number, next_width in enumerate(hidden, start=1):
        layers[f"hidden{number}"] = nn.Linear(width, next_width)
        layers[f"{activation}{number}"] = ACTIVATIONS[activation]()
        if dropout:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        width = next_width
    layers["output"] = nn.Linear(width, num_classes)
    return nn.Sequential(layers)
