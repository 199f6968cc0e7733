"""The training loop: epochs over examples in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError, WorkError
from glassnet._seed import seeded, seeded_generator
from glassnet.data.augmentation import parse_augmentation, random_shift
from glassnet.data.loader import DeviceExamples, batch_bounds, shuffled_order
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord
from glassnet.evaluation.metrics import count_correct
from glassnet.evaluation.prediction import num_outputs, predict_outputs
from glassnet.training.config import TrainConfig
from glassnet.training.history import EpochRow, History
from glassnet.training.interrupt import stop_on_interrupt
from glassnet.training.objective import Objective, make_objective
from glassnet.training.optimizer import build_optimizer, set_learning_rate
from glassnet.training.schedule import learning_rate_factor
from glassnet.training.step import NonFiniteLossError, Totals, training_step
from glassnet.training.stopping import EarlyStopping

REFRESH_S = 0.1
"""Seconds between two reads of the running totals for the display."""


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """What a run is going to do, known before it starts."""

    num_epochs: int
    num_steps: int
    """Over all epochs."""
    num_train: int
    num_validation: int
    device: torch.device
    precision: str
    disk_bytes: int = 0
    """Fitted images that are read from disk batch by batch,"""
    budget_bytes: int = 0
    """because they exceed this memory budget; 0 where none do."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands in the middle of an epoch."""

    epoch: int
    step: int
    """Steps taken since the start of the run."""
    loss: float
    """Mean over the epoch so far."""
    accuracy: float
    """Likewise."""
    images_per_s: float


class Observer(Protocol):
    """Who watches a run. None of the calls can change its result."""

    def started(self, plan: FitPlan) -> None:
        """Training is about to begin."""

    def progressed(self, progress: Progress) -> None:
        """A tenth of a second or more has gone by."""

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """An epoch is complete and saved."""

    def stopped(self, reason: str) -> None:
        """Training is over, also after an error."""


class SilentObserver:
    """An observer that shows nothing."""

    def started(self, plan: FitPlan) -> None:
        """Show nothing."""

    def progressed(self, progress: Progress) -> None:
        """Show nothing."""

    def epoch_ended(self, row: EpochRow, is_best: bool) -> None:
        """Show nothing."""

    def stopped(self, reason: str) -> None:
        """Show nothing."""


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What there is to save after an epoch. The tensors are live: copy or write them before returning."""

    history: History
    is_best: bool
    weights: dict[str, Tensor]
    """The model's `state_dict`."""
    optimizer: dict[str, object]
    """The optimizer's `state_dict`."""
    random_state: Tensor
    """torch's global CPU generator: what dropout draws from."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run came to."""

    history: History
    best_epoch: int
    stop_reason: str
    """`all epochs done`, `no lower hold-out loss for N epochs`, or `interrupted`."""


def fit(
    model: nn.Module,
    train: DeviceExamples,
    validation: DeviceExamples,
    record: InputRecord,
    config: TrainConfig,
    *,
    precision: str = "fp32",
    objective: Objective | None = None,
    observer: Observer | None = None,
    on_epoch: Callable[[EpochEnd], None] = lambda end: None,
) -> FitResult:
    """Train `model` in place; call `on_epoch` after each epoch with what there is to save.

    `record` normalises the inputs and names the classes; the loss is the config's, or the task's own, or what
    `objective` says, which a loss of the user's own needs. The model,
    `train` and `validation` lie on one device. The result depends on the arguments alone: the global
    random state is neither read nor changed, and no observer can alter it. Ctrl-C ends the epoch after the current
    step: what is done is evaluated, saved and returned.

    Raises `UsageError` for a batch larger than the set, `NonFiniteLossError` where the loss is lost.
    """
    observer, config = observer or SilentObserver(), config.resolved()
    check_batch_size(config.batch_size, len(train))
    if config.patience is not None and not len(validation):
        raise UsageError("patience watches the hold-out loss, and there is no hold-out split. Leave it out.")
    steps_per_epoch = len(batch_bounds(len(train), config.batch_size))
    on_disk = [split for split in (train, validation) if split.exceeded_bytes is not None]
    plan = FitPlan(
        num_epochs=config.epochs,
        num_steps=config.epochs * steps_per_epoch,
        num_train=len(train),
        num_validation=len(validation),
        device=train.labels.device,
        precision=precision,
        disk_bytes=sum(split.inputs.nbytes for split in on_disk),
        budget_bytes=max((split.exceeded_bytes or 0 for split in on_disk), default=0),
    )
    objective = objective or make_objective(config, record.class_names, num_outputs(model, record))
    optimizer = build_optimizer(model, config)
    loop = _Loop(model, optimizer, train, validation, record, objective, config, plan, observer)
    stopping, history, stop_reason = EarlyStopping(config.patience), History(), "all epochs done"
    observer.started(plan)
    try:
        with seeded(config.seed, "training"), stop_on_interrupt() as is_asked_to_stop:
            for epoch in range(1, config.epochs + 1):
                row = loop.run_epoch(epoch, is_asked_to_stop)
                history = History((*history.rows, row))
                stopping = stopping.updated(epoch, row.validation_loss)
                on_epoch(loop.end(history, stopping.is_best))
                observer.epoch_ended(row, stopping.is_best)
                if is_asked_to_stop() and epoch < config.epochs:
                    stop_reason = "interrupted"
                    break
                if stopping.is_over:
                    stop_reason = f"no lower hold-out loss for {config.patience} epochs"
                    break
    finally:
        observer.stopped(stop_reason)
    return FitResult(history=history, best_epoch=stopping.best_epoch, stop_reason=stop_reason)


def check_batch_size(batch_size: int, num_examples: int) -> None:
    """Raise `UsageError` where a batch would be larger than the training set."""
    if num_examples == 0:
        raise UsageError("There is nothing to train on: expected at least one training example, got none.")
    if batch_size > num_examples:
        raise UsageError(
            f"batch_size must be at most the {num_examples} training examples; got {batch_size}. "
            f"Use batch_size={num_examples} for batch gradient descent."
        )


@dataclass(frozen=True, eq=False)
class _Loop:
    """What every epoch of one run works with."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    train: DeviceExamples
    validation: DeviceExamples
    record: InputRecord
    objective: Objective
    config: TrainConfig
    plan: FitPlan
    observer: Observer

    def run_epoch(self, epoch: int, is_asked_to_stop: Callable[[], bool]) -> EpochRow:
        """Train one epoch, or up to the step at which a stop was asked for, and evaluate the hold-out split."""
        config, plan = self.config, self.plan
        totals, learning_rate = Totals.zero(plan.device), 0.0
        step = (epoch - 1) * (plan.num_steps // plan.num_epochs)
        order = shuffled_order(len(self.train), config.seed, epoch, plan.device)
        fill = self.record.fill if isinstance(self.record, Preprocessing) else 0
        augmentation = parse_augmentation(config.augment)
        changes = seeded_generator(config.seed, "augmentation", epoch)
        shifts = seeded_generator(config.seed, "shift", epoch)
        self.model.train()
        started = shown = time.perf_counter()
        try:
            for inputs, labels in self.train.batches(config.batch_size, order):
                learning_rate = self._set_learning_rate(step)
                if config.max_shift:
                    inputs = random_shift(inputs, config.max_shift, fill, shifts)
                if augmentation.transforms:
                    num_classes = self.objective.num_classes
                    inputs, labels = augmentation(inputs, labels, changes, num_classes=num_classes, fill=fill)
                training_step(
                    self.model,
                    self.optimizer,
                    self.record.normalise(inputs),
                    labels,
                    self.objective,
                    totals,
                    precision=plan.precision,
                    max_gradient_norm=config.max_gradient_norm,
                )
                step += 1
                now = time.perf_counter()
                if now - shown >= REFRESH_S:
                    shown = now
                    self._report(epoch, step, totals, totals.num_examples / (now - started))
                if is_asked_to_stop():
                    break
            train_loss, train_accuracy = totals.read()
        except NonFiniteLossError as error:
            raise _explained(error, epoch, step, learning_rate) from None
        images_per_s = totals.num_examples / (time.perf_counter() - started)
        validation_loss, validation_accuracy = mean_loss_and_accuracy(
            self.model, self.validation, self.record, self.objective
        )
        if len(self.validation) and not math.isfinite(validation_loss):
            lost = NonFiniteLossError(f"the loss on the hold-out split became {validation_loss}")
            raise _explained(lost, epoch, step, learning_rate)
        return EpochRow(
            epoch=epoch,
            step=step,
            num_examples=totals.num_examples,
            learning_rate=learning_rate,
            train_loss=train_loss,
            train_accuracy=train_accuracy if self.objective.is_classification else math.nan,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            images_per_s=images_per_s,
            epoch_s=time.perf_counter() - started,
        )

    def end(self, history: History, is_best: bool) -> EpochEnd:
        """Return what there is to save after the last of `history`'s epochs."""
        return EpochEnd(
            history=history,
            is_best=is_best,
            weights=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            random_state=torch.get_rng_state(),
        )

    def _set_learning_rate(self, step: int) -> float:
        factor = learning_rate_factor(self.config.schedule, step, self.plan.num_steps, self.config.warmup)
        assert self.config.learning_rate is not None, "fit resolves the config"
        learning_rate = self.config.learning_rate * factor
        set_learning_rate(self.optimizer, learning_rate)
        return learning_rate

    def _report(self, epoch: int, step: int, totals: Totals, images_per_s: float) -> None:
        loss, accuracy = totals.read()
        accuracy = accuracy if self.objective.is_classification else math.nan
        self.observer.progressed(
            Progress(epoch=epoch, step=step, loss=loss, accuracy=accuracy, images_per_s=images_per_s)
        )


def mean_loss_and_accuracy(
    model: nn.Module, examples: DeviceExamples, record: InputRecord, objective: Objective
) -> tuple[float, float]:
    """Return the mean loss (no smoothing) and the accuracy in evaluation mode; nan where there is none."""
    if not len(examples):
        return math.nan, math.nan
    outputs = predict_outputs(model, examples.inputs, record)
    loss = objective.value(outputs, examples.labels).item()
    if not objective.is_classification:
        return loss, math.nan
    return loss, int(count_correct(objective.logits(outputs), examples.labels)) / len(examples)


def _explained(error: WorkError, epoch: int, step: int, learning_rate: float) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"Training stopped in epoch {epoch} at step {step} with learning rate {learning_rate:.3g}: {error}. "
        f"Lower --lr (try {learning_rate / 10:.1g}), or set max_gradient_norm=1."
    )
