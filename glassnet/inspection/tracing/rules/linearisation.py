"""Operations without a rule of their own: the Jacobian's row.

For an operation that is linear in its one input (an area interpolation) the row is its weights, and the sum is exact.
For any other it is said to be a linearisation.
"""

from __future__ import annotations

import torch

from glassnet.inspection.tracing.rules.question import Answer, Question, gathered, places_in, summed
from glassnet.inspection.tracing.terms import Kind, Places

LINEAR = {"interpolate", "upsample", "grid_sample", "cumsum", "fold", "adaptive_avg_pool2d", "trace", "nansum"}
"""Operations that are linear in their first input."""


def linear_by_jacobian(question: Question) -> Answer | None:
    """Return the answer of a linear operation whose weights are read from autograd."""
    return _rows(question, [0], is_linear=True)


def linearised(question: Question) -> Answer:
    """Return the Jacobian's row, said to be a linearisation; without terms where there is no derivative."""
    step = question.step
    positions = [p for p, value in enumerate(step.inputs) if value.tensor.is_floating_point()]
    found = _rows(question, positions, is_linear=False)
    if found is not None:
        return found
    none = torch.zeros(question.num_units, 0, dtype=torch.float64)
    torch_value = gathered(question.value.tensor, question.index).double()
    at = Places((), none.long(), none.long()[..., None].expand(-1, -1, 1))
    return Answer(
        formula="no rule, and no derivative", value=none, factor=none, product=none, kind=none.to(torch.int8), at=at,
        total=torch.full_like(torch_value, float("nan")), scale=torch_value.abs(), is_linearisation=True,
        notes=(f"{step.op} has no rule and is not differentiable, so it cannot be itemised: the value is torch's.",),
    )  # fmt: skip


def _rows(question: Question, positions: list[int], *, is_linear: bool) -> Answer | None:
    """Return the rows of the Jacobian at the units, each a repetition of the call."""
    step = question.step
    if not question.value.tensor.is_floating_point() or not positions:
        return None
    answers = []
    for unit in question.index.tolist():
        cotangent = torch.zeros_like(question.value.tensor)
        cotangent[tuple(unit)] = 1
        try:
            rows = step.vjp({question.output: cotangent}, positions)
        except RuntimeError:  # an operation without a derivative
            return None
        answers.append({position: row for position, row in rows.items() if row is not None})
    if not all(answers):
        return None
    return _joined(question, answers, is_linear=is_linear)


def _joined(question: Question, answers: list[dict[int, torch.Tensor]], *, is_linear: bool) -> Answer:
    step = question.step
    used = sorted({position for answer in answers for position in answer})
    parts, values, factors, kinds = [], [], [], []
    for position in used:
        given = step.inputs[position]
        rows = [answer[position].nonzero() for answer in answers]
        count = max(len(row) for row in rows)
        at = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, count - len(row))) for row in rows])
        at = at.reshape(len(rows), count, len(given.shape))
        is_there = torch.arange(count) < torch.tensor([len(row) for row in rows])[:, None]
        derivative = torch.stack([
            answer[position].double()[tuple(place.unbind(-1))] if len(given.shape)
            else answer[position].double().expand(count)
            for answer, place in zip(answers, at, strict=True)
        ])  # fmt: skip
        parts.append((given, at))
        values.append(question.read(given, at).where(is_there, 0.0))
        factors.append(derivative.where(is_there, 0.0))
        kinds.append(torch.where(is_there, Kind.PRODUCT, Kind.ABSENT).to(torch.int8))
    notes = (
        "The weights are autograd's derivatives, exact for an operation that is linear in its input."
        if is_linear
        else f"A linearisation: {step.op} has no rule, so each input stands with autograd's derivative at its value; "
        "the products need not add up to torch's value.",
    )
    return summed(
        "sum of input x weight" if is_linear else "input x derivative, a linearisation",
        torch.cat(values, -1),
        torch.cat(factors, -1),
        places_in(parts),
        kind=torch.cat(kinds, -1),
        notes=notes,
        is_linearisation=not is_linear,
    )
