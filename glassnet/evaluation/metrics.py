"""How right a classifier is: the figures of one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class of an evaluation."""

    class_name: str
    precision: float
    """Share of the examples named this class that are of it; 0 where none was named."""
    recall: float
    """Share of the examples of this class that were named it; 0 where there is none."""
    f1: float
    """Harmonic mean of precision and recall."""
    support: int
    """Number of examples of this class."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of one network on one set of examples."""

    num_examples: int
    num_correct: int
    accuracy: float
    """Share of the examples whose most probable class is the true one, 0..1."""
    top5_accuracy: float | None
    """Share of the examples whose true class is among the five most probable; None with five classes or fewer."""
    loss: float
    """Mean of the loss the network was trained on, without label smoothing: cross-entropy in nats, unless it says. nan
    where that loss is the user's own and was not given."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts by true class (row) and predicted class (column)."""
    per_class: tuple[ClassMetrics, ...]
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Evaluation(accuracy={self.accuracy:.4f}, loss={self.loss:.4f}, num_examples={self.num_examples})"

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return asdict(self)


def evaluate_logits(
    logits: Tensor, labels: Tensor, class_names: Sequence[str], loss: float | None = None
) -> Evaluation:
    """Compare `logits` `(N, num_classes)` with `labels` `int64 (N,)`.

    `loss` is the mean loss where the network was trained on another than the cross-entropy. Precision, recall and F1
    are those of van Rijsbergen, "Information retrieval" (1979), chapter 7, one class against the rest.

    Raises `UsageError` for an empty set.
    """
    if not len(labels):
        raise UsageError("There is nothing to evaluate: expected at least one example, got an empty set.")
    logits, labels = logits.detach().cpu(), labels.cpu()
    num_classes = len(class_names)
    confusion = confusion_matrix(logits.argmax(1), labels, num_classes)
    right, of_class, named = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    columns = zip(
        class_names,
        _shares(right, named),
        _shares(right, of_class),
        _shares(2 * right, of_class + named),
        of_class.tolist(),
        strict=True,
    )
    num_correct = int(right.sum())
    top5 = None
    if num_classes > 5:
        top5 = float((logits.topk(5).indices == labels[:, None]).any(1).double().mean())
    return Evaluation(
        num_examples=len(labels),
        num_correct=num_correct,
        accuracy=num_correct / len(labels),
        top5_accuracy=top5,
        loss=float(F.cross_entropy(logits.double(), labels)) if loss is None else loss,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        per_class=tuple(
            ClassMetrics(class_name=name, precision=precision, recall=recall, f1=f1, support=support)
            for name, precision, recall, f1, support in columns
        ),
        class_names=tuple(class_names),
    )


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return how often each class `(row)` was named each class `(column)`: `int64 (num_classes, num_classes)`."""
    pairs = labels * num_classes + predicted
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def _shares(counts: Tensor, wholes: Tensor) -> list[float]:
    """Return `counts / wholes`, and 0 where the whole is nothing."""
    return (counts.double() / wholes.clamp(min=1)).tolist()


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One misclassified example."""

    index: int
    """Position in the evaluated set."""
    true_class: str
    predicted_class: str
    probability: float
    """Of the predicted class."""
    true_probability: float
    """Of the true class."""
    loss: float
    """Cross-entropy of the example in nats."""


def worst_mistakes(logits: Tensor, labels: Tensor, class_names: Sequence[str], count: int) -> tuple[Mistake, ...]:
    """Return the `count` misclassified examples of the highest loss, worst first."""
    logits, labels = logits.detach().cpu(), labels.cpu()
    losses = F.cross_entropy(logits, labels, reduction="none")
    predicted = logits.argmax(1)
    wrong = (predicted != labels).nonzero().flatten()
    worst = wrong[losses[wrong].argsort(descending=True, stable=True)][:count]
    probabilities = logits[worst].softmax(1)
    return tuple(
        Mistake(
            index=index,
            true_class=class_names[int(labels[index])],
            predicted_class=class_names[int(predicted[index])],
            probability=float(probabilities[position, predicted[index]]),
            true_probability=float(probabilities[position, labels[index]]),
            loss=float(losses[index]),
        )
        for position, index in enumerate(worst.tolist())
    )


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the number of rows whose largest logit is the label's, as a tensor on the device (no host sync)."""
    return torch.sum(logits.argmax(1) == labels)
