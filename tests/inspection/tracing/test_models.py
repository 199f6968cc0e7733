"""Every network that glassnet builds, and torch's own larger modules, traced and compared with a plain run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import glassnet as gn
from glassnet.models import ARCHITECTURES, spec_of

SMALL: dict[str, dict[str, object]] = {
    "alexnet": {"input_shape": (3, 67, 67), "hidden": 16},
    "alexnet-2012": {"input_shape": (3, 67, 67), "hidden": 16},
    "alexnet-torchvision": {"input_shape": (3, 63, 63), "hidden": 16},
    "zfnet": {"input_shape": (3, 67, 67), "hidden": 16},
    "googlenet": {"input_shape": (3, 79, 79)},
    "googlenet-torchvision": {"input_shape": (3, 33, 33)},
    **{name: {"input_shape": (3, 32, 32), "hidden": 16} for name in gn.list_models() if name.startswith("vgg")},
    **{f"resnet{d}": {"input_shape": (3, 33, 33)} for d in ("18", "34", "50", "101", "152", "18-lecture")},
    **{name: {"unit": "sigmoid"} for name in gn.list_models() if name.startswith("gate-")},
}
"""Options that make the larger networks small."""

LARGE = {
    *(f"vgg{depth}{norm}" for depth in (13, 16, 19) for norm in ("", "-bn")),
    *(f"resnet{depth}" for depth in (32, 34, 44, 56, 101, 110, 152)),
}
"""Deeper forms of networks that are traced with everything checked: here their output alone is."""


def squared_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(output, target)


@pytest.mark.parametrize("name", gn.list_models())
def test_a_network_of_glassnets_is_recorded_as_it_computes(name: str, checked: Callable) -> None:
    num_classes = 1 if ARCHITECTURES[name].is_regression else 4 if ARCHITECTURES[name].num_classes > 2 else 2
    model = gn.build_model(name, num_classes=num_classes, **SMALL.get(name, {}))
    shape = spec_of(model).input_shape
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    if name in LARGE:
        model.eval()
        assert torch.equal(gn.trace(model, image).output, model(image[None]))
        return
    output = model.eval()(image[None])
    model.train()
    has_classes = output.shape[1] > 1
    loss = None if has_classes else squared_error
    trace = checked(model, image, 1 if has_classes else torch.full_like(output, 0.3), loss)
    assert trace.is_batch_added
    assert trace.inputs[0].shape == (1, *shape)


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "googlenet-torchvision", "alexnet-torchvision"])
def test_a_network_is_recorded_in_training_mode_with_batch_statistics_and_dropout(name: str, checked: Callable) -> None:
    model = gn.build_model(name, num_classes=3, **SMALL.get(name, {}))
    images = torch.rand(2, *spec_of(model).input_shape, generator=torch.Generator().manual_seed(1))
    trace = checked(model, images, torch.tensor([0, 2]), training=True)
    assert trace.is_training
    assert any(step.is_random for step in trace.steps) == any(isinstance(m, nn.Dropout) for m in model.modules())


def test_the_steps_of_lenet5_are_its_modules_and_the_loss(checked: Callable) -> None:
    trace = checked(gn.build_model("lenet5"), torch.rand(1, 32, 32), 3)
    names = ["c1", "act1", "s2", "c3", "act3", "s4", "c5", "act5", "flatten", "f6", "act6", "output"]
    assert [step.name for step in trace.steps] == [*names, "loss.cross_entropy"]
    first = trace.step("c1")
    assert (first.op, first.module, first.input_names) == ("conv2d", "c1", ("input", "weight", "bias"))
    assert first.arguments["stride"] == (1, 1)
    assert first.input("weight").path == "c1.weight"
    assert first.inputs[0] == trace.inputs[0]
    softmax = trace.output.softmax(1)
    assert torch.allclose(trace.gradient("output"), softmax - nn.functional.one_hot(torch.tensor([3]), 10), atol=1e-6)


def test_a_residual_block_has_its_addition_and_its_relu_used_twice(checked: Callable) -> None:
    trace = checked(gn.build_model("resnet18", num_classes=3, input_shape=(3, 33, 33)), torch.rand(3, 33, 33))
    block = [step.name.removeprefix("layer1.0.") for step in trace.steps if step.name.startswith("layer1.0.")]
    assert block == ["conv1", "bn1", "relu", "conv2", "bn2", "add", "relu_1"]
    assert trace.step("layer1.0") is trace.step("layer1.0.relu_1")
    shortcut = trace.step("maxpool").output
    assert [(step.name, position) for step, position in trace.consumers(shortcut)] == [
        ("layer1.0.conv1", 0),
        ("layer1.0.add", 1),
    ]


ATTENTION = [
    nn.MultiheadAttention(8, 2, batch_first=True),
    nn.MultiheadAttention(8, 2, kdim=8, vdim=8, add_bias_kv=True, add_zero_attn=True),
]


@pytest.mark.parametrize("model", ATTENTION)
def test_attention_is_opened(model: nn.Module, checked: Callable) -> None:
    tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    trace = checked(model, (tokens, tokens, tokens), torch.zeros(2, 5, 8), lambda out, t: squared_error(out[0], t))
    ops = [step.op for step in trace.steps]
    assert "softmax" in ops
    assert ops.count("linear") >= 2
    assert "multi_head_attention_forward" not in ops


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_fast_path_of_a_transformer_layer_hides_nothing(norm_first: bool, checked: Callable) -> None:
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first),
        2,
        enable_nested_tensor=False,
    )
    trace = checked(model, torch.randn(2, 5, 8), torch.zeros(2, 5, 8), squared_error)
    names = [step.name for step in trace.steps]
    assert "layers.0.self_attn.attention.scaled_dot_product_attention" in names
    assert {"layers.0.linear1", "layers.0.norm1", "layers.1.add_1"} <= set(names)
    product = trace.step("layers.0.self_attn.attention.scaled_dot_product_attention")
    assert product.input_names[:3] == ("query", "key", "value")
    assert product.arguments["is_causal"] is False


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_is_one_step(kind: type[nn.Module], checked: Callable) -> None:
    trace = checked(
        kind(4, 3, batch_first=True), torch.randn(2, 5, 4), torch.zeros(2, 5, 3), lambda o, t: squared_error(o[0], t)
    )
    assert next(step.name for step in trace.steps) in {"lstm", "gru", "rnn_tanh"}
