"""Softmax regression: one linear layer over the pixels."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from glassnet._types import Shape


def softmax(*, num_classes: int = 10, input_shape: Shape = (1, 28, 28)) -> nn.Module:
    """Softmax regression: `z = W x + b` over the flattened input, one row of `W` a class.

    The softmax itself is in the loss (cross-entropy takes logits) and in prediction. Parameters:
    `inputs * classes + classes`. Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4.
    """
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), output=nn.Linear(math.prod(input_shape), num_classes)))
