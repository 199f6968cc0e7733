"""Naming a unit: `features.6:12@3,5` is channel 12 of layer `features.6` at row 3, column 5."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape, by

FORM = re.compile(r"(?P<layer>[^:@]*)(:(?P<channel>\d+))?(@(?P<position>\d+(,\d+)*))?")


class LayerError(UsageError):
    """What was asked of a layer does not suit it; the model and its inputs are right."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A layer, and of it a channel, a position, both or neither."""

    layer: str
    channel: int | None = None
    """Of a vector the feature."""
    position: Shape | None = None
    """Row and column; one number for signals, three for volumes, none for vectors."""

    def __str__(self) -> str:
        channel = "" if self.channel is None else f":{self.channel}"
        return f"{self.layer}{channel}" + (f"@{','.join(map(str, self.position))}" if self.position else "")

    def check(self, shape: Shape) -> None:
        """Raise `UsageError` where a layer whose output has `shape` `(C, ...)` has no such unit."""
        limits = ([] if self.channel is None else [("channel", self.channel, shape[0] if shape else 0)]) + [
            ("position", place, size) for place, size in zip(self.position or (), shape[1:], strict=False)
        ]
        for what, value, size in limits:
            if value >= size:
                if self.layer == "class":
                    raise LayerError(f"The model tells {size} classes apart: a class is 0 to {size - 1}; got {value}.")
                raise LayerError(f"Layer '{self.layer}' gives {by(shape)}: a {what} is 0 to {size - 1}; got {value}.")
        if self.position is not None and len(self.position) != len(shape) - 1:
            raise LayerError(
                f"Layer '{self.layer}' gives {by(shape)}: "
                + (
                    f"a position has {len(shape) - 1} numbers behind @; got {len(self.position)}."
                    if len(shape) > 1
                    else f"a feature has no position; got {','.join(map(str, self.position))}."
                )
            )


UnitArg = Unit | str | int | Sequence[int] | None
"""A unit of a known layer: (row, col) or (channel, row, col), the same as text, `3,5` or `12@3,5`, or the number of a
channel or feature; None for the middle position."""


def parse_unit(text: str) -> Unit:
    """Return the unit that `layer`, `layer:channel`, `layer:channel@row,col` or `layer@row,col` names.

    Raises `UsageError` for another form.
    """
    match = FORM.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise UsageError(
            f"A unit is layer:channel or layer:channel@row,col, such as conv2:12@3,5; got {text!r}. "
            "For a vector, layer:feature."
        )
    channel, position = match["channel"], match["position"]
    return Unit(
        layer=match["layer"],
        channel=None if channel is None else int(channel),
        position=None if position is None else tuple(int(part) for part in position.split(",")),
    )


def resolve_unit(unit: UnitArg, layer: str, shape: Shape) -> Unit:
    """Return one unit of `layer`, whose output has `shape` `(C, ...)`; the middle position where none is named.

    Raises `UsageError` for a unit of another layer, and for one that the layer has not.
    """
    channel, position = _parts(unit, layer, shape)
    if position is None and len(shape) > 1:
        position = tuple(size // 2 for size in shape[1:])
    found = Unit(layer=layer, channel=channel, position=position)
    found.check(shape)
    return found


def _parts(unit: UnitArg, layer: str, shape: Shape) -> tuple[int | None, Shape | None]:
    """Return channel and position of a unit as it may be named."""
    if unit is None or isinstance(unit, int):
        return unit, None
    if isinstance(unit, str):
        prefix = "" if ":" in unit or unit.startswith("@") else "@" if "," in unit and "@" not in unit else ":"
        try:
            unit = parse_unit(prefix + unit)
        except UsageError:
            raise UsageError(
                f"A unit of '{layer}' is row,col, channel@row,col or channel, such as 3,5 or 12@3,5; got '{unit}'."
            ) from None
    if isinstance(unit, Unit):
        if unit.layer not in ("", layer):
            raise UsageError(f"Expected a unit of '{layer}'; got '{unit}'. Leave the layer out, as in 12@3,5.")
        return unit.channel, unit.position
    numbers = tuple(int(number) for number in unit)
    return (numbers[0], numbers[1:] or None) if len(numbers) == len(shape) else (None, numbers)


def unit_sum(output: Tensor, unit: Unit) -> Tensor:
    """Return the sum over the images of a unit's outputs, and over channels or positions where it names none.

    `output` `(N, C, ...)` -> a scalar.
    """
    chosen = output if unit.channel is None else output.narrow(1, unit.channel, 1)
    for place in unit.position or ():
        chosen = chosen.select(2, place)
    return chosen.sum()


def check_layer(layer: object, names: Iterable[str]) -> str:
    """Return `layer` where it is among `names`; else raise `UsageError` with the nearest ones."""
    known = [name for name in names if name]
    if not isinstance(layer, str) or layer not in known:
        raise unknown_name("layer", str(layer), known, "`glassnet summary` lists them.")
    return layer
