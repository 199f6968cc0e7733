"""One linear layer: the perceptron, linear regression and logistic regression, with their classical solutions."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._types import Shape


def perceptron(*, num_classes: int = 2, input_shape: Shape = (2,)) -> nn.Module:
    """Rosenblatt's perceptron: the unit fires where its score `s = w . x + b` is positive.

    `inputs` `(B, *input_shape)` -> scores `(B, 1)`; with three or more classes one unit a class, `(B, num_classes)`,
    of which the largest decides. The model gives the scores and not the 0 or 1 behind the threshold, because no
    gradient passes a threshold: trained by gradient descent on the perceptron criterion (`gn.train` takes it for
    this model), a step on one example is `perceptron_rule`. Rosenblatt, "The perceptron: a probabilistic model for
    information storage and organization in the brain" (1958).
    """
    return nn.Sequential(_linear_layers(input_shape, num_classes if num_classes > 2 else 1))


def linear_regression(*, num_classes: int = 1, input_shape: Shape = (1,)) -> nn.Module:
    """Linear regression: `y = W x + b`, `(B, *input_shape)` -> `(B, num_classes)`.

    `num_classes` is the number of values to predict. Trained by gradient descent on the squared error it comes to
    what `normal_equation` gives in closed form. Bishop, "Pattern Recognition and Machine Learning" (2006), 3.1.
    """
    return nn.Sequential(_linear_layers(input_shape, num_classes))


def logistic_regression(*, num_classes: int = 2, input_shape: Shape = (2,)) -> nn.Module:
    """Logistic regression: one logit `z = w . x + b`, `(B, *input_shape)` -> `(B, 1)`, for two classes.

    `p(class 1 | x) = 1 / (1 + exp(-z))`; the loss is the binary cross-entropy on logits. `num_classes` may be 2, or
    1 for the one output; both build the same. Bishop (2006), section 4.3.2.

    Raises `UsageError` for more than two classes.
    """
    if num_classes > 2:
        raise UsageError(
            f"logistic-regression tells two classes apart with one logit; got num_classes={num_classes}. "
            f"Use model 'softmax', its form for more classes."
        )
    return nn.Sequential(_linear_layers(input_shape, 1))


def perceptron_rule(
    weights: Tensor, bias: Tensor, x: Tensor, target: Tensor, rate: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return weights and bias after one example: `w + rate * (t - y) x` and `b + rate * (t - y)`.

    For one unit: `weights` `(D,)`, `bias` and `target` `()`, `x` `(D,)`; for K units `(K, D)`, `(K,)` and `(K,)`.
    `target` t is 0 or 1, and y = 1 where `w . x + b >= 0`, else 0, so a right answer changes nothing. `rate` is the
    step per unit of error. A unit that starts at 0 errs at most `(R / g)^2` times, however often it sees the examples,
    where `R` is the longest of the inputs `(x, 1)` and `g` the margin by which some `(w, b)` of length 1 separates
    them (Novikoff, "On convergence proofs for perceptrons", 1962).

    Raises `UsageError` for other targets and for sizes that do not fit.
    """
    weights, bias, x, target = (torch.as_tensor(value) for value in (weights, bias, x, target))
    if weights.shape[-1:] != x.shape or weights.shape[:-1] != bias.shape or bias.shape != target.shape:
        raise UsageError(
            f"Expected weights (D,) with x (D,), bias () and target (), or weights (K, D) with bias (K,) and target "
            f"(K,); got weights {_of(weights)}, x {_of(x)}, bias {_of(bias)}, target {_of(target)}."
        )
    if not bool(((target == 0) | (target == 1)).all()):
        raise UsageError(f"target of the perceptron rule must be 0 or 1; got {target.tolist()}. Write 0 for -1.")
    fired = (weights @ x + bias >= 0).to(weights.dtype)
    change = rate * (target - fired)
    return weights + change[..., None] * x, bias + change


def normal_equation(inputs: Tensor, targets: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the `weights` `(K, D)` and `bias` `(K,)` of least squares, ready for an `nn.Linear`.

    `inputs` `(N, ...)` are flattened to rows of D; `targets` `(N,)` or `(N, K)`. With a column of ones for the bias,
    `X = [inputs, 1]`, the solution fulfils the normal equation `(X^T X + ridge I) w = X^T t`, where `ridge` (in
    squared units of the inputs, summed over examples) spares the bias. Bishop (2006), equations 3.15 and 3.28.

    It is solved as the least-squares problem itself, by singular values (`torch.linalg.lstsq`) in float64 on the CPU,
    because `X^T X` squares the condition number. Where inputs depend on each other or are fewer than D + 1, infinitely
    many solutions are equally good: it returns the one with the smallest `|W|^2 + |b|^2`.

    Raises `UsageError` for sizes that do not fit, values that are not finite, and a negative `ridge`.
    """
    inputs, targets = torch.as_tensor(inputs), torch.as_tensor(targets)
    if not 0 <= ridge < math.inf:
        raise UsageError(f"ridge must be 0 or a positive number; got {ridge}. 0 is plain least squares.")
    if targets.ndim not in (1, 2) or len(inputs) != len(targets) or len(inputs) == 0:
        raise UsageError(
            f"Expected inputs (N, ...) and targets (N,) or (N, K) for the same N of at least 1; "
            f"got {_of(inputs)} and {_of(targets)}."
        )
    rows = inputs.detach().flatten(1).to("cpu", torch.float64) if inputs.ndim > 1 else _column(inputs)
    wanted = targets.detach().to("cpu", torch.float64) if targets.ndim == 2 else _column(targets)
    if not (rows.isfinite().all() and wanted.isfinite().all()):
        raise UsageError("normal_equation expects finite numbers; got NaN or infinity. Remove or fill in those rows.")
    num_inputs = rows.shape[1]
    design = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    if ridge > 0:
        penalty = math.sqrt(ridge) * torch.eye(num_inputs, num_inputs + 1, dtype=torch.float64)
        design = torch.cat([design, penalty])  # |Xw - t|^2 + ridge |w|^2 is a least-squares problem with these rows
        wanted = torch.cat([wanted, wanted.new_zeros(num_inputs, wanted.shape[1])])
    solution = torch.linalg.lstsq(design, wanted, driver="gelsd").solution
    like = inputs if inputs.is_floating_point() else torch.empty(0, device=inputs.device)
    return solution[:-1].T.contiguous().to(like), solution[-1].to(like)


def _linear_layers(input_shape: Shape, num_outputs: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict(flatten=nn.Flatten(), output=nn.Linear(math.prod(input_shape), num_outputs))


def _column(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)[:, None]


def _of(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
