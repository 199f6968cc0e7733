"""What each operation's numbers are made of: one rule an operation, by `Step.op`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch

from glassnet.inspection.tracing.rules import (
    activation,
    arithmetic,
    attention,
    convolution,
    linearisation,
    movement,
    normalisation,
    pooling,
    probability,
    products,
    reduction,
    resampling,
)
from glassnet.inspection.tracing.rules.question import Answer, Question, Rule
from glassnet.inspection.tracing.step import Step

DIMS = ("1d", "2d", "3d")

RULES: dict[str, Rule] = {
    **{f"conv{d}": convolution.convolution for d in DIMS},
    **{f"conv_transpose{d}": convolution.transposed for d in DIMS},
    "linear": products.linear,
    **dict.fromkeys(("matmul", "rmatmul", "mm", "bmm", "mv", "dot", "inner_product", "vdot"), products.matmul),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), products.addmm),
    "einsum": products.einsum,
    **{f"avg_pool{d}": pooling.avg_pool for d in DIMS},
    **{f"adaptive_avg_pool{d}": pooling.adaptive_avg_pool for d in DIMS},
    **{f"max_pool{d}{more}": pooling.max_pool for d in DIMS for more in ("", "_with_indices")},
    **{f"adaptive_max_pool{d}{more}": pooling.adaptive_max_pool for d in DIMS for more in ("", "_with_indices")},
    **dict.fromkeys(("max", "min", "amax", "amin", "maximum", "minimum"), pooling.largest),
    "batch_norm": normalisation.batch_norm,
    "instance_norm": normalisation.instance_norm,
    "layer_norm": normalisation.layer_norm,
    "group_norm": normalisation.group_norm,
    "rms_norm": normalisation.rms_norm,
    "local_response_norm": normalisation.local_response_norm,
    "weight_norm": normalisation.weight_norm,
    **dict.fromkeys(("var", "std"), reduction.spread),
    **dict.fromkeys(("norm", "linalg_vector_norm", "vector_norm"), reduction.length),
    "logsumexp": reduction.log_sum,
    **dict.fromkeys(("sort", "topk", "msort"), reduction.ordered),
    **dict.fromkeys(activation.FUNCTIONS, activation.activation),
    **dict.fromkeys(activation.PLAIN, activation.elementwise),
    "relu": activation.relu,
    "leaky_relu": activation.leaky_relu,
    "prelu": activation.prelu,
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), activation.clamp),
    "glu": activation.glu,
    **dict.fromkeys(("add", "radd", "sub", "rsub", "subtract"), arithmetic.add),
    **dict.fromkeys(("neg", "negative"), arithmetic.negative),
    **dict.fromkeys(("mul", "rmul", "multiply"), arithmetic.multiply),
    **dict.fromkeys(("div", "truediv", "rtruediv", "rdiv", "true_divide", "divide"), arithmetic.divide),
    **dict.fromkeys(("pow", "rpow"), arithmetic.power),
    **dict.fromkeys(("addcmul", "addcdiv"), arithmetic.add_product),
    "lerp": arithmetic.lerp,
    **dict.fromkeys(("outer", "ger"), arithmetic.outer),
    **dict.fromkeys(("sum", "mean"), reduction.reduction),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout"), arithmetic.dropout),
    **dict.fromkeys(movement.VIEWS | movement.MOVES | movement.CONSTANTS, movement.movement),
    "softmax": probability.softmax,
    "log_softmax": probability.log_softmax,
    "cross_entropy": probability.cross_entropy,
    "nll_loss": probability.nll_loss,
    "mse_loss": probability.squared_error,
    "scaled_dot_product_attention": attention.attention,
    "interpolate": resampling.interpolate,
}
"""By operation."""

COPYING = movement.VIEWS | movement.MOVES | movement.CONSTANTS
"""Operations that only move numbers."""


def itemised(question: Question) -> Answer:
    """Return the terms of some units: by the operation's rule, or said to be a linearisation."""
    op = question.step.op
    rule = RULES.get(op)
    answer = rule(question) if rule is not None else None
    if answer is None and op in linearisation.LINEAR:
        answer = linearisation.linear_by_jacobian(question)
    return answer if answer is not None else linearisation.linearised(question)


def without_rule(steps: Iterable[Step]) -> dict[str, int]:
    """Return the operations that no rule itemises, with their number of steps; found by asking for one unit of each."""
    found: Counter[str] = Counter()
    with torch.inference_mode(False), torch.no_grad():
        for step in steps:
            tensor = step.output.tensor
            if tensor.is_floating_point() and tensor.numel():
                question = Question(step, 0, torch.zeros(1, tensor.dim(), dtype=torch.long))
                found[step.op] += itemised(question).is_linearisation
    return {op: count for op, count in found.items() if count}


__all__ = ["COPYING", "RULES", "Answer", "Question", "itemised", "without_rule"]
