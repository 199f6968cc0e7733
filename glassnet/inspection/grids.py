"""Grids of points over an image, and moving what lies on them: pixels, and units at the centres of their fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet.inspection.receptive_field import LayerReceptiveField

SNAP = 1e-6
"""Places nearer than this to a point of the grid are that point: what is left is the rounding of sines."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """Even rows and columns of points over an image, in pixels, float64; 0 is the centre of the first pixel."""

    rows: Tensor
    columns: Tensor
    starts: tuple[int, int] = (0, 0)
    """First pixel of the first unit's field; negative in padding."""
    stride: tuple[int, int] = (1, 1)
    size: tuple[int, int] = (1, 1)
    """Of the field in pixels."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Places:
    """Where on a grid the values come from, `(h, w)` float64, counted in its points."""

    rows: Tensor
    columns: Tensor

    @property
    def is_on_grid(self) -> bool:
        """True where every place is a point, not between points."""
        return bool((self.rows == self.rows.round()).all() and (self.columns == self.columns.round()).all())


def image_grid(size: tuple[int, int]) -> Grid:
    """Return the pixels of an image of this height and width."""
    return Grid(rows=torch.arange(size[0]).double(), columns=torch.arange(size[1]).double())


def unit_grid(field: LayerReceptiveField) -> Grid:
    """Return the units of a layer, each at the centre of its field; the strides must be known."""
    points = []
    for axis in range(2):
        stride, start, size = field.stride[axis], field.start[axis], field.size[axis]
        assert stride is not None
        points.append(start + (size - 1) / 2 + stride * torch.arange(field.output_shape[1 + axis]).double())
    return Grid(
        rows=points[0],
        columns=points[1],
        starts=(field.start[0], field.start[1]),
        stride=(field.stride[0] or 1, field.stride[1] or 1),
        size=(field.size[0], field.size[1]),
    )


def moved_to(grid: Grid, image: Grid, transform: str, amount: float) -> Places:
    """Return the places that the points of a grid get their values from when the image is transformed."""
    middle = (len(image.rows) - 1) / 2, (len(image.columns) - 1) / 2
    down, right = torch.meshgrid(grid.rows - middle[0], grid.columns - middle[1], indexing="ij")
    if transform == "translate":
        right = right - amount
    elif transform == "translate-down":
        down = down - amount
    elif transform == "flip":
        right = -right
    elif transform == "scale":
        down, right = down / amount, right / amount
    else:
        sine, cosine = math.sin(math.radians(amount)), math.cos(math.radians(amount))
        down, right = down * cosine + right * sine, right * cosine - down * sine
    rows = (down + middle[0] - grid.rows[0]) / grid.stride[0]
    columns = (right + middle[1] - grid.columns[0]) / grid.stride[1]
    return Places(rows=_snapped(rows), columns=_snapped(columns))


def moved(maps: Tensor, grid: Grid, image: Grid, transform: str, amount: float) -> tuple[Tensor, Tensor]:
    """Return `(B, C, h, w)` on a grid after the image was transformed, and which points came from within, `(h, w)`.

    Bilinear between points; beyond the grid its edge is repeated.
    """
    places = moved_to(grid, image, transform, amount)
    height, width = maps.shape[2:]
    is_within = (places.rows >= 0) & (places.rows <= height - 1) & (places.columns >= 0) & (places.columns <= width - 1)
    top, down = _split(places.rows.clamp(0, height - 1))
    left, right = _split(places.columns.clamp(0, width - 1))
    below, beside = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, right = (part.to(device=maps.device, dtype=maps.dtype) for part in (down, right))
    above = torch.lerp(maps[..., top, left], maps[..., top, beside], right)
    under = torch.lerp(maps[..., below, left], maps[..., below, beside], right)
    return torch.lerp(above, under, down), is_within


def whole_boxes(is_known: Tensor, grid: Grid) -> Tensor:
    """Return which units of a grid see known pixels `(H, W)` alone, no padding either, as bool `(h, w)`."""
    height, width = is_known.shape
    sums = torch.zeros(height + 1, width + 1, dtype=torch.int64)
    sums[1:, 1:] = is_known.long().cumsum(0).cumsum(1)
    edges = []
    for axis, points in enumerate((grid.rows, grid.columns)):
        first = grid.starts[axis] + grid.stride[axis] * torch.arange(len(points))
        edges.append((first, first + grid.size[axis]))
    (top, bottom), (left, right) = edges
    is_row = (top >= 0) & (bottom <= height)
    is_column = (left >= 0) & (right <= width)
    top, bottom = top.clamp(0, height)[:, None], bottom.clamp(0, height)[:, None]
    left, right = left.clamp(0, width)[None], right.clamp(0, width)[None]
    seen = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return (seen == grid.size[0] * grid.size[1]) & is_row[:, None] & is_column[None]


def _snapped(places: Tensor) -> Tensor:
    nearest = places.round()
    return torch.where((places - nearest).abs() < SNAP, nearest, places)


def _split(places: Tensor) -> tuple[Tensor, Tensor]:
    whole = places.floor()
    return whole.long(), places - whole
