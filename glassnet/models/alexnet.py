"""AlexNet: the network of 2012 in one column and in two groups, and torchvision's."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from glassnet._errors import unknown_name
from glassnet._types import Shape
from glassnet.models.sizes import channels_of, check_dropout, check_width, walk_sizes, windows_of

NORMALISATIONS = ("local_response", "batch", "none")
INITIALISATIONS = ("he", "published")


def alexnet(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 227, 227),
    normalisation: str = "local_response",
    dropout: float = 0.5,
    hidden: int = 4096,
    initialisation: str = "he",
) -> nn.Module:
    """AlexNet in one column: the layers of 2012 without the split over two GPUs; 62,378,344 parameters.

    `(3, 227, 227)` -> conv1 96x55x55 -> pool1 27x27 -> conv2 256x27x27 -> pool2 13x13 -> conv3 384 -> conv4 384 ->
    conv5 256x13x13 -> pool5 6x6 -> fc6 4096 -> fc7 4096 -> fc8. The paper writes 224x224, but an unpadded 11x11
    kernel with stride 4 makes its 55x55 maps from 227: `(227 - 11)/4 + 1 = 55`. Another size is taken as it is, and
    changes the inputs of fc6.

    `normalisation`: `local_response` after relu1 and relu2 as published, `batch` between each convolution and its
    ReLU, or `none`. `dropout` silences units before fc6 and fc7, which have `hidden` units each. `initialisation`:
    `he` (see `draw_weights`) or `published`: weights from N(0, 0.01^2), biases 1 in conv2, conv4, conv5, fc6 and
    fc7, else 0. That start is slow, and meant for pixels of 0 to 255.

    Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks" (2012),
    sections 3 to 5. Raises `UsageError` for an input below 67x67, an unknown name or an impossible option.
    """
    return _alexnet("alexnet", 1, num_classes, input_shape, normalisation, dropout, hidden, initialisation)


def alexnet_2012(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 227, 227),
    normalisation: str = "local_response",
    dropout: float = 0.5,
    hidden: int = 4096,
    initialisation: str = "he",
) -> nn.Module:
    """AlexNet as published, with its two groups: 60,965,224 parameters.

    In conv2, conv4 and conv5 a kernel sees only the half of the maps that lay on its own GPU; conv3 and the fully
    connected layers see all. Options, source and errors as for `alexnet`.
    """
    return _alexnet("alexnet-2012", 2, num_classes, input_shape, normalisation, dropout, hidden, initialisation)


def alexnet_torchvision(
    *, num_classes: int = 1000, input_shape: Shape = (3, 224, 224), dropout: float = 0.5, hidden: int = 4096
) -> nn.Module:
    """AlexNet as torchvision has it, with its `state_dict` keys and shapes: 61,100,840 parameters.

    One column of 64-192-384-256-256 kernels, no normalisation, padding 2 in conv1, and an average pooling to 6x6
    that lets every input size from 63x63 on share one head. Initial weights are torch's defaults, as there. After
    Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014).

    Raises `UsageError` for a smaller input or an impossible option.
    """
    check_width("alexnet-torchvision", hidden=hidden)
    check_dropout("alexnet-torchvision", dropout)
    features = nn.Sequential(
        nn.Conv2d(channels_of("alexnet-torchvision", input_shape), 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    layers: OrderedDict[str, nn.Module] = OrderedDict(features=features)
    walk_sizes("alexnet-torchvision", input_shape, windows_of(nn.Sequential(layers)))
    layers["avgpool"] = nn.AdaptiveAvgPool2d((6, 6))
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(256 * 6 * 6, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )
    return nn.Sequential(layers)


def stage(
    number: int, convolution: nn.Conv2d, then: str, normalisation: str, *, ceil_mode: bool = False
) -> OrderedDict[str, nn.Module]:
    """Return a convolution, its ReLU and what follows in order: `then` is of the words `norm` and `pool`.

    Layers are named after their `number`. Poolings are 3x3 with stride 2, so neighbours overlap (section 3.4 of
    Krizhevsky et al. 2012). `norm` stands for local response normalisation, where `normalisation` asks for it.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict({f"conv{number}": convolution})
    if normalisation == "batch":
        layers[f"bn{number}"] = nn.BatchNorm2d(convolution.out_channels)
    layers[f"relu{number}"] = nn.ReLU()
    for word in then.split():
        if word == "pool":
            layers[f"pool{number}"] = nn.MaxPool2d(3, 2, ceil_mode=ceil_mode)
        elif normalisation == "local_response":
            # b = a / (k + alpha * sum of a^2 over n channels)^beta with k = 2, n = 5, alpha = 1e-4, beta = 0.75
            # (section 3.3). torch multiplies by alpha / n instead of alpha: so 5e-4 here.
            layers[f"norm{number}"] = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
    return layers


def head(num_inputs: int, hidden: int, num_classes: int, dropout: float) -> OrderedDict[str, nn.Module]:
    """Return the layers from the last feature maps to the logits: flatten, fc6, fc7 and fc8, with dropout."""
    return OrderedDict(
        flatten=nn.Flatten(),
        drop6=nn.Dropout(dropout),
        fc6=nn.Linear(num_inputs, hidden),
        relu6=nn.ReLU(),
        drop7=nn.Dropout(dropout),
        fc7=nn.Linear(hidden, hidden),
        relu7=nn.ReLU(),
        fc8=nn.Linear(hidden, num_classes),
    )


def check_options(model_name: str, normalisation: str, dropout: float, hidden: int, initialisation: str) -> None:
    """Raise `UsageError` for an unknown normalisation or initialisation, or an impossible dropout or width."""
    if normalisation not in NORMALISATIONS:
        raise unknown_name("normalisation", normalisation, NORMALISATIONS)
    if initialisation not in INITIALISATIONS:
        raise unknown_name("initialisation", initialisation, INITIALISATIONS)
    check_width(model_name, hidden=hidden)
    check_dropout(model_name, dropout)


def draw_weights(
    model: nn.Module, *, logits: tuple[str, ...], published: bool = False, biases_of_one: tuple[str, ...] = ()
) -> None:
    """Fill all convolutions and linear layers of `model` with initial weights.

    N(0, 2 / fan_in), which keeps the scale of a signal through ReLUs (He et al. 2015, equation 10); N(0, 0.01^2) in
    the layers named in `logits`, so that the first loss is near log(classes); biases 0. With `published`, N(0, 0.01^2)
    everywhere, and biases 1 in the layers `biases_of_one`.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        if published or name in logits:
            nn.init.normal_(layer.weight, std=0.01)
        else:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.constant_(layer.bias, 1.0 if published and name in biases_of_one else 0.0)


def _alexnet(
    name: str,
    groups: int,
    num_classes: int,
    input_shape: Shape,
    normalisation: str,
    dropout: float,
    hidden: int,
    initialisation: str,
) -> nn.Module:
    check_options(name, normalisation, dropout, hidden, initialisation)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers |= stage(1, nn.Conv2d(channels_of(name, input_shape), 96, 11, stride=4), "norm pool", normalisation)
    layers |= stage(2, nn.Conv2d(96, 256, 5, padding=2, groups=groups), "norm pool", normalisation)
    layers |= stage(3, nn.Conv2d(256, 384, 3, padding=1), "", normalisation)
    layers |= stage(4, nn.Conv2d(384, 384, 3, padding=1, groups=groups), "", normalisation)
    layers |= stage(5, nn.Conv2d(384, 256, 3, padding=1, groups=groups), "pool", normalisation)
    height, width = walk_sizes(name, input_shape, windows_of(nn.Sequential(layers)))
    layers |= head(256 * height * width, hidden, num_classes, dropout)
    model = nn.Sequential(layers)
    ones = ("conv2", "conv4", "conv5", "fc6", "fc7")
    draw_weights(model, logits=("fc8",), published=initialisation == "published", biases_of_one=ones)
    return model
