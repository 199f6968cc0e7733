"""Losses: one number that says how far outputs are from targets.

Every loss is the mean over the examples of a batch. Values (labels within the classes, probabilities within [0, 1])
are checked on the CPU only: on an accelerator, looking at them would halt the training step. Outputs in half precision
are taken to float32 first, so that targets and means are not rounded to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the name that torch's documentation uses)
from torch import Tensor

from glassnet._errors import UsageError, unknown_name

Task = Literal["regression", "binary", "multi-class"]


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error `1/N sum (y - t)^2` over all N numbers of `outputs` and `targets`, of one shape.

    Some texts halve it, which halves the gradient `2/N (y - t)`. Bishop, "Pattern Recognition and Machine Learning"
    (2006), section 1.1.
    """
    y, t = _paired("outputs", outputs, targets)
    return F.mse_loss(y, t)


def root_mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return `sqrt(1/N sum (y - t)^2)` in the targets' unit; `outputs` and `targets` have one shape.

    The gradient is `(y - t) / (N RMSE)`, and 0 where every output is right. Bishop, "Pattern Recognition and Machine
    Learning" (2006), section 1.1, equation 1.3.
    """
    y, t = _paired("outputs", outputs, targets)
    # As a norm: its gradient at 0 is 0, where that of a square root times that of a square is infinity times 0.
    distance: Tensor = torch.linalg.vector_norm(y - t)
    return distance / math.sqrt(y.numel())


def binary_cross_entropy(probabilities: Tensor, targets: Tensor, *, clip: float = 1e-7) -> Tensor:
    """Return the mean of `-(t log p + (1 - t) log(1 - p))`, natural logarithm.

    `probabilities` and `targets` have one shape and lie in [0, 1]. `p` is first clipped to `[clip, 1 - clip]`, so
    that a certain and wrong answer costs `-log(clip)` (16.1) and not infinity; beyond the clip the gradient is 0,
    so prefer logits for training. Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 6.2.2.2.
    """
    if not 0 < clip < 0.5:
        raise UsageError(f"clip must lie between 0 and 0.5, such as 1e-7; got {clip}.")
    p, t = _paired("probabilities", probabilities, targets)
    _check_unit_interval("probabilities", p, "Give logits to binary-cross-entropy, or apply torch.sigmoid.")
    _check_unit_interval("targets", t, "Write targets -1 and 1 as (targets + 1) / 2.")
    # In float64, because in float32 1 - 1e-7 is rounded, and the two sides of the clip would cost differently.
    return F.binary_cross_entropy(p.double().clamp(clip, 1 - clip), t.double()).to(p.dtype)


def binary_cross_entropy_with_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of `-(t log s(z) + (1 - t) log(1 - s(z)))` with `s` the logistic function, from logits `z`.

    `logits` and `targets` have one shape; targets lie in [0, 1]. The gradient is `(s(z) - t) / N`, finite for every
    logit. Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 6.2.2.2.
    """
    z, t = _paired("logits", logits, targets)
    _check_unit_interval("targets", t, "Write targets -1 and 1 as (targets + 1) / 2.")
    return F.binary_cross_entropy_with_logits(z, t)


def cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean over examples of `-sum_k t_k log softmax(z)_k`.

    `logits` is `(B, K)` or `(B, K, ...)`. `targets` is integer labels `(B,)` or `(B, ...)` in 0..K-1, or one-hot or
    soft labels of the shape of `logits` that sum to 1 over the classes; equal labels give equal losses in every form.
    `label_smoothing` e replaces `t` by `(1 - e) t + e / K` (Szegedy et al., "Rethinking the Inception architecture
    for computer vision", 2016, section 7). Bishop, "Pattern Recognition and Machine Learning" (2006), equation 4.108.
    """
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"label_smoothing must be at least 0 and below 1; got {label_smoothing}.")
    if targets.shape == logits.shape:
        z = _classes("logits", logits)
        t = targets.to(z.dtype)
        _check_distributions(t)
    else:
        z, t = _labelled("logits", logits, targets)
    return F.cross_entropy(z, t, label_smoothing=label_smoothing)


def negative_log_likelihood(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of `-log p_label`: the cross-entropy of what `log_softmax` has already normalised.

    `log_probabilities` is `(B, K)` or `(B, K, ...)`, at most 0; `labels` is integers `(B,)` or `(B, ...)` in 0..K-1.
    Goodfellow, Bengio and Courville, "Deep Learning" (2016), section 5.5.
    """
    log_p, t = _labelled("log-probabilities", log_probabilities, labels)
    if _may_look_at(log_p) and bool((log_p > 1e-6).any()):
        raise UsageError(
            f"Log-probabilities must be at most 0; got {float(log_p.detach().max()):g}. Give logits to "
            "cross-entropy, or apply torch.log_softmax to logits and torch.log to probabilities."
        )
    return F.nll_loss(log_p, t)


def perceptron(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of the perceptron criterion `max(0, -y s)`.

    `scores` and `targets` have one shape; targets are -1 and 1, or 0 and 1 (0 is read as -1). A step down the
    gradient with rate 1 on one example is the perceptron rule `w += y x` where `y s <= 0`: a score of 0 is a
    mistake for either class, also where a threshold unit would answer 1, so that learning starts from weights of 0.
    Rosenblatt, "The perceptron" (1958); Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.1.7.
    """
    s, t = _paired("scores", scores, targets)
    _check_signs(t)
    y = torch.where(t > 0, 1, -1)
    # clamp, not relu: its gradient at exactly 0 is 1, which makes a score of 0 a mistake.
    return (-y * s).clamp(min=0).mean()


def multi_class_perceptron(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of `max(0, max_{k != label} s_k - s_label)`.

    `scores` is `(B, K)`, `labels` integers `(B,)` in 0..K-1. A step down the gradient with rate 1 on one example adds
    `x` to the weights of its class and takes it from those of the best rival, where the rival scores as high or
    higher. With two classes it is `perceptron` on `s_1 - s_0`. Crammer and Singer, "Ultraconservative online
    algorithms for multiclass problems" (2003), section 3.
    """
    s, t = _labelled("scores", scores, labels)
    if s.ndim != 2:
        raise UsageError(f"scores must be (B, K), one score a class; got {tuple(s.shape)}.")
    rival = s.scatter(1, t[:, None], -math.inf).max(1).values
    return (rival - s.gather(1, t[:, None])[:, 0]).clamp(min=0).mean()


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One entry of `LOSSES`."""

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    """Takes the model's outputs and the targets, returns the mean loss as a scalar."""
    task: Task
    source: str
    """The text that defines it."""
    takes_probabilities: bool = False
    """True where the outputs are probabilities already, and not logits or scores."""


BISHOP = "Bishop, Pattern Recognition and Machine Learning (2006)"
GOODFELLOW = "Goodfellow, Bengio and Courville, Deep Learning (2016)"

LOSSES: dict[str, Loss] = {
    "squared-error": Loss(
        name="squared-error", function=squared_error, task="regression", source=f"{BISHOP}, section 1.1"
    ),
    "rmse": Loss(name="rmse", function=root_mean_squared_error, task="regression", source=f"{BISHOP}, equation 1.3"),
    "binary-cross-entropy": Loss(
        name="binary-cross-entropy",
        function=binary_cross_entropy_with_logits,
        task="binary",
        source=f"{GOODFELLOW}, section 6.2.2.2",
    ),
    "binary-cross-entropy-of-probabilities": Loss(
        name="binary-cross-entropy-of-probabilities",
        function=binary_cross_entropy,
        task="binary",
        takes_probabilities=True,
        source=f"{GOODFELLOW}, section 6.2.2.2",
    ),
    "perceptron": Loss(
        name="perceptron",
        function=perceptron,
        task="binary",
        source=f"Rosenblatt, The perceptron (1958); {BISHOP}, section 4.1.7",
    ),
    "cross-entropy": Loss(
        name="cross-entropy", function=cross_entropy, task="multi-class", source=f"{BISHOP}, equation 4.108"
    ),
    "negative-log-likelihood": Loss(
        name="negative-log-likelihood",
        function=negative_log_likelihood,
        task="multi-class",
        source=f"{GOODFELLOW}, section 5.5",
    ),
    "multi-class-perceptron": Loss(
        name="multi-class-perceptron",
        function=multi_class_perceptron,
        task="multi-class",
        source="Crammer and Singer, Ultraconservative online algorithms for multiclass problems (2003), section 3",
    ),
}
"""The losses by name."""


def is_own_loss(name: str | None) -> bool:
    """Tell whether a name is that of a user's own loss, `file.py:function` or `module:function`, and none of ours."""
    return name is not None and ":" in name


DEFAULT_LOSSES: dict[Task, str] = {
    "regression": "squared-error",
    "binary": "binary-cross-entropy",
    "multi-class": "cross-entropy",
}


def loss_function(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function of loss `name`, which takes outputs and targets; raises `UsageError` for unknown names."""
    if name not in LOSSES:
        raise unknown_name("loss", name, LOSSES)
    return LOSSES[name].function


def default_loss(task: Task) -> Loss:
    """Return the loss that `task` is trained with unless another is named: the one that takes plain model outputs."""
    if task not in DEFAULT_LOSSES:
        raise unknown_name("task", task, DEFAULT_LOSSES)
    return LOSSES[DEFAULT_LOSSES[task]]


def _may_look_at(values: Tensor) -> bool:
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def _floats(word: str, outputs: Tensor) -> Tensor:
    """Return `outputs` in float32 or wider."""
    if not outputs.is_floating_point() or not outputs.numel():
        raise UsageError(
            f"{word} must be floating-point numbers, of at least one example; got {outputs.dtype} of shape "
            f"{tuple(outputs.shape)}."
        )
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs


def _paired(word: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and targets of one shape, in one type."""
    wide = _floats(word, outputs)
    if outputs.shape == targets.shape:
        return wide, targets.to(wide.dtype)
    given, wanted = tuple(outputs.shape), tuple(targets.shape)
    if given == (*wanted, 1):
        remedy = f"Write {word}.squeeze(-1)."
    elif wanted == (*given, 1):
        remedy = "Write targets.squeeze(-1)."
    elif given[:-1] == wanted:
        remedy = f"For {given[-1]} {word} an example and one label, use cross-entropy."
    else:
        remedy = f"Give each of the {word} one target."
    raise UsageError(f"{word} and targets must have one shape; got {word} {given} and targets {wanted}. {remedy}")


def _check_unit_interval(word: str, values: Tensor, remedy: str) -> None:
    if not _may_look_at(values):
        return
    seen = values.detach()
    outside = seen[~((seen >= 0) & (seen <= 1))]
    if len(outside):
        raise UsageError(f"{word} must lie in [0, 1]; got {float(outside[0]):g} ({len(outside)} such in all). {remedy}")


def _classes(word: str, outputs: Tensor) -> Tensor:
    """Return outputs with a number for each of at least two classes."""
    wide = _floats(word, outputs)
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        raise UsageError(
            f"{word} must be (B, K), one for each of at least two classes; got {tuple(outputs.shape)}. For one output "
            "an example, use a binary loss."
        )
    return wide


def _labelled(word: str, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs `(B, K, ...)` with labels `(B, ...)` that are among the classes, in `int64`."""
    wide = _classes(word, outputs)
    expected = (outputs.shape[0], *outputs.shape[2:])
    is_integer = not labels.is_floating_point() and not labels.is_complex() and labels.dtype != torch.bool
    if tuple(labels.shape) != expected or not is_integer:
        raise UsageError(
            f"labels must be integers of shape {expected} for {word} {tuple(outputs.shape)}, one class number an "
            f"example; got {labels.dtype} {tuple(labels.shape)}. {_label_remedy(outputs, labels, expected)}"
        )
    if _may_look_at(labels):
        _check_label_range(labels, outputs.shape[1])
    return wide, labels.long()


def _label_remedy(outputs: Tensor, labels: Tensor, expected: tuple[int, ...]) -> str:
    if labels.shape == outputs.shape:
        return "One-hot and soft labels are for cross-entropy; labels.argmax(1) are class numbers."
    if tuple(labels.shape) == (*expected, 1):
        return "Write labels.squeeze(-1)."
    if tuple(labels.shape) == expected:
        return "Write labels.long()."
    return "Give one label for each row of outputs."


def _check_label_range(labels: Tensor, num_classes: int) -> None:
    outside = ((labels < 0) | (labels >= num_classes)).flatten().nonzero().flatten()
    if len(outside):
        first = int(outside[0])
        raise UsageError(
            f"Labels must lie in 0..{num_classes - 1} for {num_classes} classes; label number {first} is "
            f"{int(labels.flatten()[first])} ({len(outside)} such in all). Correct it or give the model more outputs."
        )


def _check_distributions(targets: Tensor) -> None:
    if not _may_look_at(targets):
        return
    _check_unit_interval("Soft labels", targets, "Each is the share of a class.")
    sums = targets.detach().sum(1).flatten()
    worst = sums[(sums - 1).abs().argmax()]
    if not abs(float(worst) - 1) <= 0.01:
        raise UsageError(
            f"Soft labels must sum to 1 over the classes; one row sums to {float(worst):g}. Divide each row by its "
            "sum, or use binary-cross-entropy where several classes may hold at once."
        )


def _check_signs(targets: Tensor) -> None:
    if not _may_look_at(targets):
        return
    values = targets.unique().tolist()
    if not (set(values) <= {-1, 1} or set(values) <= {0, 1}):
        raise UsageError(
            f"Perceptron targets must be -1 and 1, or 0 and 1; got {', '.join(f'{value:g}' for value in values[:5])}. "
            "Write (labels == 1).long() for class 1 against the rest, or use multi-class-perceptron."
        )
