"""The same network with batch normalisation that shares pixels out among the threads, and not channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from glassnet.nn.normalising import CHANNELS_STEP, batch_norm2d, has_batch_norm, takes
from glassnet.training.swapping import Substitute, is_ordinary, substituted

MOST_CHANNELS = 32
"""With more, torch's is as fast (`benchmarks/layers.py`)."""


@contextmanager
def quick_normalisation(model: nn.Module) -> Iterator[None]:
    """For a block, let every `nn.BatchNorm2d` of `model` that it suits take `glassnet.nn.normalising`'s way.

    It does so where it trains, has weights, and keeps statistics with a momentum, on images that have their channels
    innermost. Sums are rounded otherwise than torch rounds them.
    """
    with substituted(model, _suits, has_batch_norm, _QuickBatchNorm2d):
        yield


class _QuickBatchNorm2d(Substitute, nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        running_mean, running_variance, count = self.running_mean, self.running_var, self.num_batches_tracked
        if not (
            self.training
            and self.momentum is not None
            and running_mean is not None
            and running_variance is not None
            and count is not None
            and is_ordinary(input, self.weight, self.bias)
            and takes(input)
            and input.is_contiguous(memory_format=torch.channels_last)
        ):
            outputs: Tensor = super().forward(input)
            return outputs
        count.add_(1)
        return batch_norm2d(input, running_mean, running_variance, self.weight, self.bias, self.momentum, self.eps)


def _suits(module: nn.Module) -> bool:
    return (
        type(module) is nn.BatchNorm2d
        and module.affine
        and module.num_features % CHANNELS_STEP == 0
        and module.num_features <= MOST_CHANNELS
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )
