"""What a model is given, and what its output is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet._types import by
from glassnet.inspection.tracing.calls import tensors_in

Given = Tensor | Sequence[Any] | Mapping[str, Any]
"""One input, several by position, or several by name."""

Loss = Callable[[Any, Tensor], Tensor]
"""Takes the model's output and the target, returns one number."""

RANKS: dict[type[nn.Module], int] = {
    nn.Conv1d: 3, nn.BatchNorm2d: 4, nn.Conv2d: 4, nn.MaxPool2d: 4, nn.AvgPool2d: 4, nn.BatchNorm3d: 5, nn.Conv3d: 5,
}  # fmt: skip
"""The rank of a batch for layers that take one rank only."""


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call of a model."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_batch_added: bool
    """True where a batch axis of 1 was put before the axes that were given."""

    def __str__(self) -> str:
        return ", ".join(by(tuple(tensor.shape)) or "one number" for tensor in tensors_in([self.args, self.kwargs]))


def candidate_inputs(model: nn.Module, given: Given) -> tuple[Inputs, ...]:
    """Return what to call `model` with: as given, and with a batch axis put in front; the likelier first.

    Raises `UsageError` where `given` holds no tensor, or pixels as bytes.
    """
    kwargs = dict(given) if isinstance(given, Mapping) else {}
    args = (given,) if isinstance(given, Tensor) else tuple(given) if isinstance(given, list | tuple) else ()
    tensors = list(tensors_in([args, kwargs]))
    if not tensors:
        raise UsageError(
            f"The input must be a tensor, such as one image (C, H, W), or a tuple or dictionary of them; "
            f"got {type(given).__name__}. Write torch.as_tensor(...)."
        )
    if any(tensor.dtype == torch.uint8 and tensor.ndim > 2 for tensor in tensors):
        raise UsageError(
            "Images must be normalised floating numbers, as the model takes them; got torch.uint8. For the pixels of a "
            "run: run.preprocessing.normalise(run.preprocessing.fit_inputs(pixels))."
        )
    as_given = Inputs(args, kwargs, False)
    batched = Inputs(_batched(args), _batched(kwargs), True)
    return (batched, as_given) if _is_one_example(model, given) else (as_given, batched)


def picked_output(output: Any) -> Tensor:
    """Return the tensor that the loss is taken of: `logits` where the model names one so, else the first.

    Raises `UsageError` where a model returns no tensor.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    first = logits if isinstance(logits, Tensor) else next(tensors_in(output), None)
    if first is None:
        raise UsageError(f"The model must return a tensor; got {type(output).__name__}. Wrap it so that it does.")
    return first


def target_of(label: Any, output: Tensor, loss: Loss | None, *, is_batch_added: bool) -> Tensor:
    """Return `label` as the loss takes it: class numbers `(N, ...)`, or the floating targets that were given.

    One class number stands for every image, and every position where `output` is `(N, K, ...)`. Raises `UsageError`
    where class numbers do not fit `output` and the loss is cross-entropy.
    """
    try:
        target = torch.as_tensor(label, device=output.device).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"A label must be a class number, or a tensor of them or of targets; got {label!r}.") from None
    if target.is_floating_point():
        return _floating_target(target, output, loss, is_batch_added=is_batch_added)
    target = target.long()
    rows = output.shape[:1] + output.shape[2:] if output.ndim > 1 else output.shape[:0]
    if target.ndim == 0:
        target = target.expand(rows if loss is None else output.shape[:1]).clone()
    elif is_batch_added and target.shape == rows[1:]:
        target = target.unsqueeze(0)
    if loss is None:
        _check_labels(target, output, tuple(rows))
    return target


def default_loss(output: Any, target: Tensor) -> Tensor:
    """Return the cross-entropy of a model's output, mean over the examples."""
    return F.cross_entropy(picked_output(output), target)


def _batched(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _batched_one(value) for name, value in values.items()}
    return tuple(_batched_one(value) for value in values)


def _batched_one(value: Any) -> Any:
    return value.unsqueeze(0) if isinstance(value, Tensor) else value


def _is_one_example(model: nn.Module, given: Given) -> bool:
    """Tell whether the input is likelier one example than a batch: by the network's own word, or its first layer."""
    if not isinstance(given, Tensor):
        return False
    own = getattr(getattr(model, "spec", None), "input_shape", None)
    if own is not None and len(own) in {given.ndim, given.ndim - 1}:
        return len(own) == given.ndim
    if given.ndim <= 1:
        return True
    rank = next((RANKS[type(module)] for module in model.modules() if type(module) in RANKS), None)
    return rank is not None and given.ndim == rank - 1


def _floating_target(target: Tensor, output: Tensor, loss: Loss | None, *, is_batch_added: bool) -> Tensor:
    if is_batch_added and (target.shape == output.shape[1:] and target.shape != output.shape):
        target = target.unsqueeze(0)
    if loss is None and (target.shape != output.shape or output.ndim < 1):
        raise UsageError(
            f"Floating targets of the default loss are probabilities of the output's shape {tuple(output.shape)}; got "
            f"{tuple(target.shape)}. Give a class number, or a loss that takes these targets: "
            "loss=torch.nn.functional.mse_loss."
        )
    return (
        target if target.dtype == torch.float64 and output.dtype != torch.float64 and loss else target.to(output.dtype)
    )


def _check_labels(target: Tensor, output: Tensor, rows: tuple[int, ...]) -> None:
    classes = output.shape[1] if output.ndim > 1 else output.shape[0] if output.ndim else 1
    if classes < 2:
        raise UsageError(
            f"The default loss, cross-entropy, needs an output for each of at least two classes; got "
            f"{tuple(output.shape)}. For one output give floating targets and a loss: "
            "loss=torch.nn.functional.binary_cross_entropy_with_logits."
        )
    if tuple(target.shape) != rows:
        raise UsageError(f"Labels must have shape {rows} for outputs {tuple(output.shape)}; got {tuple(target.shape)}.")
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < classes:
        wrong = int(target.min()) if int(target.min()) < 0 else int(target.max())
        raise UsageError(f"A label must be a class number, 0 to {classes - 1}; got {wrong}.")
