"""Training: config, schedule, optimizer, step, and the loop over them."""

from glassnet.training.config import TrainConfig
from glassnet.training.history import EpochRow, History

__all__ = ["EpochRow", "History", "TrainConfig"]
