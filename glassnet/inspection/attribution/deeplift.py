"""DeepLIFT, the rescale rule, over the recorded steps of two passes.

Shrikumar, Greenside and Kundaje, "Learning important features through propagating activation differences" (2017).
Multipliers are carried back: what a difference of a value's own from its baseline is worth in the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from glassnet._errors import WorkError
from glassnet.inspection.attribution.question import Answer, Question
from glassnet.inspection.attribution.relevance import (
    ELEMENTWISE,
    MOVING,
    SELECTING,
    carried_back,
    inputs_at,
    is_linear,
    pulled_back,
)
from glassnet.inspection.tracing import Step, Trace, trace

CLOSE = 1e-5
"""Differences below this share of the values' size are too rounded to divide by: the slope there is the gradient."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
"""Gauss and Legendre's places and weights on -1..1."""


def deeplift(question: Question) -> Answer:
    """Share the output's difference to the baseline among the values by their own differences, layer by layer.

    An activation's slope is taken between the two passes instead of at the image. A maximum's difference goes to the
    winner that made it. Anything else (LRN, products of two values) is averaged on the way between the passes.
    """
    traced, reference = trace(question.model, question.image), trace(question.model, question.baseline)
    if [(step.op, step.shape) for step in traced.steps] != [(step.op, step.shape) for step in reference.steps]:
        raise WorkError(
            "DeepLIFT compares the same calls on image and baseline; the model's code took another way on the "
            "baseline. Choose another baseline, or integrated_gradients."
        )
    start = torch.zeros_like(traced.output)
    start[:, question.target] = 1
    multipliers = carried_back(traced, start, _Rescale(reference))
    outputs = traced.output.double()[0, question.target], reference.output.double()[0, question.target]
    difference = traced.inputs[0].tensor - reference.inputs[0].tensor
    return Answer(scores=(multipliers * difference)[0], promised=float(outputs[0] - outputs[1]))


class _Rescale:
    """The multipliers of a step's inputs from those of its outputs."""

    def __init__(self, reference: Trace) -> None:
        self.reference = reference

    def __call__(self, step: Step, given: Mapping[int, Tensor], positions: Sequence[int]) -> Mapping[int, Tensor]:
        other = self.reference.steps[step.index]
        if step.op in ELEMENTWISE and len(positions) == 1:
            return {positions[0]: given[0] * _slope(step, other, positions[0])}
        if step.op in SELECTING:
            return _selected(step, other, given, positions)
        if is_linear(step, positions) or step.op in MOVING:
            return pulled_back(step, inputs_at(step, positions), given)
        return _averaged(step, other, given, positions)


def _slope(step: Step, other: Step, position: int) -> Tensor:
    """Return the slope of a function of one value between its two inputs."""
    now, before = step.inputs[position].tensor, other.inputs[position].tensor
    difference = now - before
    size = CLOSE * torch.maximum(now.abs(), before.abs()).clamp(min=torch.finfo(now.dtype).tiny)
    is_close = difference.abs() <= size
    gradient = pulled_back(step, {position: now}, {0: torch.ones_like(step.output.tensor)})[position]
    secant = (step.output.tensor - other.output.tensor) / torch.where(is_close, 1.0, difference)
    return torch.where(is_close, gradient, secant)


def _selected(step: Step, other: Step, given: Mapping[int, Tensor], positions: Sequence[int]) -> dict[int, Tensor]:
    """Give a maximum's rise to the winner at the image, its fall to the winner at the baseline."""
    now, before = inputs_at(step, positions), inputs_at(other, positions)
    rises, falls = {}, {}
    for number, multiplier in given.items():
        change = step.outputs[number].tensor - other.outputs[number].tensor
        rises[number], falls[number] = multiplier * change.clamp(min=0), multiplier * change.clamp(max=0)
    to_now, to_before = pulled_back(step, now, rises), pulled_back(other, before, falls)
    found = {}
    for position in positions:
        difference = now[position] - before[position]
        share = to_now[position] + to_before[position]
        found[position] = torch.where(difference == 0, 0.0, share / torch.where(difference == 0, 1.0, difference))
    return found


def _averaged(step: Step, other: Step, given: Mapping[int, Tensor], positions: Sequence[int]) -> dict[int, Tensor]:
    """Return the product with the Jacobian averaged on the straight way between the two inputs."""
    now, before = inputs_at(step, positions), inputs_at(other, positions)
    found = {position: torch.zeros_like(tensor) for position, tensor in now.items()}
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        between = {place: before[place] + float(node + 1) / 2 * (now[place] - before[place]) for place in positions}
        for position, part in pulled_back(step, between, given).items():
            found[position] += part * float(weight) / 2
    return found
