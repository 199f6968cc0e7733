from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from glassnet.nn import narrow
from glassnet.nn.narrow import has_narrow, narrow_conv2d

from .test_winograd import assert_gradient_of_gradient_is_torchs, drawn

needs_library = pytest.mark.skipif(not has_narrow(), reason="no C compiler here that compiles narrow.c")


def assert_near(received: Tensor, expected: Tensor, num_terms: int = 100) -> None:
    """Within some ten-millionths of what a sum of so many numbers of both signs, each about 1, may be on its way."""
    assert received.shape == expected.shape
    assert received.dtype == torch.float32
    assert (received - expected).abs().max() <= 2e-6 * (expected.abs().max() + num_terms**0.5)


@needs_library
@settings(deadline=None, max_examples=150)
@given(
    num_images=st.integers(1, 40),
    in_channels=st.integers(1, 20),
    out_channels=st.integers(1, 34),
    height=st.integers(6, 30),
    width=st.integers(6, 30),
    side=st.integers(1, 6),
    padding=st.integers(0, 5),
    has_bias=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_the_sum_as_it_is_written(
    num_images: int,
    in_channels: int,
    out_channels: int,
    height: int,
    width: int,
    side: int,
    padding: int,
    has_bias: bool,
) -> None:
    padding = min(padding, side - 1)
    leaves = [drawn(num_images, in_channels, height, width), drawn(out_channels, in_channels, side, side, seed=1)]
    leaves += [drawn(out_channels, seed=2)] if has_bias else []
    inputs = [leaf.requires_grad_() for leaf in leaves]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    outputs = narrow_conv2d(*inputs, padding=padding)
    expected = functional.conv2d(*exact, padding=padding)
    assert_near(outputs, expected)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    slopes = drawn(*outputs.shape, seed=3)
    received = torch.autograd.grad(outputs, inputs, slopes)
    for ours, theirs in zip(received, torch.autograd.grad(expected, exact, slopes.double()), strict=True):
        assert_near(ours, theirs, max(100, slopes[:, 0].numel()))


@needs_library
@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 6), (6, 16), (16, 3), (3, 20)])
def test_nothing_is_written_beside_the_outputs(in_channels: int, out_channels: int) -> None:
    """Vectors of eight reach beyond six channels: not beyond the last pixel, nor into what another thread wrote."""
    images, kernels = drawn(9, in_channels, 7, 13), drawn(out_channels, in_channels, 3, 3)
    expected = functional.conv2d(images.double(), kernels.double())
    for _ in range(20):
        frame = torch.full((expected.numel() + 32,), 7.0)
        memory = frame[16:-16].view(expected.shape[0], *expected.shape[2:], out_channels).permute(0, 3, 1, 2)
        empty = torch.empty
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "empty", lambda *shape, memory=memory, **values: memory)
            outputs = narrow_conv2d(images, kernels)
        assert torch.empty is empty
        assert outputs.data_ptr() == memory.data_ptr()
        assert_near(outputs, expected)
        assert bool((frame[:16] == 7).all() and (frame[-16:] == 7).all())


@needs_library
def test_bits_depend_neither_on_the_number_of_threads_nor_on_the_layout() -> None:
    images, kernels, bias = drawn(70, 6, 14, 14), drawn(16, 6, 5, 5), drawn(16)

    def passed(images: Tensor, kernels: Tensor) -> list[Tensor]:
        leaves = [leaf.detach().requires_grad_() for leaf in (images, kernels, bias)]
        outputs = narrow_conv2d(*leaves, padding=2)
        return [outputs, *torch.autograd.grad(outputs, leaves, drawn(*outputs.shape, seed=4))]

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
    images, kernels = drawn(2, 1, 6, 6), drawn(4, 1, 3, 3)
    of_kernels = narrow_conv2d(images, kernels.requires_grad_())
    of_images = narrow_conv2d(images.clone().requires_grad_(), kernels.detach())
    called: list[str] = []
    for name in ("_image_gradient", "_kernel_gradient"):
        own = getattr(narrow, name)
        monkeypatch.setattr(narrow, name, lambda *given, name=name, own=own: called.append(name) or own(*given))
    of_kernels.sum().backward()
    of_images.sum().backward()
    assert called == ["_kernel_gradient", "_image_gradient"]


@needs_library
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("first", [0, 1])
def test_a_gradient_of_a_gradient_is_torchs(first: int, layout: torch.memory_format) -> None:
    leaves = [drawn(2, 3, 6, 6).to(memory_format=layout), drawn(4, 3, 3, 3).to(memory_format=layout)]
    assert_gradient_of_gradient_is_torchs(narrow_conv2d, leaves, first)


def test_what_is_no_such_convolution_is_refused() -> None:
    images, kernels = drawn(1, 2, 5, 5), drawn(4, 2, 3, 3)
    for arguments, message in (
        ((images[0], kernels), r"expects images \(N, C, H, W\).*got \(2, 5, 5\)"),
        ((images, drawn(4, 2, 3, 5)), r"kernels \(K, C, U, U\).*\(4, 2, 3, 5\)"),
        ((images, drawn(4, 1, 3, 3)), r"got \(1, 2, 5, 5\) and \(4, 1, 3, 3\)"),
        ((images.double(), kernels.double()), "expects float32 on a CPU; got torch.float64"),
        ((images.to("meta"), kernels.to("meta")), "expects float32 on a CPU; got torch.float32 on meta"),
        ((images, kernels, None, 3), "padding of 0 to 2 with kernels of 3x3; got 3"),
        ((images, kernels, torch.zeros(8)), r"expects a bias \(4,\), one number a kernel; got \(8,\)"),
        ((images, kernels, torch.zeros(4).double()), "expects float32 on a CPU; got torch.float64"),
        ((images[:0], kernels), r"got \(0, 2, 5, 5\)"),
        ((images[..., :2], kernels), r"padding of 0 makes 3x3 or more; got \(1, 2, 5, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            narrow_conv2d(*arguments)


def test_without_a_library_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "_library", lambda: None)
    assert not has_narrow()
    with pytest.raises(RuntimeError, match="no C compiler.*Use torch's conv2d"):
        narrow_conv2d(drawn(1, 2, 5, 5), drawn(4, 2, 3, 3))


@needs_library
@pytest.mark.parametrize("part", ["_convolved", "_image_gradient", "_kernel_gradient"])
def test_a_library_that_computes_something_else_is_not_trusted(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = getattr(narrow, part)

    def wrong(*arguments: object) -> object:
        received = own(*arguments)
        return received * 1.001 if isinstance(received, Tensor) else tuple(one * 1.001 for one in received)

    narrow._agrees_with_torch.cache_clear()
    monkeypatch.setattr(narrow, part, wrong)
    try:
        assert not has_narrow()
    finally:
        narrow._agrees_with_torch.cache_clear()
