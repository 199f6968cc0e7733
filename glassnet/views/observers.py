"""Several observers of one training."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from glassnet.training.fit import FitPlan, Observer, Progress
from glassnet.training.history import EpochRow


def both(first: Observer, second: Observer) -> Observer:
    """Return an observer that tells both, in this order."""
    return _Both(first, second)


@dataclass(frozen=True)
class _Both:
    first: Observer
    second: Observer

    def started(self, plan: FitPlan) -> None:
        """Tell both."""
        self.first.started(plan)
        self.second.started(plan)

    def progressed(self, progress: Progress) -> None:
        """Tell both."""
        self.first.progressed(progress)
        self.second.progressed(progress)

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Tell both."""
        self.first.epoch_ended(row, is_best)
        self.second.epoch_ended(row, is_best)

    def stopped(self, reason: str) -> None:
        """Tell both, the second also where the first fails: each may have something to close."""
        with ExitStack() as stack:
            stack.callback(self.second.stopped, reason)
            self.first.stopped(reason)
