from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from glassnet._errors import UsageError
from glassnet.nn.whitening import whitening_kernels


def smooth_images(count: int = 40, channels: int = 3, size: int = 9) -> Tensor:
    """Return noise blurred over neighbours and channels: its patches are correlated, as those of photographs are."""
    noise = torch.randn(count, channels, size + 2, size + 2, generator=torch.Generator().manual_seed(0))
    blurred = functional.avg_pool2d(noise, 3, stride=1)
    return blurred + 0.5 * blurred.flip(1)


def patches_by_hand(images: Tensor, size: int) -> np.ndarray:
    """Return every patch as a row, read off pixel by pixel."""
    rows = []
    for image in images.numpy().astype(np.float64):
        for top in range(image.shape[1] - size + 1):
            for left in range(image.shape[2] - size + 1):
                rows.append(image[:, top : top + size, left : left + size].ravel())
    return np.array(rows)


@pytest.mark.parametrize(("channels", "size"), [(3, 2), (1, 3), (2, 1)])
def test_outputs_on_the_patches_have_unit_power_and_no_correlation(channels: int, size: int) -> None:
    images = smooth_images(channels=channels)
    patches = patches_by_hand(images, size)
    before = patches.T @ patches / len(patches)
    assert np.abs(before - np.diag(np.diag(before))).max() > 0.01 or size * channels == 2  # there is something to do
    kernels = whitening_kernels(images, size, epsilon=0.0).numpy()
    assert kernels.shape == (channels * size**2, channels, size, size)
    white = patches @ kernels.reshape(len(kernels), -1).T
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(len(kernels)), atol=1e-4)


def test_a_convolution_with_the_kernels_gives_white_maps() -> None:
    images = smooth_images()
    maps = functional.conv2d(images, whitening_kernels(images, 2, epsilon=0.0)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(maps @ maps.T / maps.shape[1], torch.eye(12), atol=1e-4, rtol=0)


def test_epsilon_damps_the_directions_with_little_contrast() -> None:
    images, epsilon = smooth_images(), 0.05
    patches = patches_by_hand(images, 2)
    powers = np.sort(np.linalg.eigvalsh(patches.T @ patches / len(patches)))[::-1]
    white = patches @ whitening_kernels(images, 2, epsilon=epsilon).numpy().reshape(12, -1).T
    expected = np.diag(powers / (powers + epsilon))
    assert expected.min(initial=1, where=expected > 0) < 0.9
    np.testing.assert_allclose(white.T @ white / len(white), expected, atol=1e-5)


def test_flat_images_give_finite_kernels() -> None:
    kernels = whitening_kernels(torch.ones(4, 1, 6, 6), 2)
    assert bool(kernels.isfinite().all())
    assert kernels[0].flatten().tolist() == pytest.approx([0.5 / (4 + 5e-4) ** 0.5] * 4)


def test_the_kernels_depend_neither_on_chance_nor_on_the_sign_of_the_eigenvectors() -> None:
    images = smooth_images()
    kernels = whitening_kernels(images, 2)
    assert torch.equal(kernels, whitening_kernels(images, 2))
    assert torch.equal(kernels, whitening_kernels(-images, 2))
    flat = kernels.flatten(1)
    assert bool((flat.gather(1, flat.abs().argmax(1, keepdim=True)) > 0).all())


def test_more_images_than_are_laid_out_at_once_are_all_counted() -> None:
    images = smooth_images(count=300, channels=1, size=4)
    patches = patches_by_hand(images, 2)
    white = patches @ whitening_kernels(images, 2, epsilon=0.0).numpy().reshape(4, -1).T
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(4), atol=1e-4)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"images \(N, C, H, W\) of at least 2x2 pixels; got \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"got \(0, 3, 8, 8\)\. Pass a few hundred training images"),
        (torch.zeros(5, 3, 1, 8), r"got \(5, 3, 1, 8\)"),
        (torch.zeros(2, 3, 2, 2), r"at least 12 patches; the images have 2\. Pass more images"),
        (torch.full((4, 1, 8, 8), torch.nan), r"needs finite images; got some that are not"),
    ],
)
def test_what_cannot_be_whitened_is_refused(images: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        whitening_kernels(images, 2)
