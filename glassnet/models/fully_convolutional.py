"""A classifier slid over a larger image, as one fully convolutional network."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._types import Shape, by
from glassnet.arithmetic import output_shape, padding_amounts
from glassnet.models.chain import Step, layers_in_order, nested
from glassnet.models.spec import ModelSpec
from glassnet.nn.activation import ScaledSoftmax, ScaledTanh
from glassnet.nn.connection import TableConv2d
from glassnet.nn.maxout import Maxout
from glassnet.nn.normalisation import LocalResponseNorm
from glassnet.nn.subsampling import TrainableSubsampling2d
from glassnet.nn.threshold import Sign
from glassnet.nn.threshold import Step as ThresholdStep

ELEMENTWISE = (
    nn.Identity, nn.Dropout, nn.AlphaDropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Softplus, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh, ScaledTanh, ThresholdStep, Sign,
)  # fmt: skip
"""Layers that treat each number by itself."""
PER_PIXEL = (nn.BatchNorm2d, nn.Dropout2d, nn.LocalResponseNorm, LocalResponseNorm, nn.PReLU)
"""Layers that treat each pixel by itself, with all its channels."""
ALONG_CHANNELS = (nn.Softmax, nn.LogSoftmax, ScaledSoftmax, Maxout)
"""The same, where the axis they work along (`dim`) is the channels."""
GIVES_PROBABILITIES = (nn.Softmax, ScaledSoftmax, nn.Sigmoid)
"""Last layers after which nothing needs to be appended."""
SLIDING = (nn.Conv2d, TableConv2d, nn.MaxPool2d, nn.AvgPool2d, TrainableSubsampling2d)
"""Layers that slide a window, the same at every place."""
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
"""Layers whose window depends on the size of the image."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What part of a larger image each location of a fully convolutional network answers for, in pixels."""

    size: tuple[int, int]
    """Height and width: the input of the classifier it was made of."""
    stride: tuple[int, int]
    """From one location to the next, down and across: the product of all strides in the network."""
    is_exact: bool
    """Whether a location's logits are those of the classifier on its window; False where the network pads."""

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return the window of a location as (top, left, bottom, right); the last two are the first pixels after."""
        top, left = row * self.stride[0], column * self.stride[1]
        return top, left, top + self.size[0], left + self.size[1]


class FullyConvolutional(nn.Sequential):
    """`images` `(B, C, H', W')` -> `logits` `(B, num_classes, h, w)`, or probabilities; `window` says what of where."""

    window: Window

    def forward(self, images: Tensor) -> Tensor:
        """Return what every window gives. Raises `UsageError` for images smaller than one window."""
        if images.ndim != 4 or images.shape[2] < self.window.size[0] or images.shape[3] < self.window.size[1]:
            height, width = self.window.size
            raise UsageError(
                f"This network answers for windows of {height}x{width} pixels; images must be (B, C, H, W) of at least "
                f"that size; got {tuple(images.shape)}. Pad or enlarge them."
            )
        return super().forward(images)  # type: ignore[no-any-return]


def fully_convolutional(
    model: nn.Module, input_shape: Shape | None = None, *, exact: bool = True, probabilities: bool = True
) -> FullyConvolutional:
    """Return a classifier for one image size as a network that classifies every window of a larger image at once.

    `images` `(B, C, H', W')` with `H' >= H` and `W' >= W` -> probabilities `(B, num_classes, h, w)`; `input_shape`
    `(C, H, W)` is what `model` takes (None: what `build_model` built it for). Place `[:, :, i, j]` holds what `model`
    gives for the window with its top left pixel at `(i * stride, j * stride)`; `result.window` holds size and stride.
    Where rounding down drops pixels at the end of the window, the last location may lack as many of its own.
    A linear layer over C maps of h x w pixels is a convolution with h x w kernels of C channels and the same weights;
    a later one is a 1x1 convolution. An adaptive pooling becomes a fixed one with stride 1. LeCun, Bottou, Bengio and
    Haffner, "Gradient-based learning applied to document recognition" (1998), section VII; Sermanet et al.,
    "OverFeat" (2014), section 3.5.

    **The equality holds exactly only for networks without padding**, in evaluation mode. Where a layer pads, `model`
    sees zeros around its window and the new network the neighbouring pixels. Such networks are refused unless
    `exact=False`; then the logits resemble those of `model`, and `result.window.is_exact` is False.

    `probabilities` appends a softmax over the classes, a sigmoid where there is one logit; with `probabilities=False`
    the logits come out as `model` gives them.

    Layers keep their names (flattening falls away) and their modes; the parameters are copies, and `model` is left as
    it was. `model` may be a `Sequential` or a module whose `forward` is a chain of layers.

    Raises `UsageError` for a network that is no chain, a layer that is not the same at every place, a missing or
    impossible `input_shape`, and padding (see above).
    """
    shape = _input_shape(model, input_shape)
    conversion = _Conversion(shape)
    for name, layer in layers_in_order(model):
        conversion.take(name, layer)
    conversion.finish()
    if conversion.padded and exact:
        raise UsageError(
            f"fully_convolutional expects a network without padding, so that its logits equal the classifier's on "
            f"every window; got padding in {', '.join(conversion.padded)}. Pass exact=False for logits that differ "
            f"where a window ends inside the image: there the classifier sees padding and the new network pixels."
        )
    steps = conversion.steps
    if probabilities and not isinstance(steps[-1][1], GIVES_PROBABILITIES):
        steps.append(("probabilities", _probabilities(steps)))
    result = FullyConvolutional(nested(steps))
    for module in result.modules():
        if isinstance(module, nn.Sequential):
            module.training = model.training
    result.window = Window(size=(shape[1], shape[2]), stride=conversion.stride, is_exact=not conversion.padded)
    return result


class _Conversion:
    """The layers so far, made convolutional, and what their maps are for one window."""

    def __init__(self, input_shape: Shape) -> None:
        self.steps: list[Step] = []
        self.map_size = (input_shape[1], input_shape[2])
        self.stride = (1, 1)
        self.spread = (1, 1)
        """Pixels from one number to the next in what an adaptive pooling hands on; 1 without one."""
        self.flattened: tuple[int, int] | None = None
        """Height and width of the maps that were flattened and that no linear layer has read yet; None before."""
        self.padded: list[str] = []

    def take(self, name: str, layer: nn.Module) -> None:
        """Append what `layer` becomes."""
        if isinstance(layer, nn.Flatten):
            self._flatten(name, layer)
        elif isinstance(layer, ELEMENTWISE):
            self._append(name, copy.deepcopy(layer))
        elif isinstance(layer, nn.Linear) and self.flattened is not None:
            self._append(name, self._linear(name, layer, self.flattened))
        elif isinstance(layer, ALONG_CHANNELS) and self.flattened in (None, (1, 1)):
            self._append(name, self._along_channels(name, layer))
        elif isinstance(layer, PER_PIXEL) and self.flattened is None:
            self._append(name, copy.deepcopy(layer))
        elif isinstance(layer, SLIDING) and self.flattened is None and self.spread == (1, 1):
            self._append(name, self._slide(name, layer))
        elif isinstance(layer, ADAPTIVE) and self.flattened is None and self.spread == (1, 1):
            self._adapt(name, layer)
        else:
            raise _refused(name, layer, "")

    def finish(self) -> None:
        """Raise `UsageError` where the last features are flattened and not read, or nothing is left."""
        if not self.steps:
            raise UsageError("fully_convolutional expects a network with layers; got none. Pass the classifier itself.")
        if self.flattened is not None and self.flattened != (1, 1):
            raise UsageError(
                f"fully_convolutional expects a linear layer after flattening; got none for maps of "
                f"{by(self.flattened)} pixels. Pass the whole classifier, not its features."
            )

    def _append(self, name: str, layer: nn.Module) -> None:
        self.steps.append((name, layer))

    def _flatten(self, name: str, layer: nn.Flatten) -> None:
        if (layer.start_dim, layer.end_dim) not in ((1, -1), (1, 3)):
            raise _refused(name, layer, " It must flatten all axes after the first: start_dim=1.")
        if self.flattened is None:
            self.flattened = self.map_size

    def _slide(self, name: str, layer: Any) -> nn.Module:
        kernel, padding = _pair(layer.kernel_size), getattr(layer, "padding", 0)
        stride, dilation = _pair(getattr(layer, "stride", kernel)), _pair(getattr(layer, "dilation", 1))
        rounds_up = getattr(layer, "ceil_mode", False)
        try:
            size = output_shape(
                self.map_size, kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=rounds_up
            )
        except UsageError as error:
            raise UsageError(f"Layer '{name}' of the classifier: {error}") from None
        sides = padding_amounts(padding, kernel, stride=stride, dilation=dilation)
        reach = [(size[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
        is_cut = any(reach[axis] > self.map_size[axis] + sum(sides[axis]) for axis in (0, 1))
        if is_cut or any(map(any, sides)):
            self.padded.append(name)
        self.map_size = _pair(size)
        self.stride = (self.stride[0] * stride[0], self.stride[1] * stride[1])
        result = copy.deepcopy(layer)
        if rounds_up and not is_cut:
            result.ceil_mode = False  # rounding up at the edge of a larger image would add a location
        return result  # type: ignore[no-any-return]

    def _adapt(self, name: str, layer: Any) -> None:
        """Replace an adaptive pooling by the fixed one that it is for one window, at stride 1."""
        asked = layer.output_size if isinstance(layer.output_size, tuple) else (layer.output_size,) * 2
        wanted = (asked[0] or self.map_size[0], asked[1] or self.map_size[1])  # None keeps the size of an axis
        patch = (self.map_size[0] // wanted[0], self.map_size[1] // wanted[1])
        if (patch[0] * wanted[0], patch[1] * wanted[1]) != self.map_size:
            raise _refused(
                name,
                layer,
                f" Its patches differ in size: {by(self.map_size)} pixels do not divide into {by(wanted)}.",
            )
        if patch != (1, 1):
            pool = nn.AvgPool2d if isinstance(layer, nn.AdaptiveAvgPool2d) else nn.MaxPool2d
            self._append(name, pool(patch, stride=1).train(layer.training))
        self.map_size = wanted
        # The patches of one window lie side by side, those of neighbouring windows overlap: the next layer finds the
        # numbers of one window `patch` pixels apart.
        self.spread = patch if wanted != (1, 1) else (1, 1)

    def _linear(self, name: str, layer: nn.Linear, kernel: tuple[int, int]) -> nn.Conv2d:
        """Return the convolution whose kernels are the rows of `W` as they lie over the flattened maps."""
        in_channels, rest = divmod(layer.in_features, kernel[0] * kernel[1])
        if rest:
            raise UsageError(
                f"Layer '{name}' reads {layer.in_features} features, but maps of {by(kernel)} pixels give a multiple "
                f"of {kernel[0] * kernel[1]}. Pass the input_shape that the classifier was built for."
            )
        weight, bias = layer.weight, layer.bias
        result: nn.Conv2d = nn.utils.skip_init(
            nn.Conv2d, in_channels, layer.out_features, kernel, dilation=self.spread, bias=bias is not None,
            device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        shape = (layer.out_features, in_channels, *kernel)
        result.weight = nn.Parameter(weight.detach().clone().reshape(shape), requires_grad=weight.requires_grad)
        if bias is not None:
            result.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
        self.flattened, self.spread = (1, 1), (1, 1)
        return result.train(layer.training)

    def _along_channels(self, name: str, layer: Any) -> nn.Module:
        if layer.dim != 1 and not (layer.dim == -1 and self.flattened):
            raise _refused(name, layer, f" It works along axis {layer.dim}; the channels are axis 1.")
        result = copy.deepcopy(layer)
        result.dim = 1
        return result  # type: ignore[no-any-return]


def _input_shape(model: nn.Module, given: Shape | None) -> Shape:
    shape, spec = given, getattr(model, "spec", None)
    if shape is None and isinstance(spec, ModelSpec):
        shape = spec.input_shape
    if shape is None:
        raise UsageError(
            "fully_convolutional expects the input_shape (C, H, W) of one image that the classifier takes; got none, "
            "and the model was not built by build_model, which would tell. Pass for example input_shape=(3, 224, 224)."
        )
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"input_shape must be that of one image, (channels, height, width); got {shape}.")
    return tuple(shape)


def _probabilities(steps: list[Step]) -> nn.Module:
    convolutions = [layer for _, layer in steps if isinstance(layer, nn.Conv2d)]
    has_one_logit = bool(convolutions) and convolutions[-1].out_channels == 1
    return nn.Sigmoid() if has_one_logit else nn.Softmax(dim=1)


def _refused(name: str, layer: nn.Module, more: str) -> UsageError:
    return UsageError(
        f"fully_convolutional expects layers that do the same at every place, then flattening, then linear layers; "
        f"got '{name}' ({type(layer).__name__}), which it cannot slide over an image there.{more}"
    )


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value[0], value[-1]) if isinstance(value, tuple) else (value, value)
