"""One optimizer step: the only place where weights change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._device import autocast
from glassnet._errors import WorkError
from glassnet.evaluation.metrics import count_correct
from glassnet.training.config import TrainConfig


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
    images: Tensor,
    labels: Tensor,
    config: TrainConfig,
    precision: str,
    totals: Totals,
) -> None:
    """Forward, loss, backward, update on one batch: `images` `(B, C, H, W)` float32, `labels` `(B,)`.

    Raises `NonFiniteLossError` before the update; on an accelerator the loss is not waited for, and whoever reads
    `totals` checks.
    """
    with autocast(images.device, precision):
        logits = model(images)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
    if loss.device.type == "cpu" and not math.isfinite(loss.item()):
        raise NonFiniteLossError(f"the loss of a batch became {loss.item()}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if config.max_gradient_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
    optimizer.step()
    totals.loss += loss.detach() * len(labels)
    totals.correct += count_correct(logits.detach(), labels)
    totals.num_examples += len(labels)
