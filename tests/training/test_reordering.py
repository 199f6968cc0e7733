from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet.nn.pooling import has_max_pool
from glassnet.nn.winograd import has_winograd
from glassnet.training.filtering import minimal_filtering
from glassnet.training.pooling import quick_pooling
from glassnet.training.reordering import pooled_first

needs_libraries = pytest.mark.skipif(
    not (has_winograd() and has_max_pool()), reason="no C compiler here that compiles winograd.c and pooling.c"
)


def gradients(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return outputs and gradients of one training pass, drawn from the same seed each time."""
    model.zero_grad()
    model.train()
    torch.manual_seed(0)
    outputs = model(images)
    (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum().backward()
    return outputs.detach(), [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def calls(model: nn.Module, images: Tensor) -> list[str]:
    """Return the names of the modules of no children in the order of their calls."""
    names: list[str] = []
    own = {name: module for name, module in model.named_modules() if not list(module.children())}
    for name, module in own.items():
        module.forward = lambda inputs, name=name, forward=module.forward: names.append(name) or forward(inputs)
    with torch.no_grad():
        model(images)
    for module in own.values():
        del module.forward
    return names


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet5", (1, 32, 32)), ("cnn2d", (1, 8, 8)), ("alexnet", (3, 224, 224)), ("vgg11", (3, 32, 32))],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_keep_their_bits(name: str, shape: tuple[int, ...], layout: torch.memory_format) -> None:
    model = gn.build_model(name, input_shape=shape, num_classes=10, seed=1).to(memory_format=layout)
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2)).to(memory_format=layout)
    images[1] = 0.5  # ties within every window
    outputs, expected = gradients(model, images)
    with pooled_first(model):
        again, received = gradients(model, images)
    assert torch.equal(outputs, again)
    assert all(torch.equal(a, b) for a, b in zip(expected, received, strict=True))


def test_relu_goes_after_the_pooling_that_follows_it_and_comes_back() -> None:
    layers = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1)
    model = nn.Sequential(*layers)
    images = torch.randn(1, 1, 12, 12)
    with pooled_first(model):
        assert calls(model, images) == ["0", "2", "3", "1", "4", "5"]
        assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3", "4", "5"]
    assert calls(model, images) == ["0", "1", "2", "3", "4", "5"]


def test_what_does_not_commute_stays() -> None:
    class Doubling(nn.MaxPool2d):
        def forward(self, input: Tensor) -> Tensor:
            return -super().forward(input)

    images = torch.randn(1, 1, 8, 8)
    for first, second in (
        (nn.ReLU(), nn.AvgPool2d(2)),
        (nn.GELU(), nn.MaxPool2d(2)),
        (nn.ReLU(), Doubling(2)),
        (nn.MaxPool2d(2), nn.ReLU()),
        (nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        (nn.ReLU(), nn.MaxPool2d(2, dilation=2)),
    ):
        model = nn.Sequential(first, second)
        with pooled_first(model):
            assert calls(model, images) == ["0", "1"]


def test_a_chain_that_is_indexed_or_watched_is_as_it_was() -> None:
    chain = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    images, seen = torch.randn(1, 1, 4, 4), []
    with pooled_first(chain):
        assert torch.equal(chain[0](images), images.relu())
        assert torch.equal(chain[:1](images), images.relu())
        handle = chain[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
        chain(images)
        assert seen[0].shape == images.shape
        handle.remove()


def test_a_hook_on_every_module_sees_them_in_their_places() -> None:
    chain, seen = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), []
    with pooled_first(chain):
        handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: seen.append(module))
        chain(torch.randn(1, 1, 4, 4))
        handle.remove()
    assert seen == [chain[0], chain[1], chain]


def test_copies_and_pickles_made_meanwhile_are_plain_chains_of_their_own(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(2))
    images = torch.randn(1, 1, 4, 4)
    expected = model(images)
    with pooled_first(model):
        torch.save(model, tmp_path / "model.pt")
        copies = copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)
    with torch.no_grad():
        model[0].weight.add_(1)
    for other in copies:
        assert type(other) is nn.Sequential
        assert torch.equal(other(images), expected)


def test_an_error_puts_the_order_back() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    with pytest.raises(KeyError), pooled_first(model):
        raise KeyError
    assert type(model) is nn.Sequential


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 24, 3), nn.MaxPool2d(2)
    return nn.Sequential(*layers)


def operations(outputs: Tensor) -> list[str]:
    """Return the names of the operations that made `outputs`, the last first."""
    names, function = [], outputs.grad_fn
    while function is not None and "Accumulate" not in function.name():
        names.append(function.name().removesuffix("Backward"))
        function = function.next_functions[0][0]
    return names


@needs_libraries
def test_a_convolution_and_the_pooling_after_it_are_computed_at_once() -> None:
    model = convolutions()
    images = torch.randn(20, 24, 14, 14, generator=torch.Generator().manual_seed(1))
    images = images.to(memory_format=torch.channels_last).requires_grad_()
    expected, expected_slopes = gradients(model, images)
    with pooled_first(model), quick_pooling(model), minimal_filtering(model):
        outputs, slopes = gradients(model, images)
        assert operations(model(images)) == ["PooledConvolution", "ReluBackward0", "PooledConvolution"]
        assert torch.allclose(outputs, expected, atol=1e-5)
        for ours, theirs in zip(slopes, expected_slopes, strict=True):
            assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
        with torch.no_grad():
            assert torch.equal(model(images), expected)
        few = images[:1].detach()  # too few tiles for minimal filtering
        assert "PooledConvolution" not in operations(model(few))
    assert "PooledConvolution" not in operations(model(images))


@needs_libraries
@pytest.mark.parametrize("place", [0, 2])
def test_layers_that_are_watched_are_computed_one_after_the_other(place: int) -> None:
    model, shapes = convolutions(), []
    images = torch.randn(20, 24, 14, 14).to(memory_format=torch.channels_last)
    with pooled_first(model), quick_pooling(model), minimal_filtering(model):
        handle = model[place].register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[2:]))
        names = operations(model(images))
        handle.remove()
        assert names.count("PooledConvolution") == 1
        assert shapes == [(14, 14) if place == 0 else (7, 7)]
        forward = model[place].forward
        model[place].forward = lambda inputs: 2 * forward(inputs)
        assert operations(model(images)).count("PooledConvolution") == 1
        del model[place].forward
        assert operations(model(images)).count("PooledConvolution") == 2
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert "PooledConvolution" not in operations(model(images))


@needs_libraries
@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2)])
def test_other_pooling_follows(pool: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(24, 32, 3, padding=1), pool)
    images = torch.randn(20, 24, 14, 14).to(memory_format=torch.channels_last)
    with pooled_first(model), quick_pooling(model), minimal_filtering(model):
        assert operations(model(images))[-1] == "WinogradConvolution"
