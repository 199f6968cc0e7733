from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from glassnet.nn import pooling, winograd
from glassnet.nn.winograd import has_winograd, winograd_conv2d, winograd_pooled

needs_library = pytest.mark.skipif(not has_winograd(), reason="no C compiler here that compiles winograd.c")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def leaves_of(
    num_images: int, in_channels: int, out_channels: int, height: int, width: int, has_bias: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Return images, 3x3 kernels and maybe a bias, whose gradients are wanted, and the same in float64."""
    leaves = [drawn(num_images, in_channels, height, width), drawn(out_channels, in_channels, 3, 3, seed=1)]
    leaves += [drawn(out_channels, seed=2)] if has_bias else []
    return [leaf.requires_grad_() for leaf in leaves], [leaf.detach().double().requires_grad_() for leaf in leaves]


def assert_near(received: Tensor, expected: Tensor) -> None:
    """Within some millionths of the largest value of `expected`, which is in float64."""
    assert received.shape == expected.shape
    assert received.dtype == torch.float32
    assert (received - expected).abs().max() <= 2e-5 * expected.abs().max() + 1e-6


def assert_pass_is_near(images: Tensor, kernels: Tensor) -> None:
    """Outputs and gradients of a convolution with padding, compared with float64's."""
    outputs = winograd_conv2d(images, kernels)
    expected = functional.conv2d(images.double(), kernels.double(), padding=1)
    assert_near(outputs, expected)
    slopes = drawn(*outputs.shape, seed=1)
    received = torch.autograd.grad(outputs, (images, kernels), slopes)
    for ours, theirs in zip(received, torch.autograd.grad(expected, (images, kernels), slopes.double()), strict=True):
        assert_near(ours, theirs)


def assert_gradient_of_gradient_is_torchs(
    convolution: Callable[..., Tensor], leaves: Sequence[Tensor], first: int
) -> None:
    """Of the gradient of images (`first` 0) or kernels, taken by the other."""

    def penalty(convolve: Callable[..., Tensor]) -> Tensor:
        inputs = [leaf.detach().requires_grad_() for leaf in leaves]
        (slope,) = torch.autograd.grad(convolve(*inputs).square().sum(), inputs[first], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), inputs[1 - first])[0]

    expected, received = penalty(functional.conv2d), penalty(convolution)
    assert (received - expected).abs().max() <= 1e-4 * expected.abs().max()


@needs_library
@settings(deadline=None, max_examples=60)
@given(
    num_images=st.integers(1, 9),
    in_channels=st.integers(1, 9).map(lambda count: 8 * count),
    out_channels=st.integers(1, 9).map(lambda count: 8 * count),
    height=st.integers(3, 18),
    width=st.integers(3, 18),
    padding=st.integers(0, 2),
    has_bias=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_the_sum_as_it_is_written(
    num_images: int, in_channels: int, out_channels: int, height: int, width: int, padding: int, has_bias: bool
) -> None:
    inputs, exact = leaves_of(num_images, in_channels, out_channels, height, width, has_bias)
    outputs = winograd_conv2d(*inputs, padding=padding)
    expected = functional.conv2d(*exact, padding=padding)
    assert_near(outputs, expected)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    slopes = drawn(*outputs.shape, seed=3)
    received = torch.autograd.grad(outputs, inputs, slopes)
    for ours, theirs in zip(received, torch.autograd.grad(expected, exact, slopes.double()), strict=True):
        assert_near(ours, theirs)


@needs_library
@settings(deadline=None, max_examples=60)
@given(
    num_images=st.integers(1, 9),
    in_channels=st.integers(1, 9).map(lambda count: 8 * count),
    out_channels=st.integers(1, 9).map(lambda count: 8 * count),
    height=st.integers(4, 18),
    width=st.integers(4, 33),
    padding=st.integers(0, 2),
    has_bias=st.booleans(),
)
def test_pooling_with_a_convolution_picks_the_largest_and_hands_slopes_to_it(
    num_images: int, in_channels: int, out_channels: int, height: int, width: int, padding: int, has_bias: bool
) -> None:
    inputs, exact = leaves_of(num_images, in_channels, out_channels, height, width, has_bias)
    outputs = winograd_pooled(*inputs, padding=padding)
    convolved = functional.conv2d(*exact, padding=padding)
    assert_near(outputs, functional.max_pool2d(convolved, 2))
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    (largest,) = (saved for saved in outputs.grad_fn.saved_tensors if saved.dtype == torch.uint8)
    is_largest = pooling.spread(torch.ones_like(outputs), largest, convolved.shape)
    assert_near(4 * functional.avg_pool2d(is_largest * convolved, 2).float(), functional.max_pool2d(convolved, 2))
    slopes = drawn(*outputs.shape, seed=3)
    received = torch.autograd.grad(outputs, inputs, slopes)
    all_slopes = pooling.spread(slopes, largest, convolved.shape).double()
    for ours, theirs in zip(received, torch.autograd.grad(convolved, exact, all_slopes), strict=True):
        assert_near(ours, theirs)


@needs_library
def test_pooling_with_a_convolution_has_the_bits_of_one_after_the_other() -> None:
    """Where no tile is otherwise; ties and nan are what torch makes of them."""
    images, kernels, bias = drawn(30, 24, 15, 31).round(), drawn(40, 24, 3, 3).round(), drawn(40).round()
    images[0, 0, 7, 7] = torch.nan
    for leaf in (images, kernels, bias):
        leaf.requires_grad_()
    outputs = winograd_pooled(images, kernels, bias)
    expected = functional.max_pool2d(winograd_conv2d(images, kernels, bias), 2)
    assert outputs.isnan().any()
    assert torch.equal(outputs.nan_to_num(9999), expected.nan_to_num(9999))
    slopes = drawn(*outputs.shape, seed=1)
    pairs = (torch.autograd.grad(one, (images, kernels), slopes) for one in (outputs, expected))
    for ours, theirs in zip(*pairs, strict=True):
        assert torch.equal(ours.nan_to_num(9999), theirs.nan_to_num(9999))


@needs_library
@pytest.mark.parametrize("first", [0, 1])
def test_a_gradient_of_a_gradient_through_pooling_is_torchs(first: int) -> None:
    leaves = [drawn(3, 8, 6, 7).requires_grad_(), drawn(16, 8, 3, 3).requires_grad_()]

    def penalty(pooled: Callable[..., Tensor]) -> Tensor:
        (slope,) = torch.autograd.grad(pooled(*leaves).pow(3).sum(), leaves[first], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), leaves[1 - first])[0]

    expected = penalty(lambda *inputs: functional.max_pool2d(functional.conv2d(*inputs, padding=1), 2))
    received = penalty(winograd_pooled)
    assert (received - expected).abs().max() <= 1e-4 * expected.abs().max()


@needs_library
@pytest.mark.parametrize("padding", [1, 2])
def test_one_pixel_is_an_image_too(padding: int) -> None:
    images, kernels = drawn(3, 8, 1, 1), drawn(16, 8, 3, 3)
    expected = functional.conv2d(images.double(), kernels.double(), padding=padding)
    assert_near(winograd_conv2d(images, kernels, padding=padding), expected)


@needs_library
def test_channels_of_more_than_one_panel_and_tiles_of_more_than_one_block() -> None:
    images, kernels = drawn(40, 136, 9, 9).requires_grad_(), drawn(264, 136, 3, 3).requires_grad_()
    assert_pass_is_near(images, kernels)


@needs_library
def test_outputs_that_are_nearly_all_fours_have_tiles_of_four_only() -> None:
    images, kernels = drawn(2, 16, 23, 31).requires_grad_(), drawn(8, 16, 3, 3).requires_grad_()
    assert_pass_is_near(images, kernels)


@needs_library
@pytest.mark.parametrize(("in_channels", "out_channels"), [(8, 8), (24, 40), (40, 72)])
def test_the_build_for_wider_registers_computes_the_same(
    in_channels: int, out_channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Panels of 32 outputs and products of 12 rows, as on processors with AVX-512."""
    monkeypatch.setenv("CC", f"{os.environ.get('CC', 'gcc')} -DVL=16 -DMR=12")
    caches = (winograd._library, winograd._agrees_with_torch)
    for cache in caches:
        cache.cache_clear()
    try:
        assert has_winograd()
        assert winograd._library().winograd_panel() == 32
        images, kernels = drawn(7, in_channels, 11, 9), drawn(out_channels, in_channels, 3, 3)
        images, kernels = images.requires_grad_(), kernels.requires_grad_()
        assert_pass_is_near(images, kernels)
    finally:
        for cache in caches:
            cache.cache_clear()


@needs_library
def test_bits_depend_neither_on_the_number_of_threads_nor_on_the_layout() -> None:
    images, kernels, bias = drawn(30, 24, 11, 11), drawn(40, 24, 3, 3), drawn(40)  # torch sums the bias's gradient

    def passed(images: Tensor, kernels: Tensor) -> list[Tensor]:
        leaves = [leaf.detach().requires_grad_() for leaf in (images, kernels, bias)]
        outputs = winograd_conv2d(*leaves)
        return [outputs, *torch.autograd.grad(outputs, leaves[:2], drawn(*outputs.shape, seed=4))]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = passed(images, kernels)
        torch.set_num_threads(3)
        shared = passed(images, kernels)
    finally:
        torch.set_num_threads(before)
    laid_out = passed(images.to(memory_format=torch.channels_last), kernels.to(memory_format=torch.channels_last))
    for one, three, other in zip(alone, shared, laid_out, strict=True):
        assert torch.equal(one, three)
        assert torch.equal(one, other)


@needs_library
def test_only_the_gradients_that_are_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    images, kernels = drawn(2, 8, 6, 6), drawn(8, 8, 3, 3)
    of_kernels = winograd_conv2d(images, kernels.requires_grad_())
    of_images = winograd_conv2d(images.clone().requires_grad_(), kernels.detach())
    called: list[str] = []
    for name in ("_convolved", "_kernel_gradient"):
        own = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *given, name=name, own=own: called.append(name) or own(*given))
    of_kernels.sum().backward()
    of_images.sum().backward()
    assert called == ["_kernel_gradient", "_convolved"]


@needs_library
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("first", [0, 1])
def test_a_gradient_of_a_gradient_is_torchs(first: int, layout: torch.memory_format) -> None:
    leaves = [drawn(2, 8, 6, 6).to(memory_format=layout), drawn(16, 8, 3, 3).to(memory_format=layout)]
    assert_gradient_of_gradient_is_torchs(lambda *given: winograd_conv2d(*given, padding=0), leaves, first)


@needs_library
def test_what_is_saved_may_come_back_in_another_layout() -> None:
    leaves = [drawn(2, 8, 6, 6).to(memory_format=torch.channels_last), drawn(16, 8, 3, 3)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    expected = torch.autograd.grad(winograd_conv2d(*leaves).square().sum(), leaves)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.contiguous(), lambda saved: saved):
        received = torch.autograd.grad(winograd_conv2d(*leaves).square().sum(), leaves)
    assert all(torch.equal(one, other) for one, other in zip(received, expected, strict=True))


@needs_library
def test_defaults_of_the_user_do_not_matter() -> None:
    images, kernels = drawn(2, 8, 6, 6), drawn(16, 8, 3, 3)
    expected = winograd_conv2d(images, kernels)
    winograd._agrees_with_torch.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert has_winograd()
            assert torch.equal(winograd_conv2d(images, kernels), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_no_such_convolution_is_refused() -> None:
    images, kernels = drawn(1, 8, 5, 5), drawn(8, 8, 3, 3)
    for arguments, message in (
        ((images[0], kernels), r"expects images \(N, C, H, W\).*got \(8, 5, 5\)"),
        ((images, drawn(8, 8, 5, 5)), r"kernels \(K, C, 3, 3\).*\(8, 8, 5, 5\)"),
        ((images, drawn(8, 16, 3, 3)), r"got \(1, 8, 5, 5\) and \(8, 16, 3, 3\)"),
        ((images.double(), kernels.double()), "expects float32 on a CPU; got torch.float64"),
        ((images.to("meta"), kernels.to("meta")), "expects float32 on a CPU; got torch.float32 on meta"),
        ((drawn(1, 3, 5, 5), drawn(8, 3, 3, 3)), "multiples of 8; got 3 and 8"),
        ((images, drawn(12, 8, 3, 3)), "multiples of 8; got 8 and 12"),
        ((images, kernels, None, 3), "padding of 0, 1 or 2; got 3"),
        ((images, kernels, torch.zeros(16)), r"expects a bias \(8,\), one number a kernel; got \(16,\)"),
        ((images, kernels, torch.zeros(8).double()), "expects float32 on a CPU; got torch.float64"),
        ((images[:0], kernels), r"got \(0, 8, 5, 5\)"),
        ((images[..., :2], kernels, None, 0), r"makes 3x3 or more; got \(1, 8, 5, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            winograd_conv2d(*arguments)


def test_without_a_library_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_library", lambda: None)
    assert not has_winograd()
    with pytest.raises(RuntimeError, match="no C compiler.*Use torch's conv2d"):
        winograd_conv2d(drawn(1, 8, 5, 5), drawn(8, 8, 3, 3))
    with pytest.raises(RuntimeError, match="winograd.c and pooling.c. Use torch's conv2d and max_pool2d"):
        winograd_pooled(drawn(1, 8, 4, 4), drawn(8, 8, 3, 3))


def test_what_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(ValueError, match=r"winograd_pooled expects 2x2 outputs or more; got images \(1, 8, 3, 9\)"):
        winograd_pooled(drawn(1, 8, 3, 9), drawn(8, 8, 3, 3), padding=0)
    with pytest.raises(ValueError, match="channels in multiples of 8"):
        winograd_pooled(drawn(1, 6, 4, 4), drawn(8, 6, 3, 3))


@needs_library
def test_a_library_that_computes_something_else_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    convolved = winograd._convolved
    winograd._agrees_with_torch.cache_clear()
    monkeypatch.setattr(winograd, "_convolved", lambda *arguments: convolved(*arguments) * 1.001)
    try:
        assert not has_winograd()
    finally:
        winograd._agrees_with_torch.cache_clear()
