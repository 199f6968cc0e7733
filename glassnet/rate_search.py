"""The learning-rate range test of a model on a data set: `gn.learning_rate_range`."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._modes import refuse_lazy
from glassnet.data.examples import Dataset
from glassnet.data.loader import to_device
from glassnet.matching import initialise_from_data, match_model
from glassnet.training.config import TrainConfig
from glassnet.training.learning_rate_range import HIGH, LOW, NUM_STEPS, LearningRateRange, check_range, measure_range
from glassnet.training.own_loss import LossFunction


def learning_rate_range(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig | None = None,
    *,
    loss: LossFunction | None = None,
    low: float = LOW,
    high: float = HIGH,
    num_steps: int = NUM_STEPS,
    on_step: Callable[[int], None] = lambda step: None,
) -> LearningRateRange:
    """Train a copy of `model` with a learning rate that rises from `low` to `high`, and see where the loss falls.

    `model`, `data`, `config` and `loss` are those of `gn.train`, and so are the steps: order, augmentation,
    precision, accumulation. Epochs, schedule, warm-up, patience and moving average play no part. With
    `optimizer="muon"` the rate is that of its kernels; what has a rate of its own keeps it.

    The test ends early where the smoothed loss is above four times its minimum, or a loss is not finite. `on_step`
    hears how many steps are done. The model is left as it is: weights, gradients, modes, device, and the random state
    too. The same arguments give the same result, bit for bit, on a CPU.

    Raises `UsageError` for what does not go together, `NonFiniteLossError` where the first loss is not finite.
    """
    check_range(low, high, num_steps)
    if isinstance(model, nn.Module):
        model = _copy_of(model)
    if isinstance(loss, nn.Module):
        loss = copy.deepcopy(loss)
    matched = match_model(model, data, config, loss)
    examples = to_device(data.train, matched.preprocessing, matched.device, matched.config.memory_budget_bytes)
    initialise_from_data(model, examples, matched.preprocessing)
    return measure_range(
        model,
        examples,
        matched.preprocessing,
        matched.config,
        precision=matched.precision,
        objective=matched.objective,
        low=low,
        high=high,
        num_steps=num_steps,
        on_step=on_step,
    )


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
