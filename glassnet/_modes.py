"""Module modes as context managers: what a block changes is put back afterwards, also after an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode and switch gradients off; then restore each module's own mode.

    `model.eval()` alone forgets that some modules may have been in evaluation mode before (a frozen batch norm).
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, is_training in modes:
            module.training = is_training
