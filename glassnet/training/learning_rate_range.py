"""The learning-rate range test: which rates a network learns from, found in one short run of rising rates.

Smith, "Cyclical learning rates for training neural networks" (2017), section 3.3, with the rate rising by the same
factor at each step, as Howard and Gugger, "Deep learning for coders" (2020), chapter 13, have it.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet.data.loader import DeviceExamples
from glassnet.data.records import InputRecord
from glassnet.training.batches import TrainingBatches
from glassnet.training.config import TrainConfig
from glassnet.training.fit import stepping
from glassnet.training.objective import Objective
from glassnet.training.optimizer import AnyOptimizer, set_learning_rate
from glassnet.training.step import NonFiniteLossError, StepRule, Totals, training_step

LOW, HIGH, NUM_STEPS = 1e-5, 10.0, 100
"""The usual bounds of the rates, and the steps between them."""

ALL_DONE = "all steps done"

FEWEST_STEPS = 20
"""With fewer there is no slope to speak of."""

MOST_GROWTH = 4.0
"""The test ends where the smoothed loss is above so many times its minimum."""

REACH_SHARE = 0.03
"""A smoothed loss is the mean over this share of the steps on either side."""

LEAST_FALL = 6.0
"""A loss has fallen where its smoothed minimum lies so many standard errors of a smoothed loss below its start; of
a hundred losses that are nothing but noise, fewer than one in a hundred pass."""


@dataclass(frozen=True, kw_only=True)
class LearningRateRange:
    """The loss at rising learning rates, and the rates that follow from it."""

    learning_rates: tuple[float, ...]
    """One a step, each the same factor above the one before; only those whose loss was finite."""
    losses: tuple[float, ...]
    """Mean loss of each step's batch, before the update with that step's rate; without label smoothing."""
    smoothed_losses: tuple[float, ...]
    """Each the mean over the neighbouring steps, as many on either side; fewer near the ends."""
    suggestion: float | None
    """The rate at which the loss falls most steeply over the logarithm of the rate: the slope of the straight line
    through neighbouring losses, on the way down to the minimum. None where the loss does not fall beyond its noise."""
    tenth_of_lowest: float | None
    """The more careful rule: a tenth of the rate with the lowest smoothed loss (Howard and Gugger)."""
    lowest: float | None
    """The rate with the lowest smoothed loss; above it the loss no longer falls."""
    stop_reason: str
    """`all steps done`, or why the test ended before."""
    optimizer: str
    batch_size: int
    """Examples of one step."""

    def __repr__(self) -> str:
        rate = "none" if self.suggestion is None else f"{self.suggestion:.2g}"
        return f"LearningRateRange(suggestion={rate}, {len(self.losses)} steps, {self.stop_reason})"

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


def measure_range(
    model: nn.Module,
    train: DeviceExamples,
    record: InputRecord,
    config: TrainConfig,
    *,
    precision: str,
    objective: Objective,
    low: float = LOW,
    high: float = HIGH,
    num_steps: int = NUM_STEPS,
    on_step: Callable[[int], None] = lambda step: None,
) -> LearningRateRange:
    """Train `model` in place with a learning rate that rises from `low` to `high`, and see where the loss falls.

    Arguments and steps are those of `fit`, which see; the config is resolved. `on_step` hears how many steps are done.
    The global random state is neither read nor changed.

    Raises `NonFiniteLossError` where the first loss is not finite.
    """
    rates = tuple(low * (high / low) ** (step / (num_steps - 1)) for step in range(num_steps))
    reach = max(1, round(REACH_SHARE * num_steps))
    batches = TrainingBatches(train, record, config, objective.num_classes)
    config = replace(config, learning_rate=low)
    with stepping(model, train, record, config, precision=precision, objective=objective) as rule:
        model.train()
        losses, reason = _climb(rule, _endless(batches), rates, reach, on_step)
    return _judged(rates, losses, reach, reason, config, batches.step_size)


def check_range(low: float, high: float, num_steps: int) -> None:
    """Raise `UsageError` for bounds that are none, and for too few steps."""
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number; got {value!r}.")
    if not 0 < low < high:
        raise UsageError(f"low must be above 0 and below high; got low={low:g} and high={high:g}.")
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < FEWEST_STEPS:
        raise UsageError(f"num_steps (--steps) must be a whole number of at least {FEWEST_STEPS}; got {num_steps!r}.")


def _endless(batches: TrainingBatches) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch after the other."""
    for epoch in itertools.count(1):
        yield from batches.of_epoch(epoch, batches.generators(epoch))


def _climb(
    rule: StepRule,
    batches: Iterator[tuple[Tensor, Tensor]],
    rates: Sequence[float],
    reach: int,
    on_step: Callable[[int], None],
) -> tuple[list[float], str]:
    """Take a step at each rate; return the finite losses and why there are no more."""
    losses: list[float] = []
    lowest = math.inf
    for rate, (inputs, labels) in zip(rates, batches, strict=False):
        _set_rate(rule.optimizer, rate)
        totals = Totals.zero(labels.device)
        try:
            training_step(rule, inputs, labels, totals)
            losses.append(totals.read()[0])
        except NonFiniteLossError:
            if not losses:
                raise NonFiniteLossError(
                    "Expected a finite loss before the first step; it is not. Look for inputs that are not finite or "
                    "far too large, and for weights that are not."
                ) from None
            return losses, f"the loss was not finite at {rate:.2g}"
        on_step(len(losses))
        if len(losses) > 2 * reach:  # the newest mean over as many steps as a smoothed loss has
            latest = math.fsum(losses[-2 * reach - 1 :]) / (2 * reach + 1)
            lowest = min(lowest, latest)
            if 0 < MOST_GROWTH * lowest < latest:
                return losses, f"the loss was above {MOST_GROWTH:g} times its minimum at {rate:.2g}"
    return losses, ALL_DONE


def _set_rate(optimizer: AnyOptimizer, rate: float) -> None:
    """Set the rate of what `--lr` sets the rate of; what has a rate of its own keeps that."""
    for group in optimizer.param_groups:
        if "lr_ratio" in group:
            group["lr_ratio"] = group["lr"] / rate
    set_learning_rate(optimizer, rate)


def _judged(
    rates: Sequence[float], losses: Sequence[float], reach: int, reason: str, config: TrainConfig, batch_size: int
) -> LearningRateRange:
    rates, smoothed = rates[: len(losses)], smooth(losses, reach)
    suggested = steepest_descent([math.log(rate) for rate in rates], losses, reach)
    lowest = rates[lowest_position(losses, reach)]
    return LearningRateRange(
        learning_rates=tuple(rates),
        losses=tuple(losses),
        smoothed_losses=tuple(smoothed),
        suggestion=None if suggested is None else rates[suggested],
        tenth_of_lowest=None if suggested is None else lowest / 10,
        lowest=None if suggested is None else lowest,
        stop_reason=reason,
        optimizer=config.optimizer,
        batch_size=batch_size,
    )


def smooth(values: Sequence[float], reach: int) -> list[float]:
    """Return for each value the mean over `reach` neighbours on either side; near an end as many as it has there.

    The window is symmetric, so that the curve is not moved to higher rates, as a running mean would move it.
    """
    means = []
    for index in range(len(values)):
        side = min(reach, index, len(values) - 1 - index)
        means.append(math.fsum(values[index - side : index + side + 1]) / (2 * side + 1))
    return means


def lowest_position(values: Sequence[float], reach: int) -> int:
    """Return where the smoothed values are lowest, among those smoothed over as many neighbours as there can be.

    Near the ends single values, which chance may have made low, would count as much as a mean.
    """
    smoothed = smooth(values, reach)
    full = range(min(reach, (len(values) - 1) // 2), max(len(values) - reach, len(values) // 2 + 1))
    return min(full, key=lambda index: smoothed[index])


def steepest_descent(places: Sequence[float], values: Sequence[float], reach: int) -> int | None:
    """Return the position, up to the smoothed minimum, where the values fall most steeply over `places`.

    The slope is that of the least-squares line through `2 * reach` neighbours on either side. None where the values
    are too few, or where the smoothed minimum lies within the noise of the start.
    """
    side = 2 * reach
    if len(values) < 2 * side + 2:
        return None
    bottom, smoothed = lowest_position(values, reach), smooth(values, reach)
    start = math.fsum(values[: side + 1]) / (side + 1)
    error = _noise(values[: max(bottom, len(values) // 2) + 1]) / math.sqrt(2 * reach + 1)
    if not smoothed[bottom] < start - LEAST_FALL * error:
        return None
    slopes = {
        index: _slope(places[index - side : index + side + 1], values[index - side : index + side + 1])
        for index in range(side, min(bottom, len(values) - 1 - side) + 1)
    }
    steepest = min(slopes, key=lambda index: slopes[index], default=None)
    return steepest if steepest is not None and slopes[steepest] < 0 else None


def _noise(values: Sequence[float]) -> float:
    """Return the standard deviation of the values' noise, whatever their course, from how far neighbours differ.

    The median of the difference of two normal numbers is 0.954 of their standard deviation.
    """
    return statistics.median(abs(after - before) for before, after in itertools.pairwise(values)) / 0.954


def _slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the slope of the least-squares line through the points."""
    x, y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    rise = math.fsum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return rise / math.fsum((a - x) ** 2 for a in xs)
