"""One recorded call, and its repetition with other inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.inspection.tracing.calls import Function, tensors_in
from glassnet.inspection.tracing.randomness import Draws, drawn_again
from glassnet.inspection.tracing.signatures import named_arguments
from glassnet.inspection.tracing.values import Value


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in a call's arguments for the input at this position of `Step.inputs`."""

    position: int


SLOTS = tuple(Slot(position) for position in range(64))
PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device})


Autocast = tuple[bool, torch.dtype | None]
"""Whether calls run under autocast, and in which type."""

NO_AUTOCAST: Autocast = (False, None)


class Call(NamedTuple):
    """A call with its tensors taken out, so that others can be put in."""

    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    written: tuple[int, ...] = ()
    """Positions of the inputs that the call writes to."""
    draws: Draws | None = None
    """The generators' states before the call, where it drew."""
    autocast: Autocast = NO_AUTOCAST
    requiring_gradient: tuple[int, ...] = ()
    """Positions of the inputs that required a gradient: torch may multiply in another order for those."""
    is_grad_enabled: bool = False

    def run(self, tensors: list[Tensor]) -> list[Tensor]:
        """Call on `tensors`, one a slot; return the tensors that come out, then those it wrote to and kept.

        As recorded, bit for bit, where none of `tensors` requires a gradient; else with autograd as the caller has it.
        """
        if any(tensor.requires_grad for tensor in tensors):
            return self._run(self._with_copies(tensors, list(tensors)))
        with torch.inference_mode(False), torch.set_grad_enabled(self.is_grad_enabled):
            return [tensor.detach() for tensor in self._run(self._as_recorded(tensors))]

    def _as_recorded(self, tensors: list[Tensor]) -> list[Tensor]:
        given = list(tensors)
        for position in self.requiring_gradient:
            given[position] = given[position].detach().requires_grad_()
        return self._with_copies(tensors, given)

    def _with_copies(self, tensors: list[Tensor], given: list[Tensor]) -> list[Tensor]:
        """Put copies into `given` where the call writes; one tensor at two positions stays one tensor."""
        copies: dict[int, Tensor] = {}
        for position in self.written:
            tensor = given[position]
            if id(tensors[position]) not in copies:
                copy = copies[id(tensors[position])] = tensor.clone()
                if tensor.requires_grad and not copy.requires_grad:
                    copy.requires_grad_()
            given[position] = copies[id(tensors[position])]
        return given

    def _run(self, tensors: list[Tensor]) -> list[Tensor]:
        with ExitStack() as stack:
            if self.draws is not None:
                stack.enter_context(drawn_again(self.draws))
            device = tensors[0].device.type if tensors else "cpu"
            stack.enter_context(_as_cast(device, self.autocast))
            result = self.function(*filled(self.args, tensors), **filled(self.kwargs, tensors))
        return outputs_of(result, [tensors[position] for position in self.written])


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One call at the level people name, of those that a pass was made of."""

    index: int
    """Its number in the order of the calls."""
    name: str
    """Its address: a module's path (`conv1`), or that and the operation (`layer1.0.add`)."""
    op: str
    """The operation: `conv2d`, `batch_norm`, `relu`, `add`, also where it was written `+`, or worked in place."""
    module: str
    """The path of the module it ran in; empty for the model itself."""
    inputs: tuple[Value, ...]
    """Every tensor it read, parameters included, in the order of its arguments; a position may repeat a value."""
    outputs: tuple[Value, ...]
    """What came out; then what it wrote to besides (batch norm's running statistics in training mode)."""
    call: Call = field(repr=False)

    @property
    def output(self) -> Value:
        """The first of its outputs, for most operations the only one."""
        return self.outputs[0]

    @property
    def shape(self) -> Shape:
        """The shape of the first output, batch axis included."""
        return self.output.shape

    @property
    def is_differentiable(self) -> bool:
        """False where the call ran without gradients, so that autograd knows no path through it."""
        return self.call.is_grad_enabled

    @property
    def is_in_place(self) -> bool:
        """True where the call wrote to one of its inputs."""
        return bool(self.call.written)

    @property
    def is_random(self) -> bool:
        """True where the call drew random numbers; repeating it draws the same."""
        return self.call.draws is not None

    @cached_property
    def named(self) -> dict[str, Any]:
        """Every argument that was given, by its name in torch's documentation; `Slot` stands for a tensor.

        Arguments whose name is not known have their position as name: `"0"`. What was not given has torch's default.
        """
        return named_arguments(self.call.function, self.op, self.call.args, self.call.kwargs)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that hold no tensor, by name: `{"stride": (2, 2), "padding": (1, 1)}`."""
        return {name: value for name, value in self.named.items() if not any(_slots(value))}

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The argument's name of each of `inputs`: `("input", "weight", "bias")`; one name for tensors in a list."""
        names = [""] * len(self.inputs)
        for name, value in self.named.items():
            for slot in _slots(value):
                names[slot.position] = name
        return tuple(names)

    def input(self, name: str) -> Value | None:
        """Return the first input of that argument's name, None where none was given."""
        names = self.input_names
        return self.inputs[names.index(name)] if name in names else None

    def replay(self, overrides: Mapping[int, Tensor] | None = None, *, output: int = 0) -> Tensor:
        """Repeat the recorded call; `overrides` are other tensors for positions of `inputs`. Returns that output.

        Random numbers are drawn again the same, and what the call writes to is a copy. Without overrides the numbers
        are the recorded ones, bit for bit. Autograd sees the call where an override requires a gradient.
        """
        return self.replay_all(overrides)[output]

    def replay_all(self, overrides: Mapping[int, Tensor] | None = None) -> tuple[Tensor, ...]:
        """As `replay`, with every output.

        Raises `UsageError` for a position that is not one of the inputs', or a tensor of another shape.
        """
        tensors = [value.tensor for value in self.inputs]
        for position, tensor in (overrides or {}).items():
            tensors[position] = self._fitted(position, tensor)
        return tuple(self.call.run(tensors)[: len(self.outputs)])

    def vjp(self, cotangents: Mapping[int, Tensor], positions: Iterable[int]) -> dict[int, Tensor | None]:
        """Return the vector-Jacobian product at each of `positions` of `inputs`.

        `cotangents` are dL/d(output) by the output's number; outputs left out have none. Computed by autograd on a
        repetition of the call; with a one-hot cotangent it is one row of the Jacobian. None where an input is not of
        floating numbers, or autograd knows no way to it.
        """
        leaves = {
            position: self.inputs[position].tensor.detach().clone().requires_grad_()
            for position in positions
            if self.inputs[position].tensor.is_floating_point() or self.inputs[position].tensor.is_complex()
        }
        with torch.inference_mode(False), torch.enable_grad():
            outputs = self.replay_all(leaves)
            reached = [number for number in cotangents if outputs[number].requires_grad]
            if not reached or not leaves:
                return dict.fromkeys(positions)
            found = torch.autograd.grad(
                [outputs[number] for number in reached],
                list(leaves.values()),
                [cotangents[number] for number in reached],
                allow_unused=True,
            )
        by_position = dict(zip(leaves, found, strict=True))
        return {position: by_position.get(position) for position in positions}

    def _fitted(self, position: int, tensor: Tensor) -> Tensor:
        """Return an override in the memory layout of the tensor it stands for: kernels round by layout."""
        if not 0 <= position < len(self.inputs):
            raise UsageError(
                f"Inputs of {self.name} have positions 0 to {len(self.inputs) - 1} "
                f"({', '.join(self.input_names)}); got {position}."
            )
        like = self.inputs[position].tensor
        if tensor.shape != like.shape:
            raise UsageError(
                f"Input {position} of {self.name} has shape {tuple(like.shape)}; got {tuple(tensor.shape)}."
            )
        return in_layout_of(like, tensor)

    def __repr__(self) -> str:
        return f"Step({self.name}, {self.op}, {self.shape})"


def in_layout_of(like: Tensor, tensor: Tensor) -> Tensor:
    """Return `tensor` with the strides of `like`, of the same shape; autograd sees it."""
    if tensor.layout != torch.strided or like.layout != torch.strided or tensor.stride() == like.stride():
        return tensor
    if like.numel() == 0 or any(
        stride == 0 for stride, size in zip(like.stride(), like.shape, strict=True) if size > 1
    ):
        return tensor
    empty = torch.empty_strided(like.shape, like.stride(), dtype=tensor.dtype, device=tensor.device)
    return empty.copy_(tensor)


def outputs_of(result: Any, written: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors of a call's result, then those of `written` that are not among them."""
    if isinstance(result, Tensor) and not written:
        return [result]
    produced = list(tensors_in(result))
    return produced + [tensor for tensor in written if not any(tensor is other for other in produced)]


def taken_out(value: Any, tensors: list[Tensor]) -> Any:
    """Return nested arguments with a `Slot` for every tensor, which is put at the end of `tensors`."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return SLOTS[len(tensors) - 1] if len(tensors) <= len(SLOTS) else Slot(len(tensors) - 1)
    if type(value) in PLAIN:
        return value
    if type(value) is tuple:
        for part in value:
            if type(part) not in PLAIN:
                return tuple([taken_out(part, tensors) for part in value])
        return value
    if type(value) is list:
        return [taken_out(part, tensors) for part in value]
    if isinstance(value, dict):
        return {key: taken_out(part, tensors) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(taken_out(part, tensors) for part in (value.start, value.stop, value.step)))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(taken_out(part, tensors) for part in value))
    return value


def filled(value: Any, tensors: list[Tensor]) -> Any:
    """Undo `taken_out` with other tensors."""
    if isinstance(value, Slot):
        return tensors[value.position]
    if isinstance(value, tuple):
        parts = [filled(part, tensors) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [filled(part, tensors) for part in value]
    if isinstance(value, dict):
        return {key: filled(part, tensors) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(filled(part, tensors) for part in (value.start, value.stop, value.step)))
    return value


def _slots(value: Any) -> Iterator[Slot]:
    if isinstance(value, Slot):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _slots(part)
    elif isinstance(value, dict):
        yield from _slots(list(value.values()))
    elif isinstance(value, slice):
        yield from _slots((value.start, value.stop, value.step))


@contextmanager
def _as_cast(device: str, autocast: Autocast) -> Iterator[None]:
    is_enabled, dtype = autocast
    if torch.is_autocast_enabled(device) == is_enabled and (
        not is_enabled or torch.get_autocast_dtype(device) == dtype
    ):
        yield
        return
    with torch.autocast(device, enabled=is_enabled, dtype=dtype):
        yield
