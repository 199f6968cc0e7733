from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from glassnet._errors import UsageError
from glassnet.views.pictures import (
    SHARE_EDGES,
    SHARE_ENDS,
    Colour,
    contrast,
    diverging,
    hex_colour,
    image_uri,
    ink_on,
    relative_luminance,
    share_colours,
    share_step,
    share_theme,
    weights_uri,
)


def decoded(uri: str) -> Image.Image:
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_luminance_and_contrast_are_those_of_the_standard() -> None:
    assert relative_luminance((255, 255, 255)) == pytest.approx(1.0)
    assert relative_luminance((0, 255, 0)) == pytest.approx(0.7152)
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21.0)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("colour", [(247, 247, 247), (119, 119, 119), (11, 84, 146), (158, 62, 0), (255, 0, 0)])
def test_ink_can_be_read_on_any_colour(colour: Colour) -> None:
    assert contrast(ink_on(colour), colour) >= 4.5


def test_the_diverging_scale_has_its_lightest_colour_at_zero_and_holds_beyond_its_ends() -> None:
    shades = [relative_luminance(diverging(position)) for position in np.linspace(-1, 1, 21)]
    assert shades[:11] == sorted(shades[:11])
    assert shades[10:] == sorted(shades[10:], reverse=True)
    assert diverging(-3.0) == diverging(-1.0) != diverging(1.0) == diverging(3.0)


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("kind", SHARE_ENDS)
def test_every_step_of_the_share_scale_carries_ink_that_can_be_read(kind: str, is_dark: bool) -> None:
    colours = share_colours(kind, is_dark=is_dark)
    assert len(set(colours)) == len(SHARE_EDGES)
    assert all(contrast(ink_on(colour), colour) >= 4.5 for colour in colours)


def test_a_share_falls_into_the_step_that_ends_at_or_above_it() -> None:
    steps = [share_step(share) for share in (0.0001, 0.01, 0.0101, 0.5, 0.51, 1.0, 3 * (1 / 3))]
    assert steps == [0, 0, 1, 5, 6, 7, 7]


def test_the_theme_names_each_step_with_its_ink() -> None:
    theme = share_theme(is_dark=True)
    assert theme.count("-ink:") == 2 * len(SHARE_EDGES)
    assert f"--wrong-7:{hex_colour(share_colours('wrong', is_dark=True)[7])};" in theme


def test_a_grey_and_a_colour_image_come_back_pixel_for_pixel() -> None:
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (1, 5, 7), np.uint8), rng.integers(0, 256, (3, 5, 7), np.uint8)
    np.testing.assert_array_equal(np.array(decoded(image_uri(grey))), grey[0])
    np.testing.assert_array_equal(np.array(decoded(image_uri(colour))), colour.transpose(1, 2, 0))


def test_an_image_of_five_channels_is_shown_as_their_mean() -> None:
    image = np.arange(5, dtype=np.uint8)[:, None, None] * np.full((5, 2, 2), 10, np.uint8)
    assert np.array(decoded(image_uri(image))).tolist() == [[20, 20], [20, 20]]


def test_a_large_image_is_scaled_down_and_keeps_its_proportions() -> None:
    assert decoded(image_uri(np.zeros((3, 224, 448), np.uint8))).size == (128, 64)


@pytest.mark.parametrize(
    "image", [np.zeros((2, 2), np.uint8), np.zeros((1, 2, 2), np.float32), np.zeros((1, 0, 2), np.uint8)]
)
def test_what_is_no_image_is_refused_with_its_type_and_shape(image: np.ndarray) -> None:
    with pytest.raises(UsageError, match=rf"must be uint8 \(C, H, W\).*got {image.dtype} \({image.shape[0]}, "):
        image_uri(image)


def test_weights_are_squares_of_their_colour_and_negative_ones_carry_a_dash() -> None:
    pixels = np.array(decoded(weights_uri(np.array([[0.0, 0.5], [-0.5, -0.05]]), 0.5, 8)).convert("RGB"))
    assert pixels.shape == (16, 16, 3)
    colours = [[tuple(map(int, pixels[row, column])) for column in (0, 8)] for row in (0, 8)]
    assert colours == [[diverging(0), diverging(1)], [diverging(-1), diverging(-13 / 126)]]
    has_dash = [[bool((pixels[r : r + 8, c : c + 8] != pixels[r, c]).any()) for c in (0, 8)] for r in (0, 8)]
    assert has_dash == [[False, False], [True, True]]
    assert pixels[12, 2:5].tolist() == [[255] * 3] * 3, "white ink on the dark square"
    assert pixels[12, 10:13].tolist() == [[0] * 3] * 3, "black ink on the light square"


def test_a_weight_that_is_no_finite_number_is_drawn_as_zero() -> None:
    pixels = np.array(decoded(weights_uri(np.array([[np.nan, np.inf, -np.inf]]), 1.0, 5)).convert("RGB"))
    assert {tuple(map(int, pixel)) for pixel in pixels.reshape(-1, 3)} == {diverging(0)}
