"""What a trace must leave as it found it, also where the model fails half-way."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet import UsageError


class Restless(nn.Module):
    """Changes everything that a model can change of itself while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.table = nn.Embedding(4, 4, max_norm=0.1)
        self.norm = nn.BatchNorm1d(4, momentum=None)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("average", torch.zeros(4))
        self.mask = torch.ones(4)
        self.fc.bias.requires_grad_(False)
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.average = 0.9 * self.average + 0.1 * x.detach().mean(0)
        self.last = x
        self.mask.mul_(2)
        self.fc.weight.data.clamp_(-0.1, 0.1)
        with torch.no_grad():
            self.fc.bias.fill_(7)
        random.random(), numpy.random.rand(), torch.rand(1)
        x = self.norm(x * self.mask) + self.table(torch.arange(len(x)) % 4)
        x = F.relu(x, inplace=True)
        if self.fail:
            raise KeyError("half-way")
        return self.fc(F.dropout(x))


def restless() -> Restless:
    torch.manual_seed(0)
    model = Restless()
    model.norm.eval()
    model(torch.randn(2, 4)).sum().backward()
    model.table.weight.grad = None
    return model


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize("training", [False, True])
def test_a_model_that_changes_itself_is_put_back(
    fail: bool, label: int | None, training: bool, state_of: Callable
) -> None:
    model = restless()
    model.fail = fail
    image = torch.randn(3, 4)
    mask, given = model.mask.clone(), image.clone()
    before = state_of(model)
    if fail:
        with pytest.raises(UsageError, match="on 3x4 it raised KeyError: 'half-way'"):
            gn.trace(model, image, label, training=training)
    else:
        gn.trace(model, image, label, training=training)
    assert state_of(model) == before
    assert torch.equal(model.mask, mask)
    assert torch.equal(image, given)


def test_what_was_written_to_is_recorded_as_it_was_and_as_it_became() -> None:
    model = restless()
    weight = model.fc.weight.detach().clone()
    trace = gn.trace(model, torch.randn(3, 4), 1)
    assert torch.equal(trace.parameter("fc.weight").tensor, weight)
    assert torch.equal(trace.step("fc").input("weight").tensor, weight.clamp(-0.1, 0.1))
    assert torch.equal(trace.step("fc").input("bias").tensor, torch.full((3,), 7.0))
    for step in trace.steps:
        assert torch.equal(step.replay(), step.output.tensor)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_trace_has_gradients_whatever_mode_it_is_called_in(context: Callable) -> None:
    model = nn.Linear(4, 3)
    with context():
        trace = gn.trace(model, torch.randn(2, 4), 0)
        assert torch.is_inference_mode_enabled() == (context is torch.inference_mode)
    assert trace.parameter_gradient("weight").shape == (3, 4)
    assert not trace.output.requires_grad
    assert model.weight.grad is None


@pytest.mark.parametrize(
    "loss",
    [
        lambda output, target: 1 / 0,
        lambda output, target: output,
        lambda output, target: output.numpy().sum(),
    ],
)
def test_a_loss_that_fails_leaves_nothing_behind(loss: Callable, state_of: Callable) -> None:
    model, image = restless(), torch.randn(2, 4)
    before = state_of(model)
    with pytest.raises(UsageError, match="loss must"):
        gn.trace(model, image, 0, loss)
    assert state_of(model) == before


def test_a_model_that_autograd_refuses_is_said_so(state_of: Callable) -> None:
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x).exp()
            return y.add_(1)

    model, image = Broken(4, 3), torch.randn(2, 4)
    before = state_of(model)
    with pytest.raises(UsageError, match=r"differentiable by autograd for a label.*modified by an inplace operation"):
        gn.trace(model, image, 0)
    assert state_of(model) == before
    assert len(gn.trace(model, image).steps) == 3


def test_another_threads_model_is_not_recorded() -> None:
    other = nn.Linear(4, 3)

    class Waits(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            worker = threading.Thread(target=lambda: other(x * 2))
            worker.start()
            worker.join()
            return super().forward(x)

    assert [step.op for step in gn.trace(Waits(4, 3), torch.randn(2, 4)).steps] == ["linear"]


def test_autograd_functions_work_as_before_after_a_trace() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * 5

    gn.trace(nn.Linear(4, 3), torch.randn(2, 4), 0)
    x = torch.ones(2, requires_grad=True)
    Double.apply(x).sum().backward()
    assert x.grad.tolist() == [5, 5]


def test_a_trace_made_before_the_model_changed_says_so() -> None:
    model = nn.Linear(4, 3)
    trace = gn.trace(model, torch.randn(2, 4), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    assert trace.output.shape == (2, 3)
    with pytest.raises(UsageError, match="weight has changed since. Trace again"):
        trace.step("linear").replay()


def test_running_statistics_that_move_later_leave_a_trace_valid() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    trace = gn.trace(model, torch.randn(3, 4))
    model.train()(torch.randn(3, 4))
    assert torch.equal(trace.steps[0].replay(), trace.output)


def test_a_shared_buffer_stays_shared_during_the_pass() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
            self.second.running_mean = self.first.running_mean

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = Shared()
    trace = gn.trace(model, torch.randn(3, 4), training=True)
    assert trace.step("second").input("running_mean") == trace.step("first").outputs[1]


def test_a_lazy_or_scripted_model_is_refused() -> None:
    with pytest.raises(UsageError, match="a lazy layer"):
        gn.trace(nn.Sequential(nn.LazyLinear(3)), torch.randn(2, 4))
    with pytest.raises(UsageError, match=r"Expected a model .*; got int. For a run, pass run.model"):
        gn.trace(3, torch.randn(2, 4))


@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
def test_a_scripted_part_is_named_and_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Linear(4, 3)))
    with pytest.raises(UsageError, match="must be Python to be traced; '1' is scripted"):
        gn.trace(model, torch.randn(2, 4))


def test_memory_is_freed_with_the_trace_and_not_by_the_collector() -> None:
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        trace = gn.trace(gn.build_model("lenet5"), torch.rand(1, 32, 32), 3)
        held = weakref.ref(trace.step("c1").output.tensor)
        del trace
        assert held() is None
    finally:
        gc.enable()
