"""How close predicted values are: the figures of a regression."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from glassnet._errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ValueEvaluation:
    """The figures of one network that predicts values, on one set of examples, over all values."""

    num_examples: int
    mean_squared_error: float
    root_mean_squared_error: float
    """In the unit of the values."""
    mean_absolute_error: float
    """Likewise."""
    r2: float | None
    """Share of the values' variance that is explained, at most 1; None for fewer than two examples."""

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return asdict(self)


def evaluate_values(outputs: Tensor, targets: Tensor) -> ValueEvaluation:
    """Compare `outputs` `(N, K)` with `targets` `(N,)` or `(N, K)`. The figures are torchmetrics' own.

    Raises `UsageError` for an empty set.
    """
    from torchmetrics.functional import regression as metrics  # a second to import: only where it is needed

    if not len(targets):
        raise UsageError("There is nothing to evaluate: expected at least one example, got an empty set.")
    if outputs.shape != targets.reshape(len(targets), -1).shape:
        raise UsageError(
            f"Expected {outputs.shape[1]} values to predict for each example, as the model gives; "
            f"got {tuple(targets.shape)}."
        )
    values, wanted = outputs.detach().cpu().double().contiguous(), targets.cpu().double().reshape(outputs.shape)
    squared = float(metrics.mean_squared_error(values, wanted))
    return ValueEvaluation(
        num_examples=len(wanted),
        mean_squared_error=squared,
        root_mean_squared_error=squared**0.5,
        mean_absolute_error=float(metrics.mean_absolute_error(values, wanted)),
        r2=float(metrics.r2_score(values, wanted)) if len(wanted) > 1 else None,
    )
