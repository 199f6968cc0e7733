"""What must fit before a network is built: image sizes through its layers, layer widths, dropout."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from glassnet._errors import UsageError
from glassnet._types import Shape, by
from glassnet.arithmetic import output_size

Window = tuple[str, int, int, int, bool]
"""A layer that slides a square window: its name, kernel size, stride, padding, and whether its size is rounded up."""


def walk_sizes(model_name: str, input_shape: Shape, windows: Sequence[Window], remedy: str = "") -> Shape:
    """Return the `(height, width)` that is left of an `input_shape` `(C, H, W)` after all `windows`.

    Each is `(layer_name, kernel, stride, padding, ceil_mode)`. Raises `UsageError` where `input_shape` is no image,
    and where a layer runs out of pixels: the message has the sizes up to it, the smallest image that fits, `remedy`.
    """
    channels_of(model_name, input_shape)
    size = input_shape[1:]
    passed: list[str] = []
    for window in windows:
        try:
            next_size = tuple(_after(side, window) for side in size)
        except UsageError:
            least = _smallest_side(windows)
            raise UsageError(
                f"{model_name} needs images of at least {least}x{least} pixels; got {by(input_shape[1:])}: "
                f"{''.join(passed)}{_no_room(size, window)} "
                f"Pad or resize the images to {least}x{least} or more. {remedy}".rstrip()
            ) from None
        if next_size != size:
            passed.append(f"{window[0]} {by(next_size)} -> ")
        size = next_size
    return size


def channels_of(model_name: str, input_shape: Shape) -> int:
    """Return the channels of an `input_shape` `(C, H, W)`; raises `UsageError` where it is not an image's."""
    if len(input_shape) != 3:
        raise UsageError(f"{model_name} takes images: input_shape (channels, height, width); got {input_shape}.")
    for axis, number in zip(("channels", "height", "width"), input_shape, strict=True):
        check_width(model_name, **{axis: number})
    return input_shape[0]


def windows_of(layers: nn.Module) -> list[Window]:
    """Return the convolutions and poolings (with square windows) of `layers`, in order, inner `Sequential`s too.

    Other containers are passed over: what they do to the size is not visible from their parts.
    """
    found: list[Window] = []
    for name, layer in layers.named_children():
        if isinstance(layer, nn.Sequential):
            found += [(f"{name}.{window[0]}", *window[1:]) for window in windows_of(layer)]
        elif (window := _window(name, layer)) is not None:
            found.append(window)
    return found


def check_width(model_name: str, **widths: int) -> None:
    """Raise `UsageError` where a number of units, given under its option's name, is below 1."""
    for option, width in widths.items():
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise UsageError(f"{option} of {model_name} must be a whole number of at least 1; got {width!r}.")


def check_dropout(model_name: str, dropout: float) -> None:
    """Raise `UsageError` where `dropout`, the probability of silencing a unit, is not in [0, 1)."""
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout of {model_name} must be at least 0 and below 1; got {dropout}.")


def _after(side: int, window: Window) -> int:
    _, kernel, stride, padding, ceil_mode = window
    return output_size(side, kernel, stride=stride, padding=padding, ceil_mode=ceil_mode)


def _window(name: str, layer: nn.Module) -> Window | None:
    if isinstance(layer, nn.Conv2d):
        assert isinstance(layer.padding, tuple)
        return name, layer.kernel_size[0], layer.stride[0], layer.padding[0], False
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
        assert isinstance(kernel, int)
        assert isinstance(stride, int)
        assert isinstance(padding, int)
        return name, kernel, stride, padding, layer.ceil_mode
    return None


def _no_room(size: Shape, window: Window) -> str:
    layer, kernel, stride, padding, ceil_mode = window
    side = min(size)
    limit = f"{1 - stride}, the least it takes when sizes are rounded up" if ceil_mode else "0"
    return (
        f"{layer} (kernel {kernel}, stride {stride}, padding {padding}) has no room in {by(size)}, "
        f"{side} + 2*{padding} - {kernel} = {side + 2 * padding - kernel} < {limit}."
    )


def _smallest_side(windows: Sequence[Window]) -> int:
    return next(side for side in itertools.count(1) if _fits(side, windows))


def _fits(side: int, windows: Sequence[Window]) -> bool:
    try:
        for window in windows:
            side = _after(side, window)
    except UsageError:
        return False
    return True
