"""The rows of a summary, as plain records."""

from __future__ import annotations

from dataclasses import dataclass

from glassnet._types import Shape


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer, or one function called outside the layers, of the forward pass. Shapes are without the batch axis.

    A layer is a module without children. Its shapes are those of the first tensor it takes and gives.
    """

    name: str
    """The module's path, such as `features.6`; of a function the path it was called in and its name, `layer1.0.add`.
    A second call of the same name gets `_1`."""
    kind: str
    """The layer's class, such as `Conv2d`, or the function's name, such as `add`."""
    is_function: bool = False
    input_shape: Shape
    output_shape: Shape
    kernel_size: Shape = ()
    """One number for all axes or one an axis; empty for layers that slide no window, as are stride and padding."""
    stride: Shape = ()
    padding: Shape = ()
    num_parameters: int
    """Trainable or not; 0 where an earlier row already counted them (a module used twice)."""
    is_weighted: bool = False
    """True for convolutions and fully connected layers, and for functions that multiply by parameters."""
    num_multiplications: int | None
    """For one input, see `glassnet.inspection.counting`. None where there is an operation without a rule."""
    num_additions: int | None = None
    """Likewise."""
    num_bytes: int = 0
    """Memory of the output for one input; 0 where it lies in the memory of what came in (a view, in place)."""
    field_size: Shape = ()
    """Receptive field along each axis of the input in pixels, padding included: see `gn.receptive_field`. Empty where
    the output sees nothing of the input."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A module with children, and what its rows come to together."""

    name: str
    kind: str
    num_parameters: int
    num_multiplications: int
    """The sum over the counted rows, as is that of the additions."""
    num_additions: int
