from __future__ import annotations

import pytest
import torch

from glassnet.training.history import EpochRow
from glassnet.training.observer import FitPlan, Progress, SilentObserver
from glassnet.views.observers import together

PLAN = FitPlan(num_epochs=1, num_steps=1, num_train=1, num_validation=0, device=torch.device("cpu"), precision="fp32")
PROGRESS = Progress(epoch=1, step=1, loss=1.0, accuracy=0.5, images_per_s=1.0)
ROW = EpochRow(
    epoch=1,
    step=1,
    num_examples=1,
    learning_rate=0.1,
    train_loss=1.0,
    train_accuracy=0.5,
    validation_loss=1.0,
    validation_accuracy=0.5,
    images_per_s=1.0,
    epoch_s=1.0,
)


class Listener(SilentObserver):
    def __init__(self, name: str, heard: list[tuple[object, ...]], is_failing: bool = False) -> None:
        self.name, self.heard, self.is_failing = name, heard, is_failing

    def started(self, plan: FitPlan) -> None:
        self.heard.append((self.name, plan))

    def progressed(self, progress: Progress) -> None:
        self.heard.append((self.name, progress))

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        self.heard.append((self.name, row, is_best))

    def noted(self, text: str) -> None:
        self.heard.append((self.name, text))

    def stopped(self, reason: str) -> None:
        self.heard.append((self.name, reason))
        if self.is_failing:
            raise OSError("disk full")


def test_all_hear_everything_in_their_order() -> None:
    heard: list[tuple[object, ...]] = []
    names = ("one", "two", "three")
    observer = together([Listener(name, heard) for name in names])
    observer.started(PLAN)
    observer.progressed(PROGRESS)
    observer.epoch_ended(ROW, True)
    observer.noted("The loss was lost.")
    observer.stopped("done")
    told = [(PLAN,), (PROGRESS,), (ROW, True), ("The loss was lost.",), ("done",)]
    assert heard == [(name, *what) for what in told for name in names]


def test_the_others_are_closed_also_where_one_fails_to() -> None:
    heard: list[tuple[object, ...]] = []
    with pytest.raises(OSError, match="disk full"):
        together([Listener("one", heard, is_failing=True), Listener("two", heard)]).stopped("done")
    assert heard == [("one", "done"), ("two", "done")]
