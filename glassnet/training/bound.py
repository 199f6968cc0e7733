"""What bounds a training: where its time went, from the clock of the whole and a profile of a few of its steps."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

FIRST_STEP = 8
"""Steps before the first that is profiled: until then torch picks kernels and takes memory."""
COST_STEPS = 5
"""Steps whose time the profile of one step costs, at most, reading it included."""
LARGEST_SHARE = 0.01
"""The profile costs at most this share of the training."""
MOST_STEPS = 3

PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("optimizer", ("optimizer", "_fused_", "_foreach_")),
    (
        "convolution backward",
        ("convolution_backward", "conv2d_backward", "convolution_overrideable_backward", "convolutionbackward"),
    ),
    ("convolution", ("conv",)),
    ("pooling", ("pool",)),
    ("normalisation", ("_norm", "normalisation")),
    ("matrix products", ("addmm", "aten::mm", "bmm", "matmul", "linear", "einsum")),
    ("loss", ("log_softmax", "nll_loss", "mse_loss", "cross_entropy")),
    ("activations", ("relu", "threshold", "clamp", "tanh", "sigmoid", "gelu", "silu", "elu", "hardtanh")),
    ("copies", ("copy", "clone", "fill_", "zero_", "empty", "contiguous", "memcpy", "memset")),
)
"""Kinds of work by parts of torch's names for its operations; the first that matches counts."""


def part_of(name: str) -> str:
    """Return the kind of work of an operation, by torch's name for it: `aten::convolution_backward` and the like."""
    lowered = name.lower()
    return next((part for part, words in PARTS if any(word in lowered for word in words)), "other operations")


@dataclass
class StepProfile:
    """Profiles a few steps of a training as they happen: nothing is computed twice, and no result changes."""

    num_steps: int
    """Steps of the whole training; 0 profiles none."""
    device: torch.device
    self_times: dict[str, float] = field(default_factory=dict)
    """Microseconds by kind of work, over the profiled steps."""
    _profiler: Any = None

    def watching(self, step: int) -> AbstractContextManager[object]:
        """Return the context to run the training's step number `step` (from 0) in."""
        if not self._is_watched(step):
            return nullcontext()
        return _Watch(self)

    def _is_watched(self, step: int) -> bool:
        count = min(MOST_STEPS, int(self.num_steps * LARGEST_SHARE / COST_STEPS))
        return FIRST_STEP <= step < FIRST_STEP + count

    def add(self, name: str, microseconds: float) -> None:
        """Count an operation's own time, without that of what it calls."""
        part = part_of(name)
        self.self_times[part] = self.self_times.get(part, 0.0) + microseconds

    def shares(self) -> dict[str, float]:
        """Return the share of a step by kind of work; empty where no step was profiled."""
        total = sum(self.self_times.values())
        return {part: time / total for part, time in self.self_times.items()} if total else {}


class _Watch:
    def __init__(self, profile: StepProfile) -> None:
        self.profile = profile
        self.profiler = _profiler(profile.device)

    def __enter__(self) -> None:
        self.profiler.__enter__()

    def __exit__(self, *error: object) -> None:
        try:
            self.profiler.__exit__(None, None, None)
        except Exception:  # it is off by then, and does not understand what it recorded; the training goes on
            return
        for event in self.profiler.function_events or ():
            time = event.self_cpu_time_total if self.profile.device.type == "cpu" else event.self_device_time_total
            self.profile.add(event.name, time)


def _profiler(device: torch.device) -> Any:
    """Return torch's profiler; on a CPU the older one, which starts faster and writes nothing to the error stream."""
    if device.type == "cpu":
        try:
            from torch.autograd.profiler_legacy import profile
        except ImportError:  # a torch that has dropped it
            return torch.autograd.profiler.profile()
        return profile()
    return torch.autograd.profiler.profile(use_device=device.type)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Where the time of a training went; `str()` is the line that says so."""

    shares: Mapping[str, float]
    """Share of the whole time by kind of work, the largest first."""
    kind: str
    """`compute`, `data`, `validation` or `saving`: what takes most."""
    peak_bytes: int
    """Most memory that was held at once: by the process on a CPU, by tensors on an accelerator."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {"kind": self.kind, "shares": dict(self.shares), "peak_bytes": self.peak_bytes}

    def __str__(self) -> str:
        largest = [f"{part} {share:.0%}".replace("%", " %") for part, share in list(self.shares.items())[:3]]
        line = f"{self.kind.capitalize()}-bound: {', '.join(largest)}{HINTS.get(self.kind, '')}"
        return f"{line}. Peak memory {self.peak_bytes / 2**30:.2f} GiB"


HINTS = {
    "data": "; try a lighter augment, or a smaller input size",
    "validation": "; try validate_every=5, or a smaller hold-out split",
    "saving": "; try a larger checkpoint_s, or a faster disk",
}


def find_bound(seconds: Mapping[str, float], step_shares: Mapping[str, float], device: torch.device) -> Bound:
    """Return what bounded a training.

    `seconds` is the time by `decoding`, `data`, `step`, `validation` and `saving`; `step_shares` splits that of the
    steps by kind of work.
    """
    total = sum(seconds.values()) or 1.0
    step_share = seconds.get("step", 0.0) / total
    shares = {STEP_PARTS[part]: time / total for part, time in seconds.items() if part != "step"}
    split = step_shares or {"steps": 1.0}
    shares |= {part: share * step_share for part, share in split.items()}
    kinds = {
        "compute": step_share,
        "data": (seconds.get("decoding", 0.0) + seconds.get("data", 0.0)) / total,
        "validation": seconds.get("validation", 0.0) / total,
        "saving": seconds.get("saving", 0.0) / total,
    }
    return Bound(
        shares=dict(sorted(shares.items(), key=lambda item: -item[1])),
        kind=max(kinds, key=lambda kind: kinds[kind]),
        peak_bytes=peak_bytes(device),
    )


STEP_PARTS = {
    "decoding": "decoding images",
    "data": "gathering and augmenting batches",
    "validation": "validation",
    "saving": "saving",
}


def peak_bytes(device: torch.device) -> int:
    """Return the most memory held so far: by tensors on a GPU, else by this process; 0 where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)
