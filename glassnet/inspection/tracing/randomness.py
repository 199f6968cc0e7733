"""Random draws inside a pass: noticed, and drawn again the same."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Draws = tuple[tuple[torch.device, Tensor], ...]
"""The states of random generators by device."""


def generator_states(device: torch.device) -> Draws:
    """Return the states of the generators that a call on `device` may draw from: the CPU's, and its own."""
    states = [(torch.device("cpu"), torch.default_generator.get_state())]
    if device.type == "cuda":
        states.append((device, torch.cuda.get_rng_state(device)))
    elif device.type == "mps":
        states.append((device, torch.mps.get_rng_state()))
    return tuple(states)


def has_drawn(since: Draws) -> bool:
    """Tell whether any generator has moved since these states."""
    return any(not torch.equal(_state(device), state) for device, state in since)


@contextmanager
def drawn_again(states: Draws) -> Iterator[None]:
    """Set generators to these states for a block, and put them back."""
    before = [(device, _state(device)) for device, _ in states]
    try:
        for device, state in states:
            _set_state(device, state)
        yield
    finally:
        for device, state in before:
            _set_state(device, state)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Let a block draw from the generators as they stand (torch's, Python's, numpy's), then put them back."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_initialized():
        devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    states = tuple((device, _state(device)) for device in devices)
    python, numpy = random.getstate(), sys.modules.get("numpy.random")
    numpy_state = numpy.get_state() if numpy is not None else None
    try:
        yield
    finally:
        for device, state in states:
            _set_state(device, state)
        random.setstate(python)
        if numpy is not None:
            numpy.set_state(numpy_state)


def _state(device: torch.device) -> Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.default_generator.get_state()


def _set_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.default_generator.set_state(state)
