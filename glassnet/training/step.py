"""One optimizer step: the only place where weights change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from glassnet._device import autocast
from glassnet._errors import UsageError, WorkError
from glassnet.data.loader import batch_bounds
from glassnet.data.records import InputRecord
from glassnet.evaluation.metrics import count_correct
from glassnet.training.freezing import FirstLayer
from glassnet.training.objective import Objective
from glassnet.training.optimizer import AnyOptimizer
from glassnet.training.processes import ALONE, Processes


@runtime_checkable
class HasAuxiliaryLoss(Protocol):
    """A model with further heads that learn beside the main one, as GoogLeNet has."""

    auxiliary_logits: Sequence[Tensor]
    """Of the last training pass; empty where there was none."""

    def auxiliary_loss(self, labels: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return what is added to the main loss."""


class NonFiniteLossError(WorkError):
    """The loss became nan or infinite; raised before the update, so the weights are those before the step."""


@dataclass
class Totals:
    """Sums over the batches of an epoch, kept on the device so that a step never waits for the host."""

    sums: Tensor
    """float64 `(2,)`: losses and right answers, each summed over examples."""
    num_examples: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Totals:
        """Return empty sums on `device`."""
        # Metal has no float64.
        return cls(torch.zeros(2, device=device, dtype=torch.float32 if device.type == "mps" else torch.float64))

    def read(self) -> tuple[float, float]:
        """Return mean loss and accuracy so far; waits for the device. Raises `NonFiniteLossError`."""
        count = max(self.num_examples, 1)
        loss, correct = (value / count for value in self.sums.tolist())
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the mean loss of the epoch became {loss}")
        return loss, correct


@dataclass(frozen=True, eq=False)
class StepRule:
    """What every step of a run does in the same way."""

    model: nn.Module
    """As it is called: perhaps compiled, perhaps one of several processes'."""
    own_model: nn.Module
    """The model itself."""
    optimizer: AnyOptimizer
    objective: Objective
    record: InputRecord
    precision: str = "fp32"
    scaler: GradScaler | None = None
    """Scales the loss of fp16, whose small gradients would vanish (Micikevicius et al. 2018, section 3.2)."""
    max_gradient_norm: float | None = None
    part_size: int | None = None
    """Examples of a batch that go through the model at once; None for all of this process's."""
    processes: Processes = ALONE
    channels_last: bool = False
    """Whether images are laid out with their channels innermost, as convolutions are fastest."""
    num_filtered: int = 0
    """Convolutions that are computed by minimal filtering."""
    first_layer: FirstLayer | None = None
    """The layer that stops to learn before the others; None where none does."""

    @cached_property
    def auxiliary(self) -> HasAuxiliaryLoss | None:
        """The model where it has further heads; asked once, because the question takes a third of a millisecond."""
        return self.own_model if isinstance(self.own_model, HasAuxiliaryLoss) else None


def training_step(rule: StepRule, inputs: Tensor, labels: Tensor, totals: Totals) -> None:
    """Forward, loss, backward, update on one batch: fitted `inputs` `(B, ...)`, not yet normalised, and `labels`.

    The gradient is that of the mean loss over the batch, however many parts and processes share it. `totals` gets the
    sums over the batch. Raises `NonFiniteLossError` before the update; on an accelerator the loss is not waited for,
    and whoever reads `totals` checks.
    """
    num_rows = len(labels)
    rows, weight = rule.processes.part(num_rows)
    inputs, labels = inputs[rows], labels[rows]
    rule.optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros_like(totals.sums)
    parts = batch_bounds(len(labels), rule.part_size or len(labels))
    for number, (start, stop) in enumerate(parts, start=1):
        share = weight * (stop - start) / len(labels)
        # Gradients are exchanged once, with the last part.
        is_waiting = number < len(parts) and isinstance(rule.model, nn.parallel.DistributedDataParallel)
        with rule.model.no_sync() if is_waiting else nullcontext():  # type: ignore[operator]
            sums += _backward(rule, inputs[start:stop], labels[start:stop], share)
    rule.processes.total(sums)
    if sums.device.type == "cpu" and rule.processes.count > 1:
        _check_finite(sums[0].item(), "batch")
    if rule.first_layer is not None:
        rule.first_layer.drop_gradients()
    _update(rule)
    totals.sums += sums
    totals.num_examples += num_rows


def _backward(rule: StepRule, inputs: Tensor, labels: Tensor, share: float) -> Tensor:
    """Add the gradient of `share` times the mean loss of some examples; return their sums, as `Totals` has them."""
    objective = rule.objective
    normalised = rule.record.normalise(inputs)
    if rule.channels_last:
        normalised = normalised.to(memory_format=torch.channels_last)
    with autocast(inputs.device, rule.precision):
        outputs = rule.model(normalised)
    if not isinstance(outputs, Tensor):
        raise UsageError(f"In training the model must give one tensor of outputs; got {type(outputs).__name__}.")
    loss = objective.value(outputs, labels, objective.label_smoothing)
    if rule.auxiliary is not None and rule.auxiliary.auxiliary_logits:
        smoothed = partial(objective.value, label_smoothing=objective.label_smoothing)
        loss = loss + rule.auxiliary.auxiliary_loss(labels, smoothed)
    if loss.device.type == "cpu" and rule.processes.count == 1:
        _check_finite(loss.item(), "batch")
    scaled = loss if share == 1 else loss * share
    (rule.scaler.scale(scaled) if rule.scaler else scaled).backward()
    return _sums(objective, loss, outputs, labels) if share else torch.zeros_like(loss).expand(2)


@torch.no_grad()
def _sums(objective: Objective, loss: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return losses and right answers summed over examples, `(2,)`."""
    if objective.label_smoothing:  # the rows give the plain loss, to be compared with that of the hold-out split
        loss = objective.value(outputs, labels)
    if not objective.is_classification:
        return torch.stack([loss * len(labels), torch.zeros_like(loss)])
    hard = labels.argmax(1) if labels.ndim == 2 else labels  # of mixed images, the class of the larger part
    correct = count_correct(objective.logits(outputs), hard)
    return torch.stack([loss * len(labels), correct.to(loss.dtype)])


def _check_finite(loss: float, what: str) -> None:
    if not math.isfinite(loss):
        raise NonFiniteLossError(f"the loss of a {what} became {loss}")


def _update(rule: StepRule) -> None:
    optimizer, parameters = rule.optimizer, rule.own_model.parameters()
    if rule.scaler is None:
        if rule.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(parameters, rule.max_gradient_norm)
        optimizer.step()
        return
    assert isinstance(optimizer, torch.optim.Optimizer), "fp16 is refused with other optimizers"
    if rule.max_gradient_norm is not None:
        rule.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, rule.max_gradient_norm)
    rule.scaler.step(optimizer)
    rule.scaler.update()
