"""Everything it takes to go on with a training, bit for bit, after any of its steps."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from glassnet.training.history import History


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Where a training stands between two steps. The tensors may be live: `copied` ones are not."""

    epoch: int
    """The epoch under way, from 1."""
    step: int
    """Optimizer steps taken since the start of the run."""
    weights: dict[str, Tensor]
    """The model's `state_dict`."""
    optimizer: dict[str, Any]
    """The optimizer's `state_dict`."""
    average: dict[str, Tensor]
    """The `state_dict` of the moving average of the weights; empty where there is none."""
    scaler: dict[str, Any]
    """That of the loss scaling of fp16; empty where there is none."""
    generators: dict[str, Tensor]
    """The state of each generator of the epoch, by purpose."""
    random_states: list[Tensor]
    """The state of torch's global generators, the CPU's and then each GPU's: what dropout draws from."""
    sums: Tensor
    """The epoch's sums so far, as `Totals` has them."""
    num_examples: int
    """That the sums are over."""
    elapsed_s: float
    """Training time of the epoch so far."""
    learning_rate_scale: float
    """What the schedule's learning rate is multiplied by: halved each time that a loss was lost."""
    history: History
    """Of the epochs that are complete."""

    def copied(self) -> TrainingState:
        """Return the state with tensors of its own."""
        return TrainingState(**{field.name: copy.deepcopy(getattr(self, field.name)) for field in fields(self)})

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"history": self.history.to_csv()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingState:
        """Make the state that `to_dict` gave; raises `TypeError` or `KeyError` for missing or foreign entries."""
        return cls(**{**values, "history": History.from_csv(values["history"])})


def random_states(device: torch.device) -> list[Tensor]:
    """Return the state of torch's global generators that a training on `device` draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_states(states: list[Tensor], device: torch.device) -> None:
    """Put the global generators where `random_states` found them."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
