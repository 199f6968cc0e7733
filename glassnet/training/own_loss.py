"""Losses of the user's own: a function, or an object that is called like one, given in Python or named in a file."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError, unknown_name
from glassnet._seed import seeded
from glassnet._user_code import in_words, loaded_file, parse_address
from glassnet.nn.losses import Loss, Task, is_own_loss
from glassnet.training.config import TrainConfig

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Takes outputs and labels (see `own_loss`), returns the mean loss as a scalar."""
NUM_TRIED = 8
"""Examples on which a loss is tried: some compare examples with each other."""


def own_loss(function: LossFunction, task: Task, name: str) -> Loss:
    """Return the entry of a user's own loss.

    It is given outputs `(B, num_outputs)` float32 with labels `int64 (B,)`, or values for a regression; from a model of
    one output, outputs `(B,)`, and then the labels of two classes are 0 and 1 as float32, as binary losses take them.
    Outputs are read as logits by everything else. What it raises becomes a `UsageError` with its line.
    """

    def guarded(outputs: Tensor, labels: Tensor) -> Tensor:
        with in_words(f"Loss '{name}' failed for outputs {tuple(outputs.shape)} and labels {tuple(labels.shape)}"):
            return function(outputs, labels.to(outputs.dtype) if task == "binary" else labels)

    return Loss(name=name, function=guarded, task=task, source="the user's own")


def load_loss(text: str) -> LossFunction:
    """Execute the user's file and return the function that `text`, such as `losses.py:focal`, names in it.

    A class is built without arguments. Raises `UsageError` that names the file, and the line where its code failed.
    """
    address = parse_address(text, "loss")
    with loaded_file(address.path) as file:
        found = vars(file.module).get(address.name)
        if found is None:
            names = [name for name, value in vars(file.module).items() if callable(value) and not name.startswith("_")]
            raise unknown_name(f"name in {address.path}", address.name, names)
        if isinstance(found, type):
            with in_words(f"Loss {address} could not be built"):
                found = found()
    if not callable(found):
        raise UsageError(f"{address} must be a function of outputs and labels; got {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


def absent_loss(name: str) -> LossFunction:
    """Return what stands in for a user's loss that was not given: it refuses to be called."""

    def refuse(outputs: Tensor, labels: Tensor) -> Tensor:
        raise _not_given(name)

    return refuse


def _not_given(name: str) -> UsageError:
    return UsageError(
        f"Loss '{name}' is the user's own, and a name does not tell what it is. Give it: gn.train(..., loss=function), "
        "--loss file.py:function, or gn.open_run(path, loss=function)."
    )


def check_own_loss(loss: LossFunction | None, config: TrainConfig) -> None:
    """Raise `UsageError` for what is no loss, for a second loss in `config`, and for one with parameters to learn.

    Without a `loss`, raise it where the config names a loss of the user's own.
    """
    if loss is None:
        if config.loss is not None and is_own_loss(config.loss):
            raise _not_given(config.loss)
        return
    if isinstance(loss, str):
        raise UsageError(f"loss takes a function; the name of a loss stands in the config: TrainConfig(loss='{loss}').")
    if isinstance(loss, type) or not callable(loss):
        raise UsageError(f"loss must be a function of outputs and labels; got {loss!r}.")
    if config.loss is not None and not is_own_loss(config.loss):
        raise UsageError(f"There are two losses: loss={loss!r} and the config's '{config.loss}'. Leave one out.")
    learnt = [name for name, one in loss.named_parameters() if one.requires_grad] if isinstance(loss, nn.Module) else []
    if learnt:
        raise UsageError(
            f"The loss has parameters of its own ('{learnt[0]}'), and training changes the model's alone. Make them "
            "part of the model, or switch their gradients off."
        )


def check_value(loss: LossFunction, name: str, outputs: Tensor, labels: Tensor) -> None:
    """Raise `UsageError` where the loss of finite `outputs` is no scalar or not finite, or gives no finite gradient."""
    outputs = outputs.detach().requires_grad_()
    with torch.enable_grad(), seeded(0, "loss trial"):
        value = loss(outputs, labels)
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(
            f"Loss '{name}' must return one floating-point number, a tensor of shape (); got {got}. Take .mean()."
        )
    tried = f"for the first {len(labels)} training examples"
    if not bool(value.isfinite()):
        raise UsageError(f"Loss '{name}' must be finite; {tried} it is {value.item()}.")
    gradient = torch.autograd.grad(value, outputs, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise UsageError(
            f"Loss '{name}' must be differentiable in the outputs; no gradient reaches them. Use torch's operations on "
            "them, and neither .item(), .detach(), argmax nor numpy."
        )
    if not bool(gradient.isfinite().all()):
        raise UsageError(f"The gradient of loss '{name}' must be finite; {tried} it is not.")
