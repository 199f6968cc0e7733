"""A training that goes on from any of its states, and one that is watched, ends with the same weights, bit for bit."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from glassnet import TrainConfig, WorkError
from glassnet.data.examples import Dataset
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import make_preprocessing
from glassnet.training import epoch as epoch_file
from glassnet.training.fit import EpochEnd, FitPlan, FitResult, Progress, SilentObserver, fit
from glassnet.training.history import EpochRow, History
from glassnet.training.state import TrainingState
from glassnet.training.step import NonFiniteLossError

CPU = torch.device("cpu")


def network(dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 3)
    )


def train(model: nn.Module, data: Dataset, precision: str = "fp32", **values: object) -> FitResult:
    """Train; fields of the config and arguments of `fit` are told apart by name."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    config = TrainConfig(**{"epochs": 3, "batch_size": 16} | {name: values[name] for name in names & set(values)})
    record = make_preprocessing(data.train, (8, 8))
    arguments = {name: value for name, value in values.items() if name not in names}
    splits = [to_device(split, record, CPU) for split in (data.train, data.validation)]
    return fit(model, *splits, record, config, precision=precision, **arguments)


def timeless(history: History) -> list[str]:
    return [repr(dataclasses.replace(row, images_per_s=0, epoch_s=0)) for row in history]


def same(left: object, right: object) -> bool:
    """Whether two states, or parts of them, are equal to the last bit."""
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    return left == right


@pytest.fixture(autouse=True)
def _save_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny `checkpoint_s`, whatever a save takes."""
    monkeypatch.setattr(epoch_file, "STATE_SHARE", 1e9)


CONFIGS = {
    "the defaults": {},
    "everything drawn": {"max_shift": 1, "augment": "RandomErasing,MixUp(alpha=0.4)", "label_smoothing": 0.1},
    "flips that alternate": {"alternating_flip": True, "batch_size": 7},
    "sgd": {"optimizer": "sgd", "schedule": "cosine", "max_gradient_norm": 0.5},
    "rmsprop": {"optimizer": "rmsprop", "momentum": 0.9},
    "adagrad": {"optimizer": "adagrad", "schedule": "step"},
    "muon": {"optimizer": "muon", "schedule": "linear"},
    "a moving average": {"ema": 0.9, "accumulate": 2, "batch_size": 8},
    "a plateau": {"schedule": "plateau", "plateau_patience": 0, "learning_rate": 0.1, "epochs": 5},
    "patience": {"optimizer": "sgd", "learning_rate": 2.0, "schedule": "constant", "patience": 1, "epochs": 9},
    "half an epoch": {"epochs": 1.5, "validate_every": 2},
    "one example a step": {"batch_size": 1, "epochs": 0.2, "optimizer": "sgd", "learning_rate": 0.01},
    "all examples a step": {"batch_size": "all"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16", "max_gradient_norm": 1.0},
}


def keep(states: list[TrainingState], end: EpochEnd) -> None:
    states.append(end.state.copied())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_goes_on_from_every_state_to_the_same_end(name: str, small_data: Dataset) -> None:
    values, states, ends = CONFIGS[name], [], []
    whole = train(
        network(),
        small_data,
        **values,
        checkpoint_s=1e-9,
        on_state=lambda state: states.append(state.copied()),
        on_epoch=lambda end: (keep(states, end), keep(ends, end)),
    )
    assert {state.step for state in states} == set(range(whole.history[-1].step + 1))
    for state in states[:: max(1, len(states) // 6)]:
        model, last = network(), []
        torch.manual_seed(state.step)  # what is drawn elsewhere is of no account
        note = functools.partial(keep, last)
        result = train(model, small_data, **values, resume=state, on_epoch=note)
        assert timeless(result.history) == timeless(whole.history)
        assert (result.best_epoch, result.stop_reason) == (whole.best_epoch, whole.stop_reason)
        assert same(model.state_dict(), ends[-1].weights)
        if last:
            assert same(last[-1].optimizer, ends[-1].optimizer)
            assert same(last[-1].average, ends[-1].average)


class Meddler(SilentObserver):
    """Draws from the global generator whenever it is told something."""

    def __init__(self) -> None:
        self.num_told = 0

    def _draw(self) -> None:
        self.num_told += 1
        torch.rand(7)

    def started(self, plan: FitPlan) -> None:
        self._draw()

    def progressed(self, progress: Progress) -> None:
        self._draw()

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        self._draw()


class Broken(SilentObserver):
    """Writes to a terminal that is gone."""

    def progressed(self, progress: Progress) -> None:
        raise BrokenPipeError

    def stopped(self, reason: str) -> None:
        raise AssertionError("one that cannot write is not told any more")


@pytest.mark.parametrize(
    "watching",
    [
        lambda: {"observer": Meddler()},
        lambda: {"observer": Broken()},
        lambda: {"checkpoint_s": 1e-9},
        lambda: {"checkpoint_s": 1e-9, "on_state": lambda state: torch.rand(7), "on_epoch": lambda end: torch.rand(7)},
        lambda: {"validate_every": 2},
        lambda: {"validate_every": 7},
    ],
    ids=["meddler", "broken terminal", "saving", "drawing savers", "every second epoch", "the last epoch only"],
)
def test_weights_do_not_depend_on_who_watches_and_what_is_saved(
    watching: Callable[[], dict[str, object]], small_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_file, "REFRESH_S", 0.0)  # every step is shown
    unwatched, watched, given = network(), network(), watching()
    train(unwatched, small_data, max_shift=1, epochs=5)
    train(watched, small_data, max_shift=1, epochs=5, **given)
    assert same(unwatched.state_dict(), watched.state_dict())
    observer = given.get("observer")
    assert not isinstance(observer, Meddler) or observer.num_told == 1 + 20 + 5


def test_epochs_between_looks_at_the_hold_out_split_have_no_figures_and_are_not_best(small_data: Dataset) -> None:
    told = []
    result = train(network(), small_data, epochs=5, validate_every=2, on_epoch=lambda end: told.append(end.is_kept))
    is_looked_at = [row.validation_loss == row.validation_loss for row in result.history]
    assert is_looked_at == [False, True, False, True, True]
    assert told[0], "there is something to use from the first epoch on"
    assert not told[2]
    assert result.best_epoch in (2, 4, 5)


def test_a_part_of_an_epoch_is_so_many_steps(small_data: Dataset) -> None:
    result = train(network(), small_data, epochs=1.5)
    assert [(row.epoch, row.step, row.num_examples) for row in result.history] == [(1, 4, 60), (2, 6, 32)]
    assert [row.step for row in train(network(), small_data, epochs=0.01).history] == [1]


def test_on_a_plateau_the_learning_rate_falls(small_data: Dataset) -> None:
    values = {"optimizer": "sgd", "schedule": "plateau", "plateau_patience": 1, "learning_rate": 2.0, "epochs": 12}
    history = train(network(), small_data, **values).history
    rates = [round(row.learning_rate, 12) for row in history]
    assert rates[0] == 2
    assert rates[-1] < 2
    assert all(right in (left, round(left / 10, 12)) for left, right in itertools.pairwise(rates))


def test_the_state_of_another_training_is_refused(small_data: Dataset) -> None:
    states: list[TrainingState] = []
    train(network(), small_data, on_state=lambda state: states.append(state.copied()))
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(WorkError, match="The stored training state is not one of this model and config: Error.* in"):
        train(other, small_data, resume=states[0])


class Poison(nn.Module):
    """A layer whose outputs are lost in some calls in training mode, or always in evaluation mode."""

    def __init__(self, *calls: int, is_held_out: bool = False) -> None:
        super().__init__()
        self.calls, self.num_calls, self.is_held_out = calls, 0, is_held_out

    def forward(self, inputs: Tensor) -> Tensor:
        self.num_calls += self.training
        is_lost = self.num_calls in self.calls if self.training else self.is_held_out
        return inputs * float("nan") if is_lost else inputs


def poisoned(*calls: int, **options: bool) -> nn.Module:
    """The network with a layer `1.poison` before its batch normalisation."""
    model = network()
    model[1] = nn.Sequential(Poison(*calls, **options), model[1])
    return model


def without_poison(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("1.1.", "1."): tensor for name, tensor in state.items()}


def test_a_lost_loss_leaves_everything_as_it_was_before_the_step(small_data: Dataset) -> None:
    """The state that is saved is that of a run which was stopped before the step: statistics and generators too."""
    states: list[TrainingState] = []
    train(network(), small_data, max_shift=1, checkpoint_s=1e-9, on_state=lambda state: states.append(state.copied()))
    clean = next(state for state in states if state.step == 5)
    model, lost = poisoned(6, 7), []
    with pytest.raises(NonFiniteLossError) as caught:
        train(model, small_data, max_shift=1, on_state=lambda state: lost.append(state.copied()))
    assert lost[-1].step == 5
    assert same(without_poison(lost[-1].weights), clean.weights)
    assert same(lost[-1].generators, clean.generators)
    assert same(lost[-1].random_states, clean.random_states)
    assert same(lost[-1].optimizer["state"], clean.optimizer["state"])
    assert re.fullmatch(
        r"Training stopped in epoch 2 at step 5 with learning rate 0.00238 \(batch 2 of 4\): the loss of a batch "
        r"became nan; layer '1.0' \(Poison\) gave nan first; its inputs reached [\d.]+. Lower --lr \(try 0.0002\), set "
        r"max_gradient_norm=1, or go on by itself with --on-nan halve-lr.",
        str(caught.value),
    )


def test_a_run_that_lost_its_loss_loses_it_again_when_it_is_resumed(small_data: Dataset) -> None:
    said, states = [], []
    for _ in range(2):
        with pytest.raises(NonFiniteLossError) as caught:
            train(
                poisoned(*range(1 if states else 6, 99)),
                small_data,
                max_shift=1,
                on_state=lambda state: states.append(state.copied()),
                resume=states[-1] if states else None,
            )
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert same(states[-1].weights, states[-2].weights)


def test_a_lost_hold_out_loss_names_the_layer_and_is_lost_again_when_resumed(small_data: Dataset) -> None:
    states: list[TrainingState] = []
    expected = r"epoch 1 at step 4 .*the loss on the hold-out split became nan; layer '1.0' \(Poison\) gave nan first"
    for _ in range(2):
        with pytest.raises(NonFiniteLossError, match=expected):
            train(
                poisoned(is_held_out=True),
                small_data,
                on_state=lambda state: states.append(state.copied()),
                resume=states[-1] if states else None,
            )
        assert states[-1].step == 4
        if len(states) > 2:
            break


def test_a_lost_loss_may_halve_the_learning_rate_and_go_on_from_the_start_of_the_epoch(small_data: Dataset) -> None:
    class Listener(SilentObserver):
        notes: list[str] = []  # noqa: RUF012

        def noted(self, text: str) -> None:
            self.notes.append(text)

    values = {"on_nan": "halve-lr", "schedule": "constant", "learning_rate": 0.01, "max_shift": 1}
    states: list[TrainingState] = []
    model, halved = poisoned(6, 11), network()
    result = train(
        model, small_data, **values, observer=Listener(), on_epoch=lambda end: states.append(end.state.copied())
    )
    assert [row.learning_rate for row in result.history] == [0.01, 0.0025, 0.0025]
    assert Listener.notes == [
        "The loss was lost: epoch 2 again, at 0.5 of the learning rate.",
        "The loss was lost: epoch 2 again, at 0.25 of the learning rate.",
    ]
    # The same by hand: from the end of the first epoch on at a quarter of the rate.
    clean: list[TrainingState] = []
    train(network(), small_data, **values, on_epoch=lambda end: clean.append(end.state.copied()))
    train(halved, small_data, **values, resume=dataclasses.replace(clean[0], learning_rate_scale=0.25))
    assert same(without_poison(model.state_dict()), halved.state_dict())


def test_a_training_at_a_halved_rate_goes_on_from_every_state_to_the_same_end(small_data: Dataset) -> None:
    """A learning rate at which the loss is really lost: the path of a killed run leads over the same halvings."""
    values = {"optimizer": "sgd", "learning_rate": 20.0, "schedule": "constant", "momentum": 0, "on_nan": "halve-lr"}
    values |= {"weight_decay": 0, "epochs": 2}

    def deep() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), *(nn.Linear(64, 64) for _ in range(3)), nn.Linear(64, 3))

    states: list[TrainingState] = []
    whole_model = deep()
    whole = train(whole_model, small_data, **values, on_epoch=lambda end: states.append(end.state.copied()))
    assert whole.history[0].learning_rate < 20
    model = deep()
    again = train(model, small_data, **values, resume=states[0])
    assert timeless(again.history) == timeless(whole.history)
    assert same(model.state_dict(), whole_model.state_dict())


def test_where_no_rate_is_low_enough_training_stops(small_data: Dataset) -> None:
    with pytest.raises(NonFiniteLossError, match="at step 0 .*The learning rate was halved 10 times"):
        train(poisoned(*range(1, 99)), small_data, on_nan="halve-lr")
