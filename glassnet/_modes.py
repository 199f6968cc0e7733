"""Running a model so that nothing of it is changed: modes and random state are put back, also after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from glassnet._errors import UsageError
from glassnet._seed import seeded


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode and switch gradients off; then restore each module's own mode.

    `model.eval()` alone forgets that some modules may have been in evaluation mode before (a frozen batch norm), and
    a model may have overridden it. A model that draws in evaluation mode too (`F.dropout` without `training=`) draws
    from a fixed seed.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad(), seeded(0, "evaluation"):
            yield
    finally:
        for module, is_training in modes:
            module.training = is_training


def refuse_lazy(model: nn.Module) -> None:
    """Raise `UsageError` for a model with lazy layers that never ran: any pass would draw and fix their weights."""
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise UsageError(
            f"The model must have its parameters; '{lazy[0]}' gets its shape in the first forward pass (a lazy layer). "
            "Run the model once on a batch first."
        )
