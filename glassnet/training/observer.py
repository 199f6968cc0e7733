"""Who watches a training, and what is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from glassnet.training.history import EpochRow
from glassnet.training.state import random_states, set_random_states


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
    num_filtered: int = 0
    """Convolutions that are computed by minimal filtering."""


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
        """An epoch is complete and saved; `is_best` where its weights are kept until better ones come.

        Never so with `keep="last"` or without a hold-out split, where those of every epoch give way to the next's.
        """

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


class GuardedObserver:
    """Tells another observer, and sees to it that the training goes on as if it had not.

    What the other draws from torch's global generators is put back. One that cannot write, because its terminal is
    gone or its disk full, is not told any more: a display is no reason to end.
    """

    def __init__(self, observer: Observer, device: torch.device) -> None:
        self.observer, self.device = observer, device

    def started(self, plan: FitPlan) -> None:
        """Tell it."""
        self._tell(self.observer.started, plan)

    def progressed(self, progress: Progress) -> None:
        """Tell it."""
        self._tell(self.observer.progressed, progress)

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Tell it."""
        self._tell(self.observer.epoch_ended, row, is_best)

    def noted(self, text: str) -> None:
        """Tell it."""
        self._tell(self.observer.noted, text)

    def stopped(self, reason: str) -> None:
        """Tell it."""
        self._tell(self.observer.stopped, reason)

    def _tell(self, call: Callable[..., None], *values: Any) -> None:
        try:
            with random_states_kept(self.device):
                call(*values)
        except OSError:
            self.observer = SilentObserver()


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Put torch's global generators back after a block, whatever was drawn from them."""
    before = random_states(device)
    try:
        yield
    finally:
        set_random_states(before, device)
