from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glassnet import UsageError, WorkError
from glassnet.data.examples import ExampleSet, Framing
from glassnet.data.preprocessing import Preprocessing, channel_statistics, make_preprocessing
from glassnet.data.records import record_from_json, record_to_json


def grey_record(size: tuple[int, int] = (8, 8), **values: object) -> Preprocessing:
    return Preprocessing(
        **{"class_names": ("a", "b"), "mode": "L", "size": size, "mean": (0.5,), "std": (0.25,)} | values
    )


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_normalising_subtracts_the_mean_and_divides_by_the_spread() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    expected = (np.array([0, 0.2, 1]) - 0.5) / 0.25
    assert np.allclose(grey_record().normalise(pixels).numpy().ravel(), expected, atol=1e-6)


def test_normalising_colour_uses_each_channels_own_figures() -> None:
    record = Preprocessing(class_names=("a",), mode="RGB", size=(1, 1), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    values = record.normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).ravel()
    assert np.allclose(values, [1, 1, 0], atol=1e-6)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("shape", [(5, 9), (16, 16), (40, 7), (8, 8)])
@pytest.mark.parametrize("margin", [0, 2])
def test_the_same_image_gives_the_same_pixels_through_a_file_and_through_an_array(
    tmp_path: Path, fit: str, mode: str, shape: tuple[int, int], margin: int
) -> None:
    channels = 3 if mode == "RGB" else 1
    record = grey_record((12, 12), fit=fit, mode=mode, margin=margin, mean=(0.5,) * channels, std=(0.25,) * channels)
    pixels = noise(3, channels, *shape)
    together = record.fit_inputs(pixels)
    for index, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()).save(tmp_path / f"{index}.png")
        assert torch.equal(record.fit_image(tmp_path / f"{index}.png"), together[index])
        assert torch.equal(record.fit_inputs(image[None])[0], together[index])
    assert together.shape == (3, channels, 12, 12)


def test_an_image_of_the_input_size_is_left_untouched() -> None:
    pixels = noise(2, 1, 8, 8)
    assert torch.equal(grey_record().fit_inputs(pixels), pixels)


def test_a_margin_surrounds_the_image_with_the_fill() -> None:
    pixels = noise(2, 1, 4, 4)
    fitted = grey_record(margin=2, fill=7).fit_inputs(pixels)
    assert torch.equal(fitted[:, :, 2:6, 2:6], pixels)
    fitted[:, :, 2:6, 2:6] = 7
    assert (fitted == 7).all()


def test_crop_takes_the_centre_of_a_wide_image() -> None:
    pixels = torch.zeros(1, 1, 8, 24, dtype=torch.uint8)
    pixels[:, :, :, 8:16] = 200
    assert (grey_record(fit="crop").fit_inputs(pixels) == 200).all()


def test_pad_keeps_the_whole_image_in_its_proportions() -> None:
    pixels = torch.full((1, 1, 8, 16), 200, dtype=torch.uint8)
    fitted = grey_record(fit="pad", fill=9).fit_inputs(pixels)[0, 0]
    assert (fitted[2:6] == 200).all()
    assert (fitted[:2] == 9).all()
    assert (fitted[6:] == 9).all()


def test_stretch_fills_the_input_with_the_whole_image() -> None:
    pixels = torch.zeros(1, 1, 4, 16, dtype=torch.uint8)
    pixels[:, :, :, 8:] = 255
    fitted = grey_record(interpolation="nearest").fit_inputs(pixels)[0, 0]
    assert (fitted[:, :4] == 0).all()
    assert (fitted[:, 4:] == 255).all()


def test_an_extremely_thin_image_keeps_at_least_one_pixel() -> None:
    fitted = grey_record(fit="pad", fill=0).fit_inputs(torch.full((1, 1, 1, 400), 90, dtype=torch.uint8))
    assert (fitted == 90).sum() == 8


def test_the_statistics_are_those_of_numpy() -> None:
    pixels = noise(50, 3, 6, 6)
    mean, std = channel_statistics(pixels)
    scaled = pixels.numpy().astype(np.float64) / 255
    assert np.allclose(mean, scaled.mean((0, 2, 3)), rtol=0, atol=1e-12)
    assert np.allclose(std, scaled.std((0, 2, 3)), rtol=0, atol=1e-12)


def test_a_constant_channel_normalises_to_zero() -> None:
    examples = ExampleSet(torch.full((2, 1, 4, 4), 17, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    record = make_preprocessing(examples, (4, 4))
    assert record.normalise(examples.inputs).abs().max() < 1e-6


def test_a_margin_is_kept_only_where_the_input_is_larger_than_the_image() -> None:
    examples = ExampleSet(noise(4, 1, 28, 28), torch.tensor([0, 1, 0, 1]), ("a", "b"))
    framing = Framing("stretch", margin=1 / 16)
    larger, same = make_preprocessing(examples, (32, 32), framing), make_preprocessing(examples, (28, 28), framing)
    assert (larger.margin, same.margin) == (2, 0)
    assert torch.equal(larger.fit_inputs(examples.inputs)[:, :, 2:30, 2:30], examples.inputs)


def test_the_record_survives_its_file() -> None:
    record = grey_record(mean=(0.1307,), std=(1 / 3,), fit="pad", margin=1, fill=3)
    assert record_from_json(record_to_json(record)) == record


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not parse"),
        ("[]", "of the kind image or numbers; got None"),
        ('{"kind": "image", "mode": "L"}', "missing: class_names, fill, fit, interpolation, margin, mean, size, std"),
    ],
)
def test_a_foreign_file_is_refused_by_what_it_lacks(text: str, message: str) -> None:
    with pytest.raises(WorkError, match=message):
        record_from_json(text)


def test_a_record_with_one_foreign_value_is_refused() -> None:
    text = record_to_json(grey_record()).replace('"stretch"', '"squash"')
    with pytest.raises(WorkError, match="does not hold together: Unknown fit 'squash'"):
        record_from_json(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fit": "crob"}, "Did you mean 'crop'"),
        ({"interpolation": "linear"}, "Did you mean 'bilinear'"),
        ({"mode": "RGBA"}, "Did you mean 'RGB'"),
        ({"mean": (0.1, 0.2)}, "Mode L needs 1 means"),
        ({"std": (0.0,)}, "positive standard deviations"),
        ({"margin": 4}, "leaves no room in an input of 8x8"),
        ({"fill": 256}, r"fill must lie in 0\.\.255; got 256"),
    ],
)
def test_values_that_make_no_sense_are_refused_when_the_record_is_made(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(grey_record(), **values)


def test_pixels_with_other_channels_are_refused() -> None:
    with pytest.raises(UsageError, match=r"uint8 \(N, 1, height, width\); got torch.uint8 \(2, 3, 8, 8\)"):
        grey_record().fit_inputs(noise(2, 3, 8, 8))
