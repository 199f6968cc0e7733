"""Convolution as a function, against numpy, scipy, torch and loops."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy import signal

from glassnet._errors import UsageError
from glassnet.nn.functional import CONVOLUTIONS, convolve


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_convolution(x: np.ndarray, kernel: np.ndarray, stride: int, padding: int, dilation: int) -> np.ndarray:
    """Textbook convolution by the sum over n - j, on the valid positions of the padded input."""
    x = np.pad(x, padding)
    reach = [dilation * (size - 1) + 1 for size in kernel.shape]
    out = [(size - r) // stride + 1 for size, r in zip(x.shape, reach, strict=True)]
    result = np.zeros(out)
    for n in product(*map(range, out)):
        for j in product(*map(range, kernel.shape)):
            at = tuple(stride * a + r - 1 - dilation * b for a, b, r in zip(n, j, reach, strict=True))
            result[n] += x[at] * kernel[j]
    return result


def test_convolution_flips_the_kernel_and_cross_correlation_does_not() -> None:
    assert convolve([0, 0, 1, 0, 0], [1, 2, 3]).tolist() == [1, 2, 3]
    assert convolve([0, 0, 1, 0, 0], [1, 2, 3], flip=False).tolist() == [3, 2, 1]


def test_a_patch_worked_out_by_hand() -> None:
    x, kernel = [[1, 2, 0], [3, 4, 1], [0, 1, 5]], [[1, 0], [2, -1]]
    # Cross-correlation at (0, 0): 1*1 + 2*0 + 3*2 - 4*1 = 3. Convolution there: 1*(-1) + 2*2 + 3*0 + 4*1 = 7.
    assert convolve(x, kernel, flip=False).tolist() == [[3, 9], [2, 1]]
    assert convolve(x, kernel).tolist() == [[7, -1], [6, 3]]


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_named_padding_gives_what_numpy_gives_also_for_even_kernels(mode: str, size: int) -> None:
    x, kernel = numbers(7).numpy(), numbers(size, seed=1).numpy()
    np.testing.assert_allclose(convolve(x, kernel, padding=mode).numpy(), np.convolve(x, kernel, mode), atol=1e-12)


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize(("input_size", "kernel_size"), [((5, 6), (3, 2)), ((4, 5, 3), (2, 3, 2))])
def test_images_and_volumes_give_what_scipy_gives(mode: str, input_size: tuple, kernel_size: tuple) -> None:
    x, kernel = numbers(*input_size).numpy(), numbers(*kernel_size, seed=1).numpy()
    expected = signal.convolve(x, kernel, mode, method="direct")
    np.testing.assert_allclose(convolve(x, kernel, padding=mode).numpy(), expected, atol=1e-12)
    if mode != "same":
        correlation = signal.correlate(x, kernel, mode, method="direct")
        np.testing.assert_allclose(convolve(x, kernel, padding=mode, flip=False).numpy(), correlation, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding", "dilation"), list(product([1, 2, 3], [0, 1, 2], [1, 2])))
def test_stride_padding_and_dilation_against_loops(stride: int, padding: int, dilation: int) -> None:
    x, kernel = numbers(8, 7), numbers(3, 2, seed=1)
    result = convolve(x, kernel, stride=stride, padding=padding, dilation=dilation)
    expected = naive_convolution(x.numpy(), kernel.numpy(), stride, padding, dilation)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_without_flip_a_batch_gives_what_torch_gives(dims: int, groups: int) -> None:
    x, kernel = numbers(2, 4, *[6] * dims), numbers(6, 4 // groups, *[3] * dims, seed=1)
    bias, options = numbers(6, seed=2), {"stride": 2, "padding": 1, "dilation": 2, "groups": groups}
    expected = CONVOLUTIONS[dims](x, kernel, bias, **options)
    assert torch.equal(convolve(x, kernel, bias=bias, flip=False, dims=dims, **options), expected)
    mirrored = kernel.flip(tuple(range(2, 2 + dims)))
    assert torch.equal(convolve(x, mirrored, bias=bias, dims=dims, **options), expected)


@pytest.mark.parametrize(("size", "dilation"), [(2, 1), (3, 1), (4, 1), (2, 3), (4, 3)])
def test_same_padding_without_flip_is_that_of_torch(size: int, dilation: int) -> None:
    x, kernel = numbers(1, 1, 7, 8), numbers(1, 1, size, size, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it copies the input for even kernels
        expected = F.conv2d(x, kernel, padding="same", dilation=dilation)
    assert torch.equal(convolve(x, kernel, padding="same", dilation=dilation, flip=False), expected)


def test_same_padding_with_a_stride_gives_the_input_size_over_the_stride_rounded_up() -> None:
    assert convolve(numbers(7, 8), numbers(3, 4), padding="same", stride=(2, 3)).shape == (4, 3)


def test_half_padding_makes_the_output_of_an_even_kernel_one_larger() -> None:
    assert convolve(numbers(7), numbers(3), padding="half").shape == (7,)
    assert convolve(numbers(7), numbers(4), padding="half").shape == (8,)


def test_padding_stride_and_dilation_may_differ_by_axis() -> None:
    x, kernel = numbers(1, 2, 9, 10), numbers(3, 2, 2, 3, seed=1)
    options = {"stride": (1, 2), "padding": (2, 0), "dilation": (2, 3)}
    assert torch.equal(convolve(x, kernel, flip=False, **options), F.conv2d(x, kernel, **options))
    lopsided = convolve([1, 2, 3], [1, 1], padding=((2, 0),))
    assert lopsided.tolist() == [0, 1, 3, 5]


def test_an_image_without_a_batch_axis_comes_back_without_one() -> None:
    x, kernel = numbers(3, 6, 6), numbers(4, 3, 3, 3, seed=1)
    assert torch.equal(convolve(x, kernel), convolve(x[None], kernel)[0])


def test_convolution_commutes_and_shifts_with_its_input() -> None:
    x, kernel = numbers(6), numbers(4, seed=1)
    full = convolve(x, kernel, padding="full")
    torch.testing.assert_close(full, convolve(kernel, x, padding="full"))
    shifted = convolve(F.pad(x, (2, 0)), kernel, padding="full")
    torch.testing.assert_close(shifted, F.pad(full, (2, 0)))


def test_a_plain_kernel_takes_one_bias_number() -> None:
    assert convolve([1.0, 2.0], [1.0], bias=0.5).tolist() == [1.5, 2.5]
    with pytest.raises(UsageError, match=r"bias must be one number; got shape \(2,\)"):
        convolve([1.0, 2.0], [1.0], bias=[0.5, 1.0])
    with pytest.raises(UsageError, match=r"bias must be \(4,\), one number an output channel; got shape \(\)"):
        convolve(numbers(1, 3, 5, 5), numbers(4, 3, 3, 3), bias=1.0)


def test_integers_stay_integers_without_overflow_and_lists_take_the_other_type() -> None:
    pixels = np.full((3, 3), 255, dtype=np.uint8)
    total = convolve(pixels, np.ones((3, 3), dtype=np.uint8))
    assert total.dtype == torch.int64
    assert total.tolist() == [[2295]]
    assert convolve([1, 2], [0.5]).dtype == torch.float32
    assert convolve(np.array([1.0, 2.0]), [0.1]).tolist() == [0.1, 0.2]
    assert convolve(torch.ones(2, dtype=torch.float64), [0.1]).dtype == torch.float64


def test_arrays_that_torch_does_not_take_as_they_are_are_taken() -> None:
    kernel = np.array([1.0, 2.0, 3.0])
    assert convolve([0.0, 1.0, 0.0], kernel[::-1], padding="same").tolist() == [3, 2, 1]
    assert convolve([1.0], kernel.astype(">f4"), padding="full").tolist() == [1, 2, 3]
    kernel.setflags(write=False)
    assert convolve(kernel, [1.0]).tolist() == [1, 2, 3]


@pytest.mark.parametrize("flip", [True, False])
def test_gradients_reach_input_kernel_and_bias(flip: bool) -> None:
    tensors = [numbers(2, 2, 5, 4), numbers(3, 2, 2, 3, seed=1), numbers(3, seed=2)]
    for tensor in tensors:
        tensor.requires_grad_()

    def function(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return convolve(x, kernel, bias=bias, stride=2, padding="same", flip=flip)

    assert torch.autograd.gradcheck(function, tensors)


def test_three_axes_that_may_be_volumes_or_signals_are_refused_until_dims_says_which() -> None:
    x, kernel = numbers(3, 2, 5), numbers(3, 2, 3, seed=1)
    with pytest.raises(UsageError, match=r"got x \(3, 2, 5\) and kernel \(3, 2, 3\) may be both. Say dims=3"):
        convolve(x, kernel)
    assert convolve(x, kernel, dims=3).shape == (1, 1, 3)
    assert torch.equal(convolve(x, kernel, dims=1, flip=False), F.conv1d(x, kernel))


def test_a_kernel_larger_than_the_input_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(UsageError, match=r"reaches over 5 .* input of 4 with padding 0: 4 \+ 2\*0 - 5 = -1 < 0"):
        convolve(numbers(6, 4), numbers(5, 5))


def test_channels_that_do_not_fit_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(UsageError, match=r"groups=2 reads 3\*2 = 6 channels; x \(B, C, ...\) = \(1, 4, 8, 8\) has 4"):
        convolve(numbers(1, 4, 8, 8), numbers(2, 3, 3, 3), groups=2)
    with pytest.raises(UsageError, match=r"divide the kernel's 3 output channels; got 2"):
        convolve(numbers(1, 4, 8, 8), numbers(3, 2, 3, 3), groups=2)


def test_axes_that_do_not_fit_are_refused_with_the_way_to_filter_each_channel() -> None:
    with pytest.raises(UsageError, match=r"got x \(3, 8, 8\) and kernel \(3, 3\).*say groups=C"):
        convolve(numbers(3, 8, 8), numbers(3, 3))
    with pytest.raises(UsageError, match="over 1, 2 or 3 axes"):
        convolve(numbers(2, 2, 2, 2, 2, 2), numbers(2, 2, 2, 2, 2, 2))


def test_words_that_were_off_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Unknown padding 'sane'. Did you mean 'same'"):
        convolve(numbers(5), numbers(3), padding="sane")
    with pytest.raises(UsageError, match="stride must be an int of at least 1, or 2 of them for 2 axes; got 0"):
        convolve(numbers(5, 5), numbers(3, 3), stride=0)
    with pytest.raises(UsageError, match=r"dilation must be an int .* got \[1, 1, 1\]"):
        convolve(numbers(5, 5), numbers(3, 3), dilation=[1, 1, 1])
    with pytest.raises(UsageError, match=r"kernel must be numbers: .* rows of equal length; got list"):
        convolve(numbers(5, 5), [[1, 2], [3]])
    with pytest.raises(UsageError, match="x must be numbers"):
        convolve(["a", "b"], [1])
