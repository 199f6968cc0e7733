"""Deletion and insertion: whether the output follows the places that the scores call important.

Petsiuk, Das and Saenko, "RISE: randomized input sampling for explanation of black-box models" (2018), section 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet.inspection.attribution.question import Question

NUM_STEPS = 32
"""Into which the places are cut, or one a place where there are fewer."""


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """The target's output while places are taken out of the image, or put into the baseline, the highest first."""

    shares: tuple[float, ...]
    """Of the places changed so far, 0 to 1."""
    deletion: tuple[float, ...]
    """The output by share. The probability by softmax; where the model has one output, that output."""
    insertion: tuple[float, ...]

    @property
    def deletion_score(self) -> float:
        """Area under the deletion curve: low where the scores are right."""
        return _area(self.shares, self.deletion)

    @property
    def insertion_score(self) -> float:
        """Area under the insertion curve: high where the scores are right."""
        return _area(self.shares, self.insertion)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return {**self.__dict__, "deletion_score": self.deletion_score, "insertion_score": self.insertion_score}


def faithfulness(question: Question, order_by: Tensor) -> Faithfulness:
    """Measure both curves; `order_by` is a score for each place, `(H, W)`."""
    flat = order_by.flatten()
    rank = torch.empty_like(flat, dtype=torch.int64)
    rank[flat.argsort(descending=True, stable=True)] = torch.arange(len(flat), device=flat.device)
    steps = min(NUM_STEPS, len(flat))
    counts = [round(step * len(flat) / steps) for step in range(steps + 1)]
    parts: list[tuple[Tensor, Tensor]] = []
    size = max(1, question.batch_size // 2)
    for start in range(0, len(counts), size):
        parts.append(_changed(question, rank.reshape(order_by.shape), counts[start : start + size]))
    deletion, insertion = (torch.cat(curves).tolist() for curves in zip(*parts, strict=True))
    return Faithfulness(
        shares=tuple(count / len(flat) for count in counts), deletion=tuple(deletion), insertion=tuple(insertion)
    )


def _changed(question: Question, rank: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
    limits = torch.tensor(counts, device=rank.device).reshape(-1, *(1,) * (question.image.ndim - 1))
    is_taken = rank < limits
    without = torch.where(is_taken, question.baseline, question.image)
    only = torch.where(is_taken, question.image, question.baseline)
    scores = question.scores(torch.cat([without, only])).double()
    shown = scores.softmax(1) if scores.shape[1] > 1 else scores
    deletion, insertion = shown[:, question.target].chunk(2)
    return deletion, insertion


def _area(shares: tuple[float, ...], values: tuple[float, ...]) -> float:
    """Return the area under a curve by the trapezium rule."""
    pairs = zip(shares, shares[1:], values, values[1:], strict=False)
    return math.fsum((after - before) * (low + high) / 2 for before, after, low, high in pairs)
