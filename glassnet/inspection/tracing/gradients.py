"""Autograd's gradient of every value of a pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet.inspection.tracing.record import consumers_of, named_steps
from glassnet.inspection.tracing.recording import Recorded
from glassnet.inspection.tracing.step import Step
from glassnet.inspection.tracing.values import Table, Value


def fill_gradients(table: Table, loss: Tensor, recorded: Sequence[Recorded]) -> None:
    """Put dL/d(value) of every value into `table`, without touching any `.grad`.

    Raises `UsageError` where autograd refuses.
    """
    asked = [
        number for number, edge in enumerate(table.edges) if edge is not None and number not in table.through_consumers
    ]
    if not loss.requires_grad or not asked:
        return
    try:
        found = torch.autograd.grad(loss, [table.edges[number] for number in asked], allow_unused=True)  # type: ignore[arg-type]
    except RuntimeError as error:  # also errors of the user's own backward functions
        raise UsageError(
            f"The model must be differentiable by autograd for a label; it raised: {str(error).strip().rstrip('.')}. "
            "Correct the model, or trace it without a label."
        ) from None
    table.gradients.update(
        {number: gradient for number, gradient in zip(asked, found, strict=True) if gradient is not None}
    )
    split = [number for number in table.through_consumers if table.edges[number] is not None]
    consumers = consumers_of(named_steps(recorded, table, ())) if split else {}
    # Later values first: each sum is over values that come after it.
    for number in sorted(split, reverse=True):
        gradient = _through_consumers(Value(number, table), consumers)
        if gradient is not None:
            table.gradients[number] = gradient


def _through_consumers(value: Value, consumers: Mapping[Value, Sequence[tuple[Step, int]]]) -> Tensor | None:
    """Return the sum over the steps that read `value` of their vector-Jacobian products.

    Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors" (1986), equation 7.
    """
    total: Tensor | None = None
    for step in dict.fromkeys(step for step, _ in consumers.get(value, ())):
        cotangents = {
            output: produced.gradient for output, produced in enumerate(step.outputs) if produced.gradient is not None
        }
        if not cotangents or not step.is_differentiable:
            continue
        positions = [position for position, given in enumerate(step.inputs) if given == value]
        for product in step.vjp(cotangents, positions).values():
            if product is not None:
                total = product if total is None else total + product
    return total
