from __future__ import annotations

import colorsys
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from glassnet._errors import UsageError
from glassnet.data.augmentation import (
    TRANSFORMS,
    Augmentation,
    CutMix,
    MixUp,
    augmentation_sheet,
    default_augmentation,
    parse_augmentation,
    resolve_augmentation,
)
from glassnet.data.examples import ExampleSet
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.standard import STANDARD_SETS
from glassnet.data.standardisation import Standardisation
from glassnet.data.transforms import (
    ColorJitter,
    PixelTransform,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomRotation,
    RandomShift,
    RandomVerticalFlip,
    Transform,
    warped,
)

EVERY_TRANSFORM: list[Transform] = [
    RandomCrop(padding=2),
    RandomCrop(padding=2, padding_mode="edge"),
    RandomCrop(padding=2, padding_mode="reflect"),
    RandomShift(max_shift=3, fill=9),
    RandomHorizontalFlip(p=0.25),
    RandomVerticalFlip(),
    RandomRotation(degrees=30),
    RandomAffine(degrees=10, translate=(0.1, 0.2), scale=(0.8, 1.2), shear=5, fill=128),
    RandomErasing(p=0.75, scale=(0.1, 0.2), ratio=(0.5, 2)),
    ColorJitter(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1),
    MixUp(alpha=0.4),
    CutMix(p=0.5),
]
"""Every kind at least once."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int = 3, height: int = 9, width: int = 11, low: int = 0, seed: int = 5) -> Tensor:
    return torch.randint(low, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(seed))


def changed(transform: Transform, pixels: Tensor, seed: int = 0, fill: int = 0) -> NDArray[np.uint8]:
    """Return the pixels after one transform whose labels do not matter."""
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    return transform(pixels, labels, seeded(seed), num_classes=1, fill=fill)[0].numpy()


def mixed(transform: Transform, pixels: Tensor, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return pixels and soft labels where each image is a class of its own, so that a label tells both partners."""
    pixels, soft = transform(pixels, torch.arange(len(pixels)), seeded(seed), num_classes=len(pixels))
    return pixels.numpy(), soft.numpy()


def read_bilinear(image: NDArray[np.uint8], inverse: NDArray[np.float64], fill: int) -> NDArray[np.float64]:
    """Read one channel at `inverse @ (x, y, 1)` for every pixel, x and y from the image's centre, pixel by pixel."""
    height, width = image.shape
    result = np.empty((height, width))
    for row in range(height):
        for column in range(width):
            x, y = inverse @ (column + 0.5 - width / 2, row + 0.5 - height / 2, 1.0)
            x, y = x + width / 2 - 0.5, y + height / 2 - 0.5
            left, top, total = math.floor(x), math.floor(y), 0.0
            for i, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                for j, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                    inside = 0 <= i < height and 0 <= j < width
                    total += weight_y * weight_x * (float(image[i, j]) if inside else fill)
            result[row, column] = total
    return result


# --- moving whole pixels


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_a_crop_is_a_window_of_the_padded_image_and_every_window_occurs(mode: str) -> None:
    pixels = noise(600, height=5, width=7)
    cropped = changed(RandomCrop(padding=2, padding_mode=mode), pixels, fill=77)
    options = {"constant_values": 77} if mode == "constant" else {}
    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode=mode, **options)  # type: ignore[call-overload]
    seen = []
    for index in range(len(pixels)):
        matches = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if np.array_equal(cropped[index], padded[index, :, down : down + 5, right : right + 7])
        ]
        assert len(matches) == 1
        seen += matches
    counts = [seen.count(window) for window in set(seen)]
    assert len(counts) == 25
    assert max(counts) < 24 + 5 * math.sqrt(24)  # 24 expected: about Poisson


def test_what_becomes_free_gets_the_fill_of_the_transform_before_that_of_the_record() -> None:
    dark = torch.zeros(50, 1, 6, 6, dtype=torch.uint8)
    assert set(np.unique(changed(RandomShift(max_shift=2), dark, fill=200))) == {0, 200}
    assert set(np.unique(changed(RandomShift(max_shift=2, fill=7), dark, fill=200))) == {0, 7}
    assert set(np.unique(changed(RandomShift(max_shift=2, fill=0), dark, fill=200))) == {0}


def test_a_shift_is_a_crop_with_as_much_padding() -> None:
    pixels = noise(20)
    shifted = changed(RandomShift(max_shift=3), pixels, fill=4)
    assert np.array_equal(shifted, changed(RandomCrop(padding=3), pixels, fill=4))


@pytest.mark.parametrize(("transform", "axis"), [(RandomHorizontalFlip, 2), (RandomVerticalFlip, 1)])
def test_a_flip_mirrors_the_expected_share_of_images_and_leaves_the_others(
    transform: type[PixelTransform], axis: int
) -> None:
    pixels = noise(2000, height=4, width=3)
    flipped = changed(transform(p=0.3), pixels)  # type: ignore[call-arg]
    is_flipped = []
    for before, after in zip(pixels.numpy(), flipped, strict=True):
        is_flipped.append(np.array_equal(after, np.flip(before, axis)))
        assert is_flipped[-1] or np.array_equal(after, before)
    assert abs(np.mean(is_flipped) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)
    assert np.array_equal(changed(transform(p=0), pixels), pixels)  # type: ignore[call-arg]
    assert np.array_equal(changed(transform(p=1), pixels), np.flip(pixels.numpy(), axis + 1))  # type: ignore[call-arg]


def test_erasing_fills_one_box_whose_area_and_ratio_lie_in_the_range() -> None:
    pixels = noise(1500, height=24, width=30, low=1)
    erased = changed(RandomErasing(p=0.6, scale=(0.05, 0.3), ratio=(0.5, 2.0)), pixels)
    shares, ratios = [], []
    for before, after in zip(pixels.numpy(), erased, strict=True):
        hole = (after == 0).all(0)
        assert np.array_equal(after, np.where(hole, 0, before))
        if hole.any():
            rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert hole.sum() == height * width
            shares.append(hole.mean())
            ratios.append(height / width)
    assert abs(len(shares) / 1500 - 0.6) < 4 * math.sqrt(0.6 * 0.4 / 1500)
    assert 0.04 < min(shares) < 0.06
    assert 0.29 < max(shares) < 0.32
    assert abs(np.mean(shares) - 0.175) < 0.01  # uniform between the bounds
    assert 0.4 < min(ratios) < 0.55
    assert 1.8 < max(ratios) < 2.4
    assert abs(np.mean(np.log(ratios))) < 0.05


def test_boxes_reach_every_corner() -> None:
    erased = changed(RandomErasing(p=1, scale=(0.1, 0.3)), noise(800, height=8, width=8, low=1)) == 0
    hits = erased.all(1).mean(0)
    assert hits.min() > 0.02
    assert abs(hits[0, 0] - hits[-1, -1]) < 0.05


def test_a_box_as_large_as_the_image_never_fits_and_the_image_stays() -> None:
    pixels = noise(20)
    assert np.array_equal(changed(RandomErasing(p=1, scale=(1, 1), ratio=(1, 1)), pixels), pixels)


# --- warping


def test_a_rotation_is_pillows_inside_of_the_image_to_one_level() -> None:
    pixels = noise(12, channels=1, height=20, width=28)
    turned = changed(RandomRotation(degrees=40), pixels)
    angles = (2 * torch.rand(5, 12, generator=seeded())[0] - 1) * 40
    assert angles.min() < -10
    assert angles.max() > 10
    for before, after, angle in zip(pixels[:, 0].numpy(), turned[:, 0], angles.tolist(), strict=True):
        expected = np.array(Image.fromarray(before).rotate(angle, Image.Resampling.BILINEAR)).astype(int)
        inside = np.array(Image.fromarray(np.pad(np.full((16, 24), 255, np.uint8), 2)).rotate(angle)) == 255
        assert inside.sum() > 200
        assert np.abs(expected - after)[inside].max() <= 1


def test_an_affine_map_is_the_one_put_together_by_hand_to_one_level_with_blended_edges() -> None:
    pixels = noise(8, height=10, width=13)
    transform = RandomAffine(degrees=50, translate=(0.3, 0.4), scale=(0.5, 1.5), shear=25, fill=60)
    after = changed(transform, pixels).astype(int)
    u = torch.rand(5, 8, generator=seeded()).double().numpy()
    for index in range(8):
        angle, lean = np.deg2rad((2 * u[0, index] - 1) * 50), np.deg2rad((2 * u[2, index] - 1) * 25)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # y points down
        forward = np.eye(3)
        forward[:2, :2] = turn * (0.5 + u[1, index]) @ np.array([[1, -np.tan(lean)], [0, 1]])
        forward[0, 2] = round((2 * u[3, index] - 1) * 0.3 * 13)
        forward[1, 2] = round((2 * u[4, index] - 1) * 0.4 * 10)
        inverse = np.linalg.inv(forward)[:2]
        for channel in range(3):
            expected = read_bilinear(pixels[index, channel].numpy(), inverse, 60)
            assert np.abs(expected - after[index, channel]).max() < 0.51


def test_quarter_turns_and_whole_moves_are_exact() -> None:
    pixels = noise(1, height=12, width=12)
    quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])  # the inverse of a turn to the left
    still = torch.zeros(1, 2)
    assert np.array_equal(warped(pixels, quarter, still, 0), np.rot90(pixels.numpy(), 1, (2, 3)))
    moved = warped(pixels, torch.eye(2)[None], torch.tensor([[2.0, -3.0]]), 17)
    expected = np.full(pixels.shape, 17)
    expected[:, :, :-3, 2:] = pixels[:, :, 3:, :-2]
    assert np.array_equal(moved, expected)


def test_translate_moves_by_whole_pixels_up_to_its_share_of_each_side() -> None:
    pixels = torch.zeros(400, 1, 10, 20, dtype=torch.uint8)
    pixels[:, :, 5, 10] = 255
    moved = changed(RandomAffine(translate=(0.1, 0.3)), pixels)
    assert set(np.unique(moved)) == {0, 255}
    _, _, rows, columns = np.nonzero(moved)
    assert set(rows - 5) == set(range(-3, 4))
    assert set(columns - 10) == set(range(-2, 3))


def test_a_flat_image_stays_flat_under_any_warp_with_its_own_level_as_fill() -> None:
    flat = torch.full((30, 3, 9, 7), 141, dtype=torch.uint8)
    assert (
        changed(RandomAffine(degrees=180, translate=(0.5, 0.5), scale=(0.2, 3), shear=40), flat, fill=141) == 141
    ).all()


# --- colours


def drawn_factors(strength: float, row: int, count: int) -> list[float]:
    low = max(0.0, 1 - strength)
    return (low + torch.rand(4, count, generator=seeded())[row] * (1 + strength - low)).tolist()


@pytest.mark.parametrize(
    ("option", "row", "enhance"),
    [
        ("brightness", 0, ImageEnhance.Brightness),
        ("contrast", 1, ImageEnhance.Contrast),
        ("saturation", 2, ImageEnhance.Color),
    ],
)
def test_brightness_contrast_and_saturation_are_pillows_to_two_levels(
    option: str, row: int, enhance: type[ImageEnhance._Enhance]
) -> None:
    pixels = noise(15)
    after = changed(ColorJitter(**{option: 1.4}), pixels).astype(int)  # Pillow rounds greys and cuts off fractions
    factors = drawn_factors(1.4, row, 15)
    assert min(factors) < 0.6
    assert max(factors) > 1.6
    for index, factor in enumerate(factors):
        image = Image.fromarray(pixels[index].permute(1, 2, 0).numpy())
        expected = np.array(enhance(image).enhance(factor)).astype(int)
        assert np.abs(expected - after[index].transpose(1, 2, 0)).max() <= 2


def test_hue_is_turned_as_colorsys_does() -> None:
    pixels = noise(6, height=4, width=4)
    pixels[0, :, 0] = torch.tensor([[90], [90], [90]])  # grey has no hue
    after = changed(ColorJitter(hue=0.5), pixels)
    turns = (torch.rand(4, 6, generator=seeded())[3] - 0.5).tolist()
    for index, turn in enumerate(turns):
        for row in range(4):
            for column in range(4):
                hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[index, :, row, column] / 255).tolist())
                expected = 255 * np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
                assert np.abs(expected - after[index, :, row, column]).max() < 0.51


def test_the_four_changes_of_colour_follow_one_another() -> None:
    pixels = noise(10)
    at_once = changed(ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.2), pixels).astype(int)
    one_by_one = pixels
    for option in ({"brightness": 0.3}, {"contrast": 0.3}, {"saturation": 0.3}, {"hue": 0.2}):
        one_by_one = torch.from_numpy(changed(ColorJitter(**option), one_by_one))
    assert np.abs(at_once - one_by_one.numpy()).max() <= 3  # rounded four times


def test_grey_images_take_brightness_and_contrast() -> None:
    pixels = noise(10, channels=1)
    after = changed(ColorJitter(brightness=0.5), pixels)
    for index, factor in enumerate(drawn_factors(0.5, 0, 10)):
        assert np.abs((pixels[index].numpy() * factor).clip(0, 255) - after[index]).max() < 0.51
    assert changed(ColorJitter(contrast=0.5), pixels).shape == pixels.shape


def test_colours_are_refused_for_grey_images() -> None:
    with pytest.raises(UsageError, match=r"need red, green and blue; got images of 1 channel\(s\)\. Use brightness"):
        Augmentation((ColorJitter(hue=0.1),)).check((1, 8, 8))


# --- mixing


def test_mixup_averages_two_images_in_the_shares_of_their_labels() -> None:
    pixels = noise(60)
    after, soft = mixed(MixUp(), pixels)
    assert soft.dtype == np.float32
    for index in range(60):
        exact = np.tensordot(soft[index], pixels.numpy().astype(float), 1)
        assert np.abs(exact - after[index]).max() < 0.51  # rounded once
        assert np.count_nonzero(soft[index]) <= 2
        assert soft[index].argmax() == index


def test_cutmix_pastes_one_box_whose_area_is_the_share_of_the_label() -> None:
    values = torch.arange(1, 61, dtype=torch.uint8)[:, None, None, None].expand(60, 3, 10, 14).contiguous()
    after, soft = mixed(CutMix(), values)
    num_mixed = 0
    for index in range(60):
        foreign = (after[index] != index + 1).all(0)
        assert abs(foreign.mean() - (1 - soft[index, index])) < 1e-6
        if foreign.any():
            num_mixed += 1
            other = np.flatnonzero(soft[index] * (np.arange(60) != index))
            assert set(np.unique(after[index])) == {index + 1, other[0] + 1}
            rows, columns = foreign.any(1), foreign.any(0)
            assert np.array_equal(foreign, rows[:, None] & columns)
            assert np.array_equal(np.flatnonzero(rows), np.arange(rows.argmax(), rows.argmax() + rows.sum()))
    assert num_mixed > 40


def test_pasted_pixels_come_from_the_same_place_of_the_other_image() -> None:
    pixels = noise(40)
    after, soft = mixed(CutMix(), pixels)
    for index in range(40):
        other = int((soft[index] * (np.arange(40) != index)).argmax())
        is_own = (after[index] == pixels[index].numpy()).all(0)
        assert (is_own | (after[index] == pixels[other].numpy()).all(0)).all()


@pytest.mark.parametrize("transform", [MixUp(alpha=0.3), CutMix(alpha=0.3), MixUp(p=0.5), CutMix(p=0.5)])
def test_soft_labels_sum_to_one_and_the_greater_share_stays(transform: Transform) -> None:
    _, soft = mixed(transform, noise(200, channels=1))
    assert np.abs(soft.sum(1) - 1).max() < 1e-6
    assert soft.min() >= 0
    assert (soft.diagonal() >= 0.5).all()


def test_shares_are_beta_distributed_with_the_lesser_folded_over() -> None:
    pixels = noise(4000, channels=1, height=1, width=1)
    for alpha in (0.2, 1.0, 8.0):
        reference = np.random.default_rng(0).beta(alpha, alpha, 200_000)
        kept = np.maximum(reference, 1 - reference)
        _, soft = mixed(MixUp(alpha=alpha), pixels, seed=3)
        share = soft.max(1)
        assert abs(share.mean() - kept.mean()) < 4 * kept.std() / math.sqrt(4000)
        assert abs(share.std() - kept.std()) < 0.01


def test_p_is_the_share_of_images_that_are_mixed() -> None:
    for transform in (MixUp(p=0.25), CutMix(p=0.25)):
        pixels = noise(2000, channels=1, height=32, width=32)
        after, soft = mixed(transform, pixels)
        is_whole = soft.max(1) == 1
        assert abs(is_whole.mean() - 0.75) < 0.06  # CutMix also draws boxes below one pixel
        assert np.array_equal(after[is_whole], pixels.numpy()[is_whole])


def test_values_to_predict_are_mixed_like_the_images() -> None:
    values = torch.arange(30, dtype=torch.float32)
    pixels = noise(30)
    _, alone = MixUp()(pixels, values, seeded())
    _, pair = MixUp()(pixels, torch.stack([values, 2 * values], 1), seeded())
    soft = mixed(MixUp(), pixels)[1]
    assert torch.allclose(alone, torch.from_numpy(soft) @ values, atol=1e-4)
    assert torch.allclose(pair, torch.stack([alone, 2 * alone], 1), atol=1e-4)


def test_mixing_twice_keeps_distributions() -> None:
    both = Augmentation((MixUp(), CutMix()))
    assert both.mixes_labels
    _, soft = both(noise(50), torch.arange(50), seeded(), num_classes=50)
    assert torch.allclose(soft.sum(1), torch.ones(50))
    assert int((soft > 0).sum(1).max()) in (3, 4)


def test_mixing_labels_without_a_number_of_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="needs num_classes"):
        MixUp()(noise(4), torch.arange(4), seeded())


# --- what every transform keeps to


@pytest.mark.parametrize("transform", EVERY_TRANSFORM, ids=str)
class TestEveryTransform:
    def test_a_batch_keeps_its_format_and_the_arguments_stay_intact(self, transform: Transform) -> None:
        pixels, labels = noise(7, height=12, width=15), torch.arange(7) % 3
        before = pixels.clone(), labels.clone()
        after, targets = transform(pixels, labels, seeded(), num_classes=3, fill=5)
        assert after.shape == pixels.shape
        assert after.dtype == torch.uint8
        assert torch.equal(pixels, before[0])
        assert torch.equal(labels, before[1])
        assert targets is labels or targets.shape == (7, 3)

    def test_the_same_seed_gives_the_same_batch_and_another_seed_another(self, transform: Transform) -> None:
        pixels = noise(30, height=12, width=15)
        first = changed(transform, pixels, seed=1)
        torch.rand(3)
        assert np.array_equal(first, changed(transform, pixels, seed=1))
        assert not np.array_equal(first, changed(transform, pixels, seed=2))

    def test_equal_images_of_a_batch_get_changes_of_their_own(self, transform: Transform) -> None:
        pixels = noise(1, height=12, width=15).expand(20, -1, -1, -1)
        if isinstance(transform, MixUp | CutMix):
            pixels = torch.cat([pixels, 255 - pixels])
        after = changed(transform, pixels)[:20]
        assert len({image.tobytes() for image in after}) >= 2
        assert not isinstance(transform, RandomAffine | ColorJitter) or len({i.tobytes() for i in after}) == 20

    def test_a_batch_of_one_works(self, transform: Transform) -> None:
        after, targets = transform(noise(1, height=12, width=15), torch.tensor([1]), seeded(), num_classes=2)
        assert after.shape == (1, 3, 12, 15)
        assert targets.tolist() in ([1], [[0, 1]])

    def test_text_gives_the_transform_back(self, transform: Transform) -> None:
        augmentation = Augmentation((transform,))
        assert parse_augmentation(str(augmentation)) == augmentation


@pytest.mark.parametrize("kind", [RandomHorizontalFlip, RandomErasing, MixUp, CutMix])
def test_an_option_does_not_change_the_draws_of_what_follows(kind: type[Transform]) -> None:
    pixels, labels = noise(9), torch.arange(9)
    states = []
    for p in (0.0, 1.0):
        generator = seeded()
        kind(p=p)(pixels, labels, generator, num_classes=9)  # type: ignore[call-arg]
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_transforms_are_applied_in_order_with_one_generator() -> None:
    pixels, labels = noise(10), torch.arange(10)
    first, second = RandomCrop(padding=2), RandomHorizontalFlip()
    generator = seeded(4)
    expected = second(first(pixels, labels, generator, fill=8)[0], labels, generator)[0]
    augmentation = Augmentation((first, second))
    assert torch.equal(augmentation(pixels, labels, seeded(4), fill=8)[0], expected)
    assert not augmentation.mixes_labels


def test_no_augmentation_changes_nothing() -> None:
    pixels, labels = noise(3), torch.arange(3)
    after = Augmentation()(pixels, labels, seeded())
    assert after[0] is pixels
    assert after[1] is labels
    assert not Augmentation()
    assert str(Augmentation()) == "none"


def test_inputs_that_are_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"changes images, uint8 \(N, C, H, W\); got torch.float32 \(3, 4\)"):
        Augmentation((MixUp(),))(torch.zeros(3, 4), torch.arange(3), seeded(), num_classes=3)


@pytest.mark.parametrize("transform", [RandomCrop(padding=8), RandomShift(max_shift=9)])
def test_a_reach_beyond_the_image_is_refused_with_the_sizes(transform: Transform) -> None:
    with pytest.raises(UsageError, match=r"must be below the images' height and width; got \d with images of 8x20"):
        Augmentation((transform,))(noise(2, height=8, width=20), torch.arange(2), seeded())


# --- text


@pytest.mark.parametrize(
    ("text", "transforms"),
    [
        ("RandomCrop(padding=4),RandomHorizontalFlip", (RandomCrop(padding=4), RandomHorizontalFlip())),
        (" RandomHorizontalFlip() , ", (RandomHorizontalFlip(p=0.5),)),
        ("RandomCrop(padding=4, padding_mode=reflect)", (RandomCrop(padding=4, padding_mode="reflect"),)),
        ("RandomCrop(padding=4, padding_mode='edge', fill=None)", (RandomCrop(padding=4, padding_mode="edge"),)),
        ("RandomErasing(scale=(0.1, .2))\n,MixUp(alpha=2e-1)", (RandomErasing(scale=(0.1, 0.2)), MixUp(alpha=0.2))),
        ("none", ()),
        ("", ()),
    ],
)
def test_text_means_these_transforms(text: str, transforms: tuple[Transform, ...]) -> None:
    assert parse_augmentation(text) == Augmentation(transforms)


def test_text_names_every_option_that_has_a_value() -> None:
    augmentation = Augmentation(
        (RandomErasing(), RandomCrop(padding=4, padding_mode="edge"), RandomRotation(degrees=7.5))
    )
    assert str(augmentation) == (
        "RandomErasing(p=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3)), RandomCrop(padding=4, padding_mode=edge), "
        "RandomRotation(degrees=7.5)"
    )


@pytest.mark.parametrize("transform", [RandomHorizontalFlip(p=0), RandomShift(max_shift=0, fill=0), CutMix(p=1e-9)])
def test_zeros_and_small_numbers_are_kept_in_text(transform: Transform) -> None:
    assert parse_augmentation(str(Augmentation((transform,)))) == Augmentation((transform,))


def test_all_transforms_are_known_by_name() -> None:
    assert {type(transform) for transform in EVERY_TRANSFORM} == set(TRANSFORMS.values())
    assert all(kind.__name__ == name for name, kind in TRANSFORMS.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RandomCorp(padding=4)", "Unknown augmentation 'RandomCorp'. Did you mean 'RandomCrop'"),
        ("randomcrpo(padding=4)", "Did you mean 'RandomCrop'"),
        ("RandomCrop(pading=4)", "Unknown option of RandomCrop 'pading'. Did you mean 'padding'"),
        (
            "RandomCrop(4)",
            r"RandomCrop: options are written name=value; got a bare value. Write RandomCrop\(padding=...\)",
        ),
        ("RandomCrop", "RandomCrop needs padding; got none"),
        ("RandomRotation()", r"RandomRotation needs degrees; got none. Write RandomRotation\(degrees=...\)"),
        ("RandomCrop(padding=4", "is written as transforms with their options.*got 'RandomCrop"),
        ("RandomCrop(padding=4) RandomHorizontalFlip", "Use commas between them"),
        ("RandomCrop(padding=4, padding=2)", "is written as"),
        ("RandomCrop(**{'padding': 4})", "is written as"),
        ("RandomCrop(padding=2+2j)", "padding must be a whole number"),
        ("RandomCrop(padding=int('4'))", "is written as"),
        ("__import__('os').system('true')", "is written as"),
        ("MixUp), (CutMix", "is written as"),
        ("RandomCrop(padding=4.5)", r"RandomCrop: padding must be a whole number; got 4.5"),
        ("RandomCrop(padding=True)", "padding must be a whole number; got True"),
        ("RandomCrop(padding=-1)", "padding must be at least 0; got -1"),
        ("RandomCrop(padding=1, padding_mode=relfect)", "Unknown padding_mode 'relfect'. Did you mean 'reflect'"),
        ("RandomCrop(padding=1, padding_mode=edge, fill=3)", "fill has no effect with padding_mode=edge"),
        ("RandomHorizontalFlip(p=1.5)", r"RandomHorizontalFlip: p must lie in 0..1; got 1.5"),
        ("RandomShift(max_shift=1, fill=256)", r"fill must lie in 0..255; got 256"),
        ("RandomShift(max_shift=1, fill=black)", "fill must be a whole number or none; got 'black'"),
        ("RandomErasing(scale=0.3)", r"scale must be two numbers \(low, high\); got 0.3"),
        ("RandomErasing(scale=(0.3, 0.1))", "scale must be .low, high. with 0 < low <= high <= 1"),
        ("RandomErasing(ratio=(0, 1))", "ratio must be .low, high. with 0 < low"),
        ("RandomRotation(degrees=1e999)", "degrees must be a number; got inf"),
        ("RandomRotation(degrees=200)", r"degrees must lie in 0..180"),
        ("RandomAffine(shear=90)", "shear must be at least 0 and below 90"),
        ("RandomAffine(translate=(1, 0))", "translate must be two shares"),
        ("RandomAffine(scale=(0, 1))", "RandomAffine: scale must be"),
        ("ColorJitter", "ColorJitter needs one of brightness, contrast, saturation and hue above 0; got none"),
        ("ColorJitter(hue=0.6)", r"hue must lie in 0..0.5"),
        ("ColorJitter(contrast=-1)", "contrast must be at least 0"),
        ("MixUp(alpha=0)", "MixUp: alpha must be above 0; got 0"),
    ],
)
def test_text_that_is_off_is_answered_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_augmentation(text)


@given(st.text(max_size=40) | st.from_regex(r"(RandomCrop|MixUp)\((padding|alpha|p)=[-0-9a-z.()\[\]'\\]{0,9}\)"))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        augmentation = parse_augmentation(text)
    except UsageError:
        return
    assert parse_augmentation(str(augmentation)) == augmentation


# --- the default


def names_of(augmentation: Augmentation) -> list[str]:
    return [type(transform).__name__ for transform in augmentation]


@pytest.mark.parametrize("name", STANDARD_SETS)
def test_the_standard_sets_are_flipped_unless_they_are_digits(name: str) -> None:
    known = STANDARD_SETS[name]
    augmentation = default_augmentation(name, known.class_names, known.input_shape[0])
    expected = ["RandomShift"] if known.class_names[0] == "0" else ["RandomCrop", "RandomHorizontalFlip"]
    assert names_of(augmentation) == expected
    augmentation.check((known.input_shape[0], 32, 32))


@pytest.mark.parametrize(
    "class_names",
    [
        tuple("ABC"),
        ("a_upper", "b_upper"),
        ("zero", "one"),
        ("digit 3", "digit 4"),
        ("10", "11", "12"),
        ("/", "\\"),
        ("turn left", "turn right"),
        ("TurnLeft", "Stop"),
        ("left", "right", "b", "d", "p", "q", "6", "9"),
        ("counterclockwise", "stop"),
        ("class_17", "class_18"),
    ],
)
def test_colour_images_of_characters_and_of_sides_are_not_flipped(class_names: tuple[str, ...]) -> None:
    assert names_of(default_augmentation("photos", class_names, 3)) == ["RandomShift"]


@pytest.mark.parametrize("class_names", [("cat", "dog"), ("n01440764", "n02102040"), ("Boeing 747", "Airbus A380")])
def test_photographs_are_cropped_and_flipped(class_names: tuple[str, ...]) -> None:
    augmentation = default_augmentation("photos", class_names, 3, size=(224, 256))
    assert augmentation == Augmentation((RandomCrop(padding=28, padding_mode="reflect"), RandomHorizontalFlip()))
    augmentation.check((3, 224, 256))


def test_values_to_predict_and_tiny_images_get_nothing() -> None:
    assert not default_augmentation("heights", (), 3)
    assert not default_augmentation("diagonals", ("rising", "falling"), 3, size=(2, 2))


def test_the_word_default_becomes_what_suits_the_inputs_and_other_text_stays() -> None:
    things, signs = record_for((40, 48)), dataclasses.replace(record_for((40, 48)), class_names=("b", "d"))
    assert resolve_augmentation(" Default", "photos", things) == str(
        Augmentation((RandomCrop(padding=5, padding_mode="reflect"), RandomHorizontalFlip()))
    )
    assert resolve_augmentation("default", "photos", signs) == "RandomShift(max_shift=2)"
    assert resolve_augmentation("default", "heights", dataclasses.replace(things, class_names=())) == ""
    numbers = Standardisation(class_names=("a",), input_shape=(2,), mean=(0.0,) * 2, std=(1.0,) * 2)
    assert resolve_augmentation("default", "table", numbers) == ""
    assert resolve_augmentation("none", "photos", things) == "none"
    with pytest.raises(UsageError, match="'default' depends on the data"):
        parse_augmentation("default")


# --- the sheet


def record_for(size: tuple[int, int], mode: str = "RGB", fill: int = 0) -> Preprocessing:
    channels = 3 if mode == "RGB" else 1
    return Preprocessing(
        class_names=("cat", "dog"), mode=mode, size=size, mean=(0.5,) * channels, std=(0.2,) * channels, fill=fill
    )


def test_a_sheet_shows_each_original_enlarged_and_then_its_versions() -> None:
    examples = ExampleSet(noise(2, height=12, width=16), torch.tensor([0, 1]), ("cat", "dog"))
    flip = Augmentation((RandomHorizontalFlip(p=1),))
    sheet = np.array(augmentation_sheet(examples, flip, record=record_for((12, 16)), count=2, columns=3))
    enlarged = {
        index: np.kron(examples.inputs[index].permute(1, 2, 0), np.ones((6, 6, 1), np.uint8)) for index in (0, 1)
    }
    top = sheet.shape[0] - 4 - 2 * (72 + 20)
    rows = [sheet[top + row * 92 : top + row * 92 + 72, 8 : 8 + 96] for row in (0, 1)]
    order = [index for row in rows for index in (0, 1) if np.array_equal(row, enlarged[index])]
    assert sorted(order) == [0, 1]
    for row, index in enumerate(order):
        for column in (1, 2):
            left, upper = 8 + column * 104, top + row * 92
            assert np.array_equal(sheet[upper : upper + 72, left : left + 96], enlarged[index][:, ::-1])
    assert (sheet[:, -1] == 255).all()
    assert sheet.shape[1] == 3 * 104 + 8


def test_a_sheet_depends_on_its_seed_alone() -> None:
    examples = ExampleSet(noise(20, channels=1), torch.arange(20) % 2, ("cat", "dog"))
    augmentation = parse_augmentation("RandomShift(max_shift=2), MixUp")
    record = record_for((9, 11), "L")
    first, again, other = (
        augmentation_sheet(examples, augmentation, record=record, seed=seed).tobytes() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_sheet_of_large_images_is_reduced_and_fitted_by_the_record() -> None:
    examples = ExampleSet(noise(3, height=40, width=40), torch.arange(3) % 2, ("cat", "dog"))
    sheet = augmentation_sheet(examples, Augmentation(), record=record_for((120, 480), fill=255), count=9, columns=2)
    assert sheet.size == (2 * 104 + 8, sheet.height)
    assert sheet.height - 3 * (24 + 20) in range(50, 80)


def test_captions_are_cut_to_the_width_of_a_picture() -> None:
    long = ExampleSet(noise(1), torch.tensor([0]), ("a very long name of a class that nobody can read", "b"))
    short = ExampleSet(long.inputs, long.labels, ("a very long na", "b"))
    flip = parse_augmentation("RandomHorizontalFlip")
    first, second = (
        np.array(augmentation_sheet(e, flip, record=record_for((9, 11)), columns=2)) for e in (long, short)
    )
    gap = slice(8 + 88, 8 + 88 + 8)
    assert (first[-20:, gap] == 255).all()
    assert (second[-20:] != 255).any()


def test_mixed_labels_get_a_line_for_each_class() -> None:
    examples = ExampleSet(noise(6), torch.arange(6) % 2, ("cat", "dog"))
    heights = [
        augmentation_sheet(examples, parse_augmentation(text), record=record_for((9, 11)), count=6).height
        for text in ("RandomHorizontalFlip", "MixUp")
    ]
    assert heights[1] - heights[0] == 6 * 16


def test_values_to_predict_are_written_under_the_pictures() -> None:
    examples = ExampleSet(noise(2), torch.tensor([[1.5, 2.0], [3.25, 4.0]]), ())
    sheets = [
        np.array(augmentation_sheet(part, Augmentation(), record=record_for((9, 11)), count=2, columns=2))
        for part in (examples, ExampleSet(examples.inputs, examples.labels + 1, ()))
    ]
    is_same = (sheets[0] == sheets[1]).all((1, 2))
    assert not is_same.all()
    assert is_same[:100].all()


def test_a_sheet_of_numbers_is_refused() -> None:
    rows = ExampleSet(torch.zeros(3, 4), torch.arange(3), ("a", "b", "c"))
    with pytest.raises(UsageError, match="A sheet needs images.*got ExampleSet"):
        augmentation_sheet(rows, Augmentation(), record=record_for((9, 11)))


def test_capitals_in_a_transforms_name_do_not_count() -> None:
    assert parse_augmentation("mixup, randomcrop(padding=4)") == parse_augmentation("MixUp, RandomCrop(padding=4)")
