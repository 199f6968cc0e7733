from __future__ import annotations

import io
import math

import pytest
import torch
from rich.console import Console

from glassnet.training.fit import FitPlan, Progress, SilentObserver
from glassnet.training.history import EpochRow
from glassnet.views.progress import BarObserver, LineObserver, describe_epoch, make_observer

PLAN = FitPlan(
    num_epochs=12, num_steps=120, num_train=640, num_validation=60, device=torch.device("cpu"), precision="fp32"
)


def row(epoch: int, validation_loss: float = 0.25) -> EpochRow:
    return EpochRow(
        epoch=epoch,
        step=epoch * 10,
        num_examples=640,
        learning_rate=0.1,
        train_loss=0.5,
        train_accuracy=0.875,
        validation_loss=validation_loss,
        validation_accuracy=0.75,
        images_per_s=12345.6,
        epoch_s=2.0,
    )


def watch(is_terminal: bool) -> str:
    stream = io.StringIO()
    observer = make_observer(True, Console(file=stream, force_terminal=is_terminal, width=120, highlight=False))
    assert isinstance(observer, BarObserver if is_terminal else LineObserver)
    observer.started(PLAN)
    observer.progressed(Progress(epoch=1, step=4, loss=0.6, accuracy=0.5, images_per_s=100.0))
    observer.epoch_ended(row(1), True)
    observer.stopped("interrupted")
    return stream.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_every_epoch_is_said_in_a_terminal_and_in_a_file(is_terminal: bool) -> None:
    text = watch(is_terminal)
    assert "Training on 640 examples, 60 held out, 12 epochs, 120 steps, cpu in fp32" in text
    assert "epoch  1/12  train loss 0.5000  accuracy 87.50%  held out 0.2500  75.00%   12,346 img/s  2.0 s  *" in text
    assert "Stopped: interrupted" in text


def test_only_a_terminal_gets_a_bar() -> None:
    assert "━" in watch(True)
    assert "━" not in watch(False)
    assert "\x1b" not in watch(False)


def test_without_a_hold_out_split_nothing_is_said_of_one() -> None:
    assert "held out" not in describe_epoch(row(3, math.nan), 12, False)


def test_progress_that_is_not_wanted_is_silent() -> None:
    observer = make_observer(False)
    assert isinstance(observer, SilentObserver)
    for call in (lambda: observer.started(PLAN), lambda: observer.epoch_ended(row(1), True)):
        assert call() is None
