"""The matrix of a convolution, against torch and against the printed example."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from glassnet._errors import UsageError
from glassnet.nn.functional import CONVOLUTIONS, convolve
from glassnet.nn.matrix import convolution_matrix

TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d}


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_matrix(kernel: np.ndarray, size: tuple[int, int], stride: int, padding: int, dilation: int) -> np.ndarray:
    """The matrix of a cross-correlation, one weight at a time."""
    taps = np.array(kernel.shape)
    out = (np.array(size) + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
    matrix = np.zeros((out.prod(), size[0] * size[1]))
    for row, (n, m) in enumerate(product(*map(range, out))):
        for i, j in product(*map(range, taps)):
            y, x = n * stride + i * dilation - padding, m * stride + j * dilation - padding
            if 0 <= y < size[0] and 0 <= x < size[1]:
                matrix[row, y * size[1] + x] = kernel[i, j]
    return matrix


def test_the_matrix_of_a_3x3_kernel_over_4x4_is_the_one_printed_by_dumoulin_and_visin() -> None:
    a, b, c, d, e, f, g, h, i = kernel = range(1, 10)
    expected = [
        [a, b, c, 0, d, e, f, 0, g, h, i, 0, 0, 0, 0, 0],
        [0, a, b, c, 0, d, e, f, 0, g, h, i, 0, 0, 0, 0],
        [0, 0, 0, 0, a, b, c, 0, d, e, f, 0, g, h, i, 0],
        [0, 0, 0, 0, 0, a, b, c, 0, d, e, f, 0, g, h, i],
    ]
    matrix = convolution_matrix(np.reshape(kernel, (3, 3)), 4)
    assert matrix.to_dense().tolist() == expected


def test_the_matrix_of_a_signal_is_the_toeplitz_matrix_and_flip_turns_the_kernel() -> None:
    assert convolution_matrix([1, 2], 3).to_dense().tolist() == [[1, 2, 0], [0, 1, 2]]
    assert convolution_matrix([1, 2], 3, flip=True).to_dense().tolist() == [[2, 1, 0], [0, 2, 1]]
    wide = convolution_matrix([1, 2], 2, padding="full", flip=True)
    assert (wide @ torch.tensor([3.0, 4.0])).tolist() == np.convolve([3, 4], [1, 2]).tolist()


@pytest.mark.parametrize(("stride", "padding", "dilation"), list(product([1, 2, 3], [0, 1, 3], [1, 2])))
def test_the_matrix_against_loops(stride: int, padding: int, dilation: int) -> None:
    kernel = numbers(3, 2)
    matrix = convolution_matrix(kernel, (6, 5), stride, padding, dilation)
    np.testing.assert_array_equal(
        matrix.to_dense().numpy(), naive_matrix(kernel.numpy(), (6, 5), stride, padding, dilation)
    )


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", ["valid", "same", "half", "full", (2, 1)])
def test_the_product_is_the_convolution(padding: str | tuple[int, int], flip: bool) -> None:
    x, kernel = numbers(7, 6), numbers(2, 3, seed=1)
    expected = convolve(x, kernel, stride=(2, 1), padding=padding, dilation=(1, 2), flip=flip)
    matrix = convolution_matrix(kernel, (7, 6), (2, 1), padding, (1, 2), flip=flip)
    torch.testing.assert_close((matrix @ x.flatten()).reshape(expected.shape), expected)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 0, 1)])
def test_with_channels_the_product_is_the_layer_and_the_transpose_its_backward_pass(
    dims: int, stride: int, padding: int, dilation: int
) -> None:
    size = (8, 7)[:dims]
    x, kernel = numbers(1, 3, *size).requires_grad_(), numbers(4, 3, *[3] * dims, seed=1)
    layer = CONVOLUTIONS[dims](x, kernel, None, stride, padding, dilation)
    matrix = convolution_matrix(kernel, size, stride, padding, dilation)
    torch.testing.assert_close((matrix @ x.flatten()).reshape(layer.shape), layer)

    gradient = numbers(*layer.shape, seed=2)
    (backward,) = torch.autograd.grad(layer, x, gradient)
    torch.testing.assert_close((matrix.t() @ gradient.flatten()).reshape(x.shape), backward)


@pytest.mark.parametrize("dims", [1, 2])
def test_the_transpose_is_the_transposed_convolution(dims: int) -> None:
    kernel, gradient = numbers(4, 3, *[3] * dims), numbers(1, 4, *[3] * dims, seed=1)
    expected = TRANSPOSED[dims](gradient, kernel, stride=2, padding=1)
    matrix = convolution_matrix(kernel, (5,) * dims, 2, 1)
    torch.testing.assert_close((matrix.t() @ gradient.flatten()).reshape(expected.shape), expected)


def test_a_volume_and_its_kernel_are_told_from_signals_by_the_input_size() -> None:
    kernel = numbers(2, 2, 3)
    volume = numbers(3, 4, 5, seed=1)
    product_of_volume = convolution_matrix(kernel, (3, 4, 5), flip=True) @ volume.flatten()
    torch.testing.assert_close(product_of_volume, convolve(volume, kernel).flatten())
    signals = numbers(1, 2, 5, seed=1)
    product_of_signals = convolution_matrix(kernel, (5,)) @ signals.flatten()
    torch.testing.assert_close(product_of_signals, F.conv1d(signals, kernel).flatten())


def test_the_stored_numbers_are_the_multiplications_with_the_input() -> None:
    matrix = convolution_matrix(torch.zeros(2, 3, 3, 3), (4, 4))
    assert matrix._nnz() == 2 * 3 * 9 * 4
    # With padding 1 over 2x2 pixels, each of the 4 output positions meets 4 pixels and 5 zeros of padding.
    assert convolution_matrix(torch.ones(3, 3), 2, padding=1)._nnz() == 16


def test_the_result_is_sorted_without_repetition_so_that_it_counts_as_coalesced() -> None:
    matrix = convolution_matrix(numbers(2, 2, 3, 2), (5, 4), 2, 1, flip=True)
    assert matrix.is_coalesced()
    again = torch.sparse_coo_tensor(matrix.indices(), matrix.values(), matrix.shape, check_invariants=True).coalesce()
    assert torch.equal(again.indices(), matrix.indices())
    assert torch.equal(again.values(), matrix.values())


def test_gradients_reach_the_kernel() -> None:
    x = numbers(5, 5)

    def function(kernel: torch.Tensor) -> torch.Tensor:
        return convolution_matrix(kernel, 5, 2, 1) @ x.flatten()

    assert torch.autograd.gradcheck(function, numbers(3, 3, seed=1).requires_grad_())


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"reaches over 5 .* 4 \+ 2\*0 - 5 = -1 < 0"):
        convolution_matrix(numbers(5, 5), 4)
    with pytest.raises(UsageError, match=r"got input_size 5 and a kernel of shape \(2, 2, 3\).*input_size=\(L,\)"):
        convolution_matrix(numbers(2, 2, 3), 5)
    with pytest.raises(UsageError, match=r"got input_size \(5, 5\) and a kernel of shape \(3,\)"):
        convolution_matrix(numbers(3), (5, 5))
    with pytest.raises(UsageError, match="input_size must be an int of at least 1"):
        convolution_matrix(numbers(3, 3), (5, 0))
