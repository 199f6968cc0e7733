from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from glassnet.nn import normalising
from glassnet.nn.normalising import batch_norm2d, has_batch_norm

from .test_winograd import drawn

needs_library = pytest.mark.skipif(not has_batch_norm(), reason="no C compiler here that compiles normalising.c")


def parameters(channels: int) -> list[Tensor]:
    """Running mean and variance, weight and bias."""
    return [drawn(channels), drawn(channels, seed=1).square(), drawn(channels, seed=2), drawn(channels, seed=3)]


def assert_near(received: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert received.shape == expected.shape
    assert received.dtype == torch.float32
    assert (received - expected).abs().max() <= tolerance * (expected.abs().max() + 1)


@needs_library
@settings(deadline=None, max_examples=100)
@given(
    num_images=st.integers(1, 30),
    channels=st.integers(1, 9).map(lambda count: 8 * count),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    middle=st.floats(-100, 100),
    momentum=st.floats(0, 1),
)
def test_outputs_gradients_and_statistics_are_those_of_the_definition(
    num_images: int, channels: int, height: int, width: int, middle: float, momentum: float
) -> None:
    if num_images * height * width < 5:
        height = 5  # a spread of few numbers may be tiny, and its error as large
    images = drawn(num_images, channels, height, width) + middle
    given_values = [images, *parameters(channels)]
    ours = [values.clone() for values in given_values]
    exact = [values.double() for values in given_values]
    for values in (ours, exact):
        for leaf in (values[0], *values[3:]):
            leaf.requires_grad_()
    outputs = batch_norm2d(*ours, momentum, 1e-3)
    expected = functional.batch_norm(*exact, training=True, momentum=momentum, eps=1e-3)
    assert_near(outputs, expected, 1e-5 * (1 + abs(middle) / 10))
    for own, true in zip(ours[1:3], exact[1:3], strict=True):
        assert_near(own, true)
    slopes = drawn(*outputs.shape, seed=5)
    received = torch.autograd.grad(outputs, [ours[0], *ours[3:]], slopes)
    true_slopes = torch.autograd.grad(expected, [exact[0], *exact[3:]], slopes.double())
    for own, true in zip(received, true_slopes, strict=True):
        assert_near(own, true, 2e-5 * (1 + abs(middle) / 10))


@needs_library
def test_a_mean_far_from_zero_costs_no_more_digits_than_float32_has_lost_already() -> None:
    images = drawn(64, 8, 20, 20) * 0.01 + 1000
    exact = functional.batch_norm(images.double(), None, None, training=True)
    plain = [torch.zeros(8), torch.ones(8), torch.ones(8), torch.zeros(8)]
    error = (batch_norm2d(images, *plain) - exact).abs().max()
    theirs = (functional.batch_norm(images, *plain, training=True) - exact).abs().max()
    assert error <= 1.5 * theirs + 1e-5


@needs_library
def test_bits_depend_neither_on_the_number_of_threads_nor_on_the_layout() -> None:
    images = drawn(30, 24, 11, 11)

    def passed(images: Tensor) -> list[Tensor]:
        mean, variance, weight, bias = parameters(24)
        leaves = [values.detach().requires_grad_() for values in (images, weight, bias)]
        outputs = batch_norm2d(leaves[0], mean, variance, *leaves[1:])
        return [outputs, mean, variance, *torch.autograd.grad(outputs, leaves, drawn(*outputs.shape, seed=4))]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = passed(images)
        torch.set_num_threads(3)
        shared = passed(images)
    finally:
        torch.set_num_threads(before)
    laid_out = passed(images.to(memory_format=torch.channels_last))
    for one, three, other in zip(alone, shared, laid_out, strict=True):
        assert torch.equal(one, three)
        assert torch.equal(one, other)


@needs_library
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("first", [0, 3])
def test_a_gradient_of_a_gradient_is_torchs(first: int, layout: torch.memory_format) -> None:
    def penalty(is_ours: bool) -> Tensor:
        values = [drawn(3, 8, 4, 4).to(memory_format=layout), *parameters(8)]
        leaves = [values[0].requires_grad_(), *values[1:3], *(value.requires_grad_() for value in values[3:])]
        outputs = batch_norm2d(*leaves) if is_ours else functional.batch_norm(*leaves, training=True)
        (slope,) = torch.autograd.grad(outputs.pow(3).sum(), leaves[first], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), leaves[0])[0]

    expected, received = penalty(False), penalty(True)
    assert (received - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_what_it_does_not_normalise_is_refused() -> None:
    images, values = drawn(2, 8, 5, 5), parameters(8)
    for others, message in (
        ([images[0], *values], r"expects images \(N, C, H, W\).*got \(8, 5, 5\)"),
        ([images.double(), *values], "float32 on a CPU.*got .* of torch.float64"),
        ([drawn(2, 12, 5, 5), *values], r"multiple of 8.*got \(2, 12, 5, 5\)"),
        ([drawn(1, 8, 1, 1), *values], r"two numbers or more.*got \(1, 8, 1, 1\)"),
        ([images, torch.zeros(16), *values[1:]], r"running_mean \(8,\).*got \(16,\)"),
        ([images, *values[:3], torch.zeros(16)[::2]], r"bias \(8,\) of float32 on a CPU, without gaps"),
        ([images, *values[:2], values[2].double(), values[3]], r"weight \(8,\).*torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            batch_norm2d(*others)


def test_without_a_library_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalising, "_library", lambda: None)
    assert not has_batch_norm()
    with pytest.raises(RuntimeError, match="no C compiler.*Use torch's batch_norm"):
        batch_norm2d(drawn(2, 8, 5, 5), *parameters(8))


@needs_library
@pytest.mark.parametrize("part", ["_normalised", "_gradients"])
def test_a_library_that_computes_something_else_is_not_trusted(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = getattr(normalising, part)
    normalising._agrees_with_torch.cache_clear()
    monkeypatch.setattr(normalising, part, lambda *given: tuple(one * 1.001 for one in own(*given)))
    try:
        assert not has_batch_norm()
    finally:
        normalising._agrees_with_torch.cache_clear()
