"""The toy set "shapes": triangles, squares, circles and stars under seven difficulties, each on a dial of its own.

The dials are the difficulties that lectures name for recognising objects: viewpoint, scale, deformation, occlusion,
illumination, background clutter and variation within a class. What an image draws for one dial does not depend on the
others, so that turning one changes its aspect alone, in the same images. All shapes have one area, so that neither
brightness nor size gives the class away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._seed import derive_seed
from glassnet.data.examples import Dataset, ExampleSet
from glassnet.data.shape_drawing import (
    Floats,
    band,
    bent,
    column,
    painted,
    plane_point,
    pooled,
    positions,
    star_gauge,
    stroke,
)
from glassnet.data.splits import stratified_cut
from glassnet.data.transforms import LUMA

CLASS_NAMES = ("triangle", "square", "circle", "star")

# The outlines as stars: points, waist (notch radius by tip radius), turn of a tip from the top. A polygon has the
# waist cos(pi / points); a circle is a polygon of 64 sides.
POINTS = np.array([3, 4, 64, 5])
WAISTS = np.array([0.5, 0.5**0.5, np.cos(np.pi / 64), 0.45])
TURNS = np.array([0, np.pi / 4, 0, 0])
STAR = CLASS_NAMES.index("star")

RADIUS = 0.19
"""Of the circle of equal area, in image sides: the tips of the largest shape stay inside the image."""
MOST_TURN, MOST_TILT = np.deg2rad(90), np.deg2rad(55)
MOST_HIDDEN = 0.7
ROOM = 0.08
"""The centre lies anywhere up to this far from the image's, in image sides, whatever the dials."""
SHAPE_COLOUR = (0.86, 0.74, 0.42)
BACKGROUND_COLOUR = (0.20, 0.23, 0.28)
NUM_STROKES = 18
"""Strokes of the fullest background."""
MOST_SAMPLES = 2**22
"""Sample points drawn at once, which keeps the memory at some hundred MB."""


@dataclass(frozen=True, kw_only=True)
class ShapeDials:
    """How hard the images may get, each 0 (not at all) to 1. Raises `UsageError` outside of this.

    An image draws its own strength on each dial, uniform from 0 to the dial.
    """

    viewpoint: float = 0.0
    """Turned by up to 90 degrees either way and tilted by up to 55, seen in perspective."""
    scale: float = 0.0
    """Shrunk down to a half or grown to 1.27, in length."""
    deformation: float = 0.0
    """Bent in waves; the area stays."""
    occlusion: float = 0.0
    """Up to 0.7 of the shape hidden behind a straight band."""
    illumination: float = 0.0
    """Darker (down to 0.27 of the light) or brighter (up to 1.4), and uneven across the image."""
    clutter: float = 0.0
    """Up to 18 strokes and blobs behind the shape, and other background colours."""
    variation: float = 0.0
    """Other colours, rounded corners, hollow and stretched shapes, stars with 4 to 8 tips and other waists."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise UsageError(f"The dial {field.name} must be a number in 0..1; got {value!r}.")

    @classmethod
    def all(cls, value: float) -> ShapeDials:
        """Return all dials at one value."""
        return cls(**{field.name: value for field in fields(cls)})


DIAL_NAMES = tuple(field.name for field in fields(ShapeDials))
CLEAN = ShapeDials()
HALFWAY = ShapeDials.all(0.5)


@dataclass(frozen=True, eq=False, kw_only=True)
class ShapeTruth:
    """What was drawn in each image; every tensor has one row an image."""

    centre: Tensor
    """Row and column of the shape's centre in pixels from the upper left corner, `(N, 2)`."""
    scale: Tensor
    """Factor on lengths, `(N,)`; 1 is the usual size."""
    angle: Tensor
    """Degrees by which the shape is turned clockwise in the image, `(N,)`."""
    tilt: Tensor
    """Degrees by which the shape is tilted out of the image, `(N,)`."""
    visible_share: Tensor
    """Share of the shape's picture that nothing hides, `(N,)`."""
    mask: Tensor
    """How much of each pixel the visible part of the shape covers, `uint8` `(N, H, W)`, 255 for all of it."""
    strength: Tensor
    """What was drawn on each dial, `(N, 7)` in the order of `DIAL_NAMES`: 0 up to the dial."""

    def __len__(self) -> int:
        return len(self.scale)

    def __getitem__(self, index: slice | Tensor) -> ShapeTruth:
        """Return the rows at `index`."""
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True, eq=False, repr=False)
class ShapeSet(ExampleSet):
    """Rendered shapes with what was drawn in them."""

    truth: ShapeTruth

    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> ShapeSet:
        """Return the examples at `index`, with their truth, as a set of its own."""
        chosen = index if isinstance(index, slice | Tensor) else torch.tensor(index, dtype=torch.int64)
        return replace(self, inputs=self.inputs[chosen], labels=self.labels[chosen], truth=self.truth[chosen])


def render_shapes(
    count: int, *, size: int = 32, dials: ShapeDials = CLEAN, seed: int = 0, channels: int = 3
) -> ShapeSet:
    """Draw `count` images `uint8` `(count, channels, size, size)` of the four classes in turn, with their truth.

    With all dials at 0 the shapes of a class differ in place alone. Image i depends on the other arguments and i:
    more images begin with the same ones. Edges are smooth: 4 x 4 samples a pixel, from 64 pixels on 2 x 2.

    Raises `UsageError` for fewer than one image, less than 8 pixels, or channels other than 1 and 3.
    """
    if count < 1 or size < 8 or channels not in (1, 3):
        raise UsageError(
            "Shapes need a count of at least 1, a size of at least 8 pixels and 1 or 3 channels; "
            f"got count {count}, size {size} and {channels} channels."
        )
    plan = _plan(count, dials, seed)
    samples = 4 if size < 64 else 2
    length = max(1, MOST_SAMPLES // (size * samples) ** 2)
    parts = [_render(plan[start : start + length], size, samples) for start in range(0, count, length)]
    images, masks, visible = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if channels == 1:
        red, green, blue = (images[:, channel : channel + 1] for channel in range(3))
        images = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return ShapeSet(
        torch.from_numpy(_levels(images)), torch.from_numpy(plan.label), CLASS_NAMES, _truth(plan, size, masks, visible)
    )


def load_shapes(
    *,
    seed: int = 0,
    num_examples: int = 4000,
    dials: ShapeDials = HALFWAY,
    size: int = 32,
    channels: int = 3,
    validation_share: float = 0.1,
) -> Dataset:
    """Draw `num_examples` shapes and split them: a fifth of each class for testing, `validation_share` of the rest.

    Every split is a `ShapeSet`. Raises `UsageError` for fewer than 20 examples, and as `render_shapes` does.
    """
    if num_examples < 20:
        raise UsageError(f"Three splits of four classes need at least 20 examples; got {num_examples}.")
    examples = render_shapes(num_examples, size=size, dials=dials, seed=seed, channels=channels)
    rest, test = stratified_cut(examples.labels, 0.2, seed, "shapes test")
    kept, cut = stratified_cut(examples.labels[rest], validation_share, seed, "validation")
    return Dataset(
        name="shapes",
        train=examples[rest[kept]],
        validation=examples[rest[cut]],
        test=examples[test],
        seed=seed,
        validation_share=validation_share,
    )


# --- what will be drawn, before anything is


@dataclass(frozen=True, eq=False, kw_only=True)
class _Plan:
    """Every number that the drawing needs, one row an image; lengths in image sides, angles in radians."""

    label: NDArray[np.int64]
    strength: NDArray[np.float64]
    centre: NDArray[np.float64]
    """x and y from the middle, `(N, 2)`."""
    roll: NDArray[np.float64]
    tilt: NDArray[np.float64]
    tilt_axis: NDArray[np.float64]
    scale: NDArray[np.float64]
    bend: NDArray[np.float64]
    bend_phases: NDArray[np.float64]
    hidden_share: NDArray[np.float64]
    hidden_start: NDArray[np.float64]
    """Share of the shape before the band."""
    band_angle: NDArray[np.float64]
    band_colour: NDArray[np.float64]
    light: NDArray[np.float64]
    """Light in the middle and its slope along x and y, per side: `(N, 3)`."""
    background: NDArray[np.float64]
    stroke_opacity: NDArray[np.float64]
    """`(N, strokes)`."""
    strokes: NDArray[np.float64]
    """Both ends, half the width and the colour, `(N, strokes, 8)`."""
    colour: NDArray[np.float64]
    points: NDArray[np.float64]
    waist: NDArray[np.float64]
    roundness: NDArray[np.float64]
    """How much of the circle is mixed into the outline, 0..1."""
    hole: NDArray[np.float64]
    """Size of the hole by that of the shape."""
    stretch: NDArray[np.float64]

    def __getitem__(self, rows: slice) -> _Plan:
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def _plan(count: int, dials: ShapeDials, seed: int) -> _Plan:
    """Draw every number. Each dial has a generator of its own, and each image a row of its numbers."""

    def draw(aspect: str, width: int) -> NDArray[np.float64]:
        return np.random.default_rng(derive_seed(seed, "shapes", aspect)).random((count, width))

    label = np.arange(count) % len(CLASS_NAMES)
    strength = np.stack([draw(f"{name} strength", 1)[:, 0] for name in DIAL_NAMES], 1) * astuple(dials)
    viewpoint, scale, deformation, occlusion, illumination, clutter, variation = strength.T
    view, light, bend = draw("viewpoint", 2), draw("illumination", 3), draw("deformation", 2)
    hide, style = draw("occlusion", 5), draw("variation", 9)
    back = draw("clutter", 3 + 8 * NUM_STROKES)
    slope = 1.2 * illumination[:, None] * light[:, 1:2] * _directions(light[:, 2])
    gain = np.exp(illumination * (0.35 - 1.65 * light[:, 0]))[:, None]
    is_star = label == STAR
    points = POINTS[label] + is_star * np.rint(variation * (4 * style[:, 3] - 1))
    return _Plan(
        label=label,
        strength=strength,
        centre=ROOM * (2 * draw("place", 2) - 1),
        roll=MOST_TURN * viewpoint * np.where(view[:, 0] < 0.5, -1, 1),
        tilt=MOST_TILT * viewpoint,
        tilt_axis=2 * np.pi * view[:, 1],
        scale=np.exp2(scale * np.where(draw("scale", 1)[:, 0] < 0.5, -1, 0.35)),
        bend=0.3 * deformation,
        bend_phases=2 * np.pi * bend,
        hidden_share=MOST_HIDDEN * occlusion,
        hidden_start=hide[:, 0] * (1 - MOST_HIDDEN * occlusion),
        band_angle=2 * np.pi * hide[:, 1],
        band_colour=0.1 + 0.7 * hide[:, 2:],
        light=np.concatenate([gain, gain * slope], 1),
        background=_mixed(BACKGROUND_COLOUR, 0.05 + 0.45 * back[:, :3], clutter),
        stroke_opacity=(clutter[:, None] * NUM_STROKES - np.arange(NUM_STROKES)).clip(0, 1),
        strokes=_strokes(back[:, 3:].reshape(count, NUM_STROKES, 8)),
        colour=_mixed(SHAPE_COLOUR, 0.35 + 0.65 * style[:, :3], variation),
        points=points,
        waist=WAISTS[label] + is_star * 0.12 * variation * (2 * style[:, 4] - 1),
        roundness=0.35 * variation * style[:, 5],
        hole=0.75 * variation * (0.4 + 0.6 * style[:, 6]) * (style[:, 7] < 0.5),
        stretch=np.exp(0.12 * variation * (2 * style[:, 8] - 1)),
    )


def _directions(u: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.cos(2 * np.pi * u), np.sin(2 * np.pi * u)], 1)


def _mixed(
    usual: tuple[float, float, float], others: NDArray[np.float64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.array(usual) + share[:, None] * (others - usual)


def _strokes(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make strokes of uniform numbers `(N, strokes, 8)`: blobs to long lines, 0.02 to 0.08 wide, in any colour."""
    step = 0.45 * u[..., 2:3] ** 2 * np.stack([np.cos(2 * np.pi * u[..., 3]), np.sin(2 * np.pi * u[..., 3])], -1)
    start = 1.1 * (u[..., :2] - 0.5) - step / 2
    return np.concatenate([start, start + step, 0.01 + 0.03 * u[..., 4:5], u[..., 5:]], -1)


# --- drawing


def _render(plan: _Plan, size: int, samples: int) -> tuple[Floats, Floats, Floats]:
    """Return images in 0..1 `(N, 3, size, size)`, masks `(N, size, size)` and the visible share `(N,)`."""
    x, y = positions(size)
    outline = _outline(plan, size, samples)
    band_x, band_y = np.cos(plan.band_angle), np.sin(plan.band_angle)
    hidden = band(outline, column(band_x) * x + column(band_y) * y, plan.hidden_start, plan.hidden_share)
    images = painted(_background(plan, size), outline, plan.colour.astype(np.float32))
    images = painted(images, hidden, plan.band_colour.astype(np.float32))
    middle, slope_x, slope_y = (column(part) for part in plan.light.T)
    images *= (middle + slope_x * x + slope_y * y)[:, None]
    visible = outline * (1 - hidden)
    return images, visible, visible.sum((1, 2)) / outline.sum((1, 2))


def _outline(plan: _Plan, size: int, samples: int) -> Floats:
    """Return how much of each pixel the shape covers, hidden or not."""
    x, y = positions(size, samples)
    centre_x, centre_y = (column(part) for part in plan.centre.T)
    x, y = plane_point(x - centre_x, y - centre_y, plan.roll, plan.tilt, plan.tilt_axis)
    unit, stretch = column(RADIUS * plan.scale), column(plan.stretch)
    x, y = bent(x / unit, y / unit, plan.bend, plan.bend_phases.T)
    x, y = x * stretch, y / stretch
    gauge = star_gauge(x, y, plan.points, plan.waist, TURNS[plan.label])
    roundness = column(plan.roundness)
    gauge = (1 - roundness) * gauge + roundness * np.hypot(x, y)
    return pooled(((gauge < 1) & (gauge >= column(plan.hole))).astype(np.float32), samples)


def _background(plan: _Plan, size: int) -> Floats:
    x, y = positions(size)
    canvas = np.broadcast_to(plan.background.astype(np.float32)[:, :, None, None], (len(plan.label), 3, size, size))
    for opacity, stroke_row in _shown_strokes(plan):
        coverage = stroke(x, y, stroke_row[:, :4], stroke_row[:, 4], size) * column(opacity)
        canvas = painted(canvas, coverage, stroke_row[:, 5:].astype(np.float32))
    return canvas


def _shown_strokes(plan: _Plan) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield opacity `(N,)` and numbers `(N, 8)` of one stroke in every image, as long as any image shows it."""
    for index in range(NUM_STROKES):
        if plan.stroke_opacity[:, index].any():
            yield plan.stroke_opacity[:, index], plan.strokes[:, index]


def _levels(shares: Floats) -> NDArray[np.uint8]:
    return np.rint(shares * 255).clip(0, 255).astype(np.uint8)


def _truth(plan: _Plan, size: int, masks: Floats, visible: Floats) -> ShapeTruth:
    def tensor(values: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))

    return ShapeTruth(
        centre=tensor((plan.centre[:, ::-1] + 0.5) * size),
        scale=tensor(plan.scale),
        angle=tensor(np.rad2deg(plan.roll)),
        tilt=tensor(np.rad2deg(plan.tilt)),
        visible_share=tensor(visible),
        mask=torch.from_numpy(_levels(masks)),
        strength=tensor(plan.strength),
    )
