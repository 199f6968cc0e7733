"""Random numbers by purpose.

Every use of chance draws from a generator of its own, derived from the run's one seed and the name of the
purpose. So a change to one use (the display, an augmentation, a further epoch) never shifts the numbers of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for `purpose` under `seed`; the same arguments give the same number everywhere."""
    words = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def seeded_generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for one purpose, for example `seeded_generator(seed, "shuffle", epoch)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global generators for a block and put them back afterwards, also after an error.

    For code that draws from the global generators and takes no generator: `torch.nn.init`, dropout.
    """
    # Not torch.manual_seed: where CUDA has not started, it would queue its seed for the user's own later draws.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    number = derive_seed(seed, *purpose)
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(number)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(number)
        if mps_state is not None:
            torch.mps.manual_seed(number)
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)
