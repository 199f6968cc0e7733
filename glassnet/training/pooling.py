"""The same network with less to write down: max pooling that keeps the places of the maxima in a byte each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from glassnet.nn.pooling import SIZE, has_max_pool, max_pool2d, takes
from glassnet.training.swapping import Substitute, is_ordinary, substituted

PAIRS = (SIZE, (SIZE, SIZE))


@contextmanager
def quick_pooling(model: nn.Module) -> Iterator[None]:
    """For a block, let every `nn.MaxPool2d` of 2x2 with stride 2 of `model` take `glassnet.nn.pooling`'s way.

    It does so where there are gradients to compute and the images have their channels innermost. Outputs and gradients
    have the same bits.
    """
    with substituted(model, _halves, has_max_pool, QuickMaxPool2d):
        yield


class QuickMaxPool2d(Substitute, nn.MaxPool2d):
    """What pooling of 2x2 is for that time."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs, by `max_pool2d` where it takes the input."""
        if is_ordinary(input) and takes(input) and input.is_contiguous(memory_format=torch.channels_last):
            return max_pool2d(input)
        outputs: Tensor = super().forward(input)
        return outputs


def _halves(module: nn.Module) -> bool:
    return (
        type(module) is nn.MaxPool2d
        and module.kernel_size in PAIRS
        and module.stride in PAIRS
        and module.padding in (0, (0, 0))
        and module.dilation in (1, (1, 1))
        and not module.ceil_mode
        and not module.return_indices
    )
