"""The same network with less to do and to write: max pooling before ReLU, and at once with its convolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeGuard

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from glassnet.training.filtering import filtered_and_pooled
from glassnet.training.swapping import Substitute, plain_type, swapped

MAX_POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


class _ShortChain(Substitute, nn.Sequential):
    """A chain that calls its modules in another order than they stand in, or two of them at once."""

    def forward(self, inputs: Tensor) -> Tensor:
        modules: list[Any] = [self._modules[name] for name in _order(self)]
        while modules:
            first, *others = modules
            second: Any = others[0] if others else None
            joined = filtered_and_pooled(first, second, inputs) if _are_joined(first, second) else None
            inputs, modules = (first(inputs), others) if joined is None else (joined, others[1:])
        return inputs


@contextmanager
def pooled_first(model: nn.Module) -> Iterator[None]:
    """For a block, let every `nn.Sequential` of `model` pool before a ReLU that stands right before max pooling.

    The largest of some numbers is the same before and after `max(0, x)`, so outputs and gradients have the same bits:
    above zero its place stays, and elsewhere the gradient is zero either way. ReLU then has the pooled maps to go over,
    a quarter of the numbers for windows of 2x2. A convolution that pooling follows then, if minimal filtering and
    `quick_pooling` suit them, is computed with it at once: its own outputs are written nowhere.

    Only what a chain does when it is called as a whole is changed: its modules keep their places and names. Left alone
    are modules with hooks, whose inputs somebody watches; a ReLU in place, whose input others may read; and dilated
    pooling, whose windows can lie in the padding altogether.
    """
    chains = [chain for chain in model.modules() if type(chain) is nn.Sequential and _is_longer(chain)]
    with swapped(chains, _ShortChain):
        yield


def _is_longer(chain: nn.Module) -> bool:
    """Return whether there is anything to gain by calling a chain's modules otherwise."""
    names = _order(chain)
    modules = [chain._modules[name] for name in names]
    return names != [*chain._modules] or any(_are_joined(*pair) for pair in pairwise(modules))


def _are_joined(first: nn.Module | None, second: nn.Module | None) -> bool:
    """Return whether these are a convolution and pooling that nobody watches."""
    if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.MaxPool2d)) or _has_any_global_hook():
        return False
    return not any(_is_watched(module) or "forward" in vars(module) for module in (first, second))


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
