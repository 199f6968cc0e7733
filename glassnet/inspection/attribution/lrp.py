"""Layer-wise relevance propagation over the recorded steps of a pass.

Bach, Binder, Montavon, Klauschen, Mueller and Samek, "On pixel-wise explanations for non-linear classifier decisions by
layer-wise relevance propagation" (2015); the rules by name in Montavon, Binder, Lapuschkin, Samek and Mueller,
"Layer-wise relevance propagation: an overview" (2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet.inspection.attribution.question import Answer, Question
from glassnet.inspection.attribution.relevance import (
    ELEMENTWISE,
    MOVING,
    SELECTING,
    WEIGHTED,
    carried_back,
    inputs_at,
    is_linear,
    pulled_back,
)
from glassnet.inspection.tracing import Step, trace

RULES = ("epsilon", "gamma", "z_plus")
PASSING = ELEMENTWISE | {"local_response_norm"}
"""Relevance passes unchanged: Binder, Montavon, Lapuschkin, Mueller and Samek (2016) do so for LRN too."""


def lrp(question: Question, *, rule: str = "epsilon", epsilon: float = 0.01, gamma: float = 0.25) -> Answer:
    """Share the output among the values before it in proportion to what each added, layer by layer back to the image.

    `rule` is for layers with weights: `epsilon` takes the contributions as they are, `gamma` favours those of the
    output's own sign by the factor `1 + gamma`, `z_plus` counts these alone. `epsilon`, a share of the layer's root
    mean square, keeps small sums from dividing. Scores and what biases and epsilon took sum up to the output.
    """
    if rule not in RULES:
        raise unknown_name("rule", str(rule), RULES)
    if epsilon < 0 or gamma < 0:
        raise UsageError(f"epsilon and gamma must not be below 0; got {epsilon} and {gamma}.")
    traced = trace(question.model, question.image)
    start = torch.zeros_like(traced.output)
    start[:, question.target] = traced.output[:, question.target]
    rules = _Rules(rule, epsilon, gamma)
    scores = carried_back(traced, start, rules)
    notes: tuple[str, ...] = (f"rule {rule}",)
    if rules.linearised:
        notes += (f"Without a rule, taken as linear at the image: {', '.join(sorted(rules.linearised))}.",)
    return Answer(scores=scores[0], promised=float(start.sum()), absorbed=rules.absorbed, notes=notes)


class _Rules:
    """What each kind of step does with relevance, and how much of it biases and stabilisers took."""

    def __init__(self, rule: str, epsilon: float, gamma: float) -> None:
        self.rule = rule
        self.epsilon = epsilon
        self.gamma = gamma
        self.absorbed = 0.0
        self.linearised: set[str] = set()

    def __call__(self, step: Step, given: Mapping[int, Tensor], positions: Sequence[int]) -> Mapping[int, Tensor]:
        if step.op in PASSING and len(positions) == 1:
            return {positions[0]: given[0]}
        if step.op in MOVING or step.op in SELECTING:
            return pulled_back(step, inputs_at(step, positions), given)
        if step.op in WEIGHTED and step.input_names[positions[0]] == "input" and len(positions) == 1:
            return self._weighted(step, given[0], positions[0])
        return self._summed(step, given, positions)

    def _summed(self, step: Step, given: Mapping[int, Tensor], positions: Sequence[int]) -> dict[int, Tensor]:
        """Share each output in proportion to the terms of its sum: LRP-epsilon."""
        inputs = inputs_at(step, positions)
        ratios = {number: self._ratio(step.outputs[number].tensor, r) for number, r in given.items()}
        found = {place: x * inputs[place] for place, x in pulled_back(step, inputs, ratios).items()}
        if is_linear(step, positions):
            nothing = step.replay_all({place: torch.zeros_like(x) for place, x in inputs.items()})
            self.absorbed += sum(float((s.double() * nothing[number]).sum()) for number, s in ratios.items())
        else:
            self.linearised.add(step.op)
            sums = (float((s.double() * step.outputs[number].tensor).sum()) for number, s in ratios.items())
            self.absorbed += sum(sums) - sum(float(share.double().sum()) for share in found.values())
        return found

    def _weighted(self, step: Step, relevance: Tensor, position: int) -> dict[int, Tensor]:
        if self.rule == "epsilon":
            return self._summed(step, {0: relevance}, [position])
        plain = 1.0 if self.rule == "gamma" else 0.0
        more = self.gamma if self.rule == "gamma" else 1.0
        shares, total = self._signed_sums(step, position, plain, more)
        ratio = self._ratio(total.values, relevance)
        self.absorbed += float((ratio.double() * total.bias).sum())
        found = torch.zeros_like(step.inputs[position].tensor)
        for part in shares:
            cotangent = {0: part.factor(ratio, step.output.tensor)}
            found += part.x * pulled_back(step, {position: part.x}, cotangent, part.others)[position]
        return {position: found}

    def _signed_sums(self, step: Step, position: int, plain: float, more: float) -> tuple[list[_Part], _Total]:
        """Return the contributions split by sign of value and weight, and what they sum up to for each output."""
        names = step.input_names
        weight_at, bias_at = names.index("weight"), names.index("bias") if "bias" in names else None
        x, weight = step.inputs[position].tensor, step.inputs[weight_at].tensor
        bias = None if bias_at is None else step.inputs[bias_at].tensor
        is_positive = step.output.tensor > 0
        parts, values = [], torch.zeros_like(step.output.tensor)
        for value_sign in (1, -1):
            for weight_sign in (1, -1):
                others = {weight_at: _part(weight, weight_sign)}
                if bias_at is not None and bias is not None:
                    others[bias_at] = torch.zeros_like(bias)
                part = _Part(_part(x, value_sign), others, value_sign * weight_sign, plain, more)
                values += part.factor(step.replay({position: part.x, **others}), step.output.tensor)
                parts.append(part)
        offset = torch.zeros_like(values)
        if bias is not None:
            shape = (1, -1, *(1 for _ in range(values.ndim - 2))) if step.op != "linear" else (-1,)
            own = bias.reshape(shape).expand_as(values)
            offset = own * torch.where((own > 0) == is_positive, plain + more, plain)
        return parts, _Total(values + offset, offset)

    def _ratio(self, values: Tensor, relevance: Tensor) -> Tensor:
        """Return relevance by value, stabilised; what the stabiliser takes is counted."""
        scale = self.epsilon * values.double().square().mean().sqrt().to(values.dtype)
        stable = values + scale * torch.where(values >= 0, 1.0, -1.0).to(values.dtype)
        ratio = torch.where(stable == 0, torch.zeros_like(stable), relevance / torch.where(stable == 0, 1.0, stable))
        self.absorbed += float((relevance.double() - ratio.double() * values).sum())
        return ratio


class _Part:
    """Contributions of one sign: values of one sign times weights of one sign."""

    def __init__(self, x: Tensor, others: dict[int, Tensor], sign: int, plain: float, more: float) -> None:
        self.x = x
        self.others = others
        self.sign = sign
        self.plain = plain
        self.more = more

    def factor(self, tensor: Tensor, output: Tensor) -> Tensor:
        """Return `tensor`, one number an output, times how much contributions of this sign count there."""
        is_same = (output > 0) == (self.sign > 0)
        return tensor * torch.where(is_same, self.plain + self.more, self.plain).to(tensor.dtype)


class _Total:
    """What all contributions to each output sum up to, and the bias among it."""

    def __init__(self, values: Tensor, bias: Tensor) -> None:
        self.values = values
        self.bias = bias


def _part(tensor: Tensor, sign: int) -> Tensor:
    return tensor.clamp(min=0) if sign > 0 else tensor.clamp(max=0)
