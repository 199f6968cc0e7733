"""Layers that compute the same in another way for a while, at their places in the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


class Substitute(nn.Module):
    """Beside a class of torch's: what computes that class's outputs in another way. Its copies and pickles are plain.

    Derive with this class first: `class QuickPooling(Substitute, nn.MaxPool2d)`.
    """

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (_new, (plain_type(self),), *super().__reduce_ex__(max(protocol, 2))[2:])


def plain_type(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module has, or that it will have again."""
    if not isinstance(module, Substitute):
        return type(module)
    bases = (base for base in type(module).__mro__ if issubclass(base, nn.Module))
    return next(base for base in bases if not issubclass(base, Substitute))


@contextmanager
def swapped(modules: Sequence[nn.Module], substitute: type[Substitute]) -> Iterator[None]:
    """For a block, let `modules`, all of one plain class, be of the class `substitute`."""
    plain = [type(module) for module in modules]
    for module in modules:
        module.__class__ = substitute
    try:
        yield
    finally:
        for module, own in zip(modules, plain, strict=True):
            module.__class__ = own


def _new(kind: type[nn.Module]) -> nn.Module:
    return kind.__new__(kind)
