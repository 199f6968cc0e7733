"""How many examples go through a network at once, where the config leaves that open."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from glassnet._device import autocast
from glassnet._errors import UsageError
from glassnet._seed import seeded
from glassnet.data.memory import available_bytes
from glassnet.data.records import InputRecord
from glassnet.training.config import TrainConfig

USUAL_BATCH_SIZE = 64
LARGEST_SHARE = 0.5
"""Of the memory that is free, activations take at most this."""
WORKSPACE = 2
"""Times the activations that a backward pass holds at once: their gradients, and what kernels need."""
NUM_TRIED = 2
"""Examples of the trial; batch norm takes no fewer."""


def with_batch_size(config: TrainConfig, num_examples: int, model: nn.Module, record: InputRecord) -> TrainConfig:
    """Return `config` with a number for `all` and `auto`; raise `UsageError` where a step takes more than there is.

    `auto` is 64 examples, or as many as the memory of the model's device takes where that is less.
    """
    if config.batch_size == "all":
        config = replace(config, batch_size=max(1, num_examples))
    if config.batch_size == "auto":
        most = num_examples // config.accumulate
        fitting = fitting_batch_size(model, record, str(config.precision)) if most > 1 else 1
        config = replace(config, batch_size=max(1, min(fitting, most)))
    assert isinstance(config.batch_size, int)
    check_batch_size(config.batch_size * config.accumulate, num_examples)
    return config


def check_batch_size(batch_size: int, num_examples: int) -> None:
    """Raise `UsageError` where a batch would be larger than the training set."""
    if num_examples == 0:
        raise UsageError("There is nothing to train on: expected at least one training example, got none.")
    if batch_size > num_examples:
        raise UsageError(
            f"batch_size must be at most the {num_examples} training examples; got {batch_size}. "
            f"Use batch_size={num_examples} for batch gradient descent."
        )


def fitting_batch_size(model: nn.Module, record: InputRecord, precision: str = "fp32") -> int:
    """Return the usual batch size, halved until a training step on the model's device has room for it."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    free = available_bytes(device) * LARGEST_SHARE
    each = activation_bytes(model, record, precision) * WORKSPACE
    size = USUAL_BATCH_SIZE
    while size > 1 and size * each > free:
        size //= 2
    return size


def activation_bytes(model: nn.Module, record: InputRecord, precision: str = "fp32") -> float:
    """Return the bytes that a training pass keeps for the backward pass, for each example; measured on a few of zeros.

    The model is left as it was. Raises what the model raises.
    """
    trial = copy.deepcopy(model).train()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    own = {parameter.untyped_storage().data_ptr() for parameter in trial.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    example = record.example().to(device)
    inputs = record.normalise(example.expand(NUM_TRIED, *example.shape[1:]))
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    with seeded(0, "memory"), hooks, autocast(device, precision), torch.enable_grad():
        trial(inputs)
    return sum(kept.values()) / NUM_TRIED
