from __future__ import annotations

import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from glassnet import TrainConfig, UsageError
from glassnet._modes import evaluating
from glassnet.data.examples import Dataset
from glassnet.data.loader import DeviceExamples, to_device
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.training.fit import EpochEnd, FitPlan, FitResult, Progress, SilentObserver, fit
from glassnet.training.history import EpochRow
from glassnet.training.step import NonFiniteLossError

CPU = torch.device("cpu")


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 3)
    )


def prepared(data: Dataset) -> tuple[DeviceExamples, DeviceExamples, Preprocessing]:
    record = make_preprocessing(data.train, (8, 8))
    return to_device(data.train, record, CPU), to_device(data.validation, record, CPU), record


def run(model: nn.Module, data: Dataset, precision: str = "fp32", **values: object) -> FitResult:
    config = TrainConfig(**{"epochs": 3, "batch_size": 16} | values)
    return fit(model, *prepared(data), config, precision=precision)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_a_learnable_task_is_learnt(small_data: Dataset, optimizer: str) -> None:
    result = run(network(), small_data, optimizer=optimizer, epochs=15)
    assert result.history[-1].validation_accuracy == 1
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_plain_gradient_descent_is_what_the_textbook_says(small_data: Dataset) -> None:
    """Batch gradient descent by hand, `w - rate * gradient`, against one epoch of `fit`."""
    train, _, record = prepared(small_data)
    by_hand, by_fit = (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)) for _ in range(2))
    by_fit.load_state_dict(by_hand.state_dict())
    loss = F.cross_entropy(by_hand(record.normalise(train.inputs)), train.labels)
    gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
    expected = [w - 0.5 * g for w, g in zip(by_hand.parameters(), gradients, strict=True)]
    options = {"momentum": 0, "weight_decay": 0, "schedule": "constant", "learning_rate": 0.5}
    result = run(by_fit, small_data, optimizer="sgd", epochs=1, batch_size=60, **options)
    for found, wanted in zip(by_fit.parameters(), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-6)
    assert result.history[0].train_loss == pytest.approx(loss.item(), abs=1e-6)


def test_the_same_seed_gives_the_same_weights_whatever_watches_and_whatever_was_drawn(small_data: Dataset) -> None:
    class Nosy(SilentObserver):
        def progressed(self, progress: Progress) -> None:
            torch.rand(3)

        def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
            torch.rand(3)

    ends = []
    for observer in (None, Nosy()):
        model = network(dropout=0.3)
        torch.manual_seed(hash(observer) % 1000)
        config = TrainConfig(epochs=1, batch_size=16, max_shift=1)
        fit(model, *prepared(small_data), config, precision="fp32", observer=observer)
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_another_seed_gives_other_weights(small_data: Dataset) -> None:
    models = [network(), network()]
    for seed, model in enumerate(models):
        run(model, small_data, seed=seed)
    assert not torch.equal(weights(models[0]), weights(models[1]))


def test_the_global_random_state_is_left_alone(small_data: Dataset) -> None:
    model = network(dropout=0.5)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run(model, small_data)
    assert torch.equal(torch.rand(4), expected)


def test_the_rows_say_what_happened(small_data: Dataset) -> None:
    model = network()
    result = run(model, small_data, schedule="linear", learning_rate=0.01, batch_size=16, epochs=2)
    first, second = result.history
    assert (first.epoch, first.step, first.num_examples) == (1, 4, 60)
    assert (second.epoch, second.step) == (2, 8)
    assert second.learning_rate == pytest.approx(0.01 / 8)
    _, validation, record = prepared(small_data)
    with evaluating(model):
        logits = model(record.normalise(validation.inputs))
    assert second.validation_loss == pytest.approx(float(F.cross_entropy(logits, validation.labels)), abs=1e-6)
    assert second.validation_accuracy == (logits.argmax(1) == validation.labels).float().mean()
    assert first.images_per_s > 0
    assert first.epoch_s > 0


def test_training_ends_when_the_hold_out_loss_stops_falling(small_data: Dataset) -> None:
    # A huge constant rate makes the hold-out loss jump about instead of falling for fifty epochs.
    options = {"optimizer": "sgd", "learning_rate": 2.0, "schedule": "constant", "max_gradient_norm": 1.0}
    result = run(network(), small_data, epochs=50, patience=2, **options)
    assert result.stop_reason == "no lower hold-out loss for 2 epochs"
    assert len(result.history) == result.best_epoch + 2 < 50
    assert result.history.best.epoch == result.best_epoch


def test_what_is_saved_as_best_is_the_state_at_the_lowest_loss(small_data: Dataset) -> None:
    saved: list[tuple[bool, float]] = []

    def note(end: EpochEnd) -> None:
        saved.append((end.is_kept, end.history[-1].validation_loss))

    fit(network(), *prepared(small_data), TrainConfig(epochs=8, batch_size=16), precision="fp32", on_epoch=note)
    lowest = math.inf
    for is_best, loss in saved:
        assert is_best == (loss < lowest)
        lowest = min(lowest, loss)


@pytest.mark.parametrize(
    ("keep", "is_held_out", "first_two"),
    [("best", True, [True, True]), ("last", True, [False, False]), ("best", False, [False, False])],
)
def test_an_observer_is_told_of_the_weights_that_are_kept_until_better_ones_come(
    keep: str, is_held_out: bool, first_two: list[bool], small_data: Dataset
) -> None:
    told: list[bool] = []

    class Listener(SilentObserver):
        def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
            told.append(is_best)

    config = TrainConfig(epochs=2, batch_size=16, keep=keep)
    data = small_data if is_held_out else replace(small_data, validation=small_data.validation[:0])
    result = fit(network(), *prepared(data), config, observer=Listener())
    assert not is_held_out or result.history[1].validation_loss < result.history[0].validation_loss
    assert told == first_two


def test_the_last_weights_are_kept_on_request_and_patience_still_watches_the_loss(small_data: Dataset) -> None:
    kept: list[bool] = []
    options = {"optimizer": "sgd", "learning_rate": 2.0, "schedule": "constant", "max_gradient_norm": 1.0}
    config = TrainConfig(epochs=50, batch_size=16, patience=2, keep="last", **options)
    result = fit(
        network(), *prepared(small_data), config, precision="fp32", on_epoch=lambda end: kept.append(end.is_kept)
    )
    assert result.stop_reason == "no lower hold-out loss for 2 epochs"
    assert result.best_epoch == len(result.history) == result.history.best.epoch + 2 < 50
    assert kept == [True] * len(result.history)


def test_without_a_hold_out_split_the_last_epoch_counts(small_data: Dataset) -> None:
    train, validation, record = prepared(small_data)
    empty = DeviceExamples(validation.inputs[:0], validation.labels[:0])
    result = fit(network(), train, empty, record, TrainConfig(epochs=3, batch_size=16), precision="fp32")
    assert result.best_epoch == 3
    assert math.isnan(result.history[0].validation_loss)


def test_a_batch_larger_than_the_set_is_refused(small_data: Dataset) -> None:
    with pytest.raises(UsageError, match=r"at most the 60 training examples; got 61.*Use batch_size=60"):
        run(network(), small_data, batch_size=61)


def test_a_lost_loss_stops_before_the_update_and_says_where(small_data: Dataset) -> None:
    model = network()
    calls = {"count": 0}

    def poison(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        calls["count"] += torch.is_grad_enabled()  # steps of the training; the network is tried before it, too
        return output * float("nan") if calls["count"] == 6 else output

    model[5].register_forward_hook(poison)
    train, _, record = prepared(small_data)
    empty = DeviceExamples(train.inputs[:0], train.labels[:0])
    with pytest.raises(NonFiniteLossError, match=r"epoch 2 at step 5 with learning rate .*became nan.*Lower --lr"):
        fit(model, train, empty, record, TrainConfig(epochs=3, batch_size=16), precision="fp32")
    assert torch.isfinite(weights(model)).all()


def test_gradients_are_clipped_to_their_norm(small_data: Dataset) -> None:
    norms = []
    for limit in (None, 0.01):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        nn.init.zeros_(model[1].weight)
        options = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "learning_rate": 1, "schedule": "constant"}
        run(model, small_data, epochs=1, batch_size=60, max_gradient_norm=limit, **options)
        norms.append(model[1].weight.norm().item())
    assert norms[0] > 0.1
    assert norms[1] <= 0.0101


class Interrupter(SilentObserver):
    """Presses Ctrl-C when the first epoch is over."""

    def started(self, plan: FitPlan) -> None:
        self.plan = plan

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        if row.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_after_the_current_step_with_everything_saved(small_data: Dataset) -> None:
    before = signal.getsignal(signal.SIGINT)
    saved = []
    config = TrainConfig(epochs=50, batch_size=16)
    result = fit(
        network(),
        *prepared(small_data),
        config,
        precision="fp32",
        observer=Interrupter(),
        on_epoch=lambda end: saved.append(end.history),
    )
    assert result.stop_reason == "interrupted"
    assert len(result.history) == len(saved) <= 2
    assert result.history[-1].num_examples <= 60
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_ctrl_c_stops_at_once(small_data: Dataset) -> None:
    class Impatient(SilentObserver):
        def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(
            network(),
            *prepared(small_data),
            TrainConfig(epochs=50, batch_size=16),
            precision="fp32",
            observer=Impatient(),
        )
    assert signal.getsignal(signal.SIGINT) == before


def test_bf16_learns_the_same_task(small_data: Dataset) -> None:
    assert run(network(), small_data, precision="bf16", epochs=15).history[-1].validation_accuracy == 1


def test_a_lost_hold_out_loss_stops_training_instead_of_counting_as_best(small_data: Dataset) -> None:
    model = network()
    train, validation, record = prepared(small_data)
    passes = {"count": 0}

    def poison(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        passes["count"] += not module.training
        return output * float("nan") if not module.training and passes["count"] == 3 else output

    model[5].register_forward_hook(poison)  # evaluation passes: 1 before training, then one an epoch
    saved, config = [], TrainConfig(epochs=5, batch_size=16)
    with pytest.raises(NonFiniteLossError, match="epoch 2 at step 8 .* the loss on the hold-out split became nan"):
        fit(model, train, validation, record, config, on_epoch=lambda end: saved.append(end.history))
    assert len(saved) == 1


def test_patience_without_a_hold_out_split_is_refused(small_data: Dataset) -> None:
    train, validation, record = prepared(small_data)
    empty = DeviceExamples(validation.inputs[:0], validation.labels[:0])
    with pytest.raises(UsageError, match="patience watches the hold-out loss, and there is no hold-out split"):
        fit(network(), train, empty, record, TrainConfig(batch_size=16, patience=1))
    with pytest.raises(UsageError, match="expected at least one training example, got none"):
        fit(network(), empty, train, record, TrainConfig(batch_size=16))


def test_ctrl_c_in_a_job_that_ignores_it_stays_ignored(small_data: Dataset) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        config = TrainConfig(epochs=3, batch_size=16)
        result = fit(network(), *prepared(small_data), config, observer=Interrupter())
        assert result.stop_reason == "all epochs done"
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_request_to_end_is_answered_like_ctrl_c(small_data: Dataset) -> None:
    class Terminator(SilentObserver):
        def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    config = TrainConfig(epochs=50, batch_size=16)
    assert fit(network(), *prepared(small_data), config, observer=Terminator()).stop_reason == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "augment", ["RandomShift(max_shift=1),RandomErasing", "MixUp(alpha=0.4)", "CutMix,RandomRotation(degrees=5)"]
)
def test_augmented_images_are_learnt_from_and_drawn_by_the_seed(small_data: Dataset, augment: str) -> None:
    models = [network(), network(), network()]
    results = [
        run(model, small_data, epochs=15, augment=augment, seed=seed)
        for model, seed in zip(models, (0, 0, 1), strict=True)
    ]
    assert results[0].history[-1].validation_accuracy >= 0.9
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))
    assert all(0 <= row.train_accuracy <= 1 for row in results[0].history)


class Flattening(nn.Module):
    """Flattens with `view`, as many a tutorial does, which images with their channels innermost do not take."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.output = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.conv(images))
        return self.output(features.view(features.size(0), -1))


def test_a_network_that_flattens_with_view_learns(small_data: Dataset) -> None:
    torch.manual_seed(0)
    assert run(Flattening(), small_data, epochs=15).history[-1].train_accuracy > 0.8


def test_kernels_lie_in_memory_after_training_as_they_lay_before(small_data: Dataset) -> None:
    model = network()
    before = [parameter.stride() for parameter in model.parameters()]
    run(model, small_data)
    assert [parameter.stride() for parameter in model.parameters()] == before
