"""Where and in which number format to compute."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext

import torch

from glassnet._errors import UsageError, unknown_name

PRECISIONS = ("auto", "fp32", "bf16")
_BACKENDS = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device called `name`: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`. `auto` takes an accelerator if any.

    Raises `UsageError` for an unknown name and for a device that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name.split(":")[0] not in _BACKENDS:
        raise unknown_name("device", name, _BACKENDS, "A number chooses among several, as in cuda:1.")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"A device is a kind and a number, such as cpu, cuda or cuda:1; got '{name}'.") from None
    is_there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available() and not device.index,
    }
    if not is_there[device.type]:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise UsageError(
            f"Device '{name}' was asked for; torch {torch.__version__} sees {', '.join(there)} here. "
            "Use --device auto to take the best there is."
        )
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Return `fp32` or `bf16`; `auto` takes bf16 on a GPU that multiplies it natively, and fp32 elsewhere.

    On a CPU, bf16 gains only with large batches and costs with small ones, where converting outweighs multiplying:
    it is for the caller to choose. Raises `UsageError` for an unknown name.
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    if name != "auto":
        return name
    is_native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if is_native else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context that runs matrix work in bf16 where `precision` says so, and nothing otherwise."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def describe_device(device: torch.device) -> str:
    """Return the device in words for a run's record, for example `cpu (2 threads, x86_64)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads, {platform.machine()})"
    return str(device)
