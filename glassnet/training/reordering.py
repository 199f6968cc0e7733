"""The same network with less work in it: max pooling before ReLU instead of after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from glassnet.training.swapping import Substitute, plain_type, swapped

MAX_POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


class _PooledFirst(Substitute, nn.Sequential):
    """A chain that calls its modules in another order than they stand in."""

    def forward(self, inputs: Tensor) -> Tensor:
        for name in _order(self):
            inputs = self._modules[name](inputs)
        return inputs


@contextmanager
def pooled_first(model: nn.Module) -> Iterator[None]:
    """For a block, let every `nn.Sequential` of `model` pool before a ReLU that stands right before max pooling.

    The largest of some numbers is the same before and after `max(0, x)`, so outputs and gradients have the same bits:
    above zero its place stays, and elsewhere the gradient is zero either way. ReLU then has the pooled maps to go over,
    a quarter of the numbers for windows of 2x2.

    Only what a chain does when it is called as a whole is changed: its modules keep their places and names. Left alone
    are modules with hooks, whose inputs somebody watches; a ReLU in place, whose input others may read; and dilated
    pooling, whose windows can lie in the padding altogether.
    """
    chains = [chain for chain in model.modules() if type(chain) is nn.Sequential and _order(chain) != [*chain._modules]]
    with swapped(chains, _PooledFirst):
        yield


def _order(chain: nn.Module) -> list[str]:
    """Return the names of a chain's modules in the order in which they are to be called."""
    names, modules = list(chain._modules), chain._modules
    if _has_any_global_hook():
        return names
    for place in range(len(names) - 1):
        first, second = modules[names[place]], modules[names[place + 1]]
        if _rectifies(first) and _pools(second) and not (_is_watched(first) or _is_watched(second)):
            names[place : place + 2] = names[place + 1], names[place]
    return names


def _rectifies(module: nn.Module | None) -> TypeGuard[nn.ReLU]:
    return type(module) is nn.ReLU and not module.inplace


def _pools(module: nn.Module | None) -> TypeGuard[nn.Module]:
    return (
        isinstance(module, MAX_POOLINGS)
        and plain_type(module) in MAX_POOLINGS
        and not module.return_indices
        and module.dilation in (1, (1,), (1, 1), (1, 1, 1))
    )


def _is_watched(module: nn.Module) -> bool:
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(hooks)
