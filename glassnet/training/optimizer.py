"""torch's optimizers by name, with their usual values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from glassnet.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerEntry:
    """One optimizer: how to make it, and its usual values."""

    make: Callable[..., torch.optim.Optimizer]
    learning_rate: float
    weight_decay: float = 0.0
    momentum: float | None = None
    """Usual momentum; None where the optimizer has no such field."""

    @property
    def has_momentum(self) -> bool:
        """True where the config's momentum has an effect."""
        return self.momentum is not None


def _sgd(groups: list[dict[str, object]], *, momentum: float, **values: object) -> torch.optim.Optimizer:
    # Nesterov's form needs a momentum; without one both forms are plain gradient descent.
    return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, **values)  # type: ignore[arg-type]


OPTIMIZERS: dict[str, OptimizerEntry] = {
    "sgd": OptimizerEntry(make=_sgd, learning_rate=0.05, weight_decay=5e-4, momentum=0.9),
    "adam": OptimizerEntry(make=torch.optim.Adam, learning_rate=3e-3),
    "adamw": OptimizerEntry(make=torch.optim.AdamW, learning_rate=3e-3, weight_decay=0.01),
    "rmsprop": OptimizerEntry(make=torch.optim.RMSprop, learning_rate=1e-3, momentum=0.0),
    "adagrad": OptimizerEntry(make=torch.optim.Adagrad, learning_rate=0.01),
}


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a resolved config over the model's parameters.

    Weight decay acts on parameters of two or more axes (kernels, matrices); biases and the scales of normalisation
    are spared.
    """
    entry, decay = OPTIMIZERS[config.optimizer], config.weight_decay
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    values: dict[str, object] = {"lr": config.learning_rate}
    if entry.has_momentum:
        values["momentum"] = config.momentum
    return entry.make([group for group in groups if group["params"]], **values)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
