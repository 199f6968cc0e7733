from __future__ import annotations

import itertools
import math
import operator
import random
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch

from glassnet import UsageError
from glassnet.data.toys import TOYS, best_accuracy, load_toy, toy_truth

CLASSES = [name for name, toy in TOYS.items() if toy.class_names]
DRAWN = [name for name, toy in TOYS.items() if not toy.is_table]
NOISY_CLASSES = [name for name in CLASSES if TOYS[name].max_noise]


def gather(
    name: str, num_examples: int, noise: float | None = None, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all examples of a toy as one split."""
    data = load_toy(name, seed=seed, num_examples=num_examples, noise=noise, validation_share=0, test_share=0)
    return data.train.inputs, data.train.labels


# All toys


@pytest.mark.parametrize("name", TOYS)
def test_the_same_seed_gives_the_same_toy(name: str) -> None:
    assert load_toy(name, seed=3).fingerprint() == load_toy(name, seed=3).fingerprint()


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_gives_another_toy(name: str) -> None:
    assert load_toy(name, seed=3).fingerprint() != load_toy(name, seed=4).fingerprint()


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_is_as_its_record_says(name: str) -> None:
    toy, data = TOYS[name], load_toy(name, seed=0)
    assert data.name == name
    assert data.train.input_shape == toy.input_shape
    assert data.class_names == toy.class_names
    assert data.train.is_regression == (toy.task == "regression")
    assert data.train.inputs.dtype == (torch.uint8 if len(toy.input_shape) == 3 else torch.float32)
    assert all(len(text) > 10 for text in (toy.description, toy.truth, toy.source))
    truth = toy_truth(name, data.test.inputs)
    assert truth.shape == ((len(data.test), len(toy.class_names)) if toy.class_names else (len(data.test),))
    if toy.class_names:
        assert torch.allclose(truth.sum(1), torch.ones(len(truth), dtype=torch.float64))


@pytest.mark.parametrize("name", DRAWN)
def test_the_shares_are_of_all_examples_and_of_each_class(name: str) -> None:
    data = load_toy(name, seed=0, num_examples=1000)
    assert [len(data.train), len(data.validation), len(data.test)] == pytest.approx([700, 100, 200], abs=2)
    if data.class_names:
        drawn = np.sum([split.class_counts() for split in (data.train, data.validation, data.test)], axis=0)
        assert data.test.class_counts() == pytest.approx(0.2 * drawn, abs=0.51)


@pytest.mark.parametrize("name", NOISY_CLASSES)
@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5])
def test_the_most_probable_class_is_right_as_often_as_stated(name: str, noise: float) -> None:
    inputs, labels = gather(name, 4000, noise, seed=1)
    share = float((toy_truth(name, inputs, noise).argmax(1) == labels).double().mean())
    expected = best_accuracy(name, noise)
    assert share == pytest.approx(expected, abs=0.004 + 4 * math.sqrt(expected * (1 - expected) / 4000))


@pytest.mark.parametrize(("name", "noise"), [("circle", 0.3), ("xor", 0.3), ("gauss", 0.5), ("spiral", 0.5)])
def test_among_points_with_one_probability_that_share_is_of_the_class(name: str, noise: float) -> None:
    inputs, labels = gather(name, 6000, noise)
    probability = toy_truth(name, inputs, noise)[:, 1]
    bins = (probability * 5).long().clamp(max=4)
    for place in range(5):
        here = bins == place
        count = int(here.sum())
        if name == "circle" and place == 1:
            assert count == 0, "those points would lie between the disc and the ring"
            continue
        assert count > 20
        expected = float(probability[here].mean())
        share = float(labels[here].double().mean())
        assert share == pytest.approx(expected, abs=0.01 + 4 * math.sqrt(expected * (1 - expected) / count))


def test_an_unknown_toy_is_told_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="Unknown toy 'spirals'. Did you mean 'spiral'"):
        load_toy("spirals", seed=0)


def test_noise_beyond_the_range_or_where_there_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"The noise of 'circle' must lie in 0\.\.0\.5; got 0\.6"):
        load_toy("circle", seed=0, noise=0.6)
    for name in ("bandit", "gate-or"):
        with pytest.raises(UsageError, match=f"'{name}' has no noise to set; got noise=0.1. Leave it out"):
            load_toy(name, seed=0, noise=0.1)


def test_too_few_examples_and_any_number_for_a_truth_table_are_refused() -> None:
    with pytest.raises(UsageError, match="10 examples or more.*got num_examples=9"):
        load_toy("xor", seed=0, num_examples=9)
    with pytest.raises(UsageError, match="'gate-and' is a truth table of 4 rows; leave num_examples out"):
        load_toy("gate-and", seed=0, num_examples=100)


@pytest.mark.parametrize("name", DRAWN)
def test_ten_examples_are_enough_for_three_splits(name: str) -> None:
    data = load_toy(name, seed=0, num_examples=10)
    assert min(len(data.train), len(data.validation), len(data.test)) > 0
    assert len(data.train) + len(data.validation) + len(data.test) == 10


def test_truth_for_inputs_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'circle' has inputs of shape \('N', 2\); got \(5, 3\)"):
        toy_truth("circle", torch.zeros(5, 3))


def test_a_regression_has_no_accuracy() -> None:
    with pytest.raises(UsageError, match="'reg-plane' is a regression, which has no accuracy"):
        best_accuracy("reg-plane")


# Gates

LOGIC: dict[str, Callable[..., bool]] = {
    "and": operator.and_,
    "or": operator.or_,
    "not": operator.not_,
    "nand": lambda a, b: not (a and b),
    "nor": lambda a, b: not (a or b),
    "xor": operator.ne,
}


@pytest.mark.parametrize("gate", LOGIC)
def test_each_split_of_a_gate_is_its_whole_truth_table(gate: str) -> None:
    data = load_toy(f"gate-{gate}", seed=0)
    num_inputs = 1 if gate == "not" else 2
    rows = list(itertools.product((False, True), repeat=num_inputs))
    for split in (data.train, data.validation, data.test):
        assert split.inputs.tolist() == [list(map(float, row)) for row in rows]
        assert [split.class_names[label] for label in split.labels] == [str(int(LOGIC[gate](*row))) for row in rows]
    assert not data.framing.is_standardised
    assert toy_truth(f"gate-{gate}", data.test.inputs).argmax(1).tolist() == data.test.labels.tolist()


def test_the_two_toys_called_xor_point_at_each_other() -> None:
    assert "'gate-xor'" in TOYS["xor"].description
    assert "'xor'" in TOYS["gate-xor"].description


# TensorFlow Playground


def naive_share(look_up: Callable[[float, float], bool], x: float, y: float, noise: float) -> float:
    """Return how often the class of a point is true when its label is looked up 5 noise off."""
    chance = random.Random(0)
    hits = 0
    for _ in range(4000):
        hits += look_up(x + chance.uniform(-5, 5) * noise, y + chance.uniform(-5, 5) * noise)
    return hits / 4000


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.5])
def test_the_probabilities_of_circle_are_those_of_a_moved_point(noise: float) -> None:
    points = [(0.0, 0.0), (2.4, 0.3), (-1.5, 2.0), (-3.0, -1.0), (0.5, -3.6), (4.9, 0.0)]
    truth = toy_truth("circle", torch.tensor(points), noise)[:, 1].tolist()
    for (x, y), probability in zip(points, truth, strict=True):
        share = naive_share(lambda u, v: math.hypot(u, v) < 2.5, x, y, noise)
        assert probability == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.5])
def test_the_probabilities_of_xor_are_those_of_a_moved_point(noise: float) -> None:
    points = [(0.4, 0.4), (-0.5, 1.0), (-2.0, -0.3), (5.2, -5.2)]
    truth = toy_truth("xor", torch.tensor(points), noise)[:, 1].tolist()
    for (x, y), probability in zip(points, truth, strict=True):
        assert probability == pytest.approx(naive_share(lambda u, v: u * v >= 0, x, y, noise), abs=0.03)


def test_without_noise_the_points_of_circle_lie_in_its_disc_and_its_ring() -> None:
    points, labels = gather("circle", 1001)
    radius = np.hypot(*points.double().numpy().T)
    inside = labels.numpy() == 1
    assert inside.sum() == 501
    assert radius[inside].max() < 2.5
    assert radius[~inside].min() >= 3.5 - 1e-6
    assert radius.max() <= 5 + 1e-6
    assert np.quantile(radius[inside], 0.5) == pytest.approx(1.25, abs=0.15), "uniform in radius, not in area"


def test_without_noise_the_points_of_xor_leave_a_cross_free() -> None:
    points, labels = gather("xor", 2000)
    assert labels.tolist() == [int(x * y >= 0) for x, y in points.tolist()]
    assert float(points.abs().min()) >= 0.3 - 1e-6
    assert float(points.abs().max()) <= 5.3 + 1e-6
    assert int(labels.sum()) == pytest.approx(1000, abs=4 * math.sqrt(500))


@pytest.mark.parametrize(("noise", "variance"), [(0.0, 0.5), (0.25, 2.25), (0.5, 4.0)])
def test_gauss_has_clouds_of_the_stated_centre_and_variance(noise: float, variance: float) -> None:
    points, labels = gather("gauss", 4000, noise)
    upper = points[labels == 1].double()
    assert upper.mean(0).tolist() == pytest.approx([2, 2], abs=4 * math.sqrt(variance / 2000))
    assert upper.var(0).tolist() == pytest.approx([variance, variance], rel=0.13)
    assert points[labels == 0].double().mean(0).tolist() == pytest.approx([-2, -2], abs=4 * math.sqrt(variance / 2000))
    density = [
        math.prod(NormalDist(centre, math.sqrt(variance)).pdf(value) for value in (0.7, -0.2)) for centre in (-2, 2)
    ]
    truth = toy_truth("gauss", torch.tensor([[0.7, -0.2]], dtype=torch.float64), noise)
    assert truth[0].tolist() == pytest.approx([part / sum(density) for part in density])
    assert best_accuracy("gauss", noise) == pytest.approx(NormalDist().cdf(math.sqrt(8 / variance)))


@pytest.mark.parametrize("noise", [0.02, 0.06, 0.2, 0.5])
def test_the_best_accuracy_of_xor_is_its_mean_over_the_square(noise: float) -> None:
    x = np.linspace(0.3, 5.3, 2001)
    above = np.clip(0.5 + x / (10 * noise), 0, 1)
    both = np.outer(above, above)
    same = both + np.outer(1 - above, 1 - above)
    assert best_accuracy("xor", noise) == pytest.approx(np.maximum(same, 1 - same).mean(), abs=1e-3)


def test_without_noise_the_arms_of_spiral_are_the_published_curve() -> None:
    points, labels = gather("spiral", 101)
    for arm, count in ((1, 51), (0, 50)):
        curve = []
        for i in range(count):
            r, t = i / 50.5 * 5, 1.75 * i / 50.5 * 2 * math.pi + (0 if arm else math.pi)
            curve.append([r * math.sin(t), r * math.cos(t)])
        found = sorted(points[labels == arm].tolist(), key=lambda point: math.hypot(*point))
        assert np.allclose(found, curve, atol=1e-5)


def test_spiral_noise_moves_a_point_by_at_most_so_much_in_each_coordinate() -> None:
    still, moved = gather("spiral", 400, 0.0)[0], gather("spiral", 400, 0.3)[0]
    shift = (moved - still).abs()
    assert 0.28 < float(shift.max()) <= 0.3 + 1e-6


def test_the_middle_of_spiral_belongs_to_both_arms() -> None:
    assert toy_truth("spiral", torch.zeros(1, 2)).tolist() == [[0.5, 0.5]]


def naive_cones(x: float, y: float) -> float:
    best = 0.0
    for cx, cy, sign in ((-4, 2.5, 1), (0, 2.5, -1), (4, 2.5, 1), (-4, -2.5, -1), (0, -2.5, 1), (4, -2.5, -1)):
        distance = ((x - cx) ** 2 + (y - cy) ** 2) ** 0.5
        height = sign * max(0.0, 1 - distance / 2)
        if abs(height) > abs(best):
            best = height
    return best


@pytest.mark.parametrize(
    ("name", "value"), [("reg-plane", lambda x, y: (x + y) / 10), ("reg-gauss", naive_cones)], ids=["plane", "gauss"]
)
def test_without_noise_a_value_is_that_of_the_surface(name: str, value: Callable[[float, float], float]) -> None:
    points, labels = gather(name, 500)
    expected = [value(x, y) for x, y in points.tolist()]
    assert np.allclose(labels, expected, atol=1e-6)
    assert np.allclose(toy_truth(name, points), expected, atol=1e-12)
    assert 5.8 < float(points.abs().max()) <= 6
    assert np.ptp(expected) > 1.5


def test_noise_moves_the_value_of_the_plane_by_at_most_1_2_noise_and_not_on_average() -> None:
    points, labels = gather("reg-plane", 2000, 0.5)
    error = labels - toy_truth("reg-plane", points)
    assert 0.5 < float(error.abs().max()) <= 0.6
    assert float(error.mean()) == pytest.approx(0, abs=4 * 0.245 / math.sqrt(2000))


# Tiny images

SLASH, BACKSLASH = [[0, 255], [255, 0]], [[255, 0], [0, 255]]


def test_without_noise_the_2x2_world_has_two_images() -> None:
    images, labels = gather("slashes-2x2", 100)
    for image, label in zip(images.tolist(), labels.tolist(), strict=True):
        assert image == [[SLASH, BACKSLASH][label]]
    assert torch.bincount(labels).tolist() == [50, 50]
    assert load_toy("slashes-2x2", seed=0).class_names == ("/", "\\")


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_the_score_of_the_lecture_decides_each_of_the_16_images(noise: float) -> None:
    for pixels in itertools.product((0, 255), repeat=4):
        score = pixels[0] - pixels[1] - pixels[2] + pixels[3]
        slash, backslash = toy_truth("slashes-2x2", torch.tensor(pixels).view(1, 1, 2, 2), noise)[0].tolist()
        if score == 0 or noise == 0.5:
            assert slash == pytest.approx(backslash)
        else:
            assert (backslash > slash) == (score > 0)


def test_one_flipped_pixel_in_four_is_told_right_and_two_are_a_guess() -> None:
    keep, flip = 0.9, 0.1
    assert best_accuracy("slashes-2x2", 0.1) == pytest.approx(keep**4 + 4 * keep**3 * flip + 6 * keep**2 * flip**2 / 2)


SYMBOLS = {"/": "001010100", "\\": "100010001", "X": "101010101", "O": "010101010"}


def test_without_noise_the_3x3_world_has_its_four_images() -> None:
    images, labels = gather("symbols-3x3", 100)
    names = load_toy("symbols-3x3", seed=0).class_names
    for image, label in zip(images, labels.tolist(), strict=True):
        assert (image.flatten() // 255).tolist() == [int(bit) for bit in SYMBOLS[names[label]]]
    assert torch.bincount(labels).tolist() == [25] * 4
    assert set(images.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_the_3x3_world_obeys_bayes_over_all_512_images(noise: float) -> None:
    names = load_toy("symbols-3x3", seed=0).class_names
    images = list(itertools.product((0, 1), repeat=9))
    truth = toy_truth("symbols-3x3", torch.tensor(images).view(-1, 1, 3, 3) * 255, noise).tolist()
    best = 0.0
    for pixels, probabilities in zip(images, truth, strict=True):
        likelihood = [
            math.prod(
                1 - noise if pixel == int(bit) else noise for pixel, bit in zip(pixels, SYMBOLS[name], strict=True)
            )
            for name in names
        ]
        assert probabilities == pytest.approx([part / sum(likelihood) for part in likelihood])
        best += max(likelihood) / 4
    assert best_accuracy("symbols-3x3", noise) == pytest.approx(best)


def test_pixels_flip_as_often_as_the_noise_says() -> None:
    images, labels = gather("symbols-3x3", 4000, 0.2)
    names = load_toy("symbols-3x3", seed=0).class_names
    clean = torch.tensor([[int(bit) for bit in SYMBOLS[names[label]]] for label in labels.tolist()])
    flips = (images.flatten(1) // 255 != clean).double().mean(0)
    assert flips.tolist() == pytest.approx([0.2] * 9, abs=4 * math.sqrt(0.16 / 4000))


# A bandit


def test_each_arm_of_the_bandit_pays_as_often_as_stated() -> None:
    inputs, labels = gather("bandit", 8000)
    assert set(map(tuple, inputs.tolist())) == {tuple(float(i == j) for j in range(4)) for i in range(4)}
    truth = toy_truth("bandit", torch.eye(4))[:, 1].tolist()
    assert truth == pytest.approx([0.3, 0.9, 0.1, 0.6])
    for arm in range(4):
        pulled = inputs[:, arm] == 1
        assert int(pulled.sum()) == pytest.approx(2000, abs=4 * math.sqrt(1500))
        assert float(labels[pulled].double().mean()) == pytest.approx(truth[arm], abs=4 * math.sqrt(0.25 / 2000))
    assert best_accuracy("bandit") == pytest.approx((0.7 + 0.9 + 0.9 + 0.6) / 4)
