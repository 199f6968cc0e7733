"""Early stopping on the hold-out loss, as a pure record."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class EarlyStopping:
    """How long ago the hold-out loss was at its lowest. Prechelt, "Early stopping - but when?" (1998).

    `updated` returns the next record; nothing is changed in place.
    """

    patience: int | None
    """Epochs without a lower loss before stopping; None never stops."""
    best_loss: float = math.inf
    best_epoch: int = 0
    epoch: int = 0
    is_watched: bool = True
    """Whether the hold-out split was looked at after the last epoch."""

    def updated(self, epoch: int, loss: float, *, is_watched: bool = True) -> EarlyStopping:
        """Return the record after `epoch` ended with the hold-out `loss`; nan, where there is no hold-out, is best.

        An epoch after which the hold-out split was not looked at is never best, unless it is the first: so that there
        is a best one from the start.
        """
        if not is_watched:
            return replace(self, best_epoch=self.best_epoch or epoch, epoch=epoch, is_watched=False)
        is_best = math.isnan(loss) or loss < self.best_loss
        if is_best:
            return EarlyStopping(self.patience, loss, epoch, epoch)
        return EarlyStopping(self.patience, self.best_loss, self.best_epoch, epoch)

    @property
    def is_best(self) -> bool:
        """True where the last epoch had the lowest loss so far."""
        return self.best_epoch == self.epoch

    @property
    def is_over(self) -> bool:
        """True where the patience is used up, which only a look at the hold-out split can tell."""
        return self.is_watched and self.patience is not None and self.epoch - self.best_epoch >= self.patience
