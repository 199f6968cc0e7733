"""Toys: small data sets drawn by seed, of which the truth is known: gates, the Playground's, tiny images, a bandit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet._seed import seeded_generator
from glassnet._types import Shape
from glassnet.data.examples import Dataset, ExampleSet, Framing
from glassnet.data.splits import cut_positions

Draw = Callable[[int, float, Generator], tuple[Tensor, Tensor]]
"""`(count, noise, generator)` -> inputs `(count, ...)` and labels `(count,)`."""
Truth = Callable[[Tensor, float], Tensor]
"""`(inputs, noise)` -> probabilities of the classes `(N, K)`, or values `(N,)`, float64."""


@dataclass(frozen=True, kw_only=True)
class Toy:
    """What is known of a toy."""

    task: str
    """`classification` or `regression`."""
    description: str
    truth: str
    """The ground truth in words; `toy_truth` gives it in numbers."""
    source: str
    input_shape: Shape
    class_names: tuple[str, ...] = ()
    """Empty for regression."""
    num_examples: int
    """Over all splits, unless another number is asked for; of a truth table, its rows."""
    max_noise: float | None = None
    """`noise` lies in 0..max_noise; None where there is none to set."""
    is_table: bool = False
    """Whether each split is the whole truth table, instead of a share of what is drawn."""
    is_standardised: bool = True
    """False where the inputs should reach a network as they are."""
    draw: Draw
    probabilities: Truth
    """The ground truth: probabilities of the classes `(N, K)`, or values `(N,)`."""
    best: Callable[[float], float] | None = None
    """Accuracy of the best rule by noise; None where it is estimated, and for regression."""


def load_toy(
    name: str,
    *,
    seed: int,
    num_examples: int | None = None,
    noise: float | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.2,
) -> Dataset:
    """Draw the toy `name` (see `TOYS`) by `seed`: `num_examples` over all splits, of which the shares are cut off.

    Inputs are `float32` `(N, F)`, or images `uint8` `(N, 1, H, W)`; the same arguments give the same data. `noise` is
    in the toy's own unit, in 0..`max_noise`, without it 0. "xor" is TensorFlow Playground's set of points in the plane;
    the truth table of the gate is "gate-xor". A truth table is never cut: all its rows are in each of the splits.

    Raises `UsageError` for an unknown name, noise beyond the range, fewer than 10 examples, and for either with a toy
    that has none to set.
    """
    toy, level = _find(name, noise)
    if toy.is_table and num_examples is not None:
        raise UsageError(f"'{name}' is a truth table of {toy.num_examples} rows; leave num_examples out.")
    count = toy.num_examples if num_examples is None else num_examples
    if not toy.is_table and count < 10:
        raise UsageError(f"A toy needs 10 examples or more, for three splits; got num_examples={count}.")
    inputs, labels = toy.draw(count, level, seeded_generator(seed, "toy", name))
    whole = ExampleSet(inputs, labels, toy.class_names)
    if toy.is_table:
        splits = (whole, whole, whole)
    else:
        places = cut_positions(labels, seed, validation_share, test_share)
        splits = (whole[places[0]], whole[places[1]], whole[places[2]])
    framing = Framing(is_standardised=toy.is_standardised)
    return Dataset(name, *splits, seed=seed, framing=framing, validation_share=validation_share)


def toy_truth(name: str, inputs: Tensor, noise: float | None = None) -> Tensor:
    """Return the truth of the toy `name` for `inputs` `(N, ...)` in its format, float64.

    For classes: the probability of each given the input, `(N, K)`, under the way the toy is drawn with `noise`. For
    regression: the value without noise, `(N,)`. Raises `UsageError` for inputs of another shape, and as `load_toy`.
    """
    toy, level = _find(name, noise)
    if tuple(inputs.shape[1:]) != toy.input_shape:
        raise UsageError(f"'{name}' has inputs of shape {('N', *toy.input_shape)}; got {tuple(inputs.shape)}.")
    return toy.probabilities(inputs, level)


def best_accuracy(name: str, noise: float | None = None) -> float:
    """Return the accuracy that no network can beat on the toy `name` but by luck: that of the most probable class.

    Exact, but for "circle" and "spiral": there it is the mean over 8,000 examples, to about 0.003.

    Raises `UsageError` for regression, and as `load_toy`.
    """
    toy, level = _find(name, noise)
    if toy.task == "regression":
        raise UsageError(f"'{name}' is a regression, which has no accuracy; toy_truth gives its values.")
    if toy.best is not None:
        return toy.best(level)
    inputs, _ = toy.draw(8000, level, seeded_generator(0, "best accuracy", name))
    return float(toy.probabilities(inputs, level).amax(1).mean())


def _find(name: str, noise: float | None) -> tuple[Toy, float]:
    """Return a toy and its level of noise."""
    if name not in TOYS:
        raise unknown_name("toy", name, TOYS)
    toy = TOYS[name]
    if noise is None:
        return toy, 0.0
    if toy.max_noise is None:
        raise UsageError(f"'{name}' has no noise to set; got noise={noise}. Leave it out.")
    if not 0 <= noise <= toy.max_noise:
        raise UsageError(f"The noise of '{name}' must lie in 0..{toy.max_noise}; got {noise}.")
    return toy, noise


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(count, dtype=torch.float64, generator=generator) * (high - low) + low


def _shuffled(inputs: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(labels), generator=generator)
    return inputs[order], labels[order]


# Logic gates

BITS = {1: ((0.0,), (1.0,)), 2: ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))}
"""The inputs of a truth table, counting up from all zeros."""


def _gate(answers: tuple[int, ...], words: str) -> Toy:
    """Describe the gate whose truth table has `answers`, in the order of `BITS`."""
    num_inputs = len(answers).bit_length() - 1
    table = torch.tensor(answers)

    def draw(count: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
        return torch.tensor(BITS[num_inputs]), table.clone()

    def probabilities(inputs: Tensor, noise: float) -> Tensor:
        place = (inputs > 0.5).long() @ torch.tensor([2**power for power in reversed(range(num_inputs))])
        return torch.nn.functional.one_hot(table[place], 2).double()

    return Toy(
        task="classification",
        description=f"The truth table of a logic gate: {words}. Each split is the whole table.",
        truth=f"answers {' '.join(map(str, answers))} for the inputs counting up from zero, and no chance",
        source="W. McCulloch, W. Pitts: A logical calculus of the ideas immanent in nervous activity, 1943",
        input_shape=(num_inputs,),
        class_names=("0", "1"),
        num_examples=len(answers),
        is_table=True,
        is_standardised=False,
        draw=draw,
        probabilities=probabilities,
        best=lambda noise: 1.0,
    )


# TensorFlow Playground: points in the plane; of two classes, the second is its 1 and the first its -1

RADIUS = 5.0
"""Half the side of the square in which the Playground's classes lie; of its regressions it is 6."""
REGRESSION_RADIUS = 6.0
PADDING = 0.3
"""Half the width of the free cross in "xor"."""
TURNS = 1.75
"""Turns of each arm of "spiral"."""
GAUSS_CENTRE = 2.0
"""The clouds of "gauss" lie at plus and minus this in both coordinates."""
BUMPS = ((-4, 2.5, 1), (0, 2.5, -1), (4, 2.5, 1), (-4, -2.5, -1), (0, -2.5, 1), (4, -2.5, -1))
"""The cones of "reg-gauss": x, y, and sign."""
CURVE_STEPS = 2048
"""Places on an arm of "spiral" by which its density is counted."""


def _points(x: Tensor, y: Tensor) -> Tensor:
    """Return points `(N, 2)`, float32; labels are computed from these, so that rounding moves none over a border."""
    return torch.stack((x, y), dim=1).float()


def _moved(points: Tensor, radius: float, noise: float, generator: Generator) -> Tensor:
    """Return where the label of each point is looked up: off by up to `radius * noise` in either coordinate."""
    shift = 2 * torch.rand(points.shape, dtype=torch.float64, generator=generator) - 1
    return points.double() + radius * noise * shift


def _draw_circle(count: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
    num_inside = (count + 1) // 2
    inner = _uniform(num_inside, 0, 0.5 * RADIUS, generator)
    outer = _uniform(count - num_inside, 0.7 * RADIUS, RADIUS, generator)
    r, angle = torch.cat((inner, outer)), _uniform(count, 0, 2 * math.pi, generator)
    points = _points(r * angle.sin(), r * angle.cos())
    is_inside = _moved(points, RADIUS, noise, generator).norm(dim=1) < RADIUS / 2
    return _shuffled(points, is_inside.long(), generator)


def _true_circle(points: Tensor, noise: float) -> Tensor:
    """P(inside) is the share of the square of half side `RADIUS * noise` around a point that lies in the disc."""
    x, y = points.double().unbind(1)
    half, radius = RADIUS * noise, RADIUS / 2
    if not half:
        return _two_classes((torch.hypot(x, y) < radius).double())
    corners = [
        (sign_x * sign_y, _disc_area(x + sign_x * half, y + sign_y * half, radius))
        for sign_x, sign_y in itertools.product((1, -1), repeat=2)
    ]
    area = sum((sign * part for sign, part in corners), torch.zeros_like(x))
    return _two_classes((area / (2 * half) ** 2).clamp(0, 1))


def _disc_area(x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Return the area of the part of a disc around 0 that lies left of `x` and below `y`."""
    x, y = x.clamp(-radius, radius), y.clamp(-radius, radius)
    left, below = (
        radius**2 * (math.pi / 2 + (limit / radius).asin()) + limit * (radius**2 - limit**2).clamp(min=0).sqrt()
        for limit in (x, y)
    )
    whole = math.pi * radius**2
    corner_inside = (left + below) / 2 + x * y - whole / 4
    corner_outside = torch.where(
        x > 0, torch.where(y > 0, left + below - whole, below), torch.where(y > 0, left, torch.zeros_like(x))
    )
    return torch.where(x**2 + y**2 < radius**2, corner_inside, corner_outside)


def _draw_xor(count: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
    x, y = (_uniform(count, -RADIUS, RADIUS, generator) for _ in range(2))
    x, y = (torch.where(value > 0, value + PADDING, value - PADDING) for value in (x, y))
    points = _points(x, y)
    is_same = _moved(points, RADIUS, noise, generator).prod(1) >= 0
    return points, is_same.long()


def _true_xor(points: Tensor, noise: float) -> Tensor:
    """P(same sign) = a b + (1 - a)(1 - b), where a and b are the probabilities that x and y are looked up above 0."""
    if not noise:
        return _two_classes((points.double().prod(1) >= 0).double())
    a, b = (0.5 + points.double() / (2 * RADIUS * noise)).clamp(0, 1).unbind(1)
    return _two_classes(a * b + (1 - a) * (1 - b))


def _best_xor(noise: float) -> float:
    """E max(p, 1 - p) = (1 + E|2a - 1| E|2b - 1|) / 2, where |2a - 1| = min(1, |x| / half) and |x| is uniform."""
    half, low, high = RADIUS * noise, PADDING, RADIUS + PADDING
    if half <= low:
        return 1.0
    mean = ((half**2 - low**2) / (2 * half) + (high - half)) / (high - low)
    return (1 + mean**2) / 2


def _gauss_variance(noise: float) -> float:
    """0.5 without noise, 4 with noise 0.5."""
    return 0.5 + 7 * noise


def _draw_gauss(count: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
    labels = (torch.arange(count) < (count + 1) // 2).long()
    spread = math.sqrt(_gauss_variance(noise)) * torch.randn(count, 2, dtype=torch.float64, generator=generator)
    x, y = (spread + GAUSS_CENTRE * (2 * labels[:, None] - 1)).unbind(1)
    return _shuffled(_points(x, y), labels, generator)


def _true_gauss(points: Tensor, noise: float) -> Tensor:
    """The odds are exp((|p + c|^2 - |p - c|^2) / (2 variance)) = exp(2 p.c / variance)."""
    product = GAUSS_CENTRE * points.double().sum(1)
    return _two_classes((2 * product / _gauss_variance(noise)).sigmoid())


def _best_gauss(noise: float) -> float:
    """Phi(|c| / sigma): the border is the plane halfway between the centres."""
    return (1 + math.erf(GAUSS_CENTRE * math.sqrt(2) / math.sqrt(2 * _gauss_variance(noise)))) / 2


def _draw_spiral(count: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
    num_first, every = (count + 1) // 2, torch.arange(count)
    labels = (every < num_first).long()
    place = torch.where(labels == 1, every, every - num_first).double() / (count / 2)
    curve = _arm(place) * (2 * labels[:, None] - 1)  # the second arm is the first one, turned by half a turn
    shift = 2 * torch.rand(count, 2, dtype=torch.float64, generator=generator) - 1
    return _shuffled((curve + noise * shift).float(), labels, generator)


def _arm(place: Tensor) -> Tensor:
    """Return the points `(N, 2)` of the first arm at `place` `(N,)` in 0..1, from the middle outward."""
    r, t = RADIUS * place, TURNS * 2 * math.pi * place
    return torch.stack((r * t.sin(), r * t.cos()), dim=1)


def _true_spiral(points: Tensor, noise: float) -> Tensor:
    """The odds are the lengths of the two arms within `noise` of a point in both coordinates, in units of `place`.

    Where no part of an arm is so near, and without noise, it is the arm that is nearest at the point's radius.
    """
    points = points.double()
    aligned = (points * _arm(points.norm(dim=1) / RADIUS)).sum(1)
    nearest = (aligned.sign() + 1) / 2  # 1 for the first arm; at the middle, where both begin, a half
    curve = _arm((torch.arange(CURVE_STEPS, dtype=torch.float64) + 0.5) / CURVE_STEPS)
    counts = torch.stack([_num_near(points, sign * curve, noise) for sign in (1, -1)])
    return _two_classes(torch.where(counts.sum(0) > 0, counts[0] / counts.sum(0).clamp(min=1), nearest))


def _num_near(points: Tensor, curve: Tensor, noise: float) -> Tensor:
    """Return how many points of `curve` `(M, 2)` lie within `noise` of each of `points` `(N, 2)`: `(N,)`."""
    if not noise:
        return torch.zeros(len(points), dtype=torch.float64)
    near = [(torch.cdist(part, curve, p=math.inf) <= noise).sum(1) for part in points.split(1024)]
    return torch.cat(near).double()


def _two_classes(second: Tensor) -> Tensor:
    """Return probabilities `(N, 2)` from those of the second class, `(N,)`."""
    return torch.stack((1 - second, second), dim=1)


def _plane(points: Tensor) -> Tensor:
    """Return (x + y) / 10, `(N,)`."""
    return points.double().sum(1) / 10


def _cones(points: Tensor) -> Tensor:
    """Return the value of the highest cone, up or down, `(N,)`: 1 at its centre, and 0 from a distance of 2 on."""
    value = torch.zeros(len(points), dtype=torch.float64)
    for x, y, sign in BUMPS:
        distance = (points.double() - torch.tensor((x, y), dtype=torch.float64)).norm(dim=1)
        height = sign * (1 - distance / 2).clamp(min=0)
        value = torch.where(height.abs() > value.abs(), height, value)
    return value


def _regression(surface: Callable[[Tensor], Tensor]) -> tuple[Draw, Truth]:
    def draw(count: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
        limit = REGRESSION_RADIUS
        points = _points(*(_uniform(count, -limit, limit, generator) for _ in range(2)))
        return points, surface(_moved(points, limit, noise, generator)).float()

    return draw, lambda points, noise: surface(points)


# Tiny images

SLASHES = {"/": (".#", "#."), "\\": ("#.", ".#")}
SYMBOLS = {
    "/": ("..#", ".#.", "#.."),
    "\\": ("#..", ".#.", "..#"),
    "X": ("#.#", ".#.", "#.#"),
    "O": (".#.", "#.#", ".#."),
}
"""The pictures by class name, rows from the top, # for ink (255)."""


def _pictures(shapes: Mapping[str, tuple[str, ...]], description: str, truth: str) -> Toy:
    """Describe a world of the pictures in `shapes`, each as frequent, whose pixels flip with probability `noise`."""
    ink = torch.tensor([[[letter == "#" for letter in row] for row in rows] for rows in shapes.values()])
    num_classes, height, width = ink.shape

    def draw(count: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % num_classes
        is_flipped = torch.rand(count, height, width, dtype=torch.float64, generator=generator) < noise
        images = (ink[labels] ^ is_flipped)[:, None].to(torch.uint8) * 255
        return _shuffled(images, labels, generator)

    def num_flipped(images: Tensor) -> Tensor:
        return ((images > 127) != ink).flatten(2).sum(2)  # (N, 1, H, W) against (K, H, W): (N, K)

    def probabilities(images: Tensor, noise: float) -> Tensor:
        flips = num_flipped(images).double()
        if not noise:  # the limit: the nearest pictures share the probability
            is_nearest = (flips == flips.amin(1, keepdim=True)).double()
            return is_nearest / is_nearest.sum(1, keepdim=True)
        return (flips * math.log(noise / (1 - noise))).softmax(1)

    def best(noise: float) -> float:
        size = height * width
        every = torch.tensor(list(itertools.product((0, 255), repeat=size))).view(-1, 1, height, width)
        flips = num_flipped(every).double()
        return float((noise**flips * (1 - noise) ** (size - flips)).amax(1).sum()) / num_classes

    return Toy(
        task="classification",
        description=description,
        truth=truth,
        source="L. Serrano: A friendly introduction to convolutional neural networks and image recognition, 2017",
        input_shape=(1, height, width),
        class_names=tuple(shapes),
        num_examples=1000,
        max_noise=0.5,
        draw=draw,
        probabilities=probabilities,
        best=best,
    )


# A bandit

REWARD_PROBABILITIES = (0.3, 0.9, 0.1, 0.6)
"""Of each arm of "bandit"."""


def _draw_bandit(count: int, noise: float, generator: Generator) -> tuple[Tensor, Tensor]:
    arms = torch.randint(len(REWARD_PROBABILITIES), (count,), generator=generator)
    chance = torch.rand(count, dtype=torch.float64, generator=generator)
    rewards = chance < torch.tensor(REWARD_PROBABILITIES, dtype=torch.float64)[arms]
    return torch.nn.functional.one_hot(arms, len(REWARD_PROBABILITIES)).float(), rewards.long()


def _true_bandit(inputs: Tensor, noise: float) -> Tensor:
    return _two_classes(torch.tensor(REWARD_PROBABILITIES, dtype=torch.float64)[inputs.argmax(1)])


def _best_bandit(noise: float) -> float:
    """Bet on the likelier outcome of each arm, pulled equally often."""
    return sum(max(p, 1 - p) for p in REWARD_PROBABILITIES) / len(REWARD_PROBABILITIES)


# All of them

_playground = partial(
    Toy,
    source="TensorFlow Playground, src/dataset.ts; D. Smilkov and others, arXiv:1708.03788, 2017",
    input_shape=(2,),
    max_noise=0.5,
)
_plane_draw, _plane_truth = _regression(_plane)
_cones_draw, _cones_truth = _regression(_cones)

TOYS: dict[str, Toy] = {
    "gate-and": _gate((0, 0, 0, 1), "1 where both inputs are 1"),
    "gate-or": _gate((0, 1, 1, 1), "1 where an input is 1"),
    "gate-not": _gate((1, 0), "1 where the one input is 0"),
    "gate-nand": _gate((1, 1, 1, 0), "0 where both inputs are 1"),
    "gate-nor": _gate((1, 0, 0, 0), "1 where both inputs are 0"),
    "gate-xor": _gate((0, 1, 1, 0), "1 where the inputs differ (the points in the plane are 'xor')"),
    "circle": _playground(
        task="classification",
        description="Points in a disc and in a ring around it. Noise moves the point whose class is told.",
        truth="inside where the point, moved by up to 5 noise in each coordinate, is nearer than 2.5 to the middle",
        class_names=("outside", "inside"),
        num_examples=500,
        draw=_draw_circle,
        probabilities=_true_circle,
    ),
    "xor": _playground(
        task="classification",
        description="Points in a square, by the signs of their coordinates. Noise moves the point whose class is told. "
        "(The truth table of the gate is 'gate-xor'.)",
        truth="same sign where the coordinates, each moved by up to 5 noise, have one sign; else different signs",
        class_names=("different signs", "same sign"),
        num_examples=500,
        draw=_draw_xor,
        probabilities=_true_xor,
        best=_best_xor,
    ),
    "gauss": _playground(
        task="classification",
        description="Two round clouds of normal distribution, of variance 0.5 + 7 noise in each coordinate.",
        truth="odds of the upper right cloud exp(4 (x + y) / variance): its side of the line x + y = 0 is the better",
        class_names=("lower left", "upper right"),
        num_examples=500,
        draw=_draw_gauss,
        probabilities=_true_gauss,
        best=_best_gauss,
    ),
    "spiral": _playground(
        task="classification",
        description="Two arms of a spiral that begin in one point; noise moves each point by up to that much.",
        truth="the arm from which the point was drawn: without noise, the one that passes at its radius and angle",
        class_names=("second arm", "first arm"),
        num_examples=500,
        draw=_draw_spiral,
        probabilities=_true_spiral,
    ),
    "reg-plane": _playground(
        task="regression",
        description="A plane over a square. Noise moves the point whose value is told.",
        truth="(x + y) / 10, in -1.2..1.2 without noise",
        num_examples=1200,
        draw=_plane_draw,
        probabilities=_plane_truth,
    ),
    "reg-gauss": _playground(
        task="regression",
        description="Six cones up and down over a square. Noise moves the point whose value is told.",
        truth="the highest of six cones, up or down, each 1 - distance / 2 around its centre; 0 elsewhere",
        num_examples=1200,
        draw=_cones_draw,
        probabilities=_cones_truth,
    ),
    "slashes-2x2": _pictures(
        SLASHES,
        "The world of / and \\, images of 2x2 pixels; each pixel flips with probability noise.",
        "\\ where top left - top right - bottom left + bottom right is above 0, / where it is below",
    ),
    "symbols-3x3": _pictures(
        SYMBOLS,
        "The world of / \\ X O, images of 3x3 pixels; each pixel flips with probability noise.",
        "the picture from which the fewest pixels differ; its probability falls by noise / (1 - noise) for each",
    ),
    "bandit": Toy(
        task="classification",
        description="Logs of a bandit of four arms, pulled at random: the arm as a one-hot row, and whether it paid.",
        truth="the arms pay with probability 0.3, 0.9, 0.1 and 0.6",
        source="R. Sutton, A. Barto: Reinforcement Learning, 2nd edition, 2018, chapter 2",
        input_shape=(len(REWARD_PROBABILITIES),),
        class_names=("no reward", "reward"),
        num_examples=2000,
        is_standardised=False,
        draw=_draw_bandit,
        probabilities=_true_bandit,
        best=_best_bandit,
    ),
}
"""The toys by name."""
