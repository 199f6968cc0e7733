"""Running the part of a model behind one layer again and again, without computing what lies before it.

The first pass writes down what each function returned up to the end of the layer. In later passes the model's own code
runs as ever, and those functions hand out what they returned then. Of the tensors, only those are kept that something
behind the layer still refers to (a shortcut, say); the others are replaced by ones of their shape and without memory.
Whether a model bears this is found out, not assumed: every repetition must call the same functions in the same order,
and the first must give the first pass' output, bit for bit; where it does not, passes are computed whole.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from glassnet.inspection.calls import uncompiled

Change = Callable[[Tensor], Tensor]
"""Makes another output of a layer's own, which it must leave alone."""


class Suffix:
    """A model as a function of the output of one of its layers, for one batch at a time."""

    def __init__(self, model: nn.Module, layer: nn.Module) -> None:
        self.model = model
        self.layer = layer
        self.is_replayed = True
        """False as soon as a repetition gave something else than the first pass."""
        self.output_shape: tuple[int, ...] = ()
        """Of the layer's output in the last `start`, with the batch axis; empty where it gave no tensor."""
        self._is_checked = False
        self._inputs: Tensor | None = None
        self._output: Tensor | None = None
        self._results: list[Any] = []

    def start(self, inputs: Tensor) -> Tensor:
        """Run the model on a batch as it is, and return its output; `run` then repeats from the layer on."""
        self._inputs, self._output, self._results = inputs, None, []
        if not self.is_replayed:
            return self._whole(self._looked_at)
        mode = _Recording()

        def after(module: nn.Module, args: object, output: object) -> None:
            if self._output is None and isinstance(output, Tensor):
                self._output = self._looked_at(output).clone()
                mode.is_on = False
                self._results = _needed(mode.results)

        with _hooked(self.layer, after), mode:
            answer: Tensor = self.model(inputs)
        if not self._is_checked:
            self._check(answer)
        return answer

    def run(self, change: Change) -> Tensor:
        """Return the model's output for the batch with the layer's output replaced by `change` of it."""
        if not self.is_replayed:
            return self._whole(change)
        mode = _Replaying(self._results)

        def after(module: nn.Module, args: object, output: object) -> Tensor:
            if mode.is_first:
                mode.is_first = False
                assert self._output is not None
                return change(self._output)
            assert isinstance(output, Tensor)
            return change(output)

        try:
            with _hooked(self.layer, after), mode:
                answer: Tensor = self.model(self._inputs)
        except _DivergedError:
            self.is_replayed = False
            return self._whole(change)
        return answer

    def _looked_at(self, output: Tensor) -> Tensor:
        self.output_shape = tuple(output.shape)
        return output

    def _whole(self, change: Change) -> Tensor:
        def after(module: nn.Module, args: object, output: object) -> Tensor | None:
            return change(output) if isinstance(output, Tensor) else None

        with _hooked(self.layer, after):
            answer: Tensor = self.model(self._inputs)
        return answer

    def _check(self, answer: Tensor) -> None:
        self._is_checked = True
        try:
            again = self.run(lambda output: output.clone()) if self._output is not None else None
        except Exception:  # a model that looks into the placeholders; it is computed whole then
            again = None
        self.is_replayed = self.is_replayed and again is not None and torch.equal(again, answer)


class _DivergedError(RuntimeError):
    """The model called another function than in its first pass."""


class _Recording(TorchFunctionMode):
    """Writes down each outermost function and what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[Any] = []
        self.is_on = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.is_on:
            self.results.append((func, result))
        return result


class _Replaying(TorchFunctionMode):
    """Hands out what the first functions returned before, and lets the others run."""

    def __init__(self, results: list[Any]) -> None:
        super().__init__()
        self.results = iter(results)
        self.is_first = True
        """True until the layer has been called once."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.is_first:
            recorded, found = next(self.results, (None, None))
            if recorded is not func:
                raise _DivergedError
            return tree_map(lambda value: value.clone() if _is_kept(value) else value, found)
        return func(*args, **(kwargs or {}))


def _is_kept(value: object) -> bool:
    """Return whether a value is a tensor with numbers; a placeholder has one number for all its places."""
    return isinstance(value, Tensor) and not getattr(value, "is_placeholder", False)


def _needed(results: list[Any]) -> list[Any]:
    """Return the results with copies of the tensors that somebody else holds, and placeholders for the others.

    `results` is emptied on the way, so that nothing but the model's own code holds them.
    """
    holders: list[Any] = [tree_map(lambda v: _Held(v) if isinstance(v, Tensor) else v, result) for result in results]
    results.clear()
    return [tree_map(lambda v: v.copy() if isinstance(v, _Held) else v, holder) for holder in holders]


class _Held:
    """A tensor that is kept only while somebody else holds it too."""

    def __init__(self, tensor: Tensor) -> None:
        self.reference = weakref.ref(tensor)
        self.like = tensor.new_zeros(()).expand(tensor.shape)

    def copy(self) -> Tensor:
        tensor = self.reference()
        if tensor is not None:
            return tensor.clone()
        self.like.is_placeholder = True  # type: ignore[attr-defined]
        return self.like


@contextmanager
def _hooked(layer: nn.Module, after: Callable[[nn.Module, object, object], Tensor | None]) -> Iterator[None]:
    """Call `after` with each output of the layer, which what it returns replaces; no hook survives the block."""
    with ExitStack() as stack:
        stack.callback(layer.register_forward_hook(after).remove)
        stack.enter_context(uncompiled())
        yield
