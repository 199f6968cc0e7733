"""The training loop: epochs over examples in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from glassnet._allocator import memory_kept
from glassnet._compiled import compiled
from glassnet._errors import UsageError
from glassnet._seed import seeded
from glassnet.data.loader import DeviceExamples
from glassnet.data.records import InputRecord
from glassnet.evaluation.prediction import num_outputs, takes_channels_last
from glassnet.training.average import moving_average
from glassnet.training.batch_size import with_batch_size
from glassnet.training.batches import TrainingBatches
from glassnet.training.config import TrainConfig
from glassnet.training.epoch import EpochLoop, Timing
from glassnet.training.freezing import first_layer
from glassnet.training.history import EpochRow, History
from glassnet.training.interrupt import stop_on_interrupt
from glassnet.training.objective import Objective, make_objective
from glassnet.training.observer import (
    FitPlan,
    GuardedObserver,
    Observer,
    Progress,
    SilentObserver,
    random_states_kept,
)
from glassnet.training.optimizer import build_optimizer
from glassnet.training.processes import ALONE, Processes, distributed
from glassnet.training.shortening import shortened
from glassnet.training.state import TrainingState
from glassnet.training.step import NonFiniteLossError, StepRule
from glassnet.training.stopping import EarlyStopping

__all__ = ["INTERRUPTED", "EpochEnd", "FitPlan", "FitResult", "Observer", "Progress", "SilentObserver", "fit"]

INTERRUPTED = "interrupted"
"""Why a training stopped that was asked to, and can be resumed."""
MOST_HALVINGS = 10
"""With `on_nan="halve-lr"`: at a thousandth of the learning rate, the rate is not what is wrong."""


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What there is to save after an epoch. The tensors are live: copy or write them before returning."""

    history: History
    is_kept: bool
    """Whether the weights are those to keep so far, by the config's `keep`."""
    weights: dict[str, Tensor]
    """The `state_dict` of what was evaluated: the model, or the moving average of its weights."""
    state: TrainingState
    """What it takes to go on. Where the epoch was cut short, it goes on within the epoch, of which it knows no row."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run came to."""

    history: History
    best_epoch: int
    """The epoch whose weights are kept."""
    stop_reason: str
    """`all epochs done`, `no lower hold-out loss for N epochs`, or `interrupted`."""
    timing: Timing
    """Where the time went."""
    step_shares: Mapping[str, float]
    """Share of the steps' time by kind of work; empty for a training too short to profile."""
    num_filtered: int = 0
    """Convolutions that were computed by minimal filtering."""


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
    on_state: Callable[[TrainingState], None] = lambda state: None,
    resume: TrainingState | None = None,
    processes: Processes = ALONE,
) -> FitResult:
    """Train `model` in place; call `on_epoch` after each epoch with what there is to save.

    `record` normalises the inputs and names the classes; the loss is the config's, or the task's own, or what
    `objective` says, which a loss of the user's own needs. The model,
    `train` and `validation` lie on one device. The result depends on the arguments alone: the global
    random state is neither read nor changed, and no observer can alter it.

    `on_state` is called with the full state every `checkpoint_s` seconds within an epoch; `fit` with such a state as
    `resume` goes on from there, and ends with the weights, bit for bit, and the history of a run that was never
    interrupted. Ctrl-C and SIGTERM end after the current step: the state is handed to `on_state`. The epoch that is
    under way counts for nothing then, unless it is the first, which is evaluated as it stands.

    With several `processes`, each calls `fit` with the same arguments and trains on its part of each batch; only the
    first calls `on_epoch` and `on_state`.

    Raises `UsageError` for a batch larger than the set, `NonFiniteLossError` where the loss is lost.
    """
    observer, config = observer or SilentObserver(), config.resolved()
    config = with_batch_size(config, len(train), model, record)
    if not len(validation) and (config.patience is not None or config.schedule == "plateau"):
        name = "patience" if config.patience is not None else "schedule='plateau'"
        raise UsageError(f"{name} watches the hold-out loss, and there is no hold-out split. Leave it out.")
    objective = objective or make_objective(config, record.class_names, num_outputs(model, record))
    with stepping(model, train, record, config, precision=precision, objective=objective, processes=processes) as rule:
        loop = EpochLoop(
            rule,
            TrainingBatches(train, record, config, objective.num_classes),
            validation,
            average=None if config.ema is None else moving_average(model, config.ema),
            observer=GuardedObserver(observer if processes.is_first else SilentObserver(), train.device),
            on_state=on_state if processes.is_first else lambda state: None,
        )
        if resume is not None:
            loop.load(resume)
        return _fit(loop, on_epoch if processes.is_first else lambda end: None)


@contextmanager
def stepping(
    model: nn.Module,
    train: DeviceExamples,
    record: InputRecord,
    config: TrainConfig,
    *,
    precision: str,
    objective: Objective,
    processes: Processes = ALONE,
) -> Iterator[StepRule]:
    """Yield the rule by which `model` takes its steps on `train`, with a new optimizer of the resolved `config`.

    Until the end of the block the kernels lie as the rule wants them, and what is drawn comes from the config's seed.
    """
    assert isinstance(config.batch_size, int), "the config is resolved"
    with (
        memory_kept(),
        _laid_out(model, record) as channels_last,
        shortened(model, config, channels_last and train.device.type == "cpu" and precision == "fp32") as num_filtered,
        seeded(config.seed, "training", *([processes.rank] if processes.rank else [])),
        distributed(model, processes, config.sync_batch_norm) as shared_model,
        nullcontext()
        if config.first_layer_epochs is None
        else first_layer(model, is_waited_for=processes.count > 1) as first,
    ):
        yield StepRule(
            model=compiled(shared_model) if config.compile else shared_model,
            own_model=model,
            optimizer=build_optimizer(model, config),
            objective=objective,
            record=record,
            precision=precision,
            scaler=GradScaler(train.device.type) if precision == "fp16" else None,
            max_gradient_norm=config.max_gradient_norm,
            part_size=math.ceil(config.batch_size / processes.count),
            processes=processes,
            channels_last=channels_last,
            num_filtered=num_filtered,
            first_layer=first,
        )


def _fit(loop: EpochLoop, on_epoch: Callable[[EpochEnd], None]) -> FitResult:
    """Run the epochs that are left of `loop`."""
    stopping, history, stop_reason = _standing(loop), loop.history, "all epochs done"
    if loop.step == 0:
        loop.save()  # so that a run that is killed at its first step can be resumed too
    loop.observer.started(replace(loop.plan, first_step=loop.step))
    try:
        with stop_on_interrupt() as is_asked_to_stop:
            while loop.epoch <= loop.plan.num_epochs and not stopping.is_over:
                state, row = _run_epoch(loop, is_asked_to_stop)
                is_cut_short = row is None
                if is_cut_short:
                    loop.save(state)
                    if len(history):
                        stop_reason = INTERRUPTED
                        break
                    row = loop.row()  # so that there is something to use
                assert row is not None
                history = History((*history.rows, row))
                stopping = stopping.updated(row.epoch, row.validation_loss, is_watched=loop.is_validated(row.epoch))
                is_best = stopping.is_best and loop.config.keep == "best" and loop.plan.num_validation > 0
                _save(loop, on_epoch, history, stopping.is_best or loop.config.keep == "last", state)
                loop.observer.epoch_ended(row, is_best)
                if is_cut_short or (is_asked_to_stop() and loop.epoch <= loop.plan.num_epochs):
                    stop_reason = INTERRUPTED
                    break
            if stopping.is_over:
                stop_reason = f"no lower hold-out loss for {stopping.patience} epochs"
    finally:
        loop.observer.stopped(stop_reason)
    return FitResult(
        history=history,
        best_epoch=stopping.best_epoch if loop.config.keep == "best" else history[-1].epoch,
        stop_reason=stop_reason,
        timing=loop.timing,
        step_shares=loop.profile.shares(),
        num_filtered=loop.rule.num_filtered,
    )


def _run_epoch(loop: EpochLoop, is_asked_to_stop: Callable[[], bool]) -> tuple[TrainingState, EpochRow | None]:
    """Run an epoch; return the state to go on from, and the epoch's row where it came to its end.

    With `on_nan="halve-lr"` an epoch is only ever begun at its start, so that one that is resumed goes back to where
    one that was not does.
    """
    if loop.config.on_nan == "stop":
        try:
            row = loop.run(is_asked_to_stop)
        except NonFiniteLossError:
            if _is_finite(loop.rule.own_model):  # on a GPU the loss is seen late, when the weights may be lost too
                loop.save()
            raise
        return loop.state(), row
    start = loop.state().copied()
    while True:
        try:
            row = loop.run(is_asked_to_stop)
            return (start if row is None else loop.state()), row
        except NonFiniteLossError as error:
            scale = loop.learning_rate_scale / 2
            if scale < 0.5**MOST_HALVINGS:
                raise NonFiniteLossError(f"{error} The learning rate was halved {MOST_HALVINGS} times.") from None
            loop.load(start.copied())
            loop.learning_rate_scale = scale
            start = replace(start, learning_rate_scale=scale)
            loop.observer.noted(f"The loss was lost: epoch {loop.epoch} again, at {scale:g} of the learning rate.")


def _is_finite(model: nn.Module) -> bool:
    """Return whether the weights are numbers; a buffer may be infinite on purpose, as a mask is."""
    has_nan = any(bool(buffer.isnan().any()) for buffer in model.buffers())
    return not has_nan and all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def _save(
    loop: EpochLoop, on_epoch: Callable[[EpochEnd], None], history: History, is_kept: bool, state: TrainingState
) -> None:
    started = time.perf_counter()
    with random_states_kept(loop.device):
        on_epoch(EpochEnd(history=history, is_kept=is_kept, weights=loop.evaluated_model.state_dict(), state=state))
    loop.timing.saving_s += time.perf_counter() - started


def _standing(loop: EpochLoop) -> EarlyStopping:
    """Return the record of the epochs that are complete."""
    stopping = EarlyStopping(loop.config.patience)
    for row in loop.history:
        stopping = stopping.updated(row.epoch, row.validation_loss, is_watched=loop.is_validated(row.epoch))
    return stopping


@contextmanager
def _laid_out(model: nn.Module, record: InputRecord) -> Iterator[bool]:
    """Lay the kernels of an image network out with their channels innermost for a block; yield whether it is done.

    Convolutions and pooling of few channels take two thirds of the time so. What was otherwise is put back. A model
    whose code does not take images so, such as one that flattens with `view`, is left as it is.
    """
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    example = record.example()
    if example.ndim != 4 or not kernels:
        yield False
        return
    inputs = record.normalise(example.expand(2, *example.shape[1:]).to(kernels[0].device))
    if not takes_channels_last(model, inputs):
        yield False
        return
    before = [(kernel, kernel.stride()) for kernel in kernels]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield True
    finally:
        for kernel, strides in before:  # by strides: a kernel of one channel is contiguous in either layout
            laid_out = torch.empty_strided(kernel.shape, strides, dtype=kernel.dtype, device=kernel.device)
            kernel.data = laid_out.copy_(kernel.data)
