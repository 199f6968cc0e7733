"""Resizing against a naive filter in floating point, and against itself on processors with fewer instructions."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from glassnet.data.resizing import LEAST_ROUNDED, MOST_PIXELS, centre, is_whole, resized


def picture(seed: int, height: int, width: int, mode: str = "RGB") -> Image.Image:
    channels = {"RGB": (3,), "L": ()}[mode]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8))


def weights(num_pixels: int, size: int, start: float, stop: float) -> np.ndarray:
    """`(size, num_pixels)`: what each pixel counts, by a triangle that is as wide as what it shrinks to a pixel."""
    scale = (stop - start) / size
    reach = max(scale, 1.0)
    middles = start + (np.arange(size) + 0.5) * scale
    triangle = np.maximum(0, 1 - np.abs(np.arange(num_pixels) + 0.5 - middles[:, None]) / reach)
    return triangle / triangle.sum(1, keepdims=True)


def naive(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """What Pillow's filter is on paper; a box is filtered over the pixels that it touches."""
    left, upper, right, lower = box
    array = np.asarray(image).astype(float).reshape(image.height, image.width, -1)
    rows, columns = weights(image.height, size[1], upper, lower), weights(image.width, size[0], left, right)
    return np.einsum("ih,hwc,jw->ijc", rows, array, columns)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(7, 5), (31, 17), (20, 90), (1, 1), (64, 48)])
@pytest.mark.parametrize("shape", [(48, 64), (17, 9), (1, 30)])
def test_bilinear_is_the_triangle_filter_to_a_level(mode: str, size: tuple[int, int], shape: tuple[int, int]) -> None:
    image = picture(sum(size), *shape, mode)
    box = (0, 0, *image.size)
    found = resized(image, size, "bilinear", box)
    assert found.shape == (size[1], size[0], len(image.getbands()))
    assert found.dtype == np.uint8
    assert np.abs(found - naive(image, size, box)).max() < 1.5


def test_a_part_of_whole_pixels_is_resized_as_if_it_were_the_image() -> None:
    image = picture(0, 40, 60)
    part = image.crop((5, 7, 45, 39))
    for interpolation in ("bilinear", "nearest"):
        found = resized(image, (13, 11), interpolation, (5, 7, 45, 39))
        assert (found == resized(part, (13, 11), interpolation, (0, 0, 40, 32))).all()


def test_a_part_with_edges_within_pixels_lies_where_it_is_asked_for() -> None:
    image = picture(1, 40, 60)
    box = (5.4, 7.3, 45.9, 38.1)
    found = resized(image, (13, 11), "bilinear", box)
    assert np.abs(found[2:-2, 2:-2] - naive(image, (13, 11), box)[2:-2, 2:-2]).max() < 1.5
    shifted = naive(image, (13, 11), tuple(map(round, box)))
    assert np.abs(found - shifted).max() > 5


def test_what_has_its_size_already_is_copied() -> None:
    image = picture(2, 20, 30)
    found = resized(image, (10, 12), "bilinear", (3, 4, 13, 16))
    assert (found == np.asarray(image)[4:16, 3:13]).all()
    found[:] = 0
    assert np.asarray(image).any()


def test_a_picture_too_large_to_be_copied_is_resized_to_the_same_level(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(3, 50, 70)
    assert image.width * image.height < MOST_PIXELS
    usual = resized(image, (21, 15), "bilinear", (0, 0, 70, 50)).astype(int)
    monkeypatch.setattr("glassnet.data.resizing.MOST_PIXELS", 70 * 50 - 1)
    pillow = np.asarray(image.resize((21, 15), Image.Resampling.BILINEAR))
    assert (resized(image, (21, 15), "bilinear", (0, 0, 70, 50)) == pillow).all()
    assert 0 < np.abs(usual - pillow).max() <= 1


def test_a_large_crop_is_of_whole_pixels_and_a_small_one_is_exact() -> None:
    large = centre((0, 0, 500, 375), 375, 375)
    assert large == (62, 0, 437, 375)
    assert is_whole(large)
    assert centre((0, 0, 5, 3), 3, 3) == (1, 0, 4, 3)
    assert centre((0, 0, 6, 3), 3, 3) == (1.5, 0, 4.5, 3)
    assert centre((0, 0, 300, 3), 2.5, 3) == (148.75, 0, 151.25, 3)
    assert centre((0, 0, 250, 187.5), 187.5, 187.5, 0.5) == (31, 0, 218.5, 187.5)  # the same, decoded at a half
    assert centre((0.5, 0, 63, 46.875), 46.875, 46.875, 0.125) == (8.25, 0, 55.125, 46.875)
    assert centre((0, 0, 200, 200), 200.0000001, 150.4) == (0, 24, 200, 174)
    assert centre((0, 0, 200, LEAST_ROUNDED - 1), 140.5, LEAST_ROUNDED - 1)[0] == 29.75


def digest() -> str:
    found = hashlib.sha256()
    for seed, (height, width) in enumerate([(48, 64), (203, 117), (33, 500), (375, 500)]):
        for mode in ("L", "RGB"):
            image = picture(seed, height, width, mode)
            for size in ((31, 17), (64, 64), (224, 224), (3, 100)):
                found.update(resized(image, size, "bilinear", (1, 0, *image.size)).tobytes())
    return found.hexdigest()


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="this processor has no others")
def test_a_processor_without_vector_instructions_makes_the_same_pixels() -> None:
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import torch; from test_resizing import digest"
        "; print(torch.backends.cpu.get_cpu_capability(), digest())"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["DEFAULT", digest()]
