"""Published weights: from a file into a model, without executing anything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from glassnet._errors import UsageError, WorkError
from glassnet._types import PathArg


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """What `load_weights` did."""

    path: str
    sha256: str
    """Of the file, in hexadecimal."""
    num_loaded: int
    """Tensors taken from the file."""
    left_as_built: tuple[str, ...]
    """Names of the tensors that the model kept, because the file's are for another number of classes."""


def load_weights(model: nn.Module, path: PathArg, *, keep_head: bool = False) -> LoadedWeights:
    """Load a `state_dict` from `.safetensors`, or from torch's `.pth`/`.pt` with `weights_only=True`.

    The names and shapes must be the model's; glassnet's torchvision-compatible networks have torchvision's. With
    `keep_head`, tensors that differ in the number of classes alone stay as built, so that a network trained on 1000
    classes starts one for ten.

    Raises `WorkError` for a file that is missing, damaged, or holds more than tensors, and `UsageError` for weights
    of another network: what is missing, foreign or of another shape is named.
    """
    found = _read_state(Path(path))
    own = model.state_dict()
    missing, foreign = [name for name in own if name not in found], [name for name in found if name not in own]
    # torch adds these counters itself; files written before it did have none.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or foreign:
        raise UsageError(
            f"{path} does not hold the weights of this network. Missing: {_some(missing)}; foreign: {_some(foreign)}. "
            "Build the network the weights were published for (such as alexnet-torchvision, resnet18)."
        )
    other = [name for name in found if found[name].shape != own[name].shape]
    if other and not (keep_head and _are_heads(own, found, other)):
        name = other[0]
        raise UsageError(
            f"{path} does not fit: '{name}' must be {tuple(own[name].shape)}, got {tuple(found[name].shape)}. "
            "Build the network with the options the file was made with. (Where only the number of classes differs, "
            "keep_head=True, as --weights does, keeps the new last layer.)"
        )
    model.load_state_dict({name: value for name, value in found.items() if name not in other}, strict=False)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    loaded = LoadedWeights(
        path=str(path), sha256=digest, num_loaded=len(found) - len(other), left_as_built=tuple(other)
    )
    model.loaded_weights = loaded  # type: ignore[assignment]  # a run's record says where its weights came from
    return loaded


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WorkError(f"Expected a file of weights at {path}; there is none. Check the path.")
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise WorkError(f"Expected weights in {path}; the file does not load: {error}.") from None
    except Exception as error:  # torch.load raises a dozen types on damaged and on hostile files
        # torch's own message advises to load it anyway, which would run what is in the file.
        raise WorkError(
            f"Expected a state_dict in {path}, names and tensors; the file is damaged or holds other objects "
            f"({type(error).__name__}), which are not loaded. Save it with torch.save(model.state_dict(), path)."
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):  # a training script's checkpoint
        state = state["state_dict"]
    is_named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not is_named or not all(isinstance(value, Tensor) for value in state.values()):
        raise WorkError(f"Expected a state_dict in {path}: names and tensors; got {type(state).__name__}.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _are_heads(own: dict[str, Tensor], found: dict[str, Tensor], other: list[str]) -> bool:
    """Tell whether the tensors `other` differ in the number of classes alone: GoogLeNet has three such layers."""
    last = [name for name in own if name.endswith(".weight")][-1]
    counts = {(own[name].shape[:1], found[name].shape[:1]) for name in other}
    return last in other and len(counts) == 1 and all(own[n].shape[1:] == found[n].shape[1:] for n in other)


def _some(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
