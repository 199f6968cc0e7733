"""The moving average of a model's weights over the steps of its training."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from glassnet._errors import UsageError


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of `model` that `update_parameters(model)` moves towards it by `1 - decay` a step.

    As `average = decay * average + (1 - decay) * weights`, after Polyak and Juditsky (1992). Over the first steps the
    decay is `(1 + n) / (10 + n)` where that is lower, n the number of steps, so that the initial weights are soon
    forgotten. The statistics of batch normalisation are averaged like weights.

    Raises `UsageError` for a model that cannot be copied.
    """

    def towards(averages: Sequence[Tensor], values: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        count = int(num_averaged)
        share = 1 - min(decay, (1 + count) / (10 + count))
        with torch.no_grad():
            for average, value in zip(averages, values, strict=True):
                if average.is_floating_point():
                    average.lerp_(value, share)
                else:
                    average.copy_(value)

    try:
        averaged = AveragedModel(model, multi_avg_fn=towards, use_buffers=True)
        copy.deepcopy(averaged.state_dict())
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"ema keeps a copy of the model, and this one cannot be copied: {error}") from None
    return averaged
