from __future__ import annotations

import itertools
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glassnet._errors import UsageError
from glassnet.data import shapes
from glassnet.data.shape_drawing import band, bent, plane_point, pooled, positions, star_gauge, stroke
from glassnet.data.shapes import (
    CLASS_NAMES,
    DIAL_NAMES,
    RADIUS,
    ROOM,
    ShapeDials,
    ShapeSet,
    load_shapes,
    render_shapes,
)

SIZE = 32
AREA = math.pi * (RADIUS * SIZE) ** 2
"""Of every clean shape, in pixels."""


def only(dial: str, value: float = 1.0) -> ShapeDials:
    return ShapeDials(**{dial: value})


def masks(examples: ShapeSet) -> NDArray[np.float64]:
    return examples.truth.mask.numpy() / 255


def areas(examples: ShapeSet) -> NDArray[np.float64]:
    return masks(examples).sum((1, 2))


def pictures(examples: ShapeSet) -> NDArray[np.float64]:
    return examples.inputs.numpy().astype(float)


@pytest.fixture(scope="module")
def clean() -> ShapeSet:
    return render_shapes(80, seed=1)


@pytest.fixture(scope="module")
def turned_up() -> dict[str, ShapeSet]:
    """The images of `clean` with one dial at its end each."""
    return {name: render_shapes(80, seed=1, dials=only(name)) for name in DIAL_NAMES}


# --- the outline


@pytest.mark.parametrize(
    ("points", "waist"), [(3, 0.5), (4, 0.5**0.5), (5, 0.45), (7, 0.3), (64, math.cos(math.pi / 64))]
)
def test_a_star_is_the_polygon_of_its_tips_and_notches_with_the_area_of_the_unit_circle(
    points: int, waist: float
) -> None:
    size, turn = 800, 0.2
    x, y = positions(size)
    scale = 5.0  # the picture shows -2.5..2.5
    inside = star_gauge(scale * x, scale * y, *(np.array([number]) for number in (points, waist, turn)))[0] < 1
    assert inside.sum() * (scale / size) ** 2 == pytest.approx(math.pi, rel=0.01)
    radius = math.sqrt(math.pi / (points * waist * math.sin(math.pi / points)))
    corners = []
    for index in range(2 * points):
        angle = turn + index * math.pi / points  # clockwise from the top
        length = radius * (waist if index % 2 else 1) * size / scale
        corners.append((size / 2 - 0.5 + length * math.sin(angle), size / 2 - 0.5 - length * math.cos(angle)))
    picture = Image.new("1", (size, size))
    ImageDraw.Draw(picture).polygon(corners, fill=1)
    drawn = np.array(picture)
    assert (drawn & inside).sum() / (drawn | inside).sum() > 0.97  # Pillow draws the edge itself as well


def test_a_clean_square_covers_what_its_sides_say(clean: ShapeSet) -> None:
    side = math.sqrt(AREA)
    steps = np.arange(SIZE)
    for index in range(1, 80, 4):
        assert CLASS_NAMES[clean.labels[index]] == "square"
        covered = [
            (np.minimum(steps + 1, middle + side / 2) - np.maximum(steps, middle - side / 2)).clip(0, 1)
            for middle in clean.truth.centre[index].tolist()
        ]
        exact = covered[0][:, None] * covered[1]
        assert np.abs(exact - masks(clean)[index]).max() < 0.26  # 4 x 4 samples a pixel, off by at most 1/8 an axis
        assert np.abs(exact - masks(clean)[index]).mean() < 0.01


def test_a_clean_circle_is_filled_to_its_radius_and_no_further(clean: ShapeSet) -> None:
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    for index in range(2, 80, 4):
        row, column = clean.truth.centre[index].tolist()
        distance = np.hypot(rows - row, columns - column)
        assert (masks(clean)[index][distance < RADIUS * SIZE - 0.75] == 1).all()
        assert (masks(clean)[index][distance > RADIUS * SIZE + 0.75] == 0).all()


def test_a_clean_triangle_and_star_point_up(clean: ShapeSet) -> None:
    for index in (*range(0, 80, 4), *range(3, 80, 4)):
        covered = masks(clean)[index] > 0.3
        top = np.flatnonzero(covered.any(1))[0]
        tip = np.flatnonzero(covered[top]).mean() + 0.5
        assert abs(tip - float(clean.truth.centre[index, 1])) < 1
        assert covered[top].sum() <= 3


def test_all_clean_shapes_have_one_area_and_their_centre_where_the_truth_says(clean: ShapeSet) -> None:
    assert np.abs(areas(clean) / AREA - 1).max() < 0.04
    places = np.arange(SIZE) + 0.5
    share = masks(clean) / areas(clean)[:, None, None]
    middle = np.stack([(share.sum(2) * places).sum(1), (share.sum(1) * places).sum(1)], 1)
    assert np.abs(middle - clean.truth.centre.numpy()).max() < 0.2
    room = np.abs(clean.truth.centre.numpy() / SIZE - 0.5)
    assert room.max() <= ROOM + 1e-6
    assert room.max() > 0.9 * ROOM


def test_a_tilted_plane_is_seen_as_three_dimensional_geometry_says() -> None:
    generator = np.random.default_rng(0)
    roll, tilt, axis = generator.uniform(-1, 1, (3, 50)) * np.array([[3.0], [0.9], [3.0]])
    points = generator.uniform(-0.3, 0.3, (50, 2))
    seen = []
    for (px, py), angle, lean, line in zip(points, roll, tilt, axis, strict=True):
        flat = np.array([np.cos(angle) * px - np.sin(angle) * py, np.sin(angle) * px + np.cos(angle) * py, 0])
        pole = np.array([np.cos(line), np.sin(line), 0])
        turned = flat * np.cos(lean) - np.cross(pole, flat) * np.sin(lean) + pole * (pole @ flat) * (1 - np.cos(lean))
        seen.append(turned[:2] * 1.5 / (1.5 + turned[2]))  # Rodrigues' rotation, then a pinhole at distance 1.5
    x, y = (np.array(seen)[:, i, None, None].astype(np.float32) for i in (0, 1))
    found = np.stack(plane_point(x, y, roll, tilt, axis), -1)[:, 0, 0]
    assert np.abs(found - points).max() < 1e-5


def test_bending_keeps_areas_and_the_centre() -> None:
    x, y = positions(400)
    amplitude, phases = np.array([0.3]), np.array([[1.0], [4.0]])
    bent_x, bent_y = bent(4 * x + 0 * y, 4 * y + 0 * x, amplitude, phases)
    (dxdy, dxdx), (dydy, dydx) = (np.gradient(part[0].astype(float), 0.01) for part in (bent_x, bent_y))
    assert np.abs((dxdx * dydy - dxdy * dydx)[1:-1, 1:-1] - 1).max() < 0.01
    zero = np.zeros((1, 1, 1), np.float32)
    assert np.abs(np.stack(bent(zero, zero, amplitude, phases))).max() < 1e-6


def test_samples_are_averaged_within_each_pixel() -> None:
    samples = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    assert pooled(samples, 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


def test_a_stroke_covers_its_length_and_round_ends() -> None:
    x, y = positions(100)
    covered = stroke(x, y, np.array([[-0.2, 0.1, 0.2, 0.1]]), np.array([0.05]), 100)[0]
    assert covered.sum() == pytest.approx(40 * 10 + math.pi * 25, rel=0.01)
    assert covered[60, 50] == 1
    assert covered[60, 20] == 0


def test_a_band_hides_its_share_of_the_shape_from_its_start() -> None:
    x, y = positions(50)
    disc = (np.hypot(x, y) < 0.4).astype(np.float32)
    hidden = band(disc, x + 0 * y, np.array([0.25]), np.array([0.5]))
    assert (hidden * disc).sum() / disc.sum() == pytest.approx(0.5, abs=0.03)  # one column of 40 is 3 %
    assert (disc * hidden)[0, :, :25].sum() == pytest.approx((disc * hidden)[0, :, 25:].sum(), rel=0.1)
    assert not band(disc, x + 0 * y, np.array([0.3]), np.array([0.0])).any()


# --- the dials


def test_a_dial_at_zero_changes_nothing_and_at_one_nearly_every_image(
    clean: ShapeSet, turned_up: dict[str, ShapeSet]
) -> None:
    assert torch.equal(render_shapes(80, seed=1, dials=ShapeDials.all(0)).inputs, clean.inputs)
    for name, examples in turned_up.items():
        differs = (examples.inputs != clean.inputs).flatten(1).any(1)
        assert differs.float().mean() > 0.9, name


def test_an_image_draws_its_strength_up_to_the_dial_and_on_no_other(turned_up: dict[str, ShapeSet]) -> None:
    for position, name in enumerate(DIAL_NAMES):
        strength = render_shapes(400, size=8, seed=1, dials=only(name, 0.6)).truth.strength
        assert strength[:, position].max() <= 0.6
        assert strength[:, position].max() > 0.55
        assert float(strength[:, position].mean()) == pytest.approx(0.3, abs=0.04)
        assert not np.delete(strength.numpy(), position, 1).any()
        assert torch.allclose(strength[:80, position] / 0.6, turned_up[name].truth.strength[:, position], atol=1e-6)


def test_what_one_dial_draws_does_not_depend_on_the_others(turned_up: dict[str, ShapeSet]) -> None:
    together = render_shapes(80, seed=1, dials=ShapeDials.all(1)).truth
    for position, name in enumerate(DIAL_NAMES):
        assert torch.equal(together.strength[:, position], turned_up[name].truth.strength[:, position])
    for dial, fact in (("viewpoint", "angle"), ("viewpoint", "tilt"), ("scale", "scale"), ("clutter", "centre")):
        assert torch.equal(getattr(together, fact), getattr(turned_up[dial].truth, fact))


@pytest.mark.parametrize("dial", DIAL_NAMES)
def test_one_dial_leaves_the_facts_of_the_others_alone(
    dial: str, clean: ShapeSet, turned_up: dict[str, ShapeSet]
) -> None:
    own = {"viewpoint": {"angle", "tilt", "mask"}, "scale": {"scale", "mask"}, "occlusion": {"visible_share", "mask"}}
    own |= {"deformation": {"mask"}, "variation": {"mask"}}
    for field in fields(clean.truth):
        before, after = (getattr(examples.truth, field.name) for examples in (clean, turned_up[dial]))
        is_own = field.name in own.get(dial, set()) | {"strength"}
        assert torch.equal(before, after) != is_own, field.name


def test_the_viewpoint_turns_both_ways_and_tilts_which_narrows(clean: ShapeSet, turned_up: dict[str, ShapeSet]) -> None:
    truth = turned_up["viewpoint"].truth
    strength = truth.strength[:, 0]
    assert torch.allclose(truth.angle.abs(), 90 * strength)
    assert torch.allclose(truth.tilt, 55 * strength)
    assert 20 < int((truth.angle > 0).sum()) < 60
    ratio = areas(turned_up["viewpoint"]) / areas(clean)
    assert np.abs(ratio / np.cos(np.deg2rad(truth.tilt.numpy())) - 1).max() < 0.15  # perspective adds a little
    colours = turned_up["viewpoint"].inputs.permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0)
    assert len(colours) <= 17  # shape, background, and the 15 shares between them


def test_a_turn_without_tilt_turns_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "ROOM", 0.0)
    upright = render_shapes(40, size=128, seed=1)
    monkeypatch.setattr(shapes, "MOST_TILT", 0.0)
    turned = render_shapes(40, size=128, seed=1, dials=only("viewpoint"))
    for index in range(40):
        picture = Image.fromarray(upright.truth.mask[index].numpy())
        expected = np.array(picture.rotate(-float(turned.truth.angle[index]), Image.Resampling.BILINEAR)) / 255
        assert np.abs(expected - turned.truth.mask[index].numpy() / 255).mean() < 0.004  # 128 x 128: the edge alone


def test_the_area_goes_with_the_square_of_the_scale_and_the_dial(clean: ShapeSet) -> None:
    before, moved = areas(clean), np.zeros(80)
    for value in (0.25, 0.5, 0.75, 1.0):
        examples = render_shapes(80, seed=1, dials=only("scale", value))
        scale = examples.truth.scale.numpy()
        assert np.abs(areas(examples) / AREA / scale**2 - 1).max() < 0.1
        grows = scale > 1
        assert 0.3 < grows.mean() < 0.7
        assert (np.where(grows, 1, -1) * (areas(examples) - before) > -0.6).all()  # monotone to a sample or two
        assert (np.abs(np.log(scale)) >= moved).all()
        before, moved = areas(examples), np.abs(np.log(scale))
    assert 0.5 <= scale.min() < 0.52
    assert 1.25 < scale.max() <= 2**0.35 + 1e-6


def test_a_deformation_changes_the_outline_and_not_the_area(clean: ShapeSet, turned_up: dict[str, ShapeSet]) -> None:
    assert np.abs(areas(turned_up["deformation"]) / areas(clean) - 1).max() < 0.05
    moved = np.abs(masks(turned_up["deformation"]) - masks(clean)).sum((1, 2)) / AREA
    strength = turned_up["deformation"].truth.strength[:, DIAL_NAMES.index("deformation")].numpy()
    assert np.corrcoef(moved, strength)[0, 1] > 0.7
    assert moved.max() > 0.25


def test_an_occlusion_lowers_the_visible_share_and_more_of_it_hides_more() -> None:
    before = np.ones((80, SIZE, SIZE))
    for value in (0.0, 0.3, 0.6, 1.0):
        examples = render_shapes(80, seed=1, dials=only("occlusion", value))
        truth = examples.truth
        hidden = 0.7 * truth.strength[:, DIAL_NAMES.index("occlusion")].numpy()
        assert np.abs(1 - hidden - truth.visible_share.numpy()).max() < 0.06
        assert np.abs(areas(examples) / AREA - truth.visible_share.numpy()).max() < 0.06
        assert (masks(examples) <= before + 1e-9).all()
        before = masks(examples)
    assert truth.visible_share.min() < 0.4


def test_what_no_band_hides_is_as_it_was(clean: ShapeSet, turned_up: dict[str, ShapeSet]) -> None:
    is_same = (turned_up["occlusion"].inputs == clean.inputs).all(1).numpy()
    lost = masks(clean) - masks(turned_up["occlusion"])
    assert lost[is_same].max() < 0.02  # a trace of a band of nearly the shape's colour
    assert is_same[(lost == 0) & (masks(clean) > 0.1)].all()
    assert 0.5 < is_same.mean() < 0.95


def test_illumination_is_a_light_that_is_even_or_falls_off_in_one_direction(
    clean: ShapeSet, turned_up: dict[str, ShapeSet]
) -> None:
    before, after = pictures(clean), pictures(turned_up["illumination"])
    line = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    x, y = (np.tile(part, (3, 1, 1)).reshape(3, SIZE, SIZE) for part in np.meshgrid(line, line))
    lights = []
    for index in range(80):
        free = after[index] < 255
        terms = np.stack([before[index], before[index] * x, before[index] * y], -1)[free]
        light, *_ = np.linalg.lstsq(terms, after[index][free], rcond=None)
        assert np.abs(terms @ light - after[index][free]).max() < 1.6  # rounded before and after
        lights.append(light)
    middle = np.array(lights)[:, 0]
    assert 0.26 < middle.min() < 0.5
    assert 1.1 < middle.max() < 1.43
    assert np.hypot(*np.array(lights)[:, 1:].T).max() > 0.3


def test_clutter_changes_the_background_alone_and_more_of_it_changes_more(clean: ShapeSet) -> None:
    inside, spread = masks(clean) == 1, []
    for value in (0.0, 0.3, 0.6, 1.0):
        cluttered = pictures(render_shapes(80, seed=1, dials=only("clutter", value)))
        assert np.array_equal(cluttered.transpose(0, 2, 3, 1)[inside], pictures(clean).transpose(0, 2, 3, 1)[inside])
        background = np.where((masks(clean) == 0)[:, None], cluttered, np.nan)
        spread.append(np.nanstd(background, axis=(2, 3)).mean())
    assert spread[0] == 0
    assert all(after > before + 3 for before, after in itertools.pairwise(spread))


def test_variation_gives_a_class_many_looks(clean: ShapeSet, turned_up: dict[str, ShapeSet]) -> None:
    before, after = pictures(clean), pictures(turned_up["variation"])
    corner = after[:, :, 0, 0]
    assert np.array_equal(corner, before[:, :, 0, 0])
    changed = (np.abs(after - corner[:, :, None, None]) > 0).any(1)
    assert not changed[(masks(turned_up["variation"]) == 0)].any()
    inner = masks(turned_up["variation"]) == 1
    colours = np.array([after[index][:, inner[index]].mean(1) for index in range(80)])
    assert (colours.std(0) > 15).all()
    rows, columns = turned_up["variation"].truth.centre.long().T.numpy()
    is_hollow = masks(turned_up["variation"])[np.arange(80), rows, columns] == 0
    assert 5 < is_hollow.sum() < 40
    assert (masks(clean)[np.arange(80), rows, columns] == 1).all()


def test_stars_get_other_numbers_of_tips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "ROOM", 0.0)
    examples = render_shapes(120, size=96, seed=2, dials=only("variation"))
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    tips = set()
    for mask in masks(examples)[3::4]:
        reach = [
            max((r for r in range(10, 46) if mask[int(48 - r * np.cos(a)), int(48 + r * np.sin(a))] > 0.5), default=0)
            for a in angles
        ]
        spectrum = np.abs(np.fft.rfft(np.array(reach) - np.mean(reach)))
        tips.add(int(spectrum[:12].argmax()))
    assert {4, 5, 6, 7} <= tips <= {4, 5, 6, 7, 8}


def test_shapes_stay_inside_the_image_at_every_setting() -> None:
    for dials in (only("scale"), ShapeDials(viewpoint=1, scale=1, deformation=1, variation=1)):
        mask = masks(render_shapes(250, seed=3, dials=dials))
        border = np.concatenate([mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]], 1)
        assert (border.max(1) > 0).mean() < 0.02


# --- sets


def test_classes_are_balanced_and_images_have_their_format() -> None:
    examples = render_shapes(42, size=20, dials=ShapeDials.all(0.5), channels=3)
    assert examples.inputs.shape == (42, 3, 20, 20)
    assert examples.inputs.dtype == torch.uint8
    assert examples.class_counts() == [11, 11, 10, 10]
    assert examples.class_names == ("triangle", "square", "circle", "star")
    assert repr(examples) == "ExampleSet(42 images (3, 20, 20), 4 classes)"


def test_grey_images_are_the_grey_of_the_colours() -> None:
    dials = ShapeDials.all(0.7)
    colour, grey = (render_shapes(12, dials=dials, channels=channels) for channels in (3, 1))
    assert grey.inputs.shape == (12, 1, 32, 32)
    expected = np.tensordot(pictures(colour), (0.299, 0.587, 0.114), (1, 0))
    assert np.abs(expected - pictures(grey)[:, 0])[:, 2:-2, 2:-2].max() < 30  # bright light clips each colour alone
    assert np.median(np.abs(expected - pictures(grey)[:, 0])) < 0.5


def test_the_same_seed_draws_the_same_and_another_seed_others() -> None:
    dials = ShapeDials.all(0.5)
    first, again, other = (render_shapes(20, dials=dials, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.truth.mask, again.truth.mask)
    assert not (first.inputs == other.inputs).flatten(1).all(1).any()


def test_more_images_begin_with_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    dials = ShapeDials.all(1)
    few, many = (render_shapes(count, dials=dials, seed=4) for count in (7, 30))
    assert torch.equal(few.inputs, many.inputs[:7])
    monkeypatch.setattr(shapes, "MOST_SAMPLES", 4 * 128**2)
    assert torch.equal(render_shapes(30, dials=dials, seed=4).inputs, many.inputs)


def test_the_same_shapes_are_drawn_at_every_size() -> None:
    small, large = (render_shapes(20, size=size, dials=only("viewpoint"), seed=2) for size in (32, 128))
    assert torch.equal(small.truth.angle, large.truth.angle)
    reduced = large.truth.mask.float().reshape(20, 32, 4, 32, 4).mean((2, 4))
    assert (reduced - small.truth.mask.float()).abs().mean() < 1.5


def test_truth_goes_along_with_the_examples_that_are_chosen() -> None:
    examples = render_shapes(20, dials=ShapeDials.all(0.5))
    for chosen in (slice(3, 9), torch.tensor([5, 1, 1]), examples.labels == 2, [0, 19]):
        part = examples[chosen]
        assert isinstance(part, ShapeSet)
        positions_ = torch.arange(20)[torch.tensor(chosen) if isinstance(chosen, list) else chosen]
        assert torch.equal(part.inputs, examples.inputs[positions_])
        assert torch.equal(part.truth.scale, examples.truth.scale[positions_])
        assert torch.equal(part.truth.mask, examples.truth.mask[positions_])
        assert len(part.truth) == len(part) == len(positions_)


def nearest_neighbour_accuracy(train: ShapeSet, test: ShapeSet) -> float:
    distance = torch.cdist(*(torch.from_numpy(pictures(examples)).flatten(1) for examples in (train, test)))
    return float((train.labels[distance.argmin(0)] == test.labels).double().mean())


def test_clean_shapes_are_told_apart_by_their_pixels_and_hard_ones_hardly() -> None:
    easy, hard = (render_shapes(600, size=16, dials=ShapeDials.all(value), seed=1) for value in (0, 1))
    assert nearest_neighbour_accuracy(easy[:500], easy[500:]) == 1
    assert 0.2 < nearest_neighbour_accuracy(hard[:500], hard[500:]) < 0.6


def test_the_brightness_of_a_clean_image_does_not_tell_its_class() -> None:
    brightness = pictures(render_shapes(200)).mean((1, 2, 3)).reshape(50, 4)
    assert np.ptp(brightness.mean(0)) < 0.5


def test_loading_splits_balanced_classes_and_repeats_by_seed() -> None:
    data = load_shapes(num_examples=200, size=16, seed=3)
    assert (len(data.train), len(data.validation), len(data.test)) == (144, 16, 40)
    for split in (data.train, data.validation, data.test):
        assert isinstance(split, ShapeSet)
        assert len(set(split.class_counts())) == 1
        assert split.truth.strength.max() <= 0.5
    everything = torch.cat([split.inputs for split in (data.train, data.validation, data.test)])
    assert len(everything.unique(dim=0)) == 200
    assert data.name == "shapes"
    assert data.fingerprint() == load_shapes(num_examples=200, size=16, seed=3).fingerprint()
    assert data.fingerprint() != load_shapes(num_examples=200, size=16, seed=4).fingerprint()
    assert data.fingerprint() != load_shapes(num_examples=200, size=16, seed=3, dials=ShapeDials()).fingerprint()


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, True, "high"])
def test_a_dial_outside_of_0_to_1_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match=r"The dial clutter must be a number in 0\.\.1; got"):
        ShapeDials(clutter=value)


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 3, "size": 7}, {"count": 3, "channels": 2}])
def test_images_that_cannot_be_drawn_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="Shapes need a count of at least 1, a size of at least 8 pixels and 1 or 3"):
        render_shapes(**options)  # type: ignore[arg-type]


def test_too_few_examples_for_three_splits_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 20 examples; got 19"):
        load_shapes(num_examples=19)
