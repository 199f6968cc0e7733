"""Several observers of one training."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from glassnet._errors import UsageError
from glassnet.training.history import EpochRow
from glassnet.training.observer import FitPlan, Observer, Progress

CALLS = ("started", "progressed", "epoch_ended", "noted", "stopped")


def check_observers(observers: Sequence[object]) -> None:
    """Raise `UsageError` for what cannot observe, before any work."""
    for observer in observers:
        missing = [name for name in CALLS if not callable(getattr(observer, name, None))]
        if missing or isinstance(observer, type):
            lack = "is a class" if isinstance(observer, type) else f"lacks {', '.join(missing)}"
            raise UsageError(
                f"observers takes Observer objects; got {observer!r}, which {lack}. "
                "Derive from glassnet.training.observer.SilentObserver and pass an instance."
            )


def together(observers: Sequence[Observer]) -> Observer:
    """Return an observer that tells all of them, in their order."""
    return observers[0] if len(observers) == 1 else _Together(tuple(observers))


@dataclass(frozen=True)
class _Together:
    observers: tuple[Observer, ...]

    def started(self, plan: FitPlan) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.started(plan)

    def progressed(self, progress: Progress) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.progressed(progress)

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.epoch_ended(row, is_best)

    def noted(self, text: str) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.noted(text)

    def stopped(self, reason: str) -> None:
        """Tell all, also where one of them fails: each may have something to close."""
        with ExitStack() as stack:
            for observer in reversed(self.observers):
                stack.callback(observer.stopped, reason)
