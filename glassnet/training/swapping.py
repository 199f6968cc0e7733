"""Layers that compute the same in another way for a while, at their places in the model."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


class Substitute(nn.Module):
    """Beside a class of torch's: what computes that class's outputs in another way, and is called by its name.

    Derive with this class first: `class QuickPooling(Substitute, nn.MaxPool2d)`. Copies and pickles are of the plain
    class.
    """

    def __init_subclass__(cls) -> None:
        """Take the name that messages and `repr` have for the plain class."""
        if Substitute in cls.__bases__:  # and not a class that torch makes of it, as for parametrizations
            cls.__name__ = _plain(cls).__name__

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        plain = (plain_type(self), object, None)
        return (copyreg._reconstructor, plain, *super().__reduce_ex__(max(protocol, 2))[2:])  # type: ignore[attr-defined]


def plain_type(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module has, or that it will have again."""
    return _plain(type(module))


def _plain(kind: type[nn.Module]) -> type[nn.Module]:
    bases = (base for base in kind.__mro__ if issubclass(base, nn.Module))
    return next(base for base in bases if not issubclass(base, Substitute))


def is_ordinary(*tensors: Tensor | None) -> bool:
    """Return whether a call is of the kind that substitutes are for.

    It computes gradients, from plain tensors, in their own format: nothing traces it, no `torch.func` transforms it, no
    autocast or forward mode of differentiation is at work.
    """
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled("cpu")
        and forward_ad._current_level < 0
        and all(type(tensor) in (Tensor, nn.Parameter) for tensor in tensors if tensor is not None)
    )


@contextmanager
def swapped(modules: Sequence[nn.Module], substitute: type[Substitute]) -> Iterator[None]:
    """For a block, let `modules`, all of one plain class, be of the class `substitute`."""
    plain: list[type[nn.Module]] = [type(module) for module in modules]
    for module in modules:
        module.__class__ = substitute
    try:
        yield
    finally:
        for module, own in zip(modules, plain, strict=True):
            is_unchanged = type(module) is substitute  # it may have been made another, as parametrizations do
            if is_unchanged:
                module.__class__ = own


@contextmanager
def substituted(
    model: nn.Module,
    suits: Callable[[nn.Module], bool],
    has_library: Callable[[], bool],
    substitute: type[Substitute],
) -> Iterator[int]:
    """For a block, let the modules of `model` that `suits` picks be of the class `substitute`; yield how many are.

    All of them are of one plain class. None are where the machine has no library, which is asked where it is needed.
    """
    modules = [module for module in model.modules() if suits(module)]
    if not modules or not has_library():
        yield 0
        return
    with swapped(modules, substitute):
        yield len(modules)
