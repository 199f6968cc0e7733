from __future__ import annotations

import math

import pytest

from glassnet import WorkError
from glassnet.training.history import EpochRow, History
from glassnet.training.stopping import EarlyStopping


def row(epoch: int, validation_loss: float) -> EpochRow:
    return EpochRow(
        epoch=epoch,
        step=epoch * 10,
        num_examples=640,
        learning_rate=1 / 3,
        train_loss=0.1 + epoch,
        train_accuracy=0.5,
        validation_loss=validation_loss,
        validation_accuracy=0.25,
        images_per_s=1234.5,
        epoch_s=0.75,
    )


def test_the_rows_survive_their_file_with_every_digit() -> None:
    history = History((row(1, 0.1 + 0.2), row(2, 1e-17)))
    assert History.from_csv(history.to_csv()) == history


def test_a_missing_validation_loss_survives_as_nan() -> None:
    assert math.isnan(History.from_csv(History((row(1, math.nan),)).to_csv())[0].validation_loss)


def test_the_best_row_is_the_first_of_the_lowest_loss() -> None:
    assert History((row(1, 0.5), row(2, 0.3), row(3, 0.3), row(4, math.nan))).best.epoch == 2
    assert History((row(1, math.nan), row(2, math.nan))).best.epoch == 2


def test_a_column_is_one_field_of_every_row() -> None:
    assert History((row(1, 0.5), row(2, 0.25))).column("validation_loss") == [0.5, 0.25]


def test_a_file_with_other_columns_or_a_broken_line_is_refused() -> None:
    with pytest.raises(WorkError, match=r"Expected the columns epoch, step.*got \['a', 'b'\]"):
        History.from_csv("a,b\n1,2\n")
    text = History((row(1, 0.5),)).to_csv().replace("640", "many")
    with pytest.raises(WorkError, match="Line 2 does not hold one number for each column"):
        History.from_csv(text)
    with pytest.raises(WorkError, match="Line 2"):
        History.from_csv(History((row(1, 0.5),)).to_csv().rsplit(",", 1)[0])


@pytest.mark.parametrize(
    ("patience", "losses", "stops_after"),
    [
        (None, [1.0, 2.0, 3.0, 4.0], None),
        (1, [1.0, 1.0], 2),
        (2, [1.0, 0.9, 1.0, 0.95], 4),
        (2, [1.0, 1.1, 0.9, 1.0, 0.8], None),
        (1, [math.nan, math.nan, math.nan], None),
    ],
)
def test_training_stops_when_the_patience_is_used_up(
    patience: int | None, losses: list[float], stops_after: int | None
) -> None:
    stopping, ended = EarlyStopping(patience), None
    for epoch, loss in enumerate(losses, start=1):
        stopping = stopping.updated(epoch, loss)
        if stopping.is_over:
            ended = epoch
            break
    assert ended == stops_after


def test_patience_is_used_up_only_where_the_loss_was_looked_at() -> None:
    stopping = EarlyStopping(patience=2)
    for epoch in (1, 2, 3, 4):
        stopping = stopping.updated(epoch, math.nan, is_watched=False)
        assert not stopping.is_over
    stopping = stopping.updated(5, 0.4)
    assert (stopping.best_epoch, stopping.is_over) == (5, False)
    for epoch, is_watched in ((6, True), (7, False), (8, True)):
        stopping = stopping.updated(epoch, 0.5, is_watched=is_watched)
        assert stopping.is_over == (epoch == 8)


def test_the_best_epoch_is_remembered() -> None:
    stopping = EarlyStopping(5)
    flags = []
    for epoch, loss in enumerate([1.0, 0.5, 0.7, 0.5, 0.4], start=1):
        stopping = stopping.updated(epoch, loss)
        flags.append(stopping.is_best)
    assert flags == [True, True, False, False, True]
    assert (stopping.best_epoch, stopping.best_loss) == (5, 0.4)
