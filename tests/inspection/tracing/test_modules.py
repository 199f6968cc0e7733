"""A zoo of modules that people write: each is recorded whole, and every gradient is the sum over its consumers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations

import glassnet as gn


class Net(nn.Module):
    """Two layers to be used in odd ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)


class Functional(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.conv.weight, self.conv.bias, stride=2, padding=1))
        x = F.max_pool2d(x, 2)
        return F.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1), self.fc.weight, self.fc.bias)


class InPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        x -= 0.1
        y = self.norm(self.conv(x))
        z = F.relu(y, inplace=True) * 1
        z += y.mean()
        z.mul_(2).add_(z)
        with torch.no_grad():
            torch.sigmoid(z, out=torch.empty_like(z))
        return self.fc(z.mean((2, 3)))


class Reused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for _ in range(3):
            x = self.relu(self.same(x))
        return self.fc(x.amax((2, 3)))


class Branching(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        left, right = x.chunk(2, dim=1)
        parts = [left * 2, right.tanh(), left + right]
        first, *others = torch.cat(parts, 1).split([2, 2, 2], dim=1)
        pooled = torch.stack([first, *others]).sum(0).mean((2, 3))
        top, index = pooled.max(1, keepdim=True)
        return self.fc(torch.cat([pooled, top, pooled.gather(1, index)], 1))


class Dynamic(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        count = 0
        while x.norm() < 3 and count < 4:
            x = x * 1.5
            count += 1
        return self.fc(x if x.sum().item() > 0 else -x)


class Shapes(Net):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1).reshape(n, h * w, c).transpose(1, 2)
        x = x.unflatten(2, (h, w))[..., 1:, :].contiguous().view(n, c, -1, w)
        x = F.pad(x.expand(n, c, h - 1, w), (0, 0, 1, 0)).roll(1, 2).flip(3)
        x = self.conv(x)[:, [0, 2, 1, 3]]
        return self.fc(x.unsqueeze(1).squeeze(1).swapaxes(1, 3).mean(dim=(1, 2)))


class WritesIntoParts(Net):
    """Writes through views: of a value, of a fresh tensor, by index, by mask."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        row = y[:, :2]
        before = row * 1
        row.mul_(3)
        y[:, 3] = 0.5
        flat = y.flatten(2)
        y.clamp_(max=1.0)
        out = torch.zeros(y.shape[0], 4)
        out[:, 0] = flat.mean((1, 2))
        out[:, 1:] = row.mean((1, 2, 3))[:, None] + before.mean()
        out[out > 100] = 0
        return self.fc(out + y.sum((2, 3)))


class ViewOfHiddenBase(nn.Module):
    """A linear layer on tokens may return a view of a matrix that nobody holds; ReLU then writes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        hidden = self.first(tokens)
        shifted = hidden * 2
        return self.second(F.relu(hidden, inplace=True) + shifted).mean(1)


class DropoutTwoWays(Net):
    """In evaluation mode dropout hands back its very argument, which also goes past it."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = F.dropout(y, 0.5, self.training)
        return self.fc((F.relu(z, inplace=True) + y).mean((2, 3)))


class Strange(Net):
    """Operators of every kind."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = 1 - x / 2 + 2**x - (3 - x) * -x + abs(x) + (1 / (x**2 + 1)) + x.square().sqrt()
        y = torch.where(y > 0, y, 0.1 * y) @ torch.eye(x.shape[-1]).to(x) + torch.einsum(
            "nchw,cd->ndhw", x, x.new_ones(4, 4)
        )
        y = y.masked_fill(y > 5, 5.0).clamp(-3, 3)
        y = F.normalize(y, dim=1) + F.softsign(y)
        return self.fc(y.cumsum(2).mean((2, 3)).softmax(1).log())


class Operations(Net):
    """One of each of the less usual operations."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.group = nn.GroupNorm(2, 4)
        self.instance = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.places = nn.Embedding(8, 4)
        self.bag = nn.EmbeddingBag(8, 4)
        self.both = nn.Bilinear(4, 4, 4)
        self.slope = nn.PReLU(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(self.instance(self.group(self.up(self.conv(x)))))
        x = F.interpolate(x, size=(8, 8), mode="bilinear", align_corners=False)
        x = F.local_response_norm(F.gelu(x), 2) + F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2)[..., ::2, ::2]
        x = F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2)
        grid = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
        x = x + F.grid_sample(x, grid * 0.9, align_corners=False)
        x = x + torch.fft.ifft2(torch.fft.fft2(x) * 0.5).real
        tokens = x.flatten(2).mT[:, :8] + self.places(torch.arange(8)) + self.bag(torch.arange(8).reshape(1, 8))
        tokens = F.scaled_dot_product_attention(tokens, tokens, tokens)
        tokens = tokens.index_add(1, torch.tensor([0, 1]), tokens[:, 2:4]).scatter(1, torch.zeros(2, 1, 4).long(), 0.5)
        far = torch.cdist(tokens, tokens + 1).logsumexp((1, 2))
        top = self.both(tokens.topk(2, dim=1).values[:, 0], tokens.sort(1).values.median(1).values)
        return self.fc(top + far[:, None] + torch.baddbmm(tokens, tokens @ tokens.mT, tokens).std(1))


class Straight(torch.autograd.Function):
    """A sign whose gradient is that of the identity."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.sign(x) * 1

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


straight = Straight.apply


class OwnFunction(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc((straight(self.conv(x)) + Straight.apply(x.mean())).mean((2, 3)))


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv.weight.requires_grad_(False)
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            stopped = self.conv(x).relu()
        kept = self.norm(self.conv(x)).detach() + self.conv(x)
        return self.fc((stopped + kept).mean((2, 3)))


class Checkpointed(Net):
    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        x = checkpoint(self.conv, x, use_reentrant=False)
        return self.fc(checkpoint(torch.tanh, x, use_reentrant=True).mean((2, 3)))


class TupleOutput(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.conv(x)
        return self.fc(features.mean((2, 3))), {"features": features}


ZOO = [
    Functional, InPlace, Reused, Dynamic, Shapes, WritesIntoParts, ViewOfHiddenBase, DropoutTwoWays, Strange,
    OwnFunction, Frozen, Checkpointed, Operations,
]  # fmt: skip


def images(count: int = 2, size: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=dtype)


def build(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ZOO)
def test_an_odd_module_is_recorded_whole(kind: type[nn.Module], training: bool, checked: Callable) -> None:
    checked(build(kind), images(), torch.tensor([1, 4]), training=training)


def test_branches_are_recorded_with_several_outputs(checked: Callable) -> None:
    model = build(Branching)
    trace = checked(model, images(), torch.tensor([1, 4]))
    chunk = trace.step("chunk")
    assert [value.shape for value in chunk.outputs] == [(2, 2, 6, 6), (2, 2, 6, 6)]
    assert trace.step("cat").input_names == ("tensors",) * 3
    assert [step.op for step, _ in trace.consumers(chunk.outputs[0])] == ["mul", "add"]
    assert trace.step("max").outputs[1].tensor.dtype == torch.int64


@pytest.mark.parametrize("kind", [Functional, InPlace, WritesIntoParts, Strange])
def test_float64_is_recorded_in_float64(kind: type[nn.Module], checked: Callable) -> None:
    trace = checked(build(kind).double(), images(dtype=torch.float64), torch.tensor([0, 1]), tolerance=1e-11)
    assert trace.output.dtype == torch.float64


def test_bfloat16_is_recorded_in_bfloat16(checked: Callable) -> None:
    trace = gn.trace(build(Functional).bfloat16(), images(dtype=torch.bfloat16), 1)
    assert {step.output.tensor.dtype for step in trace.steps} == {torch.bfloat16}


@pytest.mark.parametrize("kind", [Functional, InPlace, Shapes])
def test_channels_last_and_strided_images_stay_as_they_are(kind: type[nn.Module], checked: Callable) -> None:
    model = build(kind).to(memory_format=torch.channels_last)
    checked(model, images().to(memory_format=torch.channels_last), torch.tensor([0, 1]))
    checked(model, images(size=12)[:, :, ::2, ::2], torch.tensor([0, 1]))


def test_autocast_is_repeated_with_the_step(checked: Callable) -> None:
    model = build(Functional)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = gn.trace(model, images())
    assert trace.step("conv2d").output.tensor.dtype == torch.bfloat16
    for step in trace.steps:
        assert torch.equal(step.replay(), step.output.tensor)


class Plain(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrised_weight_is_a_step_of_its_own(wrap: Callable, training: bool, checked: Callable) -> None:
    model = build(Plain)
    wrap(model.conv)
    trace = checked(model, images(), torch.tensor([1, 4]), training=training)
    assert trace.step("conv").op == "conv2d"
    weight = trace.step("conv").input("weight")
    assert weight.source == "step"
    assert trace.steps[weight.step].module.startswith("conv.parametrizations.weight")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_an_old_style_weight_norm_is_left_without_its_computed_weight(checked: Callable) -> None:
    model = build(Plain)
    nn.utils.weight_norm(model.conv)
    with torch.no_grad():
        model(images())  # so that its weight is a tensor that can be copied
    trace = checked(model, images(), torch.tensor([1, 4]))
    assert [step.name for step in trace.steps if step.module == "conv"] == ["conv.weight_norm", "conv.conv2d"]
    assert trace.step("conv").op == "conv2d"


@pytest.mark.parametrize("part", ["whole", "inner", "in place", "function"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_traced_as_it_was_written(part: str) -> None:
    plain = build(Plain).eval()
    model = build(Plain).eval()
    if part == "whole":
        model = torch.compile(model)
    elif part == "inner":
        model.conv = torch.compile(model.conv)
    elif part == "in place":
        model.compile()
    else:
        model.forward = torch.compile(model.forward)
    trace = gn.trace(model, images(), 2)
    assert [step.name for step in trace.steps] == ["conv", "mean", "fc", "loss.cross_entropy"]
    assert torch.equal(trace.output, plain(images()).detach())
    assert set(trace.parameters) == {"conv.weight", "conv.bias", "norm.weight", "norm.bias", "fc.weight", "fc.bias"}
    assert trace.parameter_gradient("conv.weight") is not None
    assert trace.parameter_gradient("norm.weight") is None


def test_hooks_that_are_there_run_as_ever() -> None:
    model = build(Plain)
    seen: list[str] = []
    model.conv.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    model.fc.register_forward_hook(lambda module, inputs, output: output + 1)
    model.register_forward_hook(lambda *_: seen.append("model"))
    trace = gn.trace(model, images())
    assert seen == ["model"]
    assert torch.equal(trace.output, model.eval()(images()).detach())
    assert [step.op for step in trace.steps] == ["mul", "conv2d", "mean", "linear", "add"]


def test_several_outputs_give_the_first_or_logits(checked: Callable) -> None:
    trace = gn.trace(build(TupleOutput), images(), torch.tensor([0, 1]))
    assert trace.output.shape == (2, 5)

    class Named(TupleOutput):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            logits, other = super().forward(x)
            return {"loss": None, "hidden": other["features"], "logits": logits}

    assert gn.trace(build(Named), images(), torch.tensor([0, 1])).output.shape == (2, 5)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_a_scripted_function_is_one_opaque_step(checked: Callable) -> None:
    @torch.jit.script
    def scaled(x: Tensor) -> Tensor:
        return x * 2 + 1

    class Scripted(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return scaled(super().forward(x))

    trace = gn.trace(build(Scripted), images(), torch.tensor([0, 1]))
    assert trace.steps[-2].op == "scaled"
    assert trace.gaps == ()
    assert torch.equal(trace.gradient("fc"), 2 * trace.gradient("scaled"))


def test_calls_in_a_transform_are_said_to_be_unseen() -> None:
    class Mapped(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(torch.sin)(super().forward(x))

    trace = gn.trace(build(Mapped), images())
    assert trace.gaps
    assert "sin" in trace.gaps[0]


def test_random_steps_are_repeated_with_the_same_draws() -> None:
    model = nn.Sequential(nn.Linear(40, 40), nn.Dropout(0.5), nn.Dropout(0.5), nn.RReLU())
    trace = gn.trace(model, torch.randn(3, 40), training=True)
    assert [step.is_random for step in trace.steps] == [False, True, True, True]
    kept = [step.replay({0: torch.ones(3, 40)}) != 0 for step in trace.steps[1:3]]
    assert torch.equal(kept[0], trace.steps[1].output.tensor != 0)
    assert not torch.equal(kept[0], kept[1])


def test_a_trace_draws_what_the_model_would_draw_now() -> None:
    model = nn.Sequential(nn.Linear(40, 40), nn.Dropout(0.5)).train()
    x = torch.randn(3, 40)
    trace = gn.trace(model, x, training=True)
    assert torch.equal(trace.output, model(x).detach())


def test_batch_norm_in_training_has_its_new_statistics_as_outputs(checked: Callable) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    trace = checked(model, images(), torch.tensor([0, 1]), training=True)
    step = trace.step("1")
    assert step.arguments["training"] is True
    assert [value.shape for value in step.outputs] == [(2, 4, 6, 6), (4,), (4,)]
    assert torch.equal(step.input("running_mean").tensor, torch.zeros(4))
    assert not torch.equal(step.outputs[1].tensor, torch.zeros(4))
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert int(model[1].num_batches_tracked) == 0


def test_training_keeps_a_frozen_norm_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    model[1].eval()
    modes = [step.arguments["training"] for step in gn.trace(model, images(), training=True).steps[1:]]
    assert modes == [False, True]
    model.eval()
    modes = [step.arguments["training"] for step in gn.trace(model, images(), training=True).steps[1:]]
    assert modes == [True, True]
