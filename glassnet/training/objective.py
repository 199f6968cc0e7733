"""What training makes small: a loss, matched to the task and to the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet.evaluation.outputs import class_logits
from glassnet.nn.losses import DEFAULT_LOSSES, LOSSES, Loss, Task
from glassnet.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of one run, and how its outputs are read."""

    loss: Loss
    num_classes: int
    """0 for regression."""
    label_smoothing: float = 0.0

    @property
    def is_classification(self) -> bool:
        """False for regression."""
        return self.num_classes > 0

    def value(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss of `outputs` `(B, num_outputs)` for labels `(B,)`, or values `(B,)` or `(B, K)`."""
        outputs = outputs.float()
        if self.loss.name == "cross-entropy":  # without the checks of values, which the data has already passed
            return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)
        return self.loss.function(outputs if targets.ndim == 2 or outputs.shape[1] > 1 else outputs[:, 0], targets)

    def logits(self, outputs: Tensor) -> Tensor:
        """Return one logit a class, `(B, num_classes)`."""
        return class_logits(outputs, self.num_classes, are_probabilities=self.loss.takes_probabilities)


def make_objective(
    config: TrainConfig,
    class_names: Sequence[str],
    num_outputs: int,
    usual: Mapping[Task, str] = DEFAULT_LOSSES,
) -> Objective:
    """Match the config's loss, or the usual one, to the task: regression without classes, else by the outputs.

    `usual` names losses by task for models that are trained with others than the rest.

    Raises `UsageError` for a loss of another task, a number of outputs that fits no task, and label smoothing with a
    loss that has none.
    """
    num_classes = len(class_names)
    if num_classes == 0:
        task: Task = "regression"
    elif num_outputs == 1 and num_classes == 2:
        task = "binary"
    elif num_outputs == num_classes:
        task = "multi-class"
    else:
        raise UsageError(
            f"The data has {num_classes} classes, and the model has {num_outputs} outputs. "
            f"Build it with num_classes={num_classes}."
        )
    loss = LOSSES[config.loss or usual.get(task, DEFAULT_LOSSES[task])]
    if loss.task != task:
        fitting = ", ".join(name for name, entry in LOSSES.items() if entry.task == task)
        raise UsageError(
            f"Loss '{loss.name}' is for {loss.task} tasks; {num_classes or 'no'} classes and {num_outputs} outputs "
            f"make this one {task}. Choose one of: {fitting}."
        )
    if config.label_smoothing and loss.name != "cross-entropy":
        raise UsageError(
            f"label_smoothing has no effect with loss '{loss.name}'; it is for cross-entropy. Set it to 0."
        )
    return Objective(loss=loss, num_classes=num_classes, label_smoothing=config.label_smoothing)
