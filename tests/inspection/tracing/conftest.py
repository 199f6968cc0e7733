"""What holds of every trace, whatever the model: compared with the model run plainly, and with itself."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet.inspection.tracing import Trace, WeightAddress


def same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors hold the same numbers, bit for bit, where not-a-number is itself."""
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
        and torch.equal(one != one, other != other)
    )


def state(model: nn.Module) -> dict[str, Any]:
    """Return everything that a trace must leave alone; compare two with `==`."""
    found: dict[str, Any] = {
        "rng": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": [str(part) for part in numpy.random.get_state()],
        "modes": [module.training for module in model.modules()],
        "hooks": [
            (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for m in model.modules()
        ],
        "global hooks": (
            list(nn.modules.module._global_forward_hooks),
            list(nn.modules.module._global_forward_pre_hooks),
            list(nn.modules.module._global_forward_hooks_always_called),
        ),
        "modules' attributes": [
            {name: id(value) for name, value in module.__dict__.items()} for module in model.modules()
        ],
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad mode": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "mode stack": torch._C._len_torch_function_stack(),
        "intercepted": "apply" in torch.autograd.function._SingleLevelFunction.__dict__,
    }
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[name] = (
            id(tensor),
            tensor.requires_grad,
            tensor.data_ptr(),
            tensor.detach().flatten().tolist() if tensor.numel() < 20_000 else float(tensor.detach().double().sum()),
            id(tensor.grad),
            None if tensor.grad is None else float(tensor.grad.double().sum()),
        )
    return found


def plainly(model: nn.Module, call: Callable[[nn.Module], Any], *, training: bool = False) -> Any:
    """Return what `call` returns of a copy of the model in the modes of a trace; random state put back."""
    twin = copy.deepcopy(model)
    if not (training and model.training):
        twin.train(training)
    with torch.random.fork_rng(devices=[]):
        return call(twin)


@contextmanager
def attention_as_written() -> Iterator[None]:
    """Keep torch from running attention as one fused kernel, which it does without gradients and rounds otherwise."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def check_replays(trace: Trace) -> None:
    """Every step, repeated, gives what was recorded."""
    for step in trace.steps:
        for value, again in zip(step.outputs, step.replay_all(), strict=True):
            assert same(value.tensor, again.detach()), step


def check_gradients(trace: Trace, tolerance: float = 1e-4) -> None:
    """Every gradient is the sum over the value's consumers: no path of the pass is missing from the record."""
    for value in every_value(trace):
        if value.gradient is None or value == trace.loss_value:
            continue
        total = torch.zeros_like(value.gradient)
        scale = torch.zeros(())
        for step, position in trace.consumers(value):
            cotangents = {k: out.gradient for k, out in enumerate(step.outputs) if out.gradient is not None}
            if step.is_differentiable and cotangents:
                product = step.vjp(cotangents, [position])[position]
                total += 0 if product is None else product
                scale = scale + (0 if product is None else product.abs())
        worst = (total - value.gradient).abs().max()
        assert worst <= tolerance * (scale.max() + 1e-6), (value, float(worst), float(scale.max()))


def check_terms(trace: Trace, tolerance: float = 1e-5, *, most: int = 60) -> None:
    """Units and weights drawn by a seed: the terms of the gradient add up to autograd's."""
    draw = random.Random(0)
    steps = [step for step in trace.steps if step.output.tensor.is_floating_point() and step.output.tensor.numel()]
    for step in draw.sample(steps, min(most, len(steps))):
        address = trace.naming.address(step.output, tuple(draw.randrange(size) for size in step.shape))
        found = trace.delta(address)
        allowed = tolerance if step.output.tensor.dtype == trace.output.dtype else 1e-5
        assert found.relative_difference <= allowed, (found, found.difference, found.scale)
    paths = [path for path, value in trace.parameters.items() if value.tensor.is_floating_point() and value.shape]
    for path in draw.sample(paths, min(most, len(paths))):
        index = tuple(draw.randrange(size) for size in trace.parameter(path).shape)
        weight = trace.weight(WeightAddress(path, index))
        assert weight.relative_difference <= tolerance, (weight, weight.difference, weight.scale)


def every_value(trace: Trace) -> list[gn.inspection.tracing.Value]:
    """Return each value of the trace once."""
    found = [value for step in trace.steps for value in (*step.inputs, *step.outputs)]
    return list(dict.fromkeys([*found, *trace.inputs]))


@pytest.fixture
def state_of() -> Callable[[nn.Module], dict[str, Any]]:
    """What a trace must leave alone; compare two with `==`."""
    return state


@pytest.fixture
def checked() -> Callable[..., Trace]:
    """Trace with a label after checking the trace against the model run plainly, and the model's state."""

    def check(
        model: nn.Module,
        image: Any,
        label: Any = 0,
        loss: Any = None,
        *,
        training: bool = False,
        tolerance: float = 1e-4,
    ) -> Trace:
        before = state(model)
        forward = gn.trace(model, image, training=training)
        full = gn.trace(model, image, label, loss, training=training)
        assert state(model) == before
        args = image if isinstance(image, tuple) else (image,)
        if full.is_batch_added:
            args = tuple(arg.unsqueeze(0) for arg in args)
        for trace, has_gradients in ((forward, False), (full, True)):
            with torch.set_grad_enabled(has_gradients), attention_as_written():
                expected = plainly(model, lambda twin: twin(*(arg.clone() for arg in args)), training=training)
            expected = expected if isinstance(expected, Tensor) else expected[0]
            assert same(trace.output, expected.detach())
            assert trace.gaps == ()
            assert len({step.name for step in trace.steps}) == len(trace.steps)
            assert trace.memory > 0
            check_replays(trace)
        check_gradients(full, tolerance)
        check_terms(full, tolerance / 10)
        _check_parameters(full, model, args, loss, training=training)
        return full

    return check


def _check_parameters(trace: Trace, model: nn.Module, args: Any, loss: Any, *, training: bool) -> None:
    """Every parameter's gradient is that of a plain backward pass, frozen parameters' too."""

    def gradients(twin: nn.Module) -> dict[str, Tensor | None]:
        for parameter in twin.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
            parameter.grad = None
        output = twin(*(arg.clone() for arg in args))
        value = (loss or nn.functional.cross_entropy)(output, trace.target)
        if value.requires_grad:
            value.backward()
        return {name: parameter.grad for name, parameter in twin.named_parameters(remove_duplicate=False)}

    for name, gradient in plainly(model, gradients, training=training).items():
        found = trace.parameter_gradient(name)
        assert (found is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-6)
