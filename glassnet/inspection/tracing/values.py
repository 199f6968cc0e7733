"""Values: the tensors of a pass, each with where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import Shape

if TYPE_CHECKING:
    from torch.autograd.graph import GradientEdge

Source = Literal["step", "input", "parameter", "buffer", "constant"]


class Origin(NamedTuple):
    """Where a value came from."""

    source: Source
    number: int = 0
    """The number of the step that produced it, or of the input."""
    output: int = 0
    """Which of the step's outputs it is."""
    path: str = ""
    """Of a parameter or buffer, `conv1.weight`; an input's name; what made a constant, where that is known."""


@dataclass(eq=False)
class Table:
    """The tensors of all values of one pass by the values' numbers; the recorder fills it, then nothing changes it."""

    origins: list[Origin] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    edges: list[GradientEdge | Tensor | None] = field(default_factory=list)
    """Where autograd's gradient of the value passes; empty when the trace is done."""
    through_consumers: set[int] = field(default_factory=set)
    """Values whose gradient autograd does not hold in one place, because a view was written to in place."""
    gradients: dict[int, Tensor] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    """Of parameters and constants, which belong to the model: how often they had been written to."""

    def add(self, origin: Origin, tensor: Tensor, edge: GradientEdge | Tensor | None = None) -> int:
        """Add a value; return its number."""
        self.origins.append(origin)
        self.tensors.append(tensor)
        self.edges.append(edge)
        return len(self.tensors) - 1


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor of the pass as it was when it was made, even where the model overwrote it later.

    Two `Value`s are equal where they are the same value of the same trace.
    """

    number: int
    _table: Table = field(repr=False)

    @property
    def origin(self) -> Origin:
        """Where it came from."""
        return self._table.origins[self.number]

    @property
    def source(self) -> Source:
        """`step`, `input`, `parameter`, `buffer` or `constant` (a tensor made from no recorded value)."""
        return self.origin.source

    @property
    def step(self) -> int | None:
        """The number of the step that produced it; None where no step did."""
        return self.origin.number if self.source == "step" else None

    @property
    def path(self) -> str:
        """A parameter's or buffer's path, `conv1.weight`; an input's name; empty for others."""
        return self.origin.path

    @property
    def tensor(self) -> Tensor:
        """The numbers, detached from autograd. Not a copy: do not write to it.

        Raises `UsageError` where it is a parameter that was changed in place since the pass.
        """
        tensor = self._table.tensors[self.number]
        version = self._table.versions.get(self.number)
        if version is not None and tensor._version != version:
            raise UsageError(
                f"A trace is of the model as it was; {self.path or 'a tensor of the model'} has changed since. "
                "Trace again."
            )
        return tensor

    @property
    def shape(self) -> Shape:
        """With the batch axis."""
        return tuple(self._table.tensors[self.number].shape)

    @property
    def gradient(self) -> Tensor | None:
        """Autograd's dL/d(value), of its shape; None where the loss does not depend on it by a path autograd knows."""
        return self._table.gradients.get(self.number)

    def __hash__(self) -> int:
        return hash((id(self._table), self.number))
