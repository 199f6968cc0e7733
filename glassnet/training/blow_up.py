"""Where a loss was lost: the first layer of a network whose outputs are no finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def first_non_finite(model: nn.Module, inputs: Tensor) -> str:
    """Say which parameter, or which layer on normalised `inputs` `(B, ...)`, is the first with nan or infinity.

    The layers are taken in the order in which they finish, in the model's own mode; statistics of batch normalisation
    and random state are put back. Where every layer is finite, the loss is to blame, and that is said.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"parameter '{name}' had {_worst(parameter)} before the step"
    if not bool(inputs.isfinite().all()):
        return f"the inputs themselves hold {_worst(inputs)}"
    found: list[str] = []
    with _watched(model, found), _unchanged(model), torch.no_grad():
        try:
            model(inputs)
        except RuntimeError as error:  # a layer may refuse what is not finite
            return f"a layer failed: {str(error).splitlines()[0]}"
    return found[0] if found else "every layer's outputs are finite in fp32; the loss made of them is not"


@contextmanager
def _watched(model: nn.Module, found: list[str]) -> Iterator[None]:
    def watch(name: str) -> object:
        def note(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor) and not found and not bool(output.isfinite().all()):
                largest = max((_largest(value) for value in inputs if isinstance(value, Tensor)), default=0.0)
                kind = type(module).__name__
                found.append(f"layer '{name}' ({kind}) gave {_worst(output)} first; its inputs reached {largest:.3g}")

        return note

    layers = [(name or "the model", module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def _worst(values: Tensor) -> str:
    return "nan" if bool(values.isnan().any()) else "infinity"


def _largest(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if len(finite) else 0.0
