"""Going back to before a step whose loss was lost: not only the weights must be those before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from glassnet.training.state import random_states, set_random_states


class StepUndo:
    """What a step moves before its loss is known: statistics of normalisation, and every generator.

    On a CPU only, where the loss is known before the update; elsewhere the step is long done when its loss is read,
    and there is nothing to go back to but the last state that was saved.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self.is_used = device.type == "cpu"
        self.buffers = list(model.buffers()) if self.is_used else []
        self.values = [buffer.clone() for buffer in self.buffers]

    def note(self, generators: Mapping[str, torch.Generator]) -> None:
        """Keep how things are, before the batch of a step is drawn; in a hundredth of a millisecond."""
        if not self.is_used:
            return
        for value, buffer in zip(self.values, self.buffers, strict=True):
            value.copy_(buffer)
        self.states = {purpose: generator.get_state() for purpose, generator in generators.items()}
        self.random_states = random_states(self.device)

    def restore(self, generators: Mapping[str, torch.Generator]) -> None:
        """Put things back to how they were when they were last noted."""
        if not self.is_used:
            return
        for value, buffer in zip(self.values, self.buffers, strict=True):
            buffer.copy_(value)
        for purpose, generator in generators.items():
            generator.set_state(self.states[purpose])
        set_random_states(self.random_states, self.device)
