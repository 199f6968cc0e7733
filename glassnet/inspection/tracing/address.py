"""Addresses: one text for a unit or a weight, the same in Python, on the command line and in a link."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from glassnet._errors import UsageError, nearest_names
from glassnet._types import Shape, by

UNIT = re.compile(
    r"(?P<step>[^\[\]:@#]+)(?:#(?P<output>\d+))?(?:\[(?P<image>\d+)\])?(?::(?P<channel>\d+)(?:@(?P<position>\d+(?:,\d+)*))?)?"
)
WEIGHT = re.compile(r"(?P<path>[^\[\]:@#]+)\[(?P<index>\d+(?:,\d+)*)\]")


@dataclass(frozen=True)
class Address:
    """A unit, a channel, or a whole step: `features.6:12@3,5`, `fc:3`, `layer1.0.add[2]:12@3,5`, `chunk#1`."""

    step: str
    """A step's name, a module's path, or an input's name."""
    channel: int | None = None
    """The channel, feature or neuron, from 0; None for all of the step."""
    position: tuple[int, ...] = ()
    """Row and column of an image, one index for signals and tokens, none for vectors; empty for a whole channel."""
    image: int | None = None
    """Which of a batch, from 0."""
    output: int = 0
    """Which output, where a step has several."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that `text` writes; raises `UsageError` where it is none."""
        match = UNIT.fullmatch(text.strip().replace(", ", ",")) if isinstance(text, str) else None
        if match is None:
            raise UsageError(
                f"An address is step:channel@row,column, such as 'features.6:12@3,5' or 'fc:3' (of a batch "
                f"'fc[0]:3'); got {text!r}."
            )
        part = match.groupdict()
        return cls(
            step=part["step"],
            channel=None if part["channel"] is None else int(part["channel"]),
            position=_numbers(part["position"]),
            image=None if part["image"] is None else int(part["image"]),
            output=int(part["output"] or 0),
        )

    def __str__(self) -> str:
        output = f"#{self.output}" if self.output else ""
        image = "" if self.image is None else f"[{self.image}]"
        channel = "" if self.channel is None else f":{self.channel}"
        position = "@" + ",".join(map(str, self.position)) if self.position else ""
        return f"{self.step}{output}{image}{channel}{position}"


@dataclass(frozen=True)
class WeightAddress:
    """One number of a parameter: `conv1.weight[3,0,1,1]`, `fc.bias[7]`."""

    path: str
    index: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> WeightAddress:
        """Return the address that `text` writes; raises `UsageError` where it is none."""
        match = WEIGHT.fullmatch(text.strip().replace(", ", ",")) if isinstance(text, str) else None
        if match is None:
            raise UsageError(
                f"A weight's address is path[index,...], such as 'conv1.weight[3,0,1,1]' or 'fc.bias[7]'; got {text!r}."
            )
        return cls(match["path"], _numbers(match["index"]))

    def __str__(self) -> str:
        return f"{self.path}[{','.join(map(str, self.index))}]"


def unknown_step(name: str, shapes: Mapping[str, Shape], kind: str = "step") -> UsageError:
    """Return the error for a `name` that is none of `shapes`: the nearest names, with their shapes."""
    nearest = nearest_names(name, shapes)
    if nearest:
        remedy = "Did you mean " + " or ".join(f"'{near}' ({by(shapes[near])})" for near in nearest) + "?"
    else:
        some = list(shapes)[:8]
        more = f" and {len(shapes) - len(some)} more" if len(shapes) > len(some) else ""
        remedy = f"There are {', '.join(some)}{more}."
    return UsageError(f"Unknown {kind} '{name}'. {remedy}")


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",")) if text else ()
