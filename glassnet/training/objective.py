"""What training makes small: a loss, matched to the task and to the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet._user_code import qualified_name
from glassnet.evaluation.outputs import class_logits
from glassnet.nn.losses import DEFAULT_LOSSES, LOSSES, Loss, Task, is_own_loss
from glassnet.training.config import TrainConfig
from glassnet.training.own_loss import LossFunction, absent_loss, own_loss


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The loss of one run, and how its outputs are read."""

    loss: Loss
    num_classes: int
    """0 for regression."""
    label_smoothing: float = 0.0
    is_loss_known: bool = True
    """False where the loss is a user's own and was not given: outputs can be read, and the loss cannot be had."""

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
    own: LossFunction | None = None,
) -> Objective:
    """Match the config's loss, or the usual one, to the task: regression without classes, else by the outputs.

    `usual` names losses by task for models that are trained with others than the rest; `own` is the user's own loss,
    which fits every task. Where the config names one and it is not given, the objective says so and has no value.

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
    if own is not None or is_own_loss(config.loss):
        return _own_objective(config, own, num_classes, task)
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


def _own_objective(config: TrainConfig, own: LossFunction | None, num_classes: int, task: Task) -> Objective:
    if own is None:
        name = str(config.loss)
        return Objective(loss=own_loss(absent_loss(name), task, name), num_classes=num_classes, is_loss_known=False)
    if config.label_smoothing:
        raise UsageError("label_smoothing has no effect with a loss of your own; it is for cross-entropy. Set it to 0.")
    return Objective(loss=own_loss(own, task, qualified_name(own)), num_classes=num_classes)
