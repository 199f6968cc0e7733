"""VGG: nothing but 3x3 convolutions and 2x2 poolings, 11 to 19 layers deep."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from glassnet._types import Shape
from glassnet.models.alexnet import draw_weights
from glassnet.models.sizes import channels_of, check_dropout, check_width, walk_sizes, windows_of

BLOCKS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg13": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "vgg19": ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}
"""The kernels of each convolution, block by block: configurations A, B, D and E of table 1."""

IMAGENET = (3, 224, 224)


def vgg11(
    *, num_classes: int = 1000, input_shape: Shape = IMAGENET, dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """VGG-11, configuration A: 8 convolutions and 3 fully connected layers, 132,863,336 parameters. See `vgg`."""
    return vgg("vgg11", num_classes, input_shape, dropout, hidden)


def vgg13(
    *, num_classes: int = 1000, input_shape: Shape = IMAGENET, dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """VGG-13, configuration B: 10 convolutions and 3 fully connected layers, 133,047,848 parameters. See `vgg`."""
    return vgg("vgg13", num_classes, input_shape, dropout, hidden)


def vgg16(
    *, num_classes: int = 1000, input_shape: Shape = IMAGENET, dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """VGG-16, configuration D: 13 convolutions and 3 fully connected layers, 138,357,544 parameters. See `vgg`."""
    return vgg("vgg16", num_classes, input_shape, dropout, hidden)


def vgg19(
    *, num_classes: int = 1000, input_shape: Shape = IMAGENET, dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """VGG-19, configuration E: 16 convolutions and 3 fully connected layers, 143,667,240 parameters. See `vgg`."""
    return vgg("vgg19", num_classes, input_shape, dropout, hidden)


def vgg11_bn(
    *, num_classes: int = 1000, input_shape: Shape = IMAGENET, dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """VGG-11 with batch normalisation: 132,868,840 parameters. See `vgg`."""
    return vgg("vgg11", num_classes, input_shape, dropout, hidden, batch_norm=True)


def vgg13_bn(
    *, num_classes: int = 1000, input_shape: Shape = IMAGENET, dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """VGG-13 with batch normalisation: 133,053,736 parameters. See `vgg`."""
    return vgg("vgg13", num_classes, input_shape, dropout, hidden, batch_norm=True)


def vgg16_bn(
    *, num_classes: int = 1000, input_shape: Shape = IMAGENET, dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """VGG-16 with batch normalisation: 138,365,992 parameters. See `vgg`."""
    return vgg("vgg16", num_classes, input_shape, dropout, hidden, batch_norm=True)


def vgg19_bn(
    *, num_classes: int = 1000, input_shape: Shape = IMAGENET, dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """VGG-19 with batch normalisation: 143,678,248 parameters. See `vgg`."""
    return vgg("vgg19", num_classes, input_shape, dropout, hidden, batch_norm=True)


def vgg(
    name: str, num_classes: int, input_shape: Shape, dropout: float, hidden: int, *, batch_norm: bool = False
) -> nn.Module:
    """Build a VGG by its name in `BLOCKS`, in the layers, keys and shapes of torchvision's `state_dict`.

    `(3, 224, 224)` -> five blocks of 3x3 convolutions with padding 1, each ended by a 2x2 pooling: 64x112x112,
    128x56x56, 256x28x28, 512x14x14, 512x7x7 -> `hidden` -> `hidden` -> logits. `batch_norm` stands between each
    convolution and its ReLU; `dropout` silences units of both hidden layers.

    An average pooling to 7x7 before the head does nothing at 224x224 and lets every input size from 32x32 on share
    one head. Below 224 it repeats values: at 32x32 the one position left is copied 49 times, so a `hidden` of 512
    is ample there.

    Initial weights are N(0, 2 / fan_in) (He et al. 2015), N(0, 0.01^2) in the last layer, biases 0. With the
    paper's variance of 0.01 its deep nets had to start from trained layers of configuration A. torchvision's start
    (fan_out in the convolutions, N(0, 0.01^2) in the whole head) lets the signal fade where `hidden` is small.

    Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (2015), table 1.
    Raises `UsageError` for an input below 32x32 or an impossible option.
    """
    model_name = f"{name}-bn" if batch_norm else name
    check_width(model_name, hidden=hidden)
    check_dropout(model_name, dropout)
    features = _features(BLOCKS[name], channels_of(model_name, input_shape), batch_norm)
    layers: OrderedDict[str, nn.Module] = OrderedDict(features=features)
    walk_sizes(model_name, input_shape, windows_of(nn.Sequential(layers)))
    layers["avgpool"] = nn.AdaptiveAvgPool2d((7, 7))
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Sequential(
        nn.Linear(512 * 7 * 7, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, num_classes),
    )
    model = nn.Sequential(layers)
    draw_weights(model, logits=("classifier.6",))
    return model


def _features(blocks: tuple[tuple[int, ...], ...], channels: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for block in blocks:
        for kernels in block:
            layers.append(nn.Conv2d(channels, kernels, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(kernels))
            layers.append(nn.ReLU())
            channels = kernels
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)
