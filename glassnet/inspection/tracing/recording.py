"""The recorder: a mode that sees every call of torch's functions in one pass and writes down what computed what."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from glassnet._errors import UsageError
from glassnet.inspection.tracing.calls import (
    COMPOSITES,
    Function,
    Kind,
    Role,
    kind_of,
    opened,
    tensors_in,
    written_arguments,
)
from glassnet.inspection.tracing.opaque import intercepting
from glassnet.inspection.tracing.randomness import Draws, generator_states, has_drawn
from glassnet.inspection.tracing.scopes import Scope, Scopes
from glassnet.inspection.tracing.step import NO_AUTOCAST, PLAIN, Autocast, Call, outputs_of, taken_out
from glassnet.inspection.tracing.storage import Live, Memory, geometry, overwrite
from glassnet.inspection.tracing.values import Origin, Table


@dataclass(slots=True)
class Recorded:
    """A step before it has a name."""

    op: str
    scope: Scope
    call: Call
    inputs: list[int]
    outputs: list[int]
    is_own: bool = True
    """False for what the recorder adds to say that a view changed with its base."""


class ModuleOutputs:
    """The value that each call of a module returned, in the order in which they returned."""

    def __init__(self, table: Table, memory: Memory) -> None:
        self.by_path: list[tuple[str, int]] = []
        self._table = table
        self._memory = memory

    def add(self, path: str, output: object) -> None:
        """Note the first tensor of what the module at `path` returned, where a step made it."""
        first = output if isinstance(output, Tensor) else next(tensors_in(output), None)
        live = self._memory.find(first) if first is not None else None
        if live is not None and path and self._table.origins[live.value].source == "step":
            self.by_path.append((path, live.value))


class Recorder(TorchFunctionMode):
    """Writes the calls of one pass into `table` and `steps`; see the package's docstring."""

    def __init__(self, paths: Mapping[int, str], *, with_gradients: bool) -> None:
        super().__init__()
        self.table = Table()
        self.steps: list[Recorded] = []
        self.memory = Memory()
        self.module_outputs = ModuleOutputs(self.table, self.memory)
        self.scopes = Scopes(paths, self.module_outputs.add)
        self.read_by_program: set[int] = set()
        """Values whose numbers the program itself looked at."""
        self.gaps: dict[str, None] = {}
        """What could not be recorded, in words."""
        self._restores: list[tuple[Tensor, Tensor]] = []
        self._buffers: dict[int, None] = {}
        self._made: set[int] = set()
        self._with_gradients = with_gradients
        self._thread = threading.get_ident()

    # --- what the pass starts from

    def know(self, tensor: Tensor, origin: Origin) -> int:
        """Give a tensor from outside the pass its place: an input, parameter or buffer. Returns the value's number."""
        number = self.table.add(origin, tensor, self._edge(tensor))
        self.memory.hold(tensor, number)
        if origin.source == "buffer":
            self._buffers[id(tensor)] = None
        if origin.source in {"parameter", "constant"} and not tensor.is_inference():
            self.table.versions[number] = tensor._version
        return number

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record this thread's calls for a block; nothing of the recorder survives it."""
        with self.scopes.watching(), intercepting(self.record_opaque), self:
            yield

    def put_back(self) -> None:
        """Undo what the pass wrote to the model's parameters and to tensors that were there before it."""
        if not self._restores:
            return
        with torch.no_grad():
            for tensor, kept in reversed(self._restores):
                for live in self.memory.sharing(tensor):
                    if self.table.tensors[live.value] is live.tensor:
                        self.table.tensors[live.value] = live.tensor.detach().clone()
                tensor.copy_(kept)
        self._restores.clear()

    # --- the calls

    def __torch_function__(
        self, func: Function, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a call; write it down where it computes tensors from tensors."""
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.role is Role.QUESTION:
            return func(*args, **kwargs)
        if torch._C._are_functorch_transforms_active():
            self.gaps[f"{kind.op} inside a torch.func transform"] = None
            return func(*args, **kwargs)
        if kind.role is Role.COMPOSITE:
            with self.scopes.within(COMPOSITES[func]), self:
                return opened(func)(*args, **kwargs)
        return self._run(kind, func, args, kwargs)

    def record_opaque(self, op: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what works out of the mode's sight (a user's autograd function, a scripted one) as one step."""
        if threading.get_ident() != self._thread or not _is_on_top(self):
            return function(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            return self._run(Kind(op, Role.STEP, False, True, is_foreign=True), function, args, kwargs)

    def _run(self, kind: Kind, func: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given: list[Tensor] = []
        plain_args = tuple([arg if type(arg) in PLAIN else taken_out(arg, given) for arg in args])
        plain_kwargs = {name: taken_out(arg, given) for name, arg in kwargs.items()} if kwargs else kwargs
        if not given:
            return self._made_here(kind, func(*args, **kwargs))
        written = written_arguments(kind, func, args, kwargs)
        inputs = [self.value_of(tensor) for tensor in given]
        if written:
            self._before_writing(written)
        draws = generator_states(given[0].device) if kind.may_draw else None
        versions = [_version(tensor) for tensor in given] if kind.is_foreign else []
        is_grad_enabled = torch.is_grad_enabled()
        requiring = tuple([position for position, tensor in enumerate(given) if tensor.requires_grad])
        autocast = _autocast(given[0])
        result = func(*args, **kwargs)
        if kind.role is Role.NUMBER:
            self.read_by_program.update(inputs)
        if kind.role is Role.CREATION:
            return self._made_here(kind, result)
        if kind.is_foreign:
            self._refuse_unseen_writes(kind, given, written, versions)
        result = self._told_apart(kind, result, given, written)
        produced = outputs_of(result, written)
        if not produced or (kind.role is Role.CONVERSION and all(any(p is g for g in given) for p in produced)):
            return result
        if written and self._is_counter(written, given):
            return self._as_constant(written, result)
        places, drawn = _positions(given, written), _kept_draws(draws)
        call = Call(func, plain_args, plain_kwargs, places, drawn, autocast, requiring, is_grad_enabled)
        self.scopes.current.count()
        self._write_down(Recorded(kind.op, self.scopes.current, call, inputs, []), produced)
        if written:
            self._after_writing(written, dict(zip(map(id, given), inputs, strict=True)))
        return result

    def _write_down(self, step: Recorded, produced: list[Tensor]) -> None:
        index = len(self.steps)
        self.steps.append(step)
        for output, tensor in enumerate(produced):
            number = self.table.add(Origin("step", index, output), tensor, self._edge(tensor))
            self.memory.hold(tensor, number)
            step.outputs.append(number)

    # --- tensors and their values

    def value_of(self, tensor: Tensor) -> int:
        """Return the number of a tensor's present value."""
        live = self.memory.find(tensor)
        if live is None:
            return self._constant(tensor)
        return self._brought_up_to_date(live) if live.writes else live.value

    def _constant(self, tensor: Tensor) -> int:
        if tensor.grad_fn is not None:
            self.gaps[f"what computed a tensor of shape {tuple(tensor.shape)} ({tensor.grad_fn.name()})"] = None
        return self.know(tensor, Origin("constant"))

    def _made_here(self, kind: Kind, result: Any) -> Any:
        """Note tensors that the pass made from no recorded value: constants, and its own to overwrite."""
        for tensor in tensors_in(result):
            if self.memory.find(tensor) is None:
                self.memory.hold(tensor, self.table.add(Origin("constant", path=kind.op), tensor, self._edge(tensor)))
                self._made.add(id(tensor))
        return result

    def _edge(self, tensor: Tensor) -> Any:
        """Return what autograd is to be asked for the gradient of a tensor as it is now."""
        if not self._with_gradients or not tensor.requires_grad:
            return None
        return tensor if tensor.is_leaf else get_gradient_edge(tensor)

    def _told_apart(self, kind: Kind, result: Any, given: list[Tensor], written: tuple[Tensor, ...]) -> Any:
        """Return a call's result with a view in place of an argument that it handed back as it was.

        Dropout in evaluation mode does so; the argument may also go elsewhere, and the two are different values.
        """
        if written or kind.role is Role.CONVERSION:
            return result
        if isinstance(result, Tensor):
            for tensor in given:
                if result is tensor:
                    return result.view_as(result)
            return result
        if type(result) in {tuple, list}:
            return type(result)(self._told_apart(kind, part, given, written) for part in result)
        return result

    # --- writing in place

    def _before_writing(self, written: Collection[Tensor]) -> None:
        """Copy every value that lies in the memory about to be written, before it is lost."""
        for tensor in written:
            for live in self.memory.sharing(tensor):
                if self.table.tensors[live.value] is not live.tensor:
                    continue
                kept = live.tensor.detach().clone()
                is_outside = self.table.origins[live.value].source in {"parameter", "constant"}
                if is_outside and id(live.tensor) not in self._made:
                    self._restores.append((live.tensor, kept))
                self.table.versions.pop(live.value, None)
                self.table.tensors[live.value] = kept

    def _after_writing(self, written: Iterable[Tensor], before: Mapping[int, int]) -> None:
        """Note which other tensors changed with those that were written, and whose gradient autograd now splits."""
        for tensor in written:
            live = self.memory.find(tensor)
            assert live is not None
            others = [other for other in self.memory.sharing(tensor) if other is not live]
            if tensor._base is not None and id(tensor) in before:
                self.table.through_consumers.add(before[id(tensor)])
            if others:
                self.table.through_consumers.add(live.value)
            for other in others:
                other.writes += ((live.value, geometry(tensor)),)

    def _brought_up_to_date(self, live: Live) -> int:
        """Return the value of a tensor after others wrote to its memory: a step that says so."""
        writes = live.writes
        if any(self.table.tensors[number].dtype != live.tensor.dtype for number, _ in writes):
            self.gaps[f"a write to memory read as {live.tensor.dtype} through another type"] = None
            return self.know(live.tensor, Origin("constant"))
        given: list[Tensor] = []
        base = self.table.tensors[live.value]
        tensors = [base, *(self.table.tensors[number] for number, _ in writes)]
        slots = [taken_out(tensor, given) for tensor in tensors]
        places = tuple(place for _, place in writes)
        args = slots[0], geometry(live.tensor), *slots[1:]
        call = Call(overwrite, args, {"places": places}, is_grad_enabled=self._with_gradients)
        inputs = [live.value, *(number for number, _ in writes)]
        step = Recorded("overwrite", self.scopes.current, call, inputs, [], is_own=False)
        self._write_down(step, [live.tensor])
        self.table.through_consumers.add(live.value)
        return live.value

    def _is_counter(self, written: tuple[Tensor, ...], given: list[Tensor]) -> bool:
        """Tell whether a call only counts in the model's own buffers (batch norm's batches), which computes nothing."""
        return all(id(tensor) in self._buffers and not tensor.is_floating_point() for tensor in written) and len(
            given
        ) == len(written)

    def _as_constant(self, written: Iterable[Tensor], result: Any) -> Any:
        for tensor in written:
            self.know(tensor, Origin("constant"))
        return result

    def _refuse_unseen_writes(
        self, kind: Kind, given: list[Tensor], written: tuple[Tensor, ...], versions: list[int]
    ) -> None:
        for tensor, version in zip(given, versions, strict=True):
            if _version(tensor) != version and not any(tensor is other for other in written):
                raise UsageError(
                    f"A call must not write to its arguments unannounced to be traced; '{kind.op}' in "
                    f"'{self.scopes.current.module or '(model)'}' did. Let it work on a copy."
                )


def _positions(given: list[Tensor], written: tuple[Tensor, ...]) -> tuple[int, ...]:
    if not written:
        return ()
    return tuple(position for position, tensor in enumerate(given) if any(tensor is other for other in written))


def _kept_draws(draws: Draws | None) -> Draws | None:
    return draws if draws is not None and has_drawn(draws) else None


def _autocast(tensor: Tensor) -> Autocast:
    if not torch._C._is_any_autocast_enabled():
        return NO_AUTOCAST
    device = tensor.device.type
    return (True, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else NO_AUTOCAST


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _is_on_top(mode: TorchFunctionMode) -> bool:
    """Tell whether calls made now would reach `mode`: not so inside a call that it is already recording."""
    depth = torch._C._len_torch_function_stack()
    return any(torch._C._get_function_stack_at(level) is mode for level in range(depth))
