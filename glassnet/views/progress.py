"""Training as it happens, on the error stream: a live bar in a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import math

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from glassnet.training.fit import FitPlan, Observer, SilentObserver
from glassnet.training.fit import Progress as Standing
from glassnet.training.history import EpochRow


def make_observer(is_wanted: bool, console: Console | None = None) -> Observer:
    """Return the observer for the place where the error stream goes, or one that shows nothing."""
    if not is_wanted:
        return SilentObserver()
    console = console or Console(stderr=True, highlight=False)
    return BarObserver(console) if console.is_terminal else LineObserver(console)


class LineObserver:
    """One line an epoch."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_epochs = 0

    def started(self, plan: FitPlan) -> None:
        """Say what is going to happen."""
        self.num_epochs = plan.num_epochs
        self.console.print(
            f"Training on {plan.num_train:,} examples, {plan.num_validation:,} held out, "
            f"{plan.num_epochs} {'epoch' if plan.num_epochs == 1 else 'epochs'}, {plan.num_steps:,} steps, "
            f"{plan.device} in {plan.precision}{_describe_filtered(plan.num_filtered)}",
            soft_wrap=True,
        )

    def progressed(self, progress: Standing) -> None:
        """Nothing between epochs."""

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Print the epoch."""
        self.console.print(describe_epoch(row, self.num_epochs, is_best), soft_wrap=True)

    def noted(self, text: str) -> None:
        """Print it."""
        self.console.print(text, soft_wrap=True)

    def stopped(self, reason: str) -> None:
        """Say why, where it is not the plan."""
        if reason != "all epochs done":
            self.console.print(f"Stopped: {reason}")


class BarObserver(LineObserver):
    """A live bar over the whole run, below a line for each epoch that is done."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[figures]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self.task = TaskID(0)

    def started(self, plan: FitPlan) -> None:
        """Start the bar."""
        super().started(plan)
        self.task = self.bar.add_task("", total=plan.num_steps, epoch=f"1/{plan.num_epochs}", figures="")
        self.bar.start()

    def progressed(self, progress: Standing) -> None:
        """Move the bar."""
        self.bar.update(
            self.task,
            completed=progress.step,
            epoch=f"{progress.epoch}/{self.num_epochs}",
            figures=f"loss {progress.loss:.3f}{_accuracy(progress.accuracy)}  {progress.images_per_s:,.0f} img/s",
        )

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Print the epoch above the bar."""
        figures = f"loss {row.train_loss:.3f}{_accuracy(row.train_accuracy)}  {row.images_per_s:,.0f} img/s"
        standing = f"{min(row.epoch + 1, self.num_epochs)}/{self.num_epochs}"
        self.bar.update(self.task, completed=row.step, epoch=standing, figures=figures)
        self.bar.console.print(describe_epoch(row, self.num_epochs, is_best))

    def stopped(self, reason: str) -> None:
        """Take the bar away."""
        self.bar.stop()
        super().stopped(reason)


def _describe_filtered(count: int) -> str:
    return f", {count} {'convolution' if count == 1 else 'convolutions'} by minimal filtering" if count else ""


def describe_epoch(row: EpochRow, num_epochs: int, is_best: bool) -> str:
    """Return one epoch as a line, with a star where its weights are kept until better ones come."""
    text = (
        f"epoch {row.epoch:>{len(str(num_epochs))}}/{num_epochs}  "
        f"train loss {row.train_loss:.4f}{_accuracy(row.train_accuracy)}"
    )
    if not math.isnan(row.validation_loss):
        text += f"  held out {row.validation_loss:.4f}{_accuracy(row.validation_accuracy, '')}"
    return text + f"  {row.images_per_s:>7,.0f} img/s  {row.epoch_s:.1f} s" + ("  *" if is_best else "")


def _accuracy(share: float, word: str = "accuracy ") -> str:
    """Return an accuracy in words; nothing for a regression, which has none."""
    return "" if math.isnan(share) else f"  {word}{share:6.2%}"
