from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import glassnet as gn
from glassnet.training.reordering import pooled_first


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
    own = {id(module): name for name, module in model.named_modules() if not list(module.children())}
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: names.append(own[id(module)]) if id(module) in own else None
    )
    with torch.no_grad():
        model(images)
    handle.remove()
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


def test_a_copy_made_meanwhile_calls_its_own_modules() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(2))
    with pooled_first(model):
        other = copy.deepcopy(model)
    images = torch.randn(1, 1, 4, 4)
    expected = other(images)
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(other(images), expected)


def test_an_error_puts_the_order_back() -> None:
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    with pytest.raises(KeyError), pooled_first(model):
        raise KeyError
    assert "forward" not in vars(model)
