"""The learning rate over the steps of a run: pure functions of the share of the run that is done.

Each returns the factor by which the peak learning rate is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable


def constant(done: float) -> float:
    """Factor 1 throughout."""
    return 1.0


def linear(done: float) -> float:
    """Factor falling in a straight line from 1 to 0."""
    return 1.0 - done


def cosine(done: float) -> float:
    """Factor falling along half a cosine from 1 to 0. Loshchilov and Hutter, "SGDR" (2017), equation 5."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def step(done: float) -> float:
    """Factor 1, then 0.1 from half of the run on, then 0.01 from three quarters. He et al. (2016), section 4.2."""
    num_drops = int(done >= 0.5) + int(done >= 0.75)
    return (1.0, 0.1, 0.01)[num_drops]


def exponential(done: float) -> float:
    """Factor falling by the same ratio at each step, from 1 to 0.01."""
    return math.pow(0.01, done)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "one-cycle": cosine,
    "step": step,
    "exponential": exponential,
    "plateau": constant,
}
"""After the warm-up. `one-cycle` is a long warm-up followed by the cosine: Smith, "Super-convergence" (2018).
`plateau` is constant but for `plateau_factor`, which knows what happened."""

PLATEAU_PATIENCE = 3
PLATEAU_DROP = 0.1
PLATEAU_THRESHOLD = 1e-4
"""A loss is lower where it is so by more than this share of the lowest; as in torch's `ReduceLROnPlateau`."""

WARMUPS = {"one-cycle": 0.2}
"""Share of the steps spent warming up where the config does not say; 0 for the others."""


def learning_rate_factor(schedule: str, step: int, num_steps: int, warmup: float | None = None) -> float:
    """Return the factor of the peak learning rate at `step` (0 is the first) of `num_steps`.

    During the warm-up it rises in a straight line and reaches 1 with the last warm-up step; then the schedule runs
    over the steps that remain.
    """
    share = WARMUPS.get(schedule, 0.0) if warmup is None else warmup
    num_warmup = round(share * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    return SCHEDULES[schedule]((step - num_warmup) / (num_steps - num_warmup))


def plateau_factor(losses: Iterable[float], patience: int) -> float:
    """Return the factor after epochs with the hold-out `losses`: a tenth for each plateau.

    A plateau is more than `patience` epochs without a loss below the lowest; then the count begins anew. An epoch
    without a loss (nan) is not counted.
    """
    factor, lowest, num_waited = 1.0, math.inf, 0
    for loss in losses:
        if math.isnan(loss):
            continue
        if math.isinf(lowest) or loss < lowest - PLATEAU_THRESHOLD * abs(lowest):
            lowest, num_waited = loss, 0
        else:
            num_waited += 1
        if num_waited > patience:
            factor, num_waited = factor * PLATEAU_DROP, 0
    return factor
