"""The classic kernels and images filtered with them, against loops, scipy and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from glassnet._errors import UsageError
from glassnet.nn.kernels import KERNELS, filter_image, kernel

EDGE_KERNELS = ["edge", "strong-edge", "sobel-x", "sobel-y", "prewitt-x", "prewitt-y"]
SCIPY_MODES = {"reflect": "mirror", "replicate": "nearest", "wrap": "grid-wrap", "zero": "constant"}


def random_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def grey(*rows: list[int]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.uint8)


def naive_repair(image: np.ndarray, size: int) -> np.ndarray:
    """Each pixel that is 0 in every channel becomes the mean of the others around it, within the image."""
    repaired, reach = image.copy(), size // 2
    for y, x in np.argwhere((image == 0).all(0)):
        around = image[:, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        kept = around[:, (around > 0).any(0)]
        if kept.size:
            repaired[:, y, x] = np.round(kept.sum(1) / kept.shape[1])
    return repaired


def test_the_table_holds_the_kernels_of_the_lecture() -> None:
    assert kernel("sharpen").tolist() == [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]
    assert kernel("sobel-x").tolist() == [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    assert torch.equal(kernel("sobel-y"), kernel("sobel-x").T)
    assert torch.equal(kernel("prewitt-y"), kernel("prewitt-x").T)
    assert torch.equal(kernel("edge"), kernel("sharpen") - kernel("identity"))
    torch.testing.assert_close(kernel("strong-edge"), 9 * (kernel("identity") - kernel("mean")))


def test_weights_sum_to_one_or_for_edge_kernels_to_zero() -> None:
    for name in KERNELS:
        assert kernel(name).sum().item() == pytest.approx(0 if name in EDGE_KERNELS else 1, abs=1e-6)
        assert kernel(name).dtype == torch.float32


def test_mean_and_gaussian_have_any_odd_size() -> None:
    assert torch.equal(kernel("mean", 5), torch.full((5, 5), 0.04))
    line = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 1.5**2))
    expected = np.outer(line, line) / np.outer(line, line).sum()
    np.testing.assert_allclose(kernel("gaussian", 7, 1.5).numpy(), expected, rtol=1e-6)
    # The default sigma of size 5 is 0.3 (2 - 1) + 0.8 = 1.1.
    assert torch.equal(kernel("gaussian", 5), kernel("gaussian", 5, 1.1))


def test_a_request_for_a_kernel_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Unknown kernel 'sobel'. Did you mean 'sobel-y' or 'sobel-x'"):
        kernel("sobel")
    with pytest.raises(UsageError, match=r"Kernel 'sharpen' is 3x3; got size=5. Only mean and gaussian"):
        kernel("sharpen", 5)
    with pytest.raises(UsageError, match=r"size must be odd, .*; got 4"):
        kernel("mean", 4)
    with pytest.raises(UsageError, match=r"got sigma=1.0 for 'mean'"):
        kernel("mean", 3, 1.0)
    with pytest.raises(UsageError, match=r"above 0 pixels; got sigma=0.0"):
        kernel("gaussian", 3, 0.0)


def test_a_patch_worked_out_by_hand() -> None:
    image = grey([10, 20, 30], [40, 50, 60], [70, 80, 95])
    # sharpen, middle: 5*50 - 20 - 40 - 60 - 80 = 50; mean, middle: 455/9 = 50.6 -> 51.
    assert filter_image(image, "sharpen")[0, 1, 1] == 50
    assert filter_image(image, "mean")[0, 1, 1] == 51
    # sobel-x, middle: (30 + 2*60 + 95) - (10 + 2*40 + 70) = 85.
    assert filter_image(image, "sobel-x")[0, 1, 1] == 85
    # mean over black surroundings, corner: (10 + 20 + 40 + 50)/9 = 13.3 -> 13.
    assert filter_image(image, "mean", border="zero")[0, 0, 0] == 13


@pytest.mark.parametrize("border", list(SCIPY_MODES))
@pytest.mark.parametrize("flip", [False, True])
def test_borders_against_scipy_channel_by_channel(border: str, flip: bool) -> None:
    image = random_image(3, 6, 5)
    weights = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    operate = ndimage.convolve if flip else ndimage.correlate
    values = np.stack(
        [operate(plane.astype(float), weights.numpy(), mode=SCIPY_MODES[border]) for plane in image.numpy()]
    )
    expected = values.round().clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(filter_image(image, weights, border=border, flip=flip).numpy(), expected)


@pytest.mark.parametrize("border", ["reflect", "replicate", "wrap"])
def test_blurring_a_plain_image_leaves_it_as_it_is(border: str) -> None:
    for level in (0, 1, 127, 255):
        image = torch.full((1, 4, 5), level, dtype=torch.uint8)
        for blur in ("mean", "gaussian"):
            assert torch.equal(filter_image(image, kernel(blur, 5), border=border), image)


def test_the_border_is_reflected_by_default_and_the_edge_pixel_is_not_repeated() -> None:
    left = [[1.0, 0.0, 0.0]]
    assert filter_image(grey([1, 2, 3]), left).tolist() == [[[2, 1, 2]]]
    assert filter_image(grey([1, 2, 3]), left, border="replicate").tolist() == [[[1, 1, 2]]]


@pytest.mark.parametrize("border", list(SCIPY_MODES))
def test_a_kernel_larger_than_the_image_is_no_trouble(border: str) -> None:
    image = grey([7])
    expected = 7 if border != "zero" else 0  # 7/49 = 0.14
    assert filter_image(image, kernel("mean", 7), border=border).tolist() == [[[expected]]]
    assert filter_image(grey([1, 2]), kernel("mean", 7), border=border).shape == (1, 1, 2)


def test_the_identity_changes_nothing_and_an_even_kernel_keeps_the_size() -> None:
    image = random_image(3, 5, 4)
    assert torch.equal(filter_image(image, "identity"), image)
    assert torch.equal(filter_image(image, [[1, 0], [0, 0]]), image)
    assert torch.equal(filter_image(image, [[1, 0], [0, 0]], flip=True), image)


def test_negative_values_are_clipped_shown_by_size_or_shifted() -> None:
    falling = grey([90, 60, 30])
    difference = [[-1, 0, 1]]
    # The middle is 30 - 90 = -60; at the reflected borders both sides are equal.
    assert filter_image(falling, difference, negative="clip").tolist() == [[[0, 0, 0]]]
    assert filter_image(falling, difference, negative="absolute").tolist() == [[[0, 60, 0]]]
    assert filter_image(falling, difference, negative="shift").tolist() == [[[128, 68, 128]]]


def test_by_default_edge_kernels_show_both_directions_and_other_kernels_clip() -> None:
    image = random_image(1, 6, 6)
    for name in EDGE_KERNELS:
        assert torch.equal(filter_image(image, name), filter_image(image, name, negative="absolute"))
        assert torch.equal(filter_image(image, name), filter_image(255 - image, name))
    clipped, absolute = (filter_image(image, "sharpen", negative=way) for way in ("clip", "absolute"))
    assert torch.equal(filter_image(image, "sharpen"), clipped)
    assert not torch.equal(clipped, absolute)


def test_values_are_rounded_to_the_nearest_with_halves_to_even_and_clipped() -> None:
    assert filter_image(grey([1, 3, 5, 255]), [[0.5]]).tolist() == [[[0, 2, 2, 128]]]
    assert filter_image(grey([100, 200]), [[2.0]]).tolist() == [[[200, 255]]]


def test_a_lost_pixel_becomes_the_average_of_its_neighbours_and_no_other_pixel_changes() -> None:
    image = grey([10, 20, 30], [40, 0, 60], [70, 80, 90])
    # (10 + 20 + 30 + 40 + 60 + 70 + 80 + 90) / 8 = 50
    assert filter_image(image, "mean", where_zero=True).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    corner = grey([0, 20, 30], [40, 0, 60], [70, 80, 90])
    repaired = filter_image(corner, "mean", where_zero=True)
    assert repaired[0, 0, 0] == 30  # (20 + 40) / 2: the other lost pixel does not count, nor what is outside
    assert repaired[0, 1, 1] == 56  # 390 / 7 = 55.7


def test_a_pixel_is_lost_only_where_every_channel_is_zero() -> None:
    image = random_image(3, 4, 4).clamp(min=1)
    image[:, 1, 1] = 0
    image[0, 2, 2] = 0
    repaired = filter_image(image, "mean", where_zero=True)
    changed = (repaired != image).any(0)
    assert changed.nonzero().tolist() == [[1, 1]]


@pytest.mark.parametrize("size", [3, 5])
def test_repair_against_loops_with_many_lost_pixels(size: int) -> None:
    image = random_image(3, 12, 9)
    lost = torch.rand(12, 9, generator=torch.Generator().manual_seed(3)) < 0.5
    image[:, lost] = 0
    repaired = filter_image(image, kernel("mean", size), where_zero=True)
    np.testing.assert_array_equal(repaired.numpy(), naive_repair(image.numpy(), size))


def test_repair_by_a_gaussian_counts_near_pixels_more() -> None:
    image = grey([0, 100, 50])
    # Weights of the distances 1 and 2 at sigma 1: e^-0.5 = 0.607 and e^-2 = 0.135; (60.7 + 6.77) / 0.742 = 90.9.
    assert filter_image(image, kernel("gaussian", 5, 1.0), where_zero=True).tolist() == [[[91, 100, 50]]]


def test_a_lost_pixel_without_neighbours_stays_until_a_larger_kernel_reaches_one() -> None:
    image = grey([0, 0, 8])
    assert filter_image(image, "mean", where_zero=True).tolist() == [[[0, 8, 8]]]
    assert filter_image(image, kernel("mean", 5), where_zero=True).tolist() == [[[8, 8, 8]]]
    assert filter_image(image * 0, "mean", where_zero=True).tolist() == [[[0, 0, 0]]]


def test_repair_may_take_pixels_from_beyond_the_border_where_asked() -> None:
    image = grey([0, 10, 40])
    assert filter_image(image, "mean", where_zero=True).tolist() == [[[10, 10, 40]]]
    assert filter_image(image, "mean", where_zero=True, border="wrap").tolist() == [[[25, 10, 40]]]


def test_repair_refuses_kernels_that_do_not_average_and_words_without_effect() -> None:
    image = random_image(1, 4, 4)
    with pytest.raises(UsageError, match=r"where_zero needs weights to average with.* got weights from -1 to 5"):
        filter_image(image, "sharpen", where_zero=True)
    with pytest.raises(UsageError, match="leave out negative='clip'"):
        filter_image(image, "mean", where_zero=True, negative="clip")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_pillow_image_comes_back_with_its_mode_and_size_and_its_alpha_untouched(mode: str) -> None:
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = random_image(channels, 5, 7)
    picture = Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())
    assert picture.mode == mode
    result = filter_image(picture, "mean")
    assert (result.mode, result.size) == (mode, (7, 5))
    values = torch.from_numpy(np.array(result)).reshape(5, 7, channels).permute(2, 0, 1)
    assert torch.equal(values, filter_image(pixels, "mean"))
    if mode in ("LA", "RGBA"):
        assert torch.equal(values[-1], pixels[-1])
        assert not torch.equal(values[0], pixels[0])


def test_an_opaque_black_pixel_is_lost_although_its_alpha_is_not_zero() -> None:
    image = torch.full((4, 3, 3), 200, dtype=torch.uint8)
    image[:3, 1, 1] = 0
    assert torch.equal(filter_image(image, "mean", where_zero=True), torch.full_like(image, 200))


def test_pillow_images_without_brightness_in_their_numbers_are_converted() -> None:
    photo = Image.new("RGB", (4, 3), (200, 100, 50))
    assert filter_image(photo.convert("CMYK"), "identity").getpixel((0, 0)) == (200, 100, 50)
    assert filter_image(photo.convert("P", palette=Image.Palette.ADAPTIVE), "identity").mode == "RGB"
    assert filter_image(Image.new("1", (4, 3), 1), "identity").getpixel((0, 0)) == 255
    palette = photo.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert filter_image(palette, "identity").getpixel((0, 0)) == (200, 100, 50, 0)
    photo.info["transparency"] = (200, 100, 50)
    assert filter_image(photo, "identity").getpixel((0, 0)) == (200, 100, 50, 0)


def test_the_colour_profile_is_kept_and_the_image_given_is_not_changed() -> None:
    photo = Image.new("RGB", (4, 3), (200, 100, 50))
    photo.info["icc_profile"] = b"profile"
    assert filter_image(photo, "edge").info == {"icc_profile": b"profile"}
    assert photo.getpixel((0, 0)) == (200, 100, 50)
    image = random_image(2, 4, 4)
    copy = image.clone()
    filter_image(image, "mean")
    assert torch.equal(image, copy)


def test_images_of_another_kind_are_refused_with_the_way_to_make_them_fit() -> None:
    with pytest.raises(UsageError, match=r"got torch.float32 \(3, 4, 4\).*image \* 255"):
        filter_image(torch.zeros(3, 4, 4), "mean")
    with pytest.raises(UsageError, match=r"got torch.uint8 \(4, 4\)\. A grey \(H, W\) image is image\[None\]"):
        filter_image(torch.zeros(4, 4, dtype=torch.uint8), "mean")
    with pytest.raises(UsageError, match=r"got torch.uint8 \(1, 0, 4\)"):
        filter_image(torch.zeros(1, 0, 4, dtype=torch.uint8), "mean")
    with pytest.raises(UsageError, match=r"got Pillow mode 'I;16'. Convert it to 'L' or 'RGB'"):
        filter_image(Image.new("I;16", (4, 4)), "mean")
    with pytest.raises(UsageError, match="got str"):
        filter_image("photo.png", "mean")


def test_unknown_words_and_kernels_that_are_none_are_refused() -> None:
    image = random_image(1, 4, 4)
    with pytest.raises(UsageError, match="Unknown border 'mirror'"):
        filter_image(image, "mean", border="mirror")
    with pytest.raises(UsageError, match=r"Unknown treatment of negative values 'absolut'. Did you mean 'absolute'"):
        filter_image(image, "edge", negative="absolut")
    with pytest.raises(UsageError, match=r"finite weights .* got 3 weights of shape \(3,\)"):
        filter_image(image, [1, 2, 3])
    with pytest.raises(UsageError, match="finite weights"):
        filter_image(image, [[1.0, float("nan")]])
