"""Watching one forward pass: which layers and functions run, and the primitive operations that each comes down to.

A *call* is what a reader of the model's source would name: a layer (a module without children), or a function called
outside every layer (`torch.relu(x)`, `x + y`, `x.flatten(1)`). It is seen by hooks on the modules and by a
`TorchFunctionMode`. An *operation* is a primitive of torch's ATen library that the call came down to, seen by a
`TorchDispatchMode`: hundreds of ways to write an addition end in one `aten.add`, attention ends in matrix products,
and what an operation writes to is in its schema.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from glassnet._modes import evaluating


@dataclass(frozen=True, eq=False, kw_only=True)
class Operation:
    """One primitive operation of a forward pass."""

    name: str
    """ATen's name without overload and without the underscore of an operation in place: `convolution`, `add`."""
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    """The tensors it changed in place."""
    is_view: bool
    """True where the output shows memory of an input."""
    is_pointwise: bool
    """True where an output element depends on the elements at its own place only, of inputs broadcast together."""

    @property
    def given(self) -> dict[str, Any]:
        """Every argument by its name in the schema, defaults included."""
        return bind(self.function, self.args, self.kwargs)


@dataclass(eq=False, kw_only=True)
class Call:
    """A layer or a function call of the forward pass, as it ran."""

    name: str
    """The layer's path; of a function the path it ran in and the function's name, `layer1.0.add`. A second call of
    the same name gets `_1`."""
    path: str
    """Of the layer, or of the module that the function ran in; empty for the model itself."""
    kind: str
    """The layer's class or the function's name."""
    module: nn.Module | None
    """The layer; None for a function."""
    inputs: tuple[Tensor, ...]
    output: object = None
    operations: list[Operation] = field(default_factory=list)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors among what the call returned."""
        return tensors_in(self.output)


class Watcher:
    """What `watched` tells; a subclass overrides what it wants to hear. Tensors must not be changed."""

    def start(self, example: Tensor) -> None:
        """Take note of the model's input."""

    def operation(self, operation: Operation) -> None:
        """Take note of a primitive operation that has just run."""

    def call(self, call: Call) -> None:
        """Take note of a layer or function that has just returned, with its operations."""

    def module(self, path: str, module: nn.Module, output: object) -> None:
        """Take note of any module's output, with or without children."""


def run_watched(model: nn.Module, example: Tensor, *watchers: Watcher) -> object:
    """Run `model` on `example` in evaluation mode without gradients, watched; return its output."""
    for watcher in watchers:
        watcher.start(example)
    with evaluating(model), watching(model, *watchers):
        return model(example)


@contextmanager
def watching(model: nn.Module, *watchers: Watcher) -> Iterator[None]:
    """Tell the `watchers` what runs inside the model during the block.

    Fused shortcuts are switched off meanwhile, so that attention and recurrent layers show their products.
    """
    with ExitStack() as stack:
        stack.enter_context(_without_shortcuts(model))
        recorder = stack.enter_context(_recording(model, watchers))
        stack.enter_context(_Operations(recorder))
        stack.enter_context(_Functions(recorder))
        yield


def tensors_in(value: object) -> tuple[Tensor, ...]:
    """Return the tensors in a value of nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        return tuple(tensor for part in value for tensor in tensors_in(part))
    return ()


def bind(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an ATen operation by their names, defaults included."""
    names, defaults = _parameters(function)
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


@cache
def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    arguments = function._schema.arguments  # type: ignore[attr-defined]
    return tuple(a.name for a in arguments), {a.name: a.default_value for a in arguments}


@cache
def _written(function: Callable[..., Any]) -> tuple[str, ...]:
    arguments = function._schema.arguments  # type: ignore[attr-defined]
    return tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)


@cache
def _is_view(function: Callable[..., Any]) -> bool:
    returns = function._schema.returns  # type: ignore[attr-defined]
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def plain_name(function: Callable[..., Any]) -> str:
    """Return a function's name without its decoration: `add` for `__iadd__`, `add_` and `aten.add.Tensor`."""
    name = getattr(function, "overloadpacket", function)
    text = str(getattr(name, "__name__", type(function).__name__))
    if text == "__get__":  # an attribute that computes, such as x.T
        text = str(getattr(getattr(function, "__self__", None), "__name__", text))
    if text.startswith("__") and text.endswith("__"):
        text = text.strip("_")
        text = OPERATORS.get(text, text)
    return text.rstrip("_") or text


OPERATORS = {
    **{f"{kind}{name}": name for name in ("add", "sub", "mul", "matmul", "pow") for kind in "ir"},
    **dict.fromkeys(("truediv", "itruediv", "rtruediv"), "div"),
}
"""Python's names of operators in place and reflected, by the plain name."""


class _Recorder:
    """Which module runs, which call is open, and who is to be told."""

    def __init__(self, watchers: tuple[Watcher, ...]) -> None:
        self.watchers = watchers
        self.modules: list[str] = []
        self.open: Call | None = None
        self.is_telling = False
        """True while a watcher is told: what it computes is none of the model's."""
        self.names: set[str] = set()

    def begin(self, path: str, kind: str, module: nn.Module | None, inputs: tuple[Tensor, ...]) -> Call:
        self.open = Call(name="", path=path, kind=kind, module=module, inputs=inputs)
        return self.open

    def end(self, call: Call, output: object) -> None:
        self.open = None
        call.output = output
        if call.module is None:
            if not call.inputs or not call.operations or not call.outputs:
                return  # a question of shapes, a constant, a number read off
            call.name = self._unique(f"{call.path}.{call.kind}" if call.path else call.kind)
        else:
            call.name = self._unique(call.path or "(model)")
        self.tell(lambda watcher: watcher.call(call))

    def tell(self, news: Callable[[Watcher], None]) -> None:
        self.is_telling = True
        try:
            for watcher in self.watchers:
                news(watcher)
        finally:
            self.is_telling = False

    def operation(self, operation: Operation) -> None:
        self.tell(lambda watcher: watcher.operation(operation))
        if self.open is not None:
            self.open.operations.append(operation)
            return
        tensors = tensors_in((operation.args, operation.kwargs))
        stray = self.begin(self.modules[-1] if self.modules else "", operation.name, None, tensors)
        stray.operations.append(operation)
        self.end(stray, operation.outputs)

    def _unique(self, name: str) -> str:
        unique, number = name, 0
        while unique in self.names:
            number += 1
            unique = f"{name}_{number}"
        self.names.add(unique)
        return unique


class _Functions(TorchFunctionMode):
    """Sees each function that is called on tensors, as the model's author wrote it."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        recorder = self.recorder
        if recorder.open is not None or recorder.is_telling or not recorder.modules:
            return func(*args, **kwargs)
        call = recorder.begin(recorder.modules[-1], plain_name(func), None, tensors_in((args, kwargs)))
        output = None
        try:
            output = func(*args, **kwargs)
        finally:
            recorder.end(call, output)
        return output


class _Operations(TorchDispatchMode):
    """Sees each primitive operation, below every way to write it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that nothing here is ever compiled: else torch loads its compiler, which takes seconds."""
        return False

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if self.recorder.is_telling:
            return output
        given = bind(func, args, kwargs)
        operation = Operation(
            name=plain_name(func),
            function=func,
            args=args,
            kwargs=kwargs,
            outputs=tensors_in(output),
            writes=tuple(tensor for name in _written(func) for tensor in tensors_in(given[name])),
            is_view=_is_view(func),
            is_pointwise=torch.Tag.pointwise in func.tags,
        )
        self.recorder.operation(operation)
        return output


COMPILED = "_orig_mod"
"""The name under which `torch.compile` keeps the module that it compiles."""


def plain_path(path: str) -> str:
    """Return a module's path as it was before `torch.compile` wrapped modules on it."""
    return ".".join(part for part in path.split(".") if part != COMPILED)


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is shown as one call: it has no children, or none but what makes its own weights."""
    return all(name == "parametrizations" for name, _ in module.named_children())


@contextmanager
def _recording(model: nn.Module, watchers: tuple[Watcher, ...]) -> Iterator[_Recorder]:
    """Keep the recorder told of the modules that run; no hook survives the block."""
    recorder = _Recorder(watchers)
    with ExitStack() as stack:
        for raw_path, module in model.named_modules():
            path = plain_path(raw_path)
            if isinstance(module, torch.jit.ScriptModule):  # takes no hooks; its operations count where it is called
                continue

            def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: str = path) -> None:
                recorder.modules.append(path)
                if recorder.open is None and is_layer(module):
                    recorder.begin(path, type(module).__name__, module, tensors_in((args, kwargs)))

            def after(module: nn.Module, args: tuple[Any, ...], output: object, path: str = path) -> None:
                recorder.modules.pop()
                if recorder.open is not None and recorder.open.module is module:
                    recorder.end(recorder.open, output)
                recorder.tell(lambda watcher: watcher.module(path, module, output))

            stack.callback(module.register_forward_pre_hook(before, prepend=True, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        yield recorder


def uncompiled() -> AbstractContextManager[object]:
    """Return a context in which compiled modules run as they were written; nothing where none was compiled."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):  # a second to import
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def _without_shortcuts(model: nn.Module) -> Iterator[None]:
    """Run compiled parts as they were written, and attention and recurrent layers by their plain products."""
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(uncompiled())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.callback(setattr, torch.backends.mkldnn, "enabled", torch.backends.mkldnn.enabled)
            setattr(torch.backends.mkldnn, "enabled", False)  # noqa: B010 (a property of the module)
        yield
