"""Drawing of many small scenes at once: a shape on a background, in float32 with one row of parameters an image.

Lengths are in units of the image's side, from its centre; x to the right, y downwards, so that the image spans
-0.5..0.5. A shape's outline is the unit circle of a gauge: a function of the plane that grows in proportion to the
distance from the centre and is 1 on the outline.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CAMERA_DISTANCE = 1.5
"""From the centre of the shape's plane, in image sides: near enough to make perspective visible."""
WAVES = 2.2
"""Radians of a deformation's wave per unit: about a bend and a half across a shape of radius 1."""


def positions(size: int, samples: int = 1) -> tuple[Floats, Floats]:
    """Return x `(1, 1, P)` and y `(1, P, 1)` of sample points, `samples` a pixel and axis: P = size x samples."""
    line = ((np.arange(size * samples, dtype=np.float32) + 0.5) / (size * samples) - 0.5).astype(np.float32)
    return line[None, None, :], line[None, :, None]


def column(values: NDArray[np.floating]) -> Floats:
    """Return one number an image `(N,)` as `(N, 1, 1)`."""
    return values.astype(np.float32)[:, None, None]


def plane_point(
    x: Floats, y: Floats, roll: NDArray[np.floating], tilt: NDArray[np.floating], axis: NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Return where the ray through an image point meets the shape's plane, in the plane's own x and y.

    The plane is turned by `roll` in the image, then by `tilt` about the line through the centre at angle `axis`; all
    radians `(N,)`. The camera looks at the centre from `CAMERA_DISTANCE` d: from C = (0, 0, -d) along r = (x, y, d),
    the ray meets the plane with normal n where n . (C + t r) = 0, at t = n_z d / (n . r).
    """
    cos_axis, sin_axis, cos_tilt, sin_tilt = (column(part) for part in (*_cos_sin(axis), *_cos_sin(tilt)))
    # Across the axis lengths shorten and depth grows: n = (-sin_tilt sin_axis, sin_tilt cos_axis, cos_tilt).
    across = -sin_axis * x + cos_axis * y
    along = cos_axis * x + sin_axis * y
    reach = cos_tilt * CAMERA_DISTANCE / (cos_tilt * CAMERA_DISTANCE + sin_tilt * across)
    across = reach * across / cos_tilt
    along = reach * along
    cos_rest, sin_rest = (column(part) for part in _cos_sin(axis - roll))
    return cos_rest * along - sin_rest * across, sin_rest * along + cos_rest * across


def _cos_sin(angle: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    return np.cos(angle), np.sin(angle)


def bent(x: Floats, y: Floats, amplitude: NDArray[np.floating], phases: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Bend the plane by `x += f(y)`, then `y += g(x)`, waves of `amplitude` `(N,)` and `phases` `(2, N)`.

    Each is a shear, so that areas stay as they are; the centre stays where it is.
    """
    size, first, second = column(amplitude), column(phases[0]), column(phases[1])
    x = x + size * (np.sin(WAVES * y + first) - np.sin(first))
    return x, y + size * (np.sin(WAVES * x + second) - np.sin(second))


def star_gauge(
    x: Floats, y: Floats, points: NDArray[np.floating], waist: NDArray[np.floating], turn: NDArray[np.floating]
) -> Floats:
    """Return the gauge of a star of area pi (that of the unit circle): below 1 inside, `(N, H, W)`.

    The star has `points` `(N,)` tips at radius R, one of them `turn` `(N,)` radians clockwise from the top, and as
    many notches at radius `waist` R. With `waist = cos(pi / points)` it is the regular polygon. Its area is
    `points waist R^2 sin(pi / points)`.
    """
    half = math.pi / points
    radius = np.sqrt(math.pi / (points * waist * np.sin(half)))
    # One edge runs from the tip (R, 0) to the notch at angle `half`; its normal points `normal` radians from the tip.
    normal = np.arctan2(1 - waist * np.cos(half), waist * np.sin(half))
    angle = np.arctan2(x, -y) - column(turn)
    sector = column(2 * half)
    fold = np.abs(angle - sector * np.round(angle / sector))
    gauge: Floats = np.hypot(x, y) * np.cos(fold - column(normal)) / column(radius * np.cos(normal))
    return gauge


def pooled(samples: Floats, factor: int) -> Floats:
    """Return means over `factor x factor` samples: `(N, H factor, W factor)` -> `(N, H, W)`."""
    count, height, width = samples.shape
    blocks = samples.reshape(count, height // factor, factor, width // factor, factor)
    means: Floats = blocks.mean((2, 4), dtype=np.float32)
    return means


def stroke(x: Floats, y: Floats, ends: NDArray[np.floating], radius: NDArray[np.floating], size: int) -> Floats:
    """Return how much of each pixel a stroke with round ends covers, 0..1: `(N, H, W)`.

    `ends` `(N, 4)` is x and y of both ends, `radius` `(N,)` half the width. The edge is one pixel wide.
    """
    start_x, start_y, stop_x, stop_y = (column(part) for part in ends.T)
    step_x, step_y = stop_x - start_x, stop_y - start_y
    along = ((x - start_x) * step_x + (y - start_y) * step_y) / np.maximum(step_x**2 + step_y**2, 1e-9)
    along = along.clip(0, 1)
    distance = np.hypot(x - start_x - along * step_x, y - start_y - along * step_y)
    coverage: Floats = ((column(radius) - distance) * size + 0.5).clip(0, 1)
    return coverage


def band(coverage: Floats, place: Floats, start: NDArray[np.floating], share: NDArray[np.floating]) -> Floats:
    """Return how much of each pixel a straight band hides, 0..1: `(N, H, W)`.

    `place` `(N, H, W)` is each pixel's coordinate across the band. It begins where `start` `(N,)` of what `coverage`
    `(N, H, W)` covers lies before it, and hides the `share` `(N,)` of that, to a pixel's width.
    """
    first, last = (column(_quantile(coverage, place, part)) for part in (start, start + share))
    half = 0.5 / coverage.shape[-1]
    hidden: Floats = (np.minimum(place + half, last) - np.maximum(place - half, first)) / (2 * half)
    return hidden.clip(0, 1)


def _quantile(weights: Floats, values: Floats, share: NDArray[np.floating]) -> Floats:
    """Return the value below which `share` `(N,)` of the weight of each image lies."""
    flat = values.reshape(len(values), -1)
    order = flat.argsort(1, kind="stable")
    below = np.take_along_axis(weights.reshape(flat.shape), order, 1).cumsum(1, dtype=np.float64)
    index = (below < share[:, None] * below[:, -1:]).sum(1).clip(max=flat.shape[1] - 1)
    rows = np.arange(len(flat))
    quantile: Floats = flat[rows, order[rows, index]]
    return quantile


def painted(canvas: Floats, coverage: Floats, colours: Floats) -> Floats:
    """Lay `colours` `(N, 3)`, or `(N, 3, H, W)`, over `canvas` `(N, 3, H, W)` where `coverage` `(N, H, W)` says."""
    colours = colours[:, :, None, None] if colours.ndim == 2 else colours
    return canvas + coverage[:, None] * (colours - canvas)
