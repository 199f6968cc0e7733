"""One optimizer step: the only place where weights change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from glassnet._device import autocast
from glassnet._errors import UsageError, WorkError
from glassnet.evaluation.metrics import count_correct
from glassnet.training.objective import Objective


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

    loss: Tensor
    correct: Tensor
    num_examples: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Totals:
        """Return empty sums on `device`."""
        return cls(torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device))

    def read(self) -> tuple[float, float]:
        """Return mean loss and accuracy so far; waits for the device. Raises `NonFiniteLossError`."""
        count = max(self.num_examples, 1)
        loss = float(self.loss) / count
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the mean loss of the epoch became {loss}")
        return loss, int(self.correct) / count


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    objective: Objective,
    totals: Totals,
    *,
    precision: str = "fp32",
    max_gradient_norm: float | None = None,
) -> None:
    """Forward, loss, backward, update on one batch: `inputs` `(B, ...)` float32, `labels` `(B,)`.

    A model with auxiliary heads (GoogLeNet's) offers `auxiliary_loss(labels)`, which is added. Raises
    `NonFiniteLossError` before the update; on an accelerator the loss is not waited for, and whoever reads `totals`
    checks.
    """
    with autocast(inputs.device, precision):
        outputs = model(inputs)
    if not isinstance(outputs, Tensor):
        raise UsageError(f"In training the model must give one tensor of outputs; got {type(outputs).__name__}.")
    loss = objective.value(outputs, labels, objective.label_smoothing)
    if isinstance(model, HasAuxiliaryLoss) and model.auxiliary_logits:
        loss = loss + model.auxiliary_loss(labels, partial(objective.value, label_smoothing=objective.label_smoothing))
    if loss.device.type == "cpu" and not math.isfinite(loss.item()):
        raise NonFiniteLossError(f"the loss of a batch became {loss.item()}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if max_gradient_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm)
    optimizer.step()
    if objective.label_smoothing:  # the rows give the plain loss, to be compared with that of the hold-out split
        with torch.no_grad():
            loss = objective.value(outputs, labels)
    totals.loss += loss.detach() * len(labels)
    if objective.is_classification:
        hard = labels.argmax(1) if labels.ndim == 2 else labels  # of mixed images, the class of the larger part
        totals.correct += count_correct(objective.logits(outputs.detach()), hard)
    totals.num_examples += len(labels)
