"""The learning-rate range test: which rates a network learns from, found in one short run of rising rates.

Smith, "Cyclical learning rates for training neural networks" (2017), section 3.3, with the rate rising by the same
factor at each step, as Howard and Gugger, "Deep learning for coders" (2020), chapter 13, have it.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from glassnet._device import resolve_device, resolve_precision
from glassnet._errors import UsageError
from glassnet._modes import refuse_lazy
from glassnet._seed import seeded, seeded_generator
from glassnet.data.augmentation import parse_augmentation, random_shift
from glassnet.data.examples import Dataset
from glassnet.data.loader import DeviceExamples, shuffled_order, to_device
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord, make_record
from glassnet.evaluation.prediction import num_outputs
from glassnet.models import ARCHITECTURES, ModelSpec
from glassnet.training.config import TrainConfig
from glassnet.training.fit import check_batch_size
from glassnet.training.objective import Objective, make_objective
from glassnet.training.optimizer import build_optimizer, set_learning_rate
from glassnet.training.step import NonFiniteLossError, Totals, training_step

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

    def __repr__(self) -> str:
        rate = "none" if self.suggestion is None else f"{self.suggestion:.2g}"
        return f"LearningRateRange(suggestion={rate}, {len(self.losses)} steps, {self.stop_reason})"

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


def learning_rate_range(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig | None = None,
    *,
    low: float = 1e-5,
    high: float = 10,
    num_steps: int = 100,
    on_step: Callable[[int], None] = lambda step: None,
) -> LearningRateRange:
    """Train a copy of `model` with a learning rate that rises from `low` to `high`, and see where the loss falls.

    The batches come in the order and with the augmentation of training, `config`'s (by default `TrainConfig()` with a
    batch that fits the data), for `num_steps` steps; its epochs, learning rate, schedule, warm-up and patience play no
    part. The test ends early where the smoothed loss is above four times its minimum, or a loss is not finite.
    `on_step` hears how many steps are done. The model is left as it is: weights, gradients, modes, device, and the
    random state too. The same arguments give the same result, bit for bit, on a CPU.

    Raises `UsageError` for what does not go together, `NonFiniteLossError` where the first loss is not finite.
    """
    _check_range(low, high, num_steps)
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a model (nn.Module); got {type(model).__name__}. gn.build_model makes one.")
    if not isinstance(data, Dataset):
        raise UsageError(f"Expected a data set from gn.load_data, with its splits; got {type(data).__name__}.")
    if config is None:
        config = TrainConfig(batch_size=max(1, min(TrainConfig().batch_size, len(data.train))))
    elif not isinstance(config, TrainConfig):
        raise UsageError(f"Expected a config, gn.TrainConfig(batch_size=...); got {config!r}.")
    config = replace(config, learning_rate=low).resolved()
    check_batch_size(config.batch_size, len(data.train))
    device = resolve_device(config.device)
    record = make_record(data.train, _input_size(model, data), data.framing)
    network = _copy_of(model).to(device)
    objective = _objective(network, data, record, config)
    rates = tuple(low * (high / low) ** (step / (num_steps - 1)) for step in range(num_steps))
    reach = max(1, round(REACH_SHARE * num_steps))
    with seeded(config.seed, "training"):
        batches = _batches(to_device(data.train, record, device), record, objective, config)
        losses, reason = _climb(network, batches, objective, config, rates, reach, on_step)
    return _judged(rates, losses, reach, reason, config)


def _check_range(low: float, high: float, num_steps: int) -> None:
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number; got {value!r}.")
    if not 0 < low < high:
        raise UsageError(f"low must be above 0 and below high; got low={low:g} and high={high:g}.")
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < FEWEST_STEPS:
        raise UsageError(f"num_steps must be a whole number of at least {FEWEST_STEPS}; got {num_steps!r}.")


def _input_size(model: nn.Module, data: Dataset) -> tuple[int, int] | None:
    """Height and width that `build_model` built the model for; None where it did not, and for numbers."""
    spec = getattr(model, "spec", None)
    if not isinstance(spec, ModelSpec) or not data.train.is_image or len(spec.input_shape) != 3:
        return None
    return spec.input_shape[1], spec.input_shape[2]


def _copy_of(model: nn.Module) -> nn.Module:
    """Return a copy that shares nothing with the model, so that there is nothing to put back.

    What earlier passes left in attributes (auxiliary logits, a visualiser's maps) hangs on a graph, which cannot be
    copied and need not be.
    """
    refuse_lazy(model)
    left = [value for module in model.modules() for value in vars(module).values()]
    parts = [part for value in left for part in (value if isinstance(value, list | tuple) else (value,))]
    memo = {id(part): part.detach().clone() for part in parts if isinstance(part, Tensor) and not part.is_leaf}
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # a module may hold anything: an open file, a lock
        raise UsageError(
            f"The test trains a copy of the model; this one cannot be copied: {str(error) or type(error).__name__}. "
            "Keep in it what copy.deepcopy can copy."
        ) from None


def _objective(model: nn.Module, data: Dataset, record: InputRecord, config: TrainConfig) -> Objective:
    """Match model, data and config; raise `UsageError` where they do not fit."""
    spec = getattr(model, "spec", None)
    usual = ARCHITECTURES[spec.name].losses if isinstance(spec, ModelSpec) else {}
    found = num_outputs(model, record)
    objective = make_objective(config, record.class_names, found, usual)
    if not objective.is_classification and found != data.train.num_outputs:
        raise UsageError(
            f"The data has {data.train.num_outputs} values to predict, and the model has {found} outputs. "
            f"Build it with num_classes={data.train.num_outputs}."
        )
    augmentation, is_image = parse_augmentation(config.augment), isinstance(record, Preprocessing)
    if not is_image and (config.max_shift or augmentation.transforms):
        name = "max_shift" if config.max_shift else "augment"
        raise UsageError(f"{name} changes images, and these inputs are numbers. Leave it out.")
    if is_image and config.max_shift >= min(record.input_shape[1:]):
        raise UsageError(f"max_shift must be below the input size of {min(record.input_shape[1:])} pixels.")
    if augmentation.mixes_labels and objective.loss.name != "cross-entropy":
        raise UsageError(f"augment mixes labels, which loss '{objective.loss.name}' does not take.")
    augmentation.check(record.input_shape)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError("The model has nothing to train: none of its parameters requires a gradient.")
    return objective


def _batches(
    train: DeviceExamples, record: InputRecord, objective: Objective, config: TrainConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of training, normalised, one epoch after the other without end."""
    augmentation = parse_augmentation(config.augment)
    fill = record.fill if isinstance(record, Preprocessing) else 0
    for epoch in itertools.count(1):
        changes = seeded_generator(config.seed, "augmentation", epoch)
        shifts = seeded_generator(config.seed, "shift", epoch)
        order = shuffled_order(len(train), config.seed, epoch, train.device)
        for inputs, labels in train.batches(config.batch_size, order):
            if config.max_shift:
                inputs = random_shift(inputs, config.max_shift, fill, shifts)
            if augmentation.transforms:
                inputs, labels = augmentation(inputs, labels, changes, num_classes=objective.num_classes, fill=fill)
            yield record.normalise(inputs), labels


def _climb(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    objective: Objective,
    config: TrainConfig,
    rates: Sequence[float],
    reach: int,
    on_step: Callable[[int], None],
) -> tuple[list[float], str]:
    """Take a step at each rate; return the finite losses and why there are no more."""
    optimizer, losses, lowest = build_optimizer(model, config), [], math.inf
    precision = resolve_precision(config.precision, next(model.parameters()).device)
    model.train()
    for rate, (inputs, labels) in zip(rates, batches, strict=False):
        set_learning_rate(optimizer, rate)
        try:
            losses.append(_step(model, optimizer, inputs, labels, objective, precision, config.max_gradient_norm))
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
    return losses, "all steps done"


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    objective: Objective,
    precision: str,
    max_gradient_norm: float | None,
) -> float:
    """Take one training step; return the batch's mean loss before it. Raises `NonFiniteLossError`."""
    totals = Totals.zero(labels.device)
    training_step(
        model,
        optimizer,
        inputs,
        labels,
        objective,
        totals,
        precision=precision,
        max_gradient_norm=max_gradient_norm,
    )
    return totals.read()[0]


def _judged(
    rates: Sequence[float], losses: Sequence[float], reach: int, reason: str, config: TrainConfig
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
        batch_size=config.batch_size,
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
