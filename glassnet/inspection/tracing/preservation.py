"""A model left exactly as it was by a pass: modes, attributes, buffers, gradients' flags, random state."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from glassnet.inspection.tracing.randomness import random_state_kept

REGISTERED = ("_parameters", "_buffers", "_modules")
"""Where a module keeps what is registered with it, each a dictionary that a pass may also change."""


@contextmanager
def preserved(model: nn.Module, *, training: bool, with_gradients: bool) -> Iterator[None]:
    """Run a block on `model` with copies of its buffers, uncompiled; then put everything back, also after an error.

    Every module is in evaluation mode. With `training`, modules are in the modes they are in, where the model itself
    is in training mode; else all of them are in training mode. `with_gradients` makes every parameter require one.
    """
    modules = list(model.modules())
    kept = [(module.__dict__, _attributes(module)) for module in modules]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    gradients = [(parameter, parameter.grad) for parameter, _ in flags]
    keeps_modes = training and model.training
    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(with_gradients))
        stack.enter_context(_uncompiled())
        try:
            for module in modules:
                if not keeps_modes:
                    module.__dict__["training"] = training
                _copy_buffers(module)
            if with_gradients:
                for parameter, requires_grad in flags:
                    if not requires_grad and _can_have_gradient(parameter):
                        parameter.requires_grad_()
            yield
        finally:
            for attributes, before in kept:
                _put_back(attributes, before)
            for parameter, requires_grad in flags:
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)
            for parameter, gradient in gradients:
                if parameter.grad is not gradient:
                    parameter.grad = gradient


def _attributes(module: nn.Module) -> dict[str, Any]:
    attributes = dict(module.__dict__)
    for name in REGISTERED:
        attributes[name] = dict(attributes[name])
    return attributes


def _put_back(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in before.items():
        if name in REGISTERED:
            registered = attributes[name]
            if registered.keys() != value.keys() or any(registered[key] is not value[key] for key in value):
                registered.clear()
                registered.update(value)
        elif attributes.get(name, attributes) is not value:
            attributes[name] = value
    for name in attributes.keys() - before.keys():
        del attributes[name]


def _copy_buffers(module: nn.Module) -> None:
    buffers = module.__dict__["_buffers"]
    for name, buffer in buffers.items():
        if isinstance(buffer, Tensor) and buffer.layout == torch.strided:
            buffers[name] = buffer.detach().clone()


def _can_have_gradient(parameter: Tensor) -> bool:
    return (parameter.is_floating_point() or parameter.is_complex()) and not parameter.is_inference()


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled modules and functions as they were written. Without them, their machinery is not loaded."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
