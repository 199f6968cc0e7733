from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from glassnet.nn import gelu as own
from glassnet.nn.gelu import gelu, has_gelu

from .test_winograd import drawn

needs_library = pytest.mark.skipif(not has_gelu(), reason="no C compiler here that compiles gelu.c")
STREAMED = 2**22 + 4099
"""Numbers enough for a result that is written past the caches, and no multiple of what a thread takes."""


def exact(inputs: Tensor) -> Tensor:
    """Return x Phi(x) in float64, without the cancellation of 1 + erf."""
    doubles = inputs.double()
    return doubles * 0.5 * torch.erfc(-doubles / math.sqrt(2))


def with_gradient(function: object, inputs: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    assert callable(function)
    leaf = inputs.detach().requires_grad_()
    outputs = function(leaf)
    return outputs.detach(), torch.autograd.grad(outputs, leaf, slopes)[0]


@needs_library
def test_outputs_and_gradients_are_as_near_to_the_exact_ones_as_float32_is() -> None:
    inputs = torch.linspace(-15, 15, 300_001)
    ones = torch.ones_like(inputs)
    outputs, gradient = with_gradient(gelu, inputs, ones)
    expected, expected_gradient = with_gradient(exact, inputs.double(), ones.double())
    theirs, their_gradient = with_gradient(functional.gelu, inputs, ones)
    error, their_error = (outputs - expected).abs(), (theirs - expected).abs()
    assert error.max() <= their_error.max()
    assert (gradient - expected_gradient).abs().max() <= (their_gradient - expected_gradient).abs().max()
    is_small = (inputs > -6) & (inputs < -4)  # where torch has few digits or none
    assert (error / expected.abs())[is_small].max() < 1e-3
    assert (their_error / expected.abs())[is_small].max() > 0.1


@needs_library
@settings(deadline=None, max_examples=50)
@given(count=st.integers(0, 20_000), spread=st.floats(0.01, 100))
def test_any_number_of_numbers(count: int, spread: float) -> None:
    inputs, slopes = spread * drawn(count), drawn(count, seed=1)
    outputs, gradient = with_gradient(gelu, inputs, slopes)
    expected, expected_gradient = with_gradient(functional.gelu, inputs.double(), slopes.double())
    assert torch.allclose(outputs, expected.float(), rtol=1e-5, atol=1e-6)
    assert torch.allclose(gradient, expected_gradient.float(), rtol=1e-5, atol=1e-5)


@needs_library
def test_what_is_written_past_the_caches_is_the_same() -> None:
    inputs, slopes = drawn(STREAMED), drawn(STREAMED, seed=1)
    outputs, gradient = with_gradient(gelu, inputs, slopes)
    for start in range(0, STREAMED, 2**20):
        part = slice(start, start + 2**20)
        for whole, alone in zip((outputs, gradient), with_gradient(gelu, inputs[part], slopes[part]), strict=True):
            assert torch.equal(whole[part], alone)


@needs_library
def test_numbers_at_the_ends_of_the_range() -> None:
    inf, nan = torch.inf, torch.nan
    inputs = torch.tensor([inf, nan, 3e38, -3e38, 0.0, -0.0, 1e-40, 12.0, -12.0])
    outputs, gradient = with_gradient(gelu, inputs, torch.ones_like(inputs))
    assert torch.equal(outputs[[0, 2, 7]], inputs[[0, 2, 7]])
    assert torch.equal(gradient[[0, 2, 3, 4, 7]], torch.tensor([1, 1, 0, 0.5, 1]))
    assert outputs[1].isnan()
    assert gradient[1].isnan()
    assert outputs[3:6].abs().max() == 0
    assert outputs[8].abs() < 1e-30


@needs_library
@pytest.mark.parametrize("change", ["channels_last", "transposed", "gaps", "expanded", "scalar"])
def test_any_layout(change: str) -> None:
    images = drawn(4, 6, 5, 7)
    inputs = {
        "channels_last": images.to(memory_format=torch.channels_last),
        "transposed": images.transpose(0, 3),
        "gaps": images[:, ::2],
        "expanded": images[:, :1].expand(4, 6, 5, 7),
        "scalar": images[0, 0, 0, 0],
    }[change]
    expected = functional.gelu(inputs)
    slopes = drawn(max(1, inputs.numel()), seed=1).view(inputs.shape)
    outputs, gradient = with_gradient(gelu, inputs, slopes)
    assert outputs.shape == expected.shape
    assert torch.allclose(outputs, expected, atol=1e-6)
    assert torch.allclose(gradient, with_gradient(functional.gelu, inputs, slopes)[1], atol=1e-6)
    if change == "channels_last":
        assert outputs.is_contiguous(memory_format=torch.channels_last)


@needs_library
def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    inputs, slopes, before = drawn(70_001), drawn(70_001, seed=1), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = with_gradient(gelu, inputs, slopes)
        torch.set_num_threads(3)
        shared = with_gradient(gelu, inputs, slopes)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(alone, shared, strict=True))


@needs_library
def test_a_gradient_of_a_gradient_is_torchs() -> None:
    def penalty(function: object) -> Tensor:
        leaf = drawn(100).requires_grad_()
        assert callable(function)
        (slope,) = torch.autograd.grad(function(leaf).pow(3).sum(), leaf, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), leaf)[0]

    assert torch.allclose(penalty(gelu), penalty(functional.gelu), rtol=1e-4, atol=1e-5)


def test_what_it_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="expects float32 on a CPU; got torch.float64 on cpu"):
        gelu(drawn(3).double())


def test_without_a_library_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_library", lambda: None)
    assert not has_gelu()
    with pytest.raises(RuntimeError, match="no C compiler.*Use torch's gelu"):
        gelu(drawn(3))


@needs_library
@pytest.mark.parametrize("part", ["_activated", "_gradient"])
def test_a_library_that_computes_something_else_is_not_trusted(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(own, part)
    own._agrees_with_torch.cache_clear()
    monkeypatch.setattr(own, part, lambda *given: right(*given) * 1.001)
    try:
        assert not has_gelu()
    finally:
        own._agrees_with_torch.cache_clear()
