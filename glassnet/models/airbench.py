"""The network of the fast CIFAR-10 recipes: whitened patches, three blocks, no shortcuts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.models.sizes import channels_of, check_width, walk_sizes, windows_of
from glassnet.nn.whitening import whitening_kernels

WHITENING_SIZE = 2
"""Height and width in pixels of the patches that the first layer whitens."""
WHITENING_IMAGES = 5000
"""Images that `initialise_from` looks at; more do not change the kernels visibly."""
BATCH_SHARE = 0.4
"""What a batch counts for in the running statistics; the rest is what they were (torch's usual share is 0.1)."""


class Airbench(nn.Module):
    """Fixed whitening convolution, blocks of two convolutions, max pooling, linear layer with scaled-down outputs.

    `images` `(B, C, H, W)` -> `logits` `(B, num_classes)`. Built by `airbench94`, which says what is what.
    """

    def __init__(self, widths: Sequence[int], *, num_classes: int, input_shape: Shape, epsilon: float) -> None:
        super().__init__()
        in_channels = channels_of("airbench94", input_shape)
        width = 2 * in_channels * WHITENING_SIZE**2
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["whiten"] = nn.Conv2d(in_channels, width, WHITENING_SIZE)
        layers["act"] = nn.GELU()
        for number, next_width in enumerate(widths, start=1):
            layers[f"block{number}"] = _block(width, next_width, epsilon)
            width = next_width
        layers["pool"] = nn.MaxPool2d(3)
        self.features = nn.Sequential(layers)
        self.whiten.weight.requires_grad_(False)
        height, breadth = walk_sizes("airbench94", input_shape, windows_of(self.features))
        num_features = width * height * breadth
        self.output = nn.Linear(num_features, num_classes, bias=False)
        with torch.no_grad():
            self.output.weight.div_(self.output.weight.std())
        self.output_scale = 1 / num_features

    @property
    def whiten(self) -> nn.Conv2d:
        """The first layer."""
        layer = self.features.get_submodule("whiten")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits `(B, num_classes)`."""
        features = torch.flatten(self.features(images), 1)
        return self.output(features) * self.output_scale  # type: ignore[no-any-return]

    def initialise_from(self, inputs: Tensor) -> None:
        """Set the first layer's kernels to those that whiten patches of `inputs`, and their negatives; biases to 0.

        `inputs` `(N, C, H, W)`, training images normalised as the model gets them; the first 5000 are looked at. The
        same images give the same kernels. Raises `UsageError` where they are no such images.
        """
        channels = self.whiten.in_channels
        if inputs.ndim != 4 or inputs.shape[1] != channels:
            raise UsageError(
                f"initialise_from expects images (N, {channels}, H, W), as the model takes them; "
                f"got {tuple(inputs.shape)}."
            )
        kernels = whitening_kernels(inputs[:WHITENING_IMAGES], WHITENING_SIZE)
        with torch.no_grad():
            self.whiten.weight.copy_(torch.cat((kernels, -kernels)))
            assert self.whiten.bias is not None
            self.whiten.bias.zero_()


def airbench94(
    *,
    num_classes: int = 10,
    input_shape: Shape = (3, 32, 32),
    widths: Sequence[int] = (64, 256, 256),
    epsilon: float = 1e-12,
) -> nn.Module:
    """Network of the 94 % recipe for CIFAR-10 that trains in seconds on a GPU; 1,971,352 learned parameters.

    `(3, 32, 32)` -> whitening 24x31x31 -> block1 64x15x15 -> block2 256x7x7 -> block3 256x3x3 -> pooling 256x1x1 ->
    `logits` `(B, num_classes)`. The first layer's 2x2 kernels are fixed: the 12 directions in which patches of the
    training images vary, scaled to the same variance, and their negatives, with a learned bias. **They need the
    images: call `model.initialise_from(images)` before training**; until then they are random. A block is a 3x3
    convolution, max pooling of 2, batch normalisation, GELU, a second 3x3 convolution, batch normalisation and GELU;
    its convolutions start by handing their input channels on unchanged, as far as there are that many outputs. Batch
    normalisation has a learned shift and no scale, and forgets old batches faster (0.6 of the running statistics stay
    after a batch). Its `epsilon` is made for photographs: where a channel is constant over a batch, as one can be on
    the empty borders of MNIST's digits, the first gradients are a million times too large, and 1e-5 is better. The
    linear layer has weights of standard deviation 1 and no bias, and the logits are divided by the number of its
    inputs.

    `widths` are the output channels of the blocks. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024),
    sections 3.1 to 3.3, in half precision there; this one trains in any.

    Raises `UsageError` for widths below 1, an epsilon that is not above 0, and images below 25x25 pixels, which three
    blocks leave no pixel of.
    """
    if not widths:
        raise UsageError(f"widths of airbench94 must be one number a block, such as (64, 256, 256); got {widths}.")
    for width in widths:
        check_width("airbench94", widths=width)
    if not epsilon > 0:
        raise UsageError(f"epsilon of airbench94 must be above 0; got {epsilon}.")
    return Airbench(widths, num_classes=num_classes, input_shape=input_shape, epsilon=epsilon)


def _block(in_channels: int, out_channels: int, epsilon: float) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=_conv(in_channels, out_channels),
            pool=nn.MaxPool2d(2),
            norm1=_norm(out_channels, epsilon),
            act1=nn.GELU(),
            conv2=_conv(out_channels, out_channels),
            norm2=_norm(out_channels, epsilon),
            act2=nn.GELU(),
        )
    )


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[:in_channels])
    return conv


def _norm(num_channels: int, epsilon: float) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(num_channels, eps=epsilon, momentum=BATCH_SHARE)
    norm.weight.requires_grad_(False)
    return norm
