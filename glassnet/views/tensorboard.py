"""A training as TensorBoard reads it: scalars by epoch, and the hyperparameters with what came of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glassnet._errors import UsageError
from glassnet._types import PathArg
from glassnet.training.fit import FitPlan, Progress
from glassnet.training.history import EpochRow

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""Of a run folder: where its events lie."""

SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/validation": "validation_accuracy",
    "learning_rate": "learning_rate",
    "images_per_s": "images_per_s",
}
"""Tag and field of `EpochRow`."""


class TensorBoardObserver:
    """Writes an epoch's figures as TensorBoard events under `folder`; `write_result` adds the end.

    What is no number (the accuracy of a regression, a hold-out loss without a split) is left out. Nothing is written
    before training starts.

    Raises `UsageError` where tensorboard is not installed, at once and not after an hour of training.
    """

    def __init__(self, folder: PathArg) -> None:
        self.folder = Path(folder)
        self._open = _writer_class()
        self._writer: SummaryWriter | None = None

    def started(self, plan: FitPlan) -> None:
        """Open the file of events."""
        self._writer = self._open(str(self.folder))

    def progressed(self, progress: Progress) -> None:
        """Nothing between epochs."""

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Write the epoch, so that a TensorBoard that is open shows it."""
        assert self._writer is not None, "started comes first"
        for tag, name in SCALARS.items():
            value = getattr(row, name)
            if not math.isnan(value):
                self._writer.add_scalar(tag, value, row.epoch)
        self._writer.flush()

    def stopped(self, reason: str) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_result(self, record: Mapping[str, Mapping[str, object]]) -> None:
        """Write model, data and hyperparameters with the figures on the test split, as `config.yaml` has them."""
        result = record.get("result", {})
        figures = {
            f"test/{name.removeprefix('test_')}": float(value)
            for name, value in result.items()
            if name.startswith("test_") and isinstance(value, int | float)
        }
        given = {"model": record["model"].get("name") or record["model"].get("class"), "data": record["data"]["name"]}
        given |= record["training"]
        # TensorBoard knows numbers, words and truth values; None stands for what does not apply.
        parameters = {
            name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in given.items()
        }
        with self._open(str(self.folder)) as writer:
            writer.add_hparams(parameters, figures, run_name=".")


def _writer_class() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "Events for TensorBoard need the package tensorboard, which is not installed. "
            "Run: pip install 'glassnet[tensorboard]'"
        ) from None
    return SummaryWriter
