"""A model left exactly as it was by a pass: modes, attributes, buffers, gradients' flags, random state."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from glassnet.inspection.tracing.randomness import random_state_kept


@contextmanager
def preserved(
    model: nn.Module, modules: Sequence[nn.Module], *, training: bool, with_gradients: bool
) -> Iterator[None]:
    """Run a block on `model`, made of `modules`; then put everything back, also after an error.

    It runs uncompiled, on copies of buffers. Every module is in evaluation mode; with `training` in the mode it is in
    where the model itself is in training mode, else in training mode. `with_gradients` makes every parameter require
    one.
    """
    kept = [_Kept(attributes) for module in modules for attributes in _dictionaries(module)]
    parameters = [
        (p, p.requires_grad, p.grad) for module in modules for p in module._parameters.values() if p is not None
    ]
    keeps_modes = training and model.training
    copies: dict[int, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(with_gradients))
        stack.enter_context(_uncompiled())
        try:
            for module in modules:
                if not keeps_modes:
                    module.__dict__["training"] = training
                _copy_buffers(module, copies)
                _uncompile(module)
            if with_gradients:
                for parameter, requires_grad, _ in parameters:
                    if not requires_grad and _can_have_gradient(parameter):
                        parameter.requires_grad_()
            yield
        finally:
            for dictionary in kept:
                dictionary.put_back()
            for parameter, requires_grad, gradient in parameters:
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)
                if parameter.grad is not gradient:
                    parameter.grad = gradient


class _Kept:
    """A dictionary and what is in it."""

    __slots__ = ("before", "dictionary")

    def __init__(self, dictionary: dict[str, Any]) -> None:
        self.dictionary = dictionary
        self.before = dict(dictionary)

    def put_back(self) -> None:
        """Make the content the same objects again, in their order."""
        same_names = self.dictionary.keys() == self.before.keys()
        if not same_names or not all(map(is_, self.dictionary.values(), self.before.values())):
            self.dictionary.clear()
            self.dictionary.update(self.before)


def _dictionaries(module: nn.Module) -> tuple[dict[str, Any], ...]:
    """Return where a module keeps its attributes, and what is registered with it."""
    own = module.__dict__
    return own, own["_parameters"], own["_buffers"], own["_modules"]


def _copy_buffers(module: nn.Module, copies: dict[int, Tensor]) -> None:
    """Put copies in place of a module's buffers; one that several modules share stays shared."""
    buffers = module.__dict__["_buffers"]
    for name, buffer in buffers.items():
        if isinstance(buffer, Tensor) and buffer.layout == torch.strided:
            if id(buffer) not in copies:
                copies[id(buffer)] = buffer.detach().clone()
            buffers[name] = copies[id(buffer)]


def _uncompile(module: nn.Module) -> None:
    """Put the modules that `torch.compile` wrapped in place of its wrappers, which warn of hooks."""
    modules = module.__dict__["_modules"]
    for name, child in modules.items():
        modules[name] = as_written(child)
    if getattr(module, "_compiled_call_impl", None) is not None:
        module.__dict__["_compiled_call_impl"] = None


def as_written(module: Any) -> Any:
    """Return the module that `torch.compile` wrapped, or the module itself."""
    while isinstance(module, nn.Module) and isinstance(module._modules.get("_orig_mod"), nn.Module):
        module = module._modules["_orig_mod"]
    return module


def _can_have_gradient(parameter: Tensor) -> bool:
    return (parameter.is_floating_point() or parameter.is_complex()) and not parameter.is_inference()


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled functions as they were written. Without any, their machinery is not loaded."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
