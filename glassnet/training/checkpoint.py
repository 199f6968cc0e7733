"""Weights and training state on disk, written so that a reader never meets half a file."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from glassnet._errors import WorkError
from glassnet._modes import refuse_lazy
from glassnet.training.state import TrainingState

WEIGHTS_METADATA = "glassnet"
"""The entry of a safetensors file that says, as JSON, of which epoch the weights are, and their digest."""
MAGIC = b"glassnet-state-2"
"""Stands between a training state and its digest."""
STATE_FORMAT = 2


def _umask() -> int:
    """Return the mask of new files' modes; only setting it tells it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


UMASK = _umask()
"""Read once, because reading it changes it for a moment. mkstemp's own mode would hide a run from everybody else."""


def write_atomically(path: Path, write: Callable[[Path], None], before_move: Callable[[], None] = lambda: None) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, and put it in place in one move.

    `before_move` is called when the new file is safe and the old one still there. The folder is flushed as well, so
    that after a loss of power the old content is there or the new.

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
        before_move()
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """See to it that what was made, moved or removed in a folder is so after a loss of power too."""
    if os.name != "posix":  # elsewhere folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> WorkError:
    return WorkError(
        f"Could not write {path}: {error.strerror or error}. Free space or make the folder writable, then try again."
    )


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that writes of `path` left beside it when their process was killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        leftover.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, before_move: Callable[[], None] = lambda: None) -> None:
    """Write bytes atomically, as `write_atomically` does."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write, before_move)


def write_text(path: Path, text: str) -> None:
    """Write text atomically in UTF-8."""
    write_bytes(path, text.encode())


def save_weights(path: Path, weights: dict[str, Tensor], epoch: int) -> None:
    """Write the `state_dict` of an epoch as safetensors, with a digest; tensors that share memory once each.

    Equal weights give equal files: safetensors writes metadata in no fixed order, so there is one entry only.
    """
    separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    about = json.dumps({"epoch": epoch, "sha256": _digest(separate)})
    write_bytes(path, save(separate, {WEIGHTS_METADATA: about}))


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(path: Path, model: nn.Module) -> int:
    """Load the safetensors of a run into `model`; return the epoch they are of.

    Raises `WorkError` that names a damaged file, or what does not fit.
    """
    refuse_lazy(model)
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            about = json.loads((file.metadata() or {}).get(WEIGHTS_METADATA, "null"))
        epoch, digest = int(about["epoch"]), about["sha256"]
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise WorkError(
            f"Expected weights as safetensors in {path}; it does not load: {error}. Restore it, or train again."
        ) from None
    if digest != _digest(weights):
        raise WorkError(
            f"Expected the weights that were saved in {path}; the file is damaged (its digest is another). Restore it, "
            "or train again."
        )
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


def save_training_state(path: Path, state: TrainingState) -> None:
    """Write a training state as tensors and plain values, followed by its digest; the one before it is kept beside it.

    At every moment one of the two is there in full, whatever ends the process or the machine.
    """
    buffer = io.BytesIO()  # torch.save into a full disk raises errors that do not name it
    torch.save({"format": STATE_FORMAT, **state.to_dict()}, buffer)
    content = buffer.getvalue()

    def keep_the_one_before() -> None:
        if path.exists():
            os.replace(path, previous_state(path))

    write_bytes(path, content + MAGIC + hashlib.sha256(content).digest(), keep_the_one_before)


def previous_state(path: Path) -> Path:
    """Return where the state before the last one lies."""
    return path.with_name(f"previous-{path.name}")


def load_training_state(path: Path) -> tuple[TrainingState, str]:
    """Read the last training state that is whole, without executing anything; return it and what is to be said of it.

    A damaged last one is named, and the one before it taken. Raises `WorkError` where neither loads.
    """
    reasons: list[str] = []
    for candidate in (path, previous_state(path)):
        try:
            return _state(candidate), " ".join(f"{reason} The one before it is used." for reason in reasons)
        except WorkError as error:
            if candidate.exists() or candidate == path:
                reasons.append(str(error))
    raise WorkError(" ".join(reasons))


def _state(path: Path) -> TrainingState:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkError(f"Expected a training state in {path}; it cannot be read: {error.strerror or error}.") from None
    body, footer = content[: -len(MAGIC) - 32], content[-len(MAGIC) - 32 :]
    if footer != MAGIC + hashlib.sha256(body).digest():
        raise WorkError(f"Expected a training state in {path}; the file is damaged (its digest is another).")
    try:
        values = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        if values.pop("format") != STATE_FORMAT:
            raise WorkError(f"The training state in {path} is of another version of glassnet.")
        return TrainingState.from_dict(values)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WorkError(f"Expected a training state in {path}; it does not load: {reason}") from None
