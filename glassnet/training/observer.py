"""Who watches a training, and what is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from glassnet.training.history import EpochRow


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What a run is going to do, known before it starts."""

    num_epochs: int
    """Rows of the history when all is done; the last epoch may be a part of one."""
    num_steps: int
    """Optimizer steps over all epochs."""
    num_train: int
    num_validation: int
    device: torch.device
    precision: str
    first_step: int = 0
    """Steps already taken where a run is resumed."""
    num_processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands in the middle of an epoch."""

    epoch: int
    step: int
    """Steps taken since the start of the run."""
    loss: float
    """Mean over the epoch so far."""
    accuracy: float
    """Likewise."""
    images_per_s: float


class Observer(Protocol):
    """Who watches a run. None of the calls can change its result."""

    def started(self, plan: FitPlan) -> None:
        """Training is about to begin."""

    def progressed(self, progress: Progress) -> None:
        """A tenth of a second or more has gone by."""

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """An epoch is complete and saved."""

    def noted(self, text: str) -> None:
        """Something happened that a reader should know, such as a learning rate that was halved."""

    def stopped(self, reason: str) -> None:
        """Training is over, also after an error."""


class SilentObserver:
    """An observer that shows nothing."""

    def started(self, plan: FitPlan) -> None:
        """Show nothing."""

    def progressed(self, progress: Progress) -> None:
        """Show nothing."""

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Show nothing."""

    def noted(self, text: str) -> None:
        """Show nothing."""

    def stopped(self, reason: str) -> None:
        """Show nothing."""
