"""Where and in which number format to compute."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext

import torch

from glassnet._errors import UsageError, unknown_name

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
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
    """Return `fp32`, `bf16` or `fp16`; `auto` takes bf16 where the hardware multiplies it natively, and fp32 elsewhere.

    Natively are GPUs of compute capability 8.0 or above, and CPUs with AVX-512 BF16 or AMX; without, a CPU is slower
    in bf16 by orders of magnitude. Raises `UsageError` for an unknown name.
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    if name != "auto":
        return name
    return "bf16" if multiplies_bf16(device) else "fp32"


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether the hardware has instructions for products in bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public name for them
    return device.type == "cpu" and any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context that runs matrix work in bf16 or fp16 where `precision` says so, and nothing otherwise."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, AUTOCAST[precision])
    return nullcontext()


def describe_device(device: torch.device) -> str:
    """Return the device in words for a run's record, for example `cpu (2 threads, x86_64)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads, {platform.machine()})"
    return str(device)
