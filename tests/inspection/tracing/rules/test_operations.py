"""Every unit of every operation with a rule comes to torch's value, whatever the shapes and options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import glassnet as gn
from glassnet.inspection.tracing import Trace

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2}
Operation = Callable[[Tensor], Any]
NUM_EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)


class Net(nn.Module):
    """A function as a model; what it needs besides the input it makes itself, the same each time."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Any:
        return self.operation(x)


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def like(x: Tensor, *shape: int, seed: int = 1) -> Tensor:
    return made(*shape, dtype=x.dtype, seed=seed)


def check(operation: Operation, *shape: int, dtype: torch.dtype = torch.float32, training: bool = False) -> Trace:
    """Every unit of every step is itemised by a rule and comes to torch's value."""
    trace = gn.trace(Net(operation), made(*shape, dtype=dtype), training=training)
    return agree(trace, TOLERANCE[dtype])


def agree(trace: Trace, tolerance: float) -> Trace:
    for step in trace.steps:
        for number, value in enumerate(step.outputs):
            if not value.tensor.is_floating_point() or (number and step.op == "batch_norm"):
                continue
            units = trace.units(f"{step.name}#{number}" if number else step.name)
            assert not units.is_linearisation, step
            assert float(units.relative_difference.max()) <= tolerance, (step, float(units.relative_difference.max()))
    return trace


DTYPES = [torch.float32, torch.float64, torch.bfloat16]

OPERATIONS: dict[str, tuple[Operation, tuple[int, ...]]] = {
    "linear": (lambda x: F.linear(x, like(x, 5, 4), like(x, 5)), (2, 3, 4)),
    "linear with one row": (lambda x: F.linear(x, like(x, 4)), (2, 3, 4)),
    "matmul of batches": (lambda x: x @ like(x, 3, 1, 4, 5), (2, 2, 4)),
    "matmul with a vector": (lambda x: x @ like(x, 4), (2, 3, 4)),
    "a vector times a matrix": (lambda x: like(x, 3) @ x, (2, 3, 4)),
    "bmm": (lambda x: torch.bmm(x, like(x, 2, 4, 3)), (2, 3, 4)),
    "addmm": (lambda x: torch.addmm(like(x, 5), x, like(x, 4, 5), beta=0.5, alpha=2), (3, 4)),
    "einsum": (lambda x: torch.einsum("nchw,nkhw->nck", x, like(x, 2, 3, 4, 5)), (2, 2, 4, 5)),
    "einsum of three": (lambda x: torch.einsum("ni,ij,nj->n", x, like(x, 4, 3), like(x, 2, 3)), (2, 4)),
    "batch norm": (lambda x: F.batch_norm(x, like(x, 3), like(x, 3).abs(), like(x, 3), like(x, 3)), (2, 3, 4, 5)),
    "batch norm in training": (lambda x: F.batch_norm(x, None, None, like(x, 3), None, True), (4, 3, 5)),
    "instance norm": (lambda x: F.instance_norm(x, weight=like(x, 3), bias=like(x, 3)), (2, 3, 4, 5)),
    "layer norm": (lambda x: F.layer_norm(x, (4, 5), like(x, 4, 5), like(x, 4, 5)), (2, 3, 4, 5)),
    "group norm": (lambda x: F.group_norm(x, 2, like(x, 6), like(x, 6), 1e-3), (2, 6, 4, 3)),
    "rms norm": (lambda x: F.rms_norm(x, (5,), like(x, 5)), (2, 3, 5)),
    "local response norm": (lambda x: F.local_response_norm(x, 4, 0.3, 0.6, 2.0), (2, 6, 3, 3)),
    "variance and deviation": (lambda x: x.var(1) + x.std(1) + x.var(1, correction=0) + x.std(), (3, 5)),
    "lengths": (lambda x: x.norm(dim=1) + torch.linalg.vector_norm(x) + x.norm(1), (3, 5)),
    "normalised to length 1": (lambda x: F.normalize(x, dim=1), (3, 5)),
    "weight norm": (lambda x: torch._weight_norm(x, like(x, 3, 1, 1), 0), (3, 2, 4)),
    "ordered": (lambda x: x.sort(1)[0] + x.topk(4, 1)[0] + x.logsumexp(0), (3, 4)),
    "products added": (lambda x: torch.addcmul(x, x, x * 2, value=2) + torch.addcdiv(x, x, x.exp()), (3, 4)),
    "mixed": (lambda x: torch.lerp(x, x * 2, 0.3) + 2**x, (3, 4)),
    "outer product": (lambda x: torch.outer(x[0], x[1]), (2, 4)),
    "einsum with an ellipsis": (lambda x: torch.einsum("...ij,...jk->...ik", x, like(x, 4, 2)), (2, 3, 4)),
    "einsum without a result": (lambda x: torch.einsum("ij,jk", x, like(x, 4, 2)), (3, 4)),
    "relu": (lambda x: F.relu(x) + F.leaky_relu(x, 0.2), (2, 3, 4)),
    "prelu": (lambda x: F.prelu(x, like(x, 3)), (2, 3, 4)),
    "one slope for all": (lambda x: F.prelu(x, like(x, 1)), (2, 3, 4)),
    "gelu": (lambda x: F.gelu(x) + F.gelu(x, approximate="tanh"), (4, 6)),
    "sigmoid and tanh": (lambda x: torch.sigmoid(x) + x.tanh() + F.logsigmoid(x), (4, 6)),
    "silu, mish, hardswish": (lambda x: F.silu(x) + F.mish(x) + F.hardswish(x) + F.hardsigmoid(x), (4, 6)),
    "elu, selu, celu": (lambda x: F.elu(x, 0.7) + F.selu(x) + F.celu(x, 0.5), (4, 6)),
    "softplus": (lambda x: F.softplus(x, 2, 1), (4, 6)),
    "bounded": (lambda x: F.relu6(x) + F.hardtanh(x, -0.5, 0.7) + x.clamp(-1, 0.5) + x.clamp(max=0.2), (4, 6)),
    "shrunk": (lambda x: F.softshrink(x, 0.3) + F.hardshrink(x) + F.threshold(x, 0.1, 7), (4, 6)),
    "softsign and tanhshrink": (lambda x: F.softsign(x) + F.tanhshrink(x), (4, 6)),
    "glu": (lambda x: F.glu(x, 1), (2, 6, 3)),
    "maxout": (lambda x: x.view(2, 3, 2, 5).amax(2), (2, 6, 5)),
    "plain functions": (lambda x: x.exp() + x.abs().sqrt() + x.square() + x.abs().log() + x.sin(), (4, 5)),
    "arithmetic": (lambda x: (1 - x) * 2 + x / 3 - 2 / (x.abs() + 1) + -x + x**2, (3, 4)),
    "arithmetic of two": (lambda x: x + x * like(x, 4) - x / like(x, 1, 3, 1), (2, 3, 4)),
    "scaled sums": (lambda x: torch.add(x, x * 2, alpha=3) - torch.sub(x, 1, alpha=2), (3, 4)),
    "reductions": (lambda x: x.sum(1) + x.mean(1) + x.mean((1, 2), keepdim=True)[:, 0] + x.sum() + x.mean(), (2, 3, 4)),
    "largest": (lambda x: x.max(1)[0] + x.min(1)[0] + x.amax((1,)) + x.max() + x.min(1, True)[0][:, 0], (2, 3, 4)),
    "maximum of two": (lambda x: torch.maximum(x, like(x, 3, 4)) + torch.minimum(x, x * 2), (2, 3, 4)),
    "softmax": (lambda x: F.softmax(x, 1) + x.log_softmax(-1) + torch.softmax(x, dim=0), (2, 3, 4)),
    "joined": (lambda x: torch.stack([torch.cat([x, x * 2], 1), torch.cat([x * 3, x], 1)], 2), (2, 3, 4)),
    "split": (lambda x: torch.cat([*x.chunk(2, 1), *x.split(3, 2), *x.unbind(1)][:2], 1), (2, 4, 4)),
    "moved": (
        lambda x: x.permute(0, 2, 1).reshape(2, -1).view(2, 4, 3).transpose(1, 2).flatten(1)[:, 1:7:2],
        (2, 3, 4),
    ),
    "turned": (lambda x: torch.roll(x.flip(1), 1, 2) + x.repeat(1, 2, 1)[:, 3:] + x[:, :1].expand(2, 3, 4), (2, 3, 4)),
    "gathered": (lambda x: x.gather(1, torch.tensor([[[2, 1, 0, 0]]] * 2)) + x[:, torch.tensor([1])], (2, 3, 4)),
    "shuffled": (lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2) + F.channel_shuffle(x, 2), (2, 4, 2, 2)),
    "padded": (lambda x: F.pad(x, (1, 2, 0, 1)) + F.pad(x, (1, 2, 0, 1), value=3.5), (2, 3, 4, 4)),
    "padded by reflection": (lambda x: F.pad(x, (1, 2), "reflect") + F.pad(x, (2, 1), "circular"), (2, 3, 4)),
    "padded by its edge": (lambda x: F.pad(x, (1, 2, 1, 0), "replicate"), (2, 3, 4, 4)),
    "filled": (lambda x: x.masked_fill(x > 0, 2.0) + torch.where(x > 0, x, 0.5) + x.tril(), (3, 4, 4)),
    "unfolded": (lambda x: F.unfold(x, 3, padding=1), (2, 3, 5, 5)),
    "embedded": (lambda x: F.embedding(torch.tensor([[1, 0, 2]]), x.reshape(3, 4)), (1, 12)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_unit_of_an_operation_comes_to_torchs_value(name: str, dtype: torch.dtype) -> None:
    if name == "local response norm" and dtype == torch.bfloat16:
        return  # torch has none
    operation, shape = OPERATIONS[name]
    assert check(operation, *shape, dtype=dtype).coverage == 1


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@NUM_EXAMPLES
@given(st.data())
def test_a_convolution_of_any_kind(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    groups = data.draw(st.integers(1, 3))
    into, out = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    kernel = [data.draw(st.integers(1, 3)) for _ in range(dims)]
    stride, dilation = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    has_same = stride == 1 and data.draw(st.booleans())
    padding: Any = "same" if has_same else data.draw(st.sampled_from([0, 1, 2, "valid"]))
    sizes = [data.draw(st.integers(5, 6)) for _ in range(dims)]
    function = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    dtype = data.draw(st.sampled_from(DTYPES))
    has_bias = data.draw(st.booleans())

    def convolve(x: Tensor) -> Tensor:
        bias = like(x, out, seed=2) if has_bias else None
        return function(x, like(x, out, into // groups, *kernel), bias, stride, padding, dilation, groups)

    check(convolve, 2, into, *sizes, dtype=dtype)


@NUM_EXAMPLES
@given(st.data())
def test_a_transposed_convolution_of_any_kind(data: st.DataObject) -> None:
    dims, groups = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    into, out = groups * data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    kernel = [data.draw(st.integers(1, 3)) for _ in range(dims)]
    stride, dilation = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 2))
    extra = data.draw(st.integers(0, 1))
    padding = data.draw(st.integers(0, 1))
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]

    def convolve(x: Tensor) -> Tensor:
        weight = like(x, into, out, *kernel)
        return function(x, weight, like(x, out * groups, seed=2), stride, padding, extra, groups, dilation)

    check(convolve, 2, into, *[data.draw(st.integers(3, 4)) for _ in range(dims)])


@NUM_EXAMPLES
@given(st.data())
def test_pooling_of_any_kind(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    kernel, stride = data.draw(st.integers(2, 3)), data.draw(st.sampled_from([None, 1, 2, 3]))
    padding, ceil = data.draw(st.integers(0, 1)), data.draw(st.booleans())
    is_counted = data.draw(st.booleans())
    size = data.draw(st.integers(5, 7))
    output = data.draw(st.integers(1, 4))
    maximum = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    mean = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dims - 1]
    adaptive = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dims - 1]
    largest = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[dims - 1]
    check(lambda x: maximum(x, kernel, stride, padding, 1, ceil), 2, 2, *[size] * dims)
    check(lambda x: mean(x, kernel, stride, padding, ceil, is_counted), 2, 2, *[size] * dims)
    check(lambda x: adaptive(x, output), 2, 2, *[size] * dims)
    check(lambda x: largest(x, output, True)[0], 2, 2, *[size] * dims)


@NUM_EXAMPLES
@given(st.data())
def test_interpolation_of_any_kind(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    mode = data.draw(
        st.sampled_from([("linear", "bilinear", "trilinear")[dims - 1], "nearest", "nearest-exact", "area"])
    )
    aligned = data.draw(st.booleans()) if "linear" in mode else None
    by_size = data.draw(st.booleans())
    size = data.draw(st.integers(2, 9)) if by_size else None
    factor = None if by_size else data.draw(st.sampled_from([2, 3, 1.7, 0.6]))

    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, size, factor, mode, aligned)

    check(
        resize, 2, 2, *[data.draw(st.integers(4, 6)) for _ in range(dims)], dtype=data.draw(st.sampled_from(DTYPES[:2]))
    )


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_smoothed_interpolation_is_exact_with_the_weights_of_autograd(mode: str) -> None:
    trace = check(lambda x: F.interpolate(x, (3, 3), mode=mode, antialias=True), 1, 2, 6, 6)
    unit = trace.unit("interpolate:1@1,1")
    assert "autograd's derivatives" in unit.notes[0]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention(is_causal: bool, mask: str | None) -> None:
    if is_causal and mask:
        return

    def attend(x: Tensor) -> Tensor:
        allowed = torch.ones(5, 7, dtype=torch.bool).tril(2)
        given = {"bool": allowed, "float": like(x, 5, 7), None: None}[mask]
        keys, values = like(x, 2, 3, 7, 4), like(x, 2, 3, 7, 6, seed=3)
        return F.scaled_dot_product_attention(x, keys, values, given, is_causal=is_causal)

    check(attend, 2, 3, 5, 4)


def test_dropout_in_training_is_itemised_with_what_was_drawn() -> None:
    trace = check(lambda x: F.dropout(x, 0.5) * F.dropout2d(x, 0.3), 2, 3, 4, 4, training=True)
    units = trace.units("dropout[0]:1")
    factors = {float(units[row, column].terms.factor) for row in range(4) for column in range(4)}
    assert factors == {0.0, 2.0}


class Written(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[:, 0] = 0.0
        y[:, 1] = x[:, 0]
        part = y[:, 2]
        part.mul_(3).add_(1)
        y.clamp_(min=-1)
        return y + 0


def test_numbers_that_were_written_in_place_are_followed() -> None:
    trace = agree(gn.trace(Written(), made(2, 4, 3)), 1e-6)
    assert "overwrite" in {step.op for step in trace.steps}
    unit = trace.unit("setitem[0]:0@1")
    assert unit.terms.sources == [""]
    assert "stands in no input" in unit.notes[0]
    assert trace.unit("setitem_1[0]:1@1").terms.sources == ["getitem[0]:1"]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_with_every_option(reduction: str, smoothing: float, weighted: bool) -> None:
    if weighted and smoothing:
        return

    def loss(output: Tensor, target: Tensor) -> Tensor:
        weight = torch.tensor([0.5, 1.0, 2.0, 1.5]) if weighted else None
        return F.cross_entropy(output, target, weight, reduction=reduction, label_smoothing=smoothing, ignore_index=3)

    trace = gn.trace(Net(lambda x: x * 2), made(5, 4), torch.tensor([0, 1, 3, 2, 1]), loss)
    assert agree(trace, 1e-6).coverage == 1


@pytest.mark.parametrize("loss", [F.mse_loss, lambda o, t: F.nll_loss(o.log_softmax(1), t.argmax(1))])
def test_other_losses(loss: Operation) -> None:
    trace = gn.trace(Net(lambda x: x * 2), made(5, 4), made(5, 4).softmax(1), loss)
    agree(trace, 1e-6)


def test_under_autocast_numbers_are_rounded_as_torch_rounds_them() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.conv(x)

    trace = gn.trace(Cast(), made(1, 3, 6, 6))
    assert trace.output.dtype == torch.bfloat16
    agree(trace, 5e-3)
