"""Addresses of the numbers in a trace: from a value and an index to the text that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glassnet.inspection.tracing.address import Address, WeightAddress
from glassnet.inspection.tracing.layout import channel_axes
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.values import Value

Index = tuple[int, ...]


class Naming:
    """The names of a trace's values, and the axis of each that its channels lie on."""

    def __init__(self, steps: Sequence[Step], inputs: Sequence[Value], axes: Mapping[int, int] | None = None) -> None:
        self._steps = steps
        self._axes = channel_axes(steps, inputs) if axes is None else axes

    def name(self, value: Value) -> str:
        """Return a value's name: a step's, an input's, a parameter's path."""
        if value.step is None:
            return value.path or value.source
        output = value.origin.output
        return self._steps[value.step].name + (f"#{output}" if output else "")

    def channel_axis(self, value: Value) -> int:
        """Return the axis of the channels; 0 for parameters and values without axes."""
        return self._axes.get(value.number, 0)

    def text(self, place: tuple[Value, Index] | None) -> str:
        """Return the address of one number; empty for none."""
        if place is None:
            return ""
        value, index = place
        if value.number not in self._axes:
            return str(WeightAddress(self.name(value), index)) if index else self.name(value)
        return str(self.address(value, index))

    def address(self, value: Value, index: Index) -> Address:
        """Return the address of one number of an input or a step's output."""
        if not index:
            return Address(self.name(value))
        axis = self.channel_axis(value)
        is_vector = len(index) == 1
        return Address(
            self.name(value),
            channel=None if is_vector else index[axis],
            position=tuple(place for number, place in enumerate(index) if number not in (0, axis)),
            image=None if value.shape[0] == 1 else index[0],
        )

    def channel_text(self, value: Value, channel: int) -> str:
        """Return the address of a whole channel, `conv1:3`; a row of a parameter, `fc.weight[3]`."""
        name = self.name(value)
        if value.number not in self._axes:
            return str(WeightAddress(name, (channel,)))
        return name if len(value.shape) < 2 else f"{name}:{channel}"
