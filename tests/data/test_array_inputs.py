"""Files of arrays without labels: read as arrays were at training, whatever their values happen to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from glassnet import UsageError, WorkError, load_data
from glassnet.data.arrays import ArrayReading, load_array, load_inputs
from glassnet.data.preprocessing import Preprocessing

NUMBERS, IMAGES = ArrayReading(is_image=False), ArrayReading(is_image=True)
CHANCE = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["a.npz", "b.npz", "c.npy", "d.pt", "e.pt", "f.pth"])
def test_inputs_are_found_with_or_without_labels(tmp_path: Path, name: str) -> None:
    x, path = CHANCE.random((4, 3), np.float32), tmp_path / name
    if name == "a.npz":
        np.savez(path, x=x, y=np.arange(4))
    elif name == "b.npz":
        np.savez(path, x)
    elif name == "c.npy":
        np.save(path, x)
    else:
        tensor = torch.from_numpy(x)
        torch.save({"d.pt": tensor, "e.pt": (tensor, torch.arange(4)), "f.pth": {"values": tensor}}[name], path)
    found = load_inputs(path, NUMBERS, (3,))
    assert torch.equal(found.inputs, torch.from_numpy(x))
    assert found.sources == tuple(f"{path}[{place}]" for place in range(4))


def test_inputs_that_are_not_finite_are_set_aside_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([[1, 2], [np.nan, 2], [3, 1e300], [4, 5]]))
    found = load_inputs(path, NUMBERS, (2,))
    assert found.inputs.tolist() == [[1, 2], [4, 5]]
    assert found.sources == (f"{path}[0]", f"{path}[3]")
    assert [item.source for item in found.set_aside] == [f"{path}[1]", f"{path}[2]"]
    assert "nan or infinity" in found.set_aside[0].reason


def test_one_input_alone_is_one(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 30), np.float32))
    assert load_inputs(tmp_path / "x.npy", NUMBERS, (1, 30)).inputs.shape == (1, 1, 30)


def test_splits_are_all_read_and_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=np.zeros((2, 3)), x_test=np.ones((1, 3)), y_test=np.ones(1))
    found = load_inputs(tmp_path / "x.npz", NUMBERS, (3,))
    assert found.inputs[:, 0].tolist() == [0, 0, 1]
    assert found.sources[2] == f"{tmp_path / 'x.npz'}, x_test[0]"


def test_numbers_that_look_like_levels_stay_numbers_for_a_network_of_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((2, 1, 4, 4), 7.0))
    assert load_inputs(tmp_path / "x.npy", NUMBERS, (1, 4, 4)).inputs.dtype == torch.float32
    assert load_inputs(tmp_path / "x.npy", IMAGES, (1, 4, 4)).inputs.dtype == torch.uint8


def test_a_dark_image_keeps_the_scale_of_training(tmp_path: Path) -> None:
    """By its values alone, an image of zeros and ones would be one in 0..1."""
    np.savez(tmp_path / "t.npz", x=CHANCE.integers(0, 256, (20, 1, 4, 4)).astype(np.float32), y=np.arange(20) % 2)
    scale = load_array(tmp_path / "t.npz", seed=0).dataset.framing.array_scale
    assert scale == 1
    np.save(tmp_path / "x.npy", np.ones((1, 1, 4, 4), np.float32))
    assert load_inputs(tmp_path / "x.npy", ArrayReading(is_image=True, scale=scale), (1, 4, 4)).inputs.max() == 1
    assert load_inputs(tmp_path / "x.npy", ArrayReading(is_image=True, scale=255), (1, 4, 4)).inputs.max() == 255


def test_bytes_are_levels_at_any_scale(tmp_path: Path) -> None:
    pixels = CHANCE.integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    found = load_inputs(tmp_path / "x.npy", ArrayReading(is_image=True, scale=255), (3, 4, 4)).inputs
    assert torch.equal(found, torch.from_numpy(pixels).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((2, 1, 4, 4), 0.1234), "Expected images with 8-bit levels"),
        (np.full((2, 1, 4, 4), 300), "Expected images with 8-bit levels"),
        (np.zeros((2, 4)), r"Expected images \(N, H, W\) or \(N, C, H, W\), as at training"),
        (np.array([["a"]]), "Inputs must be real numbers"),
    ],
)
def test_what_is_no_image_is_refused_for_a_network_of_images(tmp_path: Path, values: np.ndarray, told: str) -> None:
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(UsageError, match=rf"x\.npy: {told}"):
        load_inputs(tmp_path / "x.npy", IMAGES, (1, 4, 4))


def test_a_file_without_inputs_or_with_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=np.ones(3), two=np.ones(3))
    with pytest.raises(UsageError, match="expected inputs, an array named x, inputs, images, data; got one, two"):
        load_inputs(tmp_path / "a.npz", NUMBERS, (1,))
    np.save(tmp_path / "b.npy", np.array([[1], [1, 2]], dtype=object), allow_pickle=True)
    with pytest.raises(WorkError, match="array of numbers; got one of Python objects"):
        load_inputs(tmp_path / "b.npy", NUMBERS, (1,))


def test_other_arrays_with_labels_are_read_by_a_record_too(tmp_path: Path) -> None:
    record = Preprocessing(class_names=("0", "1"), mode="L", size=(4, 4), mean=(0.5,), std=(0.5,), array_scale=1)
    np.savez(tmp_path / "x.npz", x=np.ones((4, 1, 4, 4), np.float32), y=np.arange(4) % 2)
    data = load_data(tmp_path / "x.npz", record=record)
    assert (len(data.train), len(data.test)) == (0, 4)
    assert data.test.inputs.max() == 1
