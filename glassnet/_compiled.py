"""Compiled networks: `torch.compile`, and a clear word where it cannot."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from glassnet._errors import WorkError


def compiled(model: nn.Module, *, is_frozen: bool = False) -> nn.Module:
    """Return `model` compiled; the first call compiles it, and shares parameters and statistics with `model`.

    With `is_frozen` the weights count as constants, which are folded into one another and laid out for the machine:
    faster, for a model in evaluation mode, without gradients, whose weights no longer change.

    The first call raises `WorkError` where the model, or the machine, which needs a C++ compiler, does not allow it.
    """
    return _Compiled(model, is_frozen)


class _Compiled(nn.Module):
    def __init__(self, model: nn.Module, is_frozen: bool) -> None:
        super().__init__()
        self.compiled = torch.compile(model, options={"freezing": True}) if is_frozen else torch.compile(model)

    def forward(self, *inputs: Any) -> Any:
        try:
            return self.compiled(*inputs)
        except Exception as error:
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            raise WorkError(f"Could not compile the network: {_reason(error)}. Leave --compile out.") from None


def _reason(error: Exception) -> str:
    """Return the first line of a message, and the next where the first only says who speaks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")
