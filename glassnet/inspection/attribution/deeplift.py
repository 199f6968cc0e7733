"""DeepLIFT, by the rescale rule or by RevealCancel, over the recorded steps of two passes.

Shrikumar, Greenside and Kundaje, "Learning important features through propagating activation differences" (2017).
Multipliers are carried back: what a difference of a value's own from its baseline is worth in the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from glassnet._errors import WorkError, unknown_name
from glassnet.inspection.attribution.question import Answer, Question
from glassnet.inspection.attribution.relevance import (
    ELEMENTWISE,
    MOVING,
    SELECTING,
    WEIGHTED,
    carried_back,
    depending,
    inputs_at,
    is_linear,
    pulled_back,
)
from glassnet.inspection.tracing import Step, Trace, Value, trace

RULES = ("rescale", "reveal-cancel")
CLOSE = 1e-5
"""Differences below this share of the values' size are too rounded to divide by: the slope there is the gradient."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
"""Gauss and Legendre's places and weights on -1..1."""


def deeplift(question: Question, *, rule: str = "rescale") -> Answer:
    """Share the output's difference to the baseline among the values by their own differences, layer by layer.

    An activation's slope is taken between the two passes instead of at the image. A maximum's difference goes to the
    winner that made it. Anything else (LRN, products of two values) is averaged on the way between the passes.

    `rule` is for activations: `rescale` gives all that came in one slope; `reveal-cancel` (section 3.5.3) gives what
    raised the value and what lowered it slopes of their own, so that what cancels out is seen. It holds where a
    convolution or fully connected layer makes the value; elsewhere the rescale rule does, and a note says so.
    """
    if rule not in RULES:
        raise unknown_name("rule", str(rule), RULES)
    traced, reference = trace(question.model, question.image), trace(question.model, question.baseline)
    if [(step.op, step.shape) for step in traced.steps] != [(step.op, step.shape) for step in reference.steps]:
        raise WorkError(
            "DeepLIFT compares the same calls on image and baseline; the model's code took another way on the "
            "baseline. Choose another baseline, or integrated_gradients."
        )
    start = torch.zeros_like(traced.output)
    start[:, question.target] = 1
    own_rule = _Rescale(reference) if rule == "rescale" else _RevealCancel(traced, reference)
    multipliers = carried_back(traced, start, own_rule)
    outputs = traced.output.double()[0, question.target], reference.output.double()[0, question.target]
    difference = traced.inputs[0].tensor - reference.inputs[0].tensor
    return Answer(scores=(multipliers * difference)[0], promised=float(outputs[0] - outputs[1]), notes=own_rule.notes())


class _Rescale:
    """The multipliers of a step's inputs from those of its outputs."""

    def __init__(self, reference: Trace) -> None:
        self.reference = reference

    def notes(self) -> tuple[str, ...]:
        """Return what a reader should know."""
        return ()

    def __call__(self, step: Step, given: Mapping[int, Tensor], positions: Sequence[int]) -> Mapping[int, Tensor]:
        other = self.reference.steps[step.index]
        if step.op in ELEMENTWISE and len(positions) == 1:
            return {positions[0]: given[0] * _slope(step, other, positions[0])}
        if step.op in SELECTING:
            return _selected(step, other, given, positions)
        if is_linear(step, positions) or step.op in MOVING:
            return pulled_back(step, inputs_at(step, positions), given)
        return _averaged(step, other, given, positions)


class _RevealCancel(_Rescale):
    """The same with two multipliers for what a layer's positive and its negative contributions are worth.

    They are carried together, `(2, *shape)`, from an activation to the layer that made its input.
    """

    def __init__(self, traced: Trace, reference: Trace) -> None:
        super().__init__(reference)
        dependent = depending(traced)
        self.makers: dict[Value, Step] = {}
        """The layers whose contributions have a sign, by what they give."""
        self.num_rescaled = 0
        for step in traced.steps:
            names = [name for name, value in zip(step.input_names, step.inputs, strict=True) if value in dependent]
            if step.op in WEIGHTED and names == ["input"]:
                self.makers[step.outputs[0]] = step

    def __call__(self, step: Step, given: Mapping[int, Tensor], positions: Sequence[int]) -> Mapping[int, Tensor]:
        if step.op in ELEMENTWISE and len(positions) == 1:
            maker = self.makers.get(step.inputs[positions[0]])
            if maker is not None:
                return {positions[0]: given[0] * self._slopes(step, maker, positions[0])}
            self.num_rescaled += 1
        if step.outputs[0] in self.makers and given[0].ndim > step.output.tensor.ndim:
            return self._contributions(step, given[0], positions[0])
        return super().__call__(step, given, positions)

    def notes(self) -> tuple[str, ...]:
        """Return where the rescale rule had to do."""
        if not self.num_rescaled:
            return ()
        return (f"the rescale rule at {self.num_rescaled} activations that no convolution or linear layer feeds",)

    def _slopes(self, step: Step, maker: Step, position: int) -> Tensor:
        """Return for what raised and what lowered an activation's input how much its output changed by it, `(2, ...)`.

        Each change is the mean of what it does alone and what it does after the other.
        """
        now, before = step.inputs[position].tensor, self.reference.steps[step.index].inputs[position].tensor
        raised, lowered = self._parts(maker)
        at = [step.replay({position: tensor}) for tensor in (before, before + raised, before + lowered, now)]
        up, down = ((at[1] - at[0]) + (at[3] - at[2])) / 2, ((at[2] - at[0]) + (at[3] - at[1])) / 2
        gradient = pulled_back(step, {position: now}, {0: torch.ones_like(step.output.tensor)})[position]
        size = CLOSE * torch.maximum(now.abs(), before.abs()).clamp(min=torch.finfo(now.dtype).tiny)
        slopes = [
            torch.where(part.abs() <= size, gradient, change / torch.where(part == 0, 1.0, part))
            for part, change in ((raised, up), (lowered, down))
        ]
        return torch.stack(slopes)

    def _parts(self, maker: Step) -> tuple[Tensor, Tensor]:
        """Return the sums of a layer's positive and of its negative contributions to the difference of its output."""
        position = maker.input_names.index("input")
        change = maker.inputs[position].tensor - self.reference.steps[maker.index].inputs[position].tensor
        more, less = (maker.replay({position: change.clamp(min=0), **_signed(maker, sign)}) for sign in (1, -1))
        fewer, back = (maker.replay({position: change.clamp(max=0), **_signed(maker, sign)}) for sign in (1, -1))
        return more + back, less + fewer

    def _contributions(self, maker: Step, pair: Tensor, position: int) -> dict[int, Tensor]:
        """Return what a layer's inputs are worth: by which sum, the raising or the lowering, each contributes to."""
        x = maker.inputs[position].tensor
        change = x - self.reference.steps[maker.index].inputs[position].tensor
        rising, falling = (
            sum(
                pulled_back(maker, {position: x}, {0: multiplier}, _signed(maker, sign))[position]
                for multiplier, sign in zip(pair, signs, strict=True)
            )
            for signs in ((1, -1), (-1, 1))
        )
        return {position: torch.where(change > 0, rising, torch.where(change < 0, falling, (rising + falling) / 2))}


def _signed(maker: Step, sign: int) -> dict[int, Tensor]:
    """Return a layer's weights of one sign, and no bias, by position."""
    names = maker.input_names
    weight = names.index("weight")
    found = {weight: maker.inputs[weight].tensor.clamp(**{"min" if sign > 0 else "max": 0})}
    if "bias" in names:
        found[names.index("bias")] = torch.zeros_like(maker.inputs[names.index("bias")].tensor)
    return found


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
