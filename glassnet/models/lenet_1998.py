"""LeNet-5 as it was published in 1998."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.nn.activation import ScaledTanh
from glassnet.nn.connection import LENET5_C3_TABLE, TableConv2d
from glassnet.nn.rbf import RBFOutput, digit_centres, random_centres
from glassnet.nn.subsampling import TrainableSubsampling2d

NUM_FEATURES = 84
"""Units of F6, one for each pixel of a 7x12 bitmap."""


def lenet5_1998(*, num_classes: int = 10, input_shape: Shape = (1, 32, 32)) -> nn.Module:
    """LeNet-5 as published: 60,000 trainable parameters, subsampling that is trained, a table for C3, RBF outputs.

    | layer | maps | parameters |
    |---|---|---|
    | C1, convolution 5x5 | 6x28x28 | 156 |
    | S2, subsampling 2x2 (`TrainableSubsampling2d`) | 6x14x14 | 12 |
    | C3, convolution 5x5 by table I (`TableConv2d`) | 16x10x10 | 1,516 |
    | S4, subsampling 2x2 | 16x5x5 | 32 |
    | C5, convolution 5x5 | 120x1x1 | 48,120 |
    | F6, linear | 84 | 10,164 |
    | output, Euclidean RBF with fixed centres (`RBFOutput`) | `num_classes` | 0 |

    The squashing `1.7159 tanh(2a / 3)` follows every layer from C1 to F6: "units in layers up to F6" (equations 5 and
    6) covers the convolutions as well as the subsampling. Each further input channel adds 150 weights to C1.

    The paper's outputs are penalties, smallest for the right class; the logits are their negatives, so the largest
    wins as in every model here, and cross-entropy on them is the paper's equation 9 without its constant. For 10
    classes the centres are 7x12 pictures of the digits (`DIGIT_BITMAPS`, drawn for glassnet), whatever the classes
    are. For other numbers there is no published code: the centres are codes of 1 and -1 drawn from a fixed seed
    (`random_centres`), the same in every such network.

    Weights and biases start uniform within +-2.4 / fan-in (appendix A). The paper scales its input to -0.1 for paper
    and 1.175 for ink, mean 0 and variance 1 over the training set. Squared distances over 84 features make steep
    logits: SGD with momentum 0.9 learns at a rate of 0.005 and diverges at 0.02 (digits, batches of 128).

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998), section II.B.

    Raises `UsageError` for an image size other than 32x32.
    """
    if len(input_shape) != 3 or tuple(input_shape[1:]) != (32, 32):
        raise UsageError(
            f"lenet5-1998 takes 32x32 images, input_shape (channels, 32, 32); got {tuple(input_shape)}. Pad or resize "
            "the images to 32x32, or use 'lenet5', which takes larger ones."
        )
    centres = digit_centres() if num_classes == 10 else random_centres(num_classes, NUM_FEATURES)
    model = nn.Sequential(
        OrderedDict(
            c1=nn.Conv2d(input_shape[0], 6, 5),
            act1=ScaledTanh(),
            s2=TrainableSubsampling2d(6),
            act2=ScaledTanh(),
            c3=TableConv2d(6, LENET5_C3_TABLE, 5),
            act3=ScaledTanh(),
            s4=TrainableSubsampling2d(16),
            act4=ScaledTanh(),
            c5=nn.Conv2d(16, 120, 5),
            act5=ScaledTanh(),
            flatten=nn.Flatten(),
            f6=nn.Linear(120, NUM_FEATURES),
            act6=ScaledTanh(),
            output=RBFOutput(centres),
        )
    )
    _initialise(model)
    return model


def _initialise(model: nn.Sequential) -> None:
    """Draw weights and biases from U(-2.4 / F, 2.4 / F), F the fan-in of their unit (appendix A)."""
    for module in model:
        if isinstance(module, TableConv2d):
            assert module.bias is not None, "C3 is built with a bias"
            _draw(module.weight, module.fan_in[module.out_map, None, None])
            _draw(module.bias, module.fan_in)
        elif isinstance(module, TrainableSubsampling2d):
            fan_in = torch.tensor(module.kernel_size).prod()
            _draw(module.coefficient, fan_in)
            _draw(module.bias, fan_in)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = torch.tensor(module.weight[0].numel())
            for parameter in module.parameters():
                _draw(parameter, fan_in)


@torch.no_grad()
def _draw(parameter: nn.Parameter, fan_in: Tensor) -> None:
    parameter.uniform_(-1, 1).mul_(2.4 / fan_in)
