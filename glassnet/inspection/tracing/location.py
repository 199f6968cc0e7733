"""The place in a value that an address names, checked against its shape."""

from __future__ import annotations

from dataclasses import dataclass

from glassnet._errors import UsageError
from glassnet._types import Shape, by
from glassnet.inspection.tracing.address import Address, WeightAddress
from glassnet.inspection.tracing.values import Value


@dataclass(frozen=True)
class Location:
    """A unit, a channel, an image or all of a value."""

    address: Address
    value: Value
    index: tuple[int | slice, ...]
    """What to index the value's tensor with; a slice along each axis that the address leaves open."""

    @property
    def is_unit(self) -> bool:
        """True where it is one number."""
        return all(isinstance(place, int) for place in self.index)

    @property
    def unit(self) -> tuple[int, ...]:
        """The index of one number; raises `UsageError` where the address names more than one."""
        places = tuple(place for place in self.index if isinstance(place, int))
        if len(places) != len(self.index):
            raise UsageError(
                f"An address of one unit is needed; '{self.address}' names several, of {by(self.value.shape)}. "
                f"Write {_example(self.address, self.value.shape)}."
            )
        return places


def located(address: Address, value: Value, channel_axis: int) -> Location:
    """Return the place in `value` that `address` names.

    Axis 0 is the image's, `channel_axis` the channel's, the others' are the positions in their order. An image may be
    left out where there is one. Raises `UsageError` where an index is too large, or there are too many.
    """
    shape = value.shape
    index: list[int | slice] = [slice(None)] * len(shape)
    if shape:
        _put(index, 0, _image(address, shape), address, shape, "image")
    axes = [axis for axis in range(1, len(shape)) if axis != channel_axis]
    if address.channel is not None:
        if len(shape) < 2:
            raise _misfit(address, shape, "it has no channels")
        _put(index, channel_axis, address.channel, address, shape, "channel")
    if address.position:
        if len(address.position) != len(axes):
            raise _misfit(address, shape, f"a position has {len(axes)} numbers, not {len(address.position)}")
        for axis, place in zip(axes, address.position, strict=True):
            _put(index, axis, place, address, shape, "position")
    return Location(address, value, tuple(index))


def weight_index(address: WeightAddress, shape: Shape) -> tuple[int, ...]:
    """Return the index of `address` in a parameter of `shape`; raises `UsageError` where it has no such number."""
    fits = len(address.index) == len(shape) and all(
        place < size for place, size in zip(address.index, shape, strict=True)
    )
    if not fits:
        ranges = ", ".join(f"0..{size - 1}" for size in shape)
        raise UsageError(
            f"{address.path} is {by(shape)}, so its numbers are {address.path}[{ranges}]; got '{address}'."
        )
    return address.index


def _image(address: Address, shape: Shape) -> int | None:
    if address.image is None and shape[0] != 1 and address.channel is not None:
        raise _misfit(address, shape, f"it needs an image, [0] to [{shape[0] - 1}]")
    return 0 if address.image is None and shape[0] == 1 else address.image


def _put(index: list[int | slice], axis: int, place: int | None, address: Address, shape: Shape, word: str) -> None:
    if place is None:
        return
    if place >= shape[axis]:
        raise _misfit(address, shape, f"{word} {place} is not in 0..{shape[axis] - 1}")
    index[axis] = place


def _misfit(address: Address, shape: Shape, what: str) -> UsageError:
    return UsageError(
        f"{address.step} is {by(shape) or 'one number'} (the first is the image); '{address}' does not fit: {what}. "
        f"Write {_example(address, shape)}."
    )


def _example(address: Address, shape: Shape) -> str:
    """Return an address of one unit that exists."""
    image = None if not shape or shape[0] == 1 else min(address.image or 0, shape[0] - 1)
    is_channel = address.channel is not None and len(shape) > 1 and address.channel < shape[1]
    channel = (address.channel if is_channel else 0) if len(shape) > 1 else None
    position = (0,) * max(len(shape) - 2, 0)
    return f"'{Address(address.step, channel, position, image, address.output)}'"
