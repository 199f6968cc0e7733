"""Where a training stands, and how it goes through an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from glassnet._errors import WorkError
from glassnet._modes import evaluating
from glassnet._seed import derive_seed
from glassnet.data.loader import DeviceExamples
from glassnet.evaluation.metrics import count_correct
from glassnet.evaluation.prediction import predict_outputs
from glassnet.training.batches import TrainingBatches
from glassnet.training.blow_up import first_non_finite
from glassnet.training.bound import StepProfile
from glassnet.training.history import EpochRow, History
from glassnet.training.observer import FitPlan, Observer, Progress, random_states_kept
from glassnet.training.optimizer import set_learning_rate
from glassnet.training.schedule import learning_rate_factor, plateau_factor
from glassnet.training.state import TrainingState, random_states, set_random_states
from glassnet.training.step import NonFiniteLossError, StepRule, Totals, training_step
from glassnet.training.undo import StepUndo

REFRESH_S = 0.1
"""Seconds between two reads of the running totals for the display."""
STATE_SHARE = 0.02
"""Saving the state within an epoch takes at most this share of the time."""
STEPS_BETWEEN_QUESTIONS = 16
"""On GPUs, several processes agree on whether to stop once in so many steps, because the answer halts the GPU."""


@dataclass
class Timing:
    """Where the time of a training went, in seconds of this process."""

    data_s: float = 0.0
    """Batches gathered and augmented."""
    step_s: float = 0.0
    """Steps."""
    validation_s: float = 0.0
    saving_s: float = 0.0


class EpochLoop:
    """One training under way: what it works with, which stays, and where it stands, which moves on."""

    def __init__(
        self,
        rule: StepRule,
        batches: TrainingBatches,
        validation: DeviceExamples,
        *,
        average: AveragedModel | None,
        observer: Observer,
        on_state: Callable[[TrainingState], None],
    ) -> None:
        self.rule, self.batches, self.validation = rule, batches, validation
        self.average, self.observer, self.on_state = average, observer, on_state
        self.config, self.device = batches.config, batches.examples.device
        self.plan = make_plan(rule, batches, len(validation))
        self.timing = Timing()
        # What several processes exchange, torch's profiler does not understand.
        num_profiled = self.plan.num_steps if rule.processes.count == 1 else 0
        self.profile = StepProfile(num_profiled, self.device)
        self.epoch, self.step, self.history = 1, 0, History()
        self.learning_rate_scale = 1.0
        self.undo = StepUndo(rule.own_model, self.device)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.totals, self.elapsed_s = Totals.zero(self.device), 0.0
        self.generators = self.batches.generators(self.epoch)

    @property
    def evaluated_model(self) -> nn.Module:
        """What is judged and saved: the moving average of the weights where there is one."""
        return self.rule.own_model if self.average is None else self.average.module

    def is_validated(self, epoch: int) -> bool:
        """Return whether the hold-out split is looked at after `epoch`; true too where there is none to look at."""
        every = self.config.validate_every
        return not len(self.validation) or epoch % every == 0 or epoch == self.plan.num_epochs

    def state(self) -> TrainingState:
        """Return where the training stands; the tensors are live."""
        return TrainingState(
            epoch=self.epoch,
            step=self.step,
            weights=self.rule.own_model.state_dict(),
            optimizer=self.rule.optimizer.state_dict(),
            average={} if self.average is None else self.average.state_dict(),
            scaler={} if self.rule.scaler is None else self.rule.scaler.state_dict(),
            generators={purpose: generator.get_state() for purpose, generator in self.generators.items()},
            random_states=random_states(self.device),
            sums=self.totals.sums,
            num_examples=self.totals.num_examples,
            elapsed_s=self.elapsed_s,
            learning_rate_scale=self.learning_rate_scale,
            history=self.history,
        )

    def save(self, state: TrainingState | None = None) -> None:
        """Hand where the training stands, or another `state`, to whoever saves it."""
        with random_states_kept(self.device):
            self.on_state(self.state() if state is None else state)

    def load(self, state: TrainingState) -> None:
        """Stand where `state` was taken. Raises `WorkError` for the state of another training."""
        try:
            self.rule.own_model.load_state_dict(state.weights)
            self.rule.optimizer.load_state_dict(state.optimizer)
            if self.average is not None:
                self.average.load_state_dict(state.average)
            if self.rule.scaler is not None:
                self.rule.scaler.load_state_dict(state.scaler)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise WorkError(f"The stored training state is not one of this model and config: {reason}") from None
        self.epoch, self.step, self.history = state.epoch, state.step, state.history
        self.learning_rate_scale = state.learning_rate_scale
        self.totals = Totals(state.sums.to(self.device, copy=True), state.num_examples)
        self.elapsed_s = state.elapsed_s
        self.generators = self.batches.generators(self.epoch)
        for purpose, generator in self.generators.items():
            generator.set_state(state.generators[purpose])
        if self.rule.processes.is_first:
            set_random_states(state.random_states, self.device)
        else:  # the state is the first process's; the others draw from where no process has
            torch.manual_seed(derive_seed(self.config.seed, "training", self.rule.processes.rank, self.step))

    def run(self, is_asked_to_stop: Callable[[], bool]) -> EpochRow | None:
        """Train to the end of the epoch and evaluate the hold-out split; or to the step at which a stop is asked for.

        Returns the row of the epoch, and stands at the start of the next; or None where the epoch is not done.
        """
        stop_step = min(self.epoch * len(self.batches), self.plan.num_steps)
        self.rule.own_model.train()
        clock = shown = saved = time.perf_counter()
        first = self.step - (self.epoch - 1) * len(self.batches)
        save_every_s, elapsed_before_s = self.config.checkpoint_s, self.elapsed_s
        started = clock
        self.undo.note(self.generators)
        for inputs, labels in self.batches.of_epoch(self.epoch, self.generators, first):
            try:
                before, clock = clock, time.perf_counter()
                self.timing.data_s += clock - before
                self._step(inputs, labels)
                before, clock = clock, time.perf_counter()
                self.timing.step_s += clock - before
                self.elapsed_s = elapsed_before_s + clock - started
                if clock - shown >= REFRESH_S:
                    shown = clock
                    self._report()
                if self.step == stop_step:
                    break
                if self._is_stopping(is_asked_to_stop):
                    return None
                if clock - saved >= save_every_s and self.config.on_nan == "stop":
                    if self.rule.processes.count == 1:
                        self.totals.read()  # a GPU's loss may be lost without anybody having looked
                    self.save()
                    saved = time.perf_counter()
                    save_every_s = max(self.config.checkpoint_s, (saved - clock) / STATE_SHARE)
                    self.timing.saving_s += saved - clock
                    clock = saved
            except NonFiniteLossError as error:
                self.undo.restore(self.generators)
                culprit = first_non_finite(self.rule.own_model, self.rule.record.normalise(inputs))
                raise self._explained(error, culprit) from None
        return self._ended()

    def _step(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        set_learning_rate(self.rule.optimizer, self.learning_rate())
        first, first_epochs = self.rule.first_layer, self.config.first_layer_epochs
        if first is not None and first_epochs is not None:
            first.learn(self.step < round(first_epochs * len(self.batches)))
        with self.profile.watching(self.step):
            training_step(self.rule, inputs, labels, self.totals)
        if self.average is not None:
            self.average.update_parameters(self.rule.own_model)
        self.step += 1
        self.undo.note(self.generators)

    def _ended(self) -> EpochRow:
        """Return the row of the epoch that is over, and go on to the next."""
        row = self.row()
        self.history = History((*self.history.rows, row))
        self.epoch += 1
        self._begin_epoch()
        return row

    def row(self) -> EpochRow:
        """Evaluate the hold-out split; return the row of the epoch as far as it has come.

        Raises `NonFiniteLossError` where the loss of the epoch, or that on the hold-out split, is lost.
        """
        learning_rate = self.learning_rate(self.step - 1)
        started = time.perf_counter()
        is_validated = self.is_validated(self.epoch)
        try:
            train_loss, train_accuracy = self.totals.read()
            validation_loss, validation_accuracy = self._validate() if is_validated else (math.nan, math.nan)
        except NonFiniteLossError as error:
            raise self._explained(error, self._held_out_culprit()) from None
        validation_s = time.perf_counter() - started
        self.timing.validation_s += validation_s
        return EpochRow(
            epoch=self.epoch,
            step=self.step,
            num_examples=self.totals.num_examples,
            learning_rate=learning_rate,
            train_loss=train_loss,
            train_accuracy=train_accuracy if self.rule.objective.is_classification else math.nan,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            images_per_s=self.totals.num_examples / max(self.elapsed_s, 1e-9),
            epoch_s=self.elapsed_s + validation_s,
        )

    def learning_rate(self, step: int | None = None) -> float:
        """Return the learning rate at `step`, by default the next: the peak times what the schedule says."""
        config, step = self.config, self.step if step is None else step
        factor = learning_rate_factor(config.schedule, step, self.plan.num_steps, config.warmup)
        if config.schedule == "plateau":
            assert config.plateau_patience is not None, "fit resolves the config"
            factor *= plateau_factor(self.history.column("validation_loss"), config.plateau_patience)
        assert config.learning_rate is not None, "fit resolves the config"
        return config.learning_rate * factor * self.learning_rate_scale

    def _validate(self) -> tuple[float, float]:
        """Return the mean loss (no smoothing) and the accuracy on the hold-out split; nan where there is none."""
        examples, rule = self.validation, self.rule
        if not len(examples):
            return math.nan, math.nan
        rule.processes.align(self.evaluated_model.buffers())  # the statistics of the one whose weights are saved
        rows, weight = rule.processes.part(len(examples))
        labels = examples.labels[rows]
        outputs = predict_outputs(self.evaluated_model, examples.inputs[rows], rule.record)
        sums = torch.zeros(2, dtype=self.totals.sums.dtype, device=labels.device)
        if weight:
            sums[0] = rule.objective.value(outputs, labels) * len(labels)
            if rule.objective.is_classification:
                sums[1] = count_correct(rule.objective.logits(outputs), labels)
        loss, accuracy = (rule.processes.total(sums) / len(examples)).tolist()
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss on the hold-out split became {loss}")
        return loss, accuracy if rule.objective.is_classification else math.nan

    def _is_stopping(self, is_asked_to_stop: Callable[[], bool]) -> bool:
        """Return whether a process was asked to stop; several processes agree on it."""
        processes = self.rule.processes
        if processes.count == 1:
            return is_asked_to_stop()
        if self.device.type != "cpu" and self.step % STEPS_BETWEEN_QUESTIONS:
            return False
        return bool(processes.total(torch.tensor(float(is_asked_to_stop()), device=self.device)))

    def _report(self) -> None:
        try:
            loss, accuracy = self.totals.read()
        except NonFiniteLossError:
            if self.rule.processes.count == 1:
                raise
            return  # all processes read the same sums at the end of the epoch, and stop together
        accuracy = accuracy if self.rule.objective.is_classification else math.nan
        images_per_s = self.totals.num_examples / max(self.elapsed_s, 1e-9)
        self.observer.progressed(
            Progress(epoch=self.epoch, step=self.step, loss=loss, accuracy=accuracy, images_per_s=images_per_s)
        )

    def _held_out_culprit(self) -> str:
        """Return what is the first to be lost of the hold-out example whose outputs are lost, or else of the first."""
        model, inputs, record = self.evaluated_model, self.validation.inputs, self.rule.record
        if not len(inputs):
            return first_non_finite(model, record.normalise(self.batches.examples.inputs[:1].to(self.device)))
        is_lost = ~predict_outputs(model, inputs, record).flatten(1).isfinite().all(1)
        number = int(is_lost.int().argmax())
        with evaluating(model):
            return first_non_finite(model, record.normalise(inputs[number : number + 1].to(self.device)))

    def _explained(self, error: WorkError, culprit: str) -> NonFiniteLossError:
        """Return the error with what a reader needs: where, at which learning rate, and the `culprit`."""
        epoch_step = self.step - (self.epoch - 1) * len(self.batches)
        learning_rate = self.learning_rate(min(self.step, self.plan.num_steps - 1))
        return NonFiniteLossError(
            f"Training stopped in epoch {self.epoch} at step {self.step} with learning rate {learning_rate:.3g} "
            f"(batch {min(epoch_step + 1, len(self.batches))} of {len(self.batches)}): {error}; {culprit}. "
            f"Lower --lr (try {learning_rate / 10:.1g}), set max_gradient_norm=1, or go on by itself with "
            "--on-nan halve-lr."
        )


def make_plan(rule: StepRule, batches: TrainingBatches, num_validation: int) -> FitPlan:
    """Return what a training is going to do: a part of an epoch is rounded to whole steps, at least one."""
    num_steps = max(1, round(batches.config.epochs * len(batches)))
    return FitPlan(
        num_epochs=math.ceil(num_steps / len(batches)),
        num_steps=num_steps,
        num_train=len(batches.examples),
        num_validation=num_validation,
        device=batches.examples.device,
        precision=rule.precision,
        num_processes=rule.processes.count,
        num_filtered=rule.num_filtered,
    )
