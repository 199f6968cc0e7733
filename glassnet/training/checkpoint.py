"""Weights and training state on disk, written so that a reader never meets half a file."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from glassnet._errors import WorkError
from glassnet._modes import refuse_lazy
from glassnet.training.fit import EpochEnd
from glassnet.training.history import History


def _umask() -> int:
    """Return the mask of new files' modes; only setting it tells it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


UMASK = _umask()
"""Read once, because reading it changes it for a moment. mkstemp's own mode would hide a run from everybody else."""


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, and put it in place in one move.

    Raises `WorkError` where the folder cannot be written or the disk is full; `path` is then as it was.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from None
    temporary = Path(name)
    try:
        temporary.chmod(0o666 & ~UMASK)
        write(temporary)
        with temporary.open("r+b") as file:  # Windows flushes only what it may write
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> WorkError:
    return WorkError(
        f"Could not write {path}: {error.strerror or error}. Free space or make the folder writable, then try again."
    )


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def write_text(path: Path, text: str) -> None:
    """Write text atomically in UTF-8."""
    write_bytes(path, text.encode())


def save_weights(path: Path, weights: dict[str, Tensor], epoch: int) -> None:
    """Write the `state_dict` of an epoch as safetensors. Tensors that share memory are written once each.

    Equal weights give equal files: safetensors writes metadata in no fixed order, so there is one entry only.
    """
    separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    content = save(separate, {"epoch": str(epoch)})
    write_bytes(path, content)


def load_weights(path: Path, model: nn.Module) -> int:
    """Load the safetensors of a run into `model`; return the epoch they are of.

    Raises `WorkError` that names a damaged file, or what does not fit.
    """
    refuse_lazy(model)
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            epoch = int((file.metadata() or {}).get("epoch", ""))
    except (SafetensorError, OSError, ValueError) as error:
        raise WorkError(f"Expected weights as safetensors in {path}; it does not load: {error}.") from None
    own = model.state_dict()
    missing, foreign = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if missing or foreign:
        raise WorkError(
            f"The weights in {path} are not those of this model. Missing: {', '.join(missing[:5]) or 'none'}; "
            f"foreign: {', '.join(foreign[:5]) or 'none'}. Was the run folder mixed with another?"
        )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise WorkError(
                f"The weights in {path} do not fit: '{name}' must be {tuple(own[name].shape)}, "
                f"got {tuple(tensor.shape)}. Was the run folder mixed with another?"
            )
    model.load_state_dict(weights)
    return epoch


def save_training_state(path: Path, end: EpochEnd) -> None:
    """Write everything it takes to go on after this epoch, as tensors and plain values."""
    state = {
        "format": 1,
        "weights": end.weights,
        "optimizer": end.optimizer,
        "random_state": end.random_state,
        "history": end.history.to_csv(),
    }
    buffer = io.BytesIO()  # torch.save into a full disk raises errors that do not name it
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_training_state(path: Path) -> tuple[dict[str, Any], History]:
    """Read what `save_training_state` wrote, without executing anything; return the state and its history.

    Raises `WorkError` for a file that is missing, damaged or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state, History.from_csv(state["history"])
    except Exception as error:  # torch.load raises a dozen types on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WorkError(f"Expected a training state in {path}; it does not load: {reason}") from None
