"""The same network with less work in it: max pooling before ReLU instead of after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import TypeGuard

from torch import Tensor, nn

MAX_POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


@contextmanager
def pooled_first(model: nn.Module) -> Iterator[None]:
    """For a block, let every `nn.Sequential` of `model` pool before a ReLU that stands right before max pooling.

    The largest of some numbers is the same before and after `max(0, x)`, so outputs and gradients have the same bits:
    above zero its place stays, and elsewhere the gradient is zero either way. ReLU then has the pooled maps to go over,
    a quarter of the numbers for windows of 2x2.

    Only what a chain does when it is called as a whole is changed: its modules keep their places and names. Modules
    with hooks, whose inputs somebody watches, are left alone.
    """
    chains = [chain for chain in model.modules() if _is_plain(chain) and _order(chain) != list(chain._modules)]
    for chain in chains:
        # A method bound to the chain, which a deep copy binds to the copy.
        chain.forward = MethodType(_forward, chain)
    try:
        yield
    finally:
        for chain in chains:
            del chain.forward


def _is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Sequential and "forward" not in vars(module)


def _forward(chain: nn.Sequential, inputs: Tensor) -> Tensor:
    for name in _order(chain):
        inputs = chain._modules[name](inputs)
    return inputs


def _order(chain: nn.Module) -> list[str]:
    """Return the names of a chain's modules in the order in which they are to be called."""
    names, modules = list(chain._modules), chain._modules
    for place in range(len(names) - 1):
        first, second = modules[names[place]], modules[names[place + 1]]
        if type(first) is nn.ReLU and _pools(second) and not (_is_watched(first) or _is_watched(second)):
            names[place : place + 2] = names[place + 1], names[place]
    return names


def _pools(module: nn.Module | None) -> TypeGuard[nn.Module]:
    return isinstance(module, MAX_POOLINGS) and type(module) in MAX_POOLINGS and not module.return_indices


def _is_watched(module: nn.Module) -> bool:
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(hooks)
