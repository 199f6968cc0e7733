"""Softmax, and the losses built on it."""

from __future__ import annotations

import torch
from torch import Tensor

from glassnet.inspection.tracing.rules.question import NAN, Answer, Question, along, grid, places, summed
from glassnet.inspection.tracing.terms import NOWHERE, Kind, Places
from glassnet.inspection.tracing.values import Value


def softmax(question: Question) -> Answer | None:
    """y_i = e^(z_i - m) / sum over j of e^(z_j - m), with m the largest."""
    return _shared(question, is_log=False)


def log_softmax(question: Question) -> Answer | None:
    """y_i = z_i - m - log(sum over j of e^(z_j - m)), with m the largest."""
    return _shared(question, is_log=True)


def cross_entropy(question: Question) -> Answer | None:
    """The mean over images of log(sum over j of e^z_j) - z_label; written for soft labels and class weights too.

    With q the target's probabilities: the sum over images of (sum of q) * logsumexp(z) - sum over j of q_j z_j.
    """
    logits, target = question.step.inputs[0], question.step.input("target")
    if target is None or len(logits.shape) not in (1, 2) or question.argument("reduction", "mean") == "none":
        return None
    weight = _target_weights(question, logits, target)
    z = logits.tensor.cpu().double().reshape(-1, logits.shape[-1])
    log_sums = z.logsumexp(-1)
    taps = grid(logits.shape)
    rows = taps[:, :1] if len(logits.shape) == 2 else torch.zeros(len(taps), 1, dtype=torch.long)
    is_target = weight.flatten() != 0
    count = len(log_sums)
    value = torch.cat([log_sums, z.flatten()])[None]
    factor = torch.cat([weight.sum(-1), -weight.flatten()])[None]
    keep = torch.cat([weight.sum(-1) != 0, is_target])
    at = Places(
        (logits,),
        torch.cat([torch.full((count,), NOWHERE), torch.zeros(len(taps), dtype=torch.long)])[None],
        torch.cat([torch.zeros(count, taps.shape[1], dtype=torch.long), taps])[None],
    )
    kind = torch.where(keep, Kind.PRODUCT, Kind.ABSENT).to(torch.int8)[None]
    del rows
    return summed(
        "log(sum of e^z) - z of the label, mean over the images",
        value.masked_fill(~keep, 0.0),
        factor,
        at,
        kind=kind,
        working=_of_one_image(z, weight) if count == 1 else (),
        notes=("The terms without a source are log(sum of e^z), one for each image.",),
    )


def nll_loss(question: Question) -> Answer | None:
    """Minus the mean over images of the label's log-probability."""
    given, target = question.step.inputs[0], question.step.input("target")
    if target is None or len(given.shape) != 2 or question.argument("reduction", "mean") == "none":
        return None
    weight = _target_weights(question, given, target)
    rows = weight.nonzero()
    return summed(
        "minus the label's log-probability, mean over the images",
        question.read(given, rows[None]),
        -weight[weight != 0][None],
        places(given, rows[None]),
    )


def squared_error(question: Question) -> Answer | None:
    """The mean, or sum, of (x - y)^2."""
    given, target = question.step.inputs[:2]
    reduction = question.argument("reduction", "mean")
    if len(question.step.inputs) != 2 or given.shape != target.shape or reduction not in {"mean", "sum"}:
        return None
    at = grid(given.shape)[None]
    apart = question.read(given, at) - question.read(target, at)
    product = apart.square() / (apart.shape[1] if reduction == "mean" else 1)
    return Answer(
        formula=f"{reduction} of (value - target)^2", value=question.read(given, at),
        factor=torch.full_like(product, NAN), product=product,
        kind=torch.full(product.shape, Kind.PRODUCT, dtype=torch.int8), at=places(given, at),
        factor_at=places(target, at), total=product.sum(-1), scale=product.sum(-1),
    )  # fmt: skip


def _shared(question: Question, *, is_log: bool) -> Answer | None:
    given = question.step.inputs[0]
    dim = question.operand(1, "dim")
    if not isinstance(dim, int):
        return None
    axis = dim % len(given.shape)
    at = along(question.index, given.shape, [axis], is_kept=True)
    z = question.read(given, at)
    own = question.read(given, question.index)
    largest = z.amax(-1)
    powers = (z - largest[:, None]).exp()
    whole = powers.sum(-1)
    result = own - largest - whole.log() if is_log else (own - largest).exp() / whole
    scale = own.abs() + largest.abs() + whole.log() + 1e-30
    kind = torch.full(z.shape, Kind.PRODUCT, dtype=torch.int8)
    kind[torch.arange(len(kind)), question.index[:, axis]] = Kind.TAKEN
    return Answer(
        formula="z - m - log(sum of e^(z - m))" if is_log else "e^(z - m) / sum of e^(z - m)",
        value=z, factor=torch.full_like(z, NAN), product=powers, kind=kind, at=places(given, at), total=result,
        scale=scale if is_log else result * (1 + own.abs() + largest.abs()) + 1e-30,
        working=(("m, the largest", largest), ("sum of e^(z - m)", whole)), is_sum=False,
        notes=("The product column is e^(z - m).",),
    )  # fmt: skip


def _target_weights(question: Question, given: Value, target: Value) -> Tensor:
    """Return what each logit's place is multiplied with in the loss, `(N, C)`, the mean's division done."""
    num_classes = given.shape[-1]
    class_weight = question.step.input("weight")
    by_class = (
        torch.ones(num_classes, dtype=torch.float64) if class_weight is None else class_weight.tensor.cpu().double()
    )
    is_mean = question.argument("reduction", "mean") == "mean"
    smoothing = float(question.argument("label_smoothing", 0.0))
    labels = target.tensor.cpu()
    if labels.is_floating_point():
        shares = labels.double().reshape(-1, num_classes)
        weights = ((1 - smoothing) * shares + smoothing / num_classes) * by_class
        return weights / (len(shares) if is_mean else 1)
    labels = labels.reshape(-1)
    is_used = labels != int(question.argument("ignore_index", -100))
    hot = torch.zeros(len(labels), num_classes, dtype=torch.float64)
    hot[is_used] = torch.nn.functional.one_hot(labels[is_used], num_classes).double()
    divisor = (hot * by_class).sum() if is_mean else 1
    return ((1 - smoothing) * hot + smoothing / num_classes * is_used[:, None]) * by_class / divisor


def _of_one_image(z: Tensor, weight: Tensor) -> tuple[tuple[str, Tensor], ...]:
    shares = z.softmax(-1)
    label = int(weight.argmax())
    return (
        ("largest logit", z.amax(-1)),
        ("log(sum of e^z)", z.logsumexp(-1)),
        (f"softmax of class {label}", shares[:, label]),
    )
