from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from glassnet.nn import pooling
from glassnet.nn.pooling import has_max_pool, max_pool2d

needs_library = pytest.mark.skipif(not has_max_pool(), reason="no C compiler here that compiles pooling.c")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Return few different numbers, so that windows have ties, of both signs of zero."""
    values = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()
    return (values / 2).to(memory_format=torch.channels_last)


def same_bits(received: Tensor, expected: Tensor) -> bool:
    return torch.equal(received.contiguous().view(torch.int32), expected.contiguous().view(torch.int32))


@needs_library
@settings(deadline=None, max_examples=80)
@given(
    num_images=st.integers(1, 5),
    channels=st.integers(1, 35),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    has_nan=st.booleans(),
)
def test_outputs_and_gradients_have_torchs_bits(
    num_images: int, channels: int, height: int, width: int, has_nan: bool
) -> None:
    images = drawn(num_images, channels, height, width)
    if has_nan:
        numbers = torch.arange(images.numel()).view(images.shape)
        images[numbers % 7 == 0] = torch.nan
        images[numbers % 5 == 0] = -torch.inf
    images.requires_grad_()
    outputs, expected = max_pool2d(images), functional.max_pool2d(images, 2)
    assert same_bits(outputs, expected)
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    slopes = drawn(*outputs.shape, seed=1) * -1.0  # with -0
    for slope in (slopes, slopes.contiguous()):
        received = torch.autograd.grad(outputs, images, slope, retain_graph=True)[0]
        assert same_bits(received, torch.autograd.grad(expected, images, slope, retain_graph=True)[0])


@needs_library
@pytest.mark.parametrize("channels", [24, 20])
def test_what_is_written_past_the_caches_is_the_same(channels: int) -> None:
    """Results of more than 16 MiB, which those of eight channels at a time are streamed."""
    images = drawn(1, channels, 61, 63).expand(60, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    images = torch.cat([images] * 4).requires_grad_()
    outputs = max_pool2d(images)
    assert outputs.numel() * 4 > 2**24
    assert same_bits(outputs, functional.max_pool2d(images, 2))
    slopes = drawn(*outputs.shape, seed=1)
    received, expected = (
        torch.autograd.grad(pool(images, *size), images, slopes)[0]
        for pool, size in ((max_pool2d, ()), (functional.max_pool2d, (2,)))
    )
    assert same_bits(received, expected)


@needs_library
@pytest.mark.parametrize("channels", [1, 6, 8, 13])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (2, 2)])
def test_memory_beyond_the_results_is_not_written(channels: int, height: int, width: int) -> None:
    """The last channels of a pixel are written with the first of the next, which the last pixel does not have."""
    images = drawn(2, channels, height, width)
    library, margin = pooling._library(), 16
    assert library is not None
    num_pooled = 2 * (height // 2) * (width // 2) * channels
    outputs = torch.full((num_pooled + margin,), 9.0)
    places = torch.full((num_pooled + margin,), 9, dtype=torch.uint8)
    gradient = torch.full((images.numel() + margin,), 9.0)
    sizes = (2, height, width, channels, 1)
    library.max_pool(images.data_ptr(), outputs.data_ptr(), places.data_ptr(), *sizes)
    library.max_pool_gradient(outputs.data_ptr(), places.data_ptr(), gradient.data_ptr(), *sizes)
    for values in (outputs, places, gradient):
        assert (values[-margin:] == 9).all()
        assert not (values[:-margin] == 9).any()


@needs_library
def test_defaults_of_the_user_do_not_matter() -> None:
    images = drawn(2, 5, 6, 6)
    expected = max_pool2d(images)
    pooling._agrees_with_torch.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert has_max_pool()
            assert torch.equal(max_pool2d(images), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@needs_library
def test_what_is_saved_may_come_back_in_another_layout() -> None:
    images = drawn(2, 5, 6, 6).requires_grad_()
    (expected,) = torch.autograd.grad(max_pool2d(images).square().sum(), images)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.contiguous(), lambda saved: saved):
        (received,) = torch.autograd.grad(max_pool2d(images).square().sum(), images)
    assert torch.equal(received, expected)


@needs_library
def test_a_gradient_of_a_gradient_is_torchs() -> None:
    def penalty(pool: object) -> Tensor:
        images = torch.randn(2, 5, 7, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
        outputs = pool(images * images)  # type: ignore[operator]
        (slope,) = torch.autograd.grad(outputs.square().sum(), images, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), images)[0]

    assert torch.allclose(penalty(max_pool2d), penalty(lambda images: functional.max_pool2d(images, 2)), rtol=1e-5)


@needs_library
def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    images = drawn(9, 13, 11, 11).requires_grad_()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            outputs = max_pool2d(images)
            results.append((outputs, torch.autograd.grad(outputs, images, drawn(*outputs.shape, seed=2))[0]))
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(one, three) for one, three in zip(*results, strict=True))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 4, 4), torch.zeros(1, 3, 1, 4), torch.zeros(0, 3, 4, 4), torch.zeros(1, 3, 4, 4).double()],
    ids=["one image", "one row", "no image", "float64"],
)
def test_other_images_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expects images \(N, C, H, W\) of float32.*2x2 or more; got \("):
        max_pool2d(images)


def test_without_a_library_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "_library", lambda: None)
    assert not has_max_pool()
    with pytest.raises(RuntimeError, match="no C compiler.*Use torch's max_pool2d"):
        max_pool2d(drawn(1, 3, 4, 4))


@needs_library
def test_a_library_that_computes_something_else_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = pooling.pooling_gradient
    pooling._agrees_with_torch.cache_clear()
    monkeypatch.setattr(pooling, "pooling_gradient", lambda *arguments: gradient(*arguments) * 2)
    try:
        assert not has_max_pool()
    finally:
        pooling._agrees_with_torch.cache_clear()
