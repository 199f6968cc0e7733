"""GoogLeNet: Inception modules, with the auxiliary heads of 2014, as published and as torchvision has it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from itertools import takewhile
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.models.alexnet import draw_weights
from glassnet.models.sizes import Window, channels_of, check_dropout, walk_sizes, windows_of

Layers = OrderedDict[str, nn.Module]
Widths = tuple[int, int, int, int, int, int]

WIDTHS: dict[str, Widths] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
"""Table 1: kernels of #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5 and pool proj in each Inception module."""

AUXILIARY_HEADS = {"inception4a": "aux1", "inception4d": "aux2"}
"""Which module's output each auxiliary head reads."""

AUXILIARY_WEIGHT = 0.3
"""What an auxiliary loss counts beside the main one (section 5)."""


class Inception(nn.Module):
    """Branches side by side over the same maps: `(B, C, H, W)` -> `(B, sum of the branches' channels, H, W)`."""

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, maps: Tensor) -> Tensor:
        """Concatenate what the branches make of `maps` along the channels."""
        return torch.cat([branch(maps) for branch in self.children()], dim=1)


class GoogLeNet(nn.Module):
    """Layers in a row, and auxiliary heads that look in from the side while training.

    The model maps `images` `(B, C, H, W)` to the main head's `logits` `(B, num_classes)` in training and evaluation
    alike, so it trains wherever a plain network does. The auxiliary heads learn only where their loss is added::

        loss = cross_entropy(model(images), labels) + model.auxiliary_loss(labels)

    A loop that leaves it out trains the main head alone; build the model with `auxiliary=False` for it.
    """

    auxiliary_logits: tuple[Tensor, ...]
    """Logits `(B, num_classes)` of aux1 and aux2 in the last training pass; empty without heads or in evaluation."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.auxiliary_logits = ()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Tensor:
        """Return the main head's logits; a training pass leaves the others' in `auxiliary_logits`."""
        maps, heads = images, dict(self.named_children())
        auxiliary: list[Tensor] = []
        for name, layer in self.named_children():
            if name in AUXILIARY_HEADS.values():
                continue
            maps = layer(maps)
            head = heads.get(AUXILIARY_HEADS.get(name, ""))
            if self.training and head is not None:
                auxiliary.append(head(maps))
        if self.training:
            self.auxiliary_logits = tuple(auxiliary)
        return maps

    def auxiliary_loss(
        self, labels: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    ) -> Tensor:
        """Return `0.3 * (L_aux1 + L_aux2)` of the last training pass, to be added to the main loss (section 5).

        `labels` are those of that pass; `loss` takes logits and labels. Raises `UsageError` where there was no
        training pass or the model has no auxiliary heads.
        """
        if not self.auxiliary_logits:
            raise UsageError(
                "auxiliary_loss needs a model with auxiliary heads, just run on images in training mode; it has no "
                "auxiliary logits. Build it with auxiliary=True, and call model.train() and model(images) first."
            )
        return AUXILIARY_WEIGHT * torch.stack([loss(logits, labels) for logits in self.auxiliary_logits]).sum()

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation, and let go of the logits of the last training pass."""
        self.auxiliary_logits = ()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        # Logits hang on the graph of their pass, which copy.deepcopy refuses to copy.
        return self.__dict__ | {"auxiliary_logits": ()}


def googlenet(
    *,
    num_classes: int = 1000,
    input_shape: Shape = (3, 224, 224),
    dropout: float = 0.4,
    auxiliary: bool = True,
    batch_norm: bool = False,
) -> nn.Module:
    """GoogLeNet as published, with 5x5 branches: 6,998,552 parameters, and 6,379,728 more in the auxiliary heads.

    `(3, 224, 224)` -> conv1 64x112x112 -> pool1 56x56 -> conv2 192x56x56 -> pool2 28x28 -> inception3a, b ->
    pool3 14x14 -> inception4a to e -> pool4 7x7 -> inception5a, b 1024x7x7 -> average 1024 -> fc. Poolings are
    rounded up: `ceil((112 - 3)/2) + 1 = 56`. The last average is over all positions that are left, 7x7 for 224x224.

    `auxiliary` adds the two heads on inception4a and inception4d; they work in training only, see `GoogLeNet`. They
    take images from 79x79 on, the rest of the network from 31x31 on. `dropout` is before fc; the auxiliary heads have
    their published 0.7. `batch_norm` puts batch normalisation between each convolution and its ReLU, in place of the
    local response normalisation. Initial weights are N(0, 2 / fan_in) (He et al. 2015), N(0, 0.01^2) in the layers
    of logits, biases 0; the paper does not give its own.

    Szegedy et al., "Going deeper with convolutions" (2015), table 1, figure 3 and section 5. Raises `UsageError`
    where a layer runs out of pixels or the dropout is impossible.
    """
    check_dropout("googlenet", dropout)
    layers = _stem(channels_of("googlenet", input_shape), batch_norm)
    layers |= _inceptions(partial(_inception, batch_norm=batch_norm), "pool", last_kernel=3)
    windows = windows_of(nn.Sequential(layers))
    if auxiliary:
        height, width = _auxiliary_size(input_shape, windows)
        for name, channels in (("aux1", 512), ("aux2", 528)):
            layers[name] = _auxiliary_head(channels, nn.AvgPool2d(5, 3), height * width, num_classes, batch_norm)
    walk_sizes("googlenet", input_shape, windows)
    layers |= _main_head("pool5", num_classes, dropout)
    model = GoogLeNet(layers)
    draw_weights(model, logits=("aux1.fc2", "aux2.fc2", "fc"))
    return model


def googlenet_torchvision(
    *, num_classes: int = 1000, input_shape: Shape = (3, 224, 224), dropout: float = 0.2, auxiliary: bool = True
) -> nn.Module:
    """GoogLeNet as torchvision has it, with its `state_dict` keys and shapes: 13,004,888 parameters, 6,624,904 bare.

    It differs from the published network: batch normalisation after every convolution (then without bias), 3x3
    kernels where the paper has 5x5, a 2x2 maxpool4, auxiliary heads that average to 4x4 whatever the input size, and
    dropout 0.2 before fc. Its weights were trained with images that `transform_input` rescales on the way in; that
    belongs to preprocessing and is not done here.

    `auxiliary` adds the auxiliary heads, see `GoogLeNet`: logits come back alone in training too, where torchvision
    returns three. Initial weights are N(0, 0.01^2), as there.

    Raises `UsageError` where a layer runs out of pixels or the dropout is impossible.
    """
    name = "googlenet-torchvision"
    check_dropout(name, dropout)
    layers: Layers = OrderedDict()
    layers["conv1"] = _convolution(channels_of(name, input_shape), 64, 7, stride=2)
    layers["maxpool1"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    layers["conv2"] = _convolution(64, 64, 1)
    layers["conv3"] = _convolution(64, 192, 3)
    layers["maxpool2"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    layers |= _inceptions(_inception_torchvision, "maxpool", last_kernel=2)
    walk_sizes(name, input_shape, windows_of(nn.Sequential(layers)))
    if auxiliary:
        for head, channels in (("aux1", 512), ("aux2", 528)):
            layers[head] = _auxiliary_head(channels, nn.AdaptiveAvgPool2d((4, 4)), 4 * 4, num_classes, True)
    layers |= _main_head("avgpool", num_classes, dropout)
    model = GoogLeNet(layers)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
    return model


def _layers(
    in_channels: int, out_channels: int, kernel: int, *, name: str = "", batch_norm: bool = True, stride: int = 1
) -> Layers:
    """Return `conv`, `bn` where wanted, and `relu`, with `name` added; the padding keeps the size at stride 1."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=not batch_norm)
    layers: Layers = OrderedDict({f"conv{name}": convolution})
    if batch_norm:
        layers[f"bn{name}"] = nn.BatchNorm2d(out_channels, eps=0.001)
    layers[f"relu{name}"] = nn.ReLU()
    return layers


def _convolution(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> nn.Module:
    return nn.Sequential(_layers(in_channels, out_channels, kernel, stride=stride))


def _stem(channels: int, batch_norm: bool) -> Layers:
    layers: Layers = OrderedDict()
    layers |= _layers(channels, 64, 7, name="1", stride=2, batch_norm=batch_norm)
    layers["pool1"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    if not batch_norm:
        layers["norm1"] = _local_response_norm()
    layers |= _layers(64, 64, 1, name="2_reduce", batch_norm=batch_norm)
    layers |= _layers(64, 192, 3, name="2", batch_norm=batch_norm)
    if not batch_norm:
        layers["norm2"] = _local_response_norm()
    layers["pool2"] = nn.MaxPool2d(3, 2, ceil_mode=True)
    return layers


def _local_response_norm() -> nn.Module:
    # The paper gives no constants. These are those of Caffe's reference model, whose alpha of 1e-4 is divided by the
    # size of the window as torch's is, unlike AlexNet's.
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def _inceptions(build: Callable[[int, Widths], Inception], pool: str, *, last_kernel: int) -> Layers:
    layers: Layers = OrderedDict()
    channels = 192
    for name, widths in WIDTHS.items():
        if name == "inception4a":
            layers[f"{pool}3"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        if name == "inception5a":
            layers[f"{pool}4"] = nn.MaxPool2d(last_kernel, 2, ceil_mode=True)
        layers[name] = build(channels, widths)
        ones, _, threes, _, fives, projected = widths
        channels = ones + threes + fives + projected
    return layers


def _inception(channels: int, widths: Widths, batch_norm: bool) -> Inception:
    ones, reduce3, threes, reduce5, fives, projected = widths
    layers = partial(_layers, batch_norm=batch_norm)
    return Inception(
        {
            "branch1x1": nn.Sequential(layers(channels, ones, 1)),
            "branch3x3": nn.Sequential(layers(channels, reduce3, 1, name="_reduce") | layers(reduce3, threes, 3)),
            "branch5x5": nn.Sequential(layers(channels, reduce5, 1, name="_reduce") | layers(reduce5, fives, 5)),
            "branch_pool": nn.Sequential(
                OrderedDict(pool=nn.MaxPool2d(3, 1, padding=1)) | layers(channels, projected, 1)
            ),
        }
    )


def _inception_torchvision(channels: int, widths: Widths) -> Inception:
    ones, reduce3, threes, reduce5, fives, projected = widths
    return Inception(
        {
            "branch1": _convolution(channels, ones, 1),
            "branch2": nn.Sequential(_convolution(channels, reduce3, 1), _convolution(reduce3, threes, 3)),
            "branch3": nn.Sequential(_convolution(channels, reduce5, 1), _convolution(reduce5, fives, 3)),
            "branch4": nn.Sequential(nn.MaxPool2d(3, 1, padding=1), _convolution(channels, projected, 1)),
        }
    )


def _auxiliary_size(input_shape: Shape, windows: list[Window]) -> Shape:
    """Return the `(height, width)` behind the pooling of the auxiliary heads, 4x4 for 224x224."""
    fourth = [*takewhile(lambda window: window[0] != "pool4", windows), ("aux1.pool", 5, 3, 0, False)]
    return walk_sizes("googlenet", input_shape, fourth, "Or do without the auxiliary heads: auxiliary=False.")


def _auxiliary_head(
    channels: int, pool: nn.Module, num_positions: int, num_classes: int, batch_norm: bool
) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            pool=pool,
            conv=nn.Sequential(_layers(channels, 128, 1, batch_norm=batch_norm)),
            flatten=nn.Flatten(),
            fc1=nn.Linear(128 * num_positions, 1024),
            relu=nn.ReLU(),
            dropout=nn.Dropout(0.7),
            fc2=nn.Linear(1024, num_classes),
        )
    )


def _main_head(pool: str, num_classes: int, dropout: float) -> Layers:
    return OrderedDict(
        {
            pool: nn.AdaptiveAvgPool2d((1, 1)),
            "flatten": nn.Flatten(),
            "dropout": nn.Dropout(dropout),
            "fc": nn.Linear(1024, num_classes),
        }
    )
