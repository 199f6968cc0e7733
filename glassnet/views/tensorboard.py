"""A training as TensorBoard reads it: scalars by epoch, and the hyperparameters with what came of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glassnet._errors import UsageError
from glassnet._types import PathArg
from glassnet.training.history import EpochRow
from glassnet.training.observer import FitPlan, SilentObserver

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/validation": "validation_accuracy",
    "learning_rate": "learning_rate",
    "images_per_s": "images_per_s",
}
"""Tag and field of `EpochRow`, in the order in which they are written."""

LAST_TAG = "images_per_s"
"""Written last and never without a number: an epoch that has it is in the log as a whole."""

LONGEST_WAIT_S = 1.5


class TensorBoardObserver(SilentObserver):
    """Writes an epoch's figures as TensorBoard events under `folder`; `write_result` adds the end.

    `done` are the epochs that are complete where a run is resumed: the log goes on after them. What of them a kill kept
    from the log is written, and what is there of an epoch that is done again counts no more.

    What is no number (the accuracy of a regression, a hold-out loss without a split) is left out. Nothing is written
    before training starts. Raises `UsageError` where tensorboard is not installed, at once and not after an hour.
    """

    def __init__(self, folder: PathArg, done: Sequence[EpochRow] = ()) -> None:
        self.folder, self.done = Path(folder), tuple(done)
        self._open = writer_class()
        self._writer: SummaryWriter | None = None

    def started(self, plan: FitPlan) -> None:
        """Open a file of events, and bring the log up to the epochs that are done."""
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            self._writer, num_logged = self._open(str(self.folder)), 0
        else:
            num_logged = min(_num_logged(self.folder), len(self.done))
            _wait_for_a_later_name(self.folder)
            self._writer = self._open(str(self.folder), purge_step=num_logged + 1)
        for row in self.done[num_logged:]:
            self._write(row)
        self._writer.flush()

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Write the epoch, so that a TensorBoard that is open shows it."""
        self._write(row)
        assert self._writer is not None, "started comes first"
        self._writer.flush()

    def _write(self, row: EpochRow) -> None:
        assert self._writer is not None, "started comes first"
        for tag, name in SCALARS.items():
            value = getattr(row, name)
            if not math.isnan(value):
                self._writer.add_scalar(tag, value, row.epoch)

    def stopped(self, reason: str) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_result(self, record: Mapping[str, Mapping[str, object]]) -> None:
        """Write model, data and hyperparameters with the figures on the test split, as `config.yaml` has them."""
        from torch.utils.tensorboard.summary import hparams

        result = record["result"]
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
            for part in hparams(parameters, figures):
                writer.file_writer.add_summary(part)
            for tag, value in figures.items():
                writer.add_scalar(tag, value, result["num_epochs"])


def writer_class() -> type[SummaryWriter]:
    """Return torch's writer of events; raise `UsageError` where it lacks the package that it needs."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "Events for TensorBoard need the package tensorboard, which is not installed. "
            "Run: pip install 'glassnet[tensorboard]'"
        ) from None
    return SummaryWriter


def _num_logged(folder: Path) -> int:
    """Return how many epochs from the first on are in the log as a whole."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    if LAST_TAG not in events.Tags()["scalars"]:
        return 0
    epochs = {scalar.step for scalar in events.Scalars(LAST_TAG)}
    return next(number for number in range(len(epochs) + 1) if number + 1 not in epochs)


def _wait_for_a_later_name(folder: Path) -> None:
    """Return when the name of a new file comes after those that are there: they are read in the order of names.

    A name begins with the second in which the file was made.
    """
    seconds = [name.split(".")[3] for name in (path.name for path in folder.glob("events.out.tfevents.*"))]
    newest = max((int(second) for second in seconds if second.isdecimal()), default=0)
    give_up = time.monotonic() + LONGEST_WAIT_S
    while int(time.time()) <= newest and time.monotonic() < give_up:
        time.sleep(0.02)
