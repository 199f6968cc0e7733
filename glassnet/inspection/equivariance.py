"""Whether a layer's maps move as the image does: `f(t(x))` against `t(f(x))`, layer by layer.

A convolution of stride 1 is equivariant to shifts as far as no padding and no pixel from outside comes in; what has a
stride is only to shifts by its multiples; the kernels that training finds are equivariant to no rotation, scaling or
flip unless they are symmetric. Cohen and Welling, "Group equivariant convolutional networks" (2016), section 2; Lenc
and Vedaldi, "Understanding image representations by measuring their equivariance and equivalence" (2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError, unknown_name
from glassnet._types import by
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Images, Subject, explaining, gather, opened, stream
from glassnet.inspection.capture import capture_output, layer_of, module_paths
from glassnet.inspection.grids import Grid, image_grid, moved, moved_to, unit_grid, whole_boxes
from glassnet.inspection.receptive_field import LayerReceptiveField, receptive_fields
from glassnet.inspection.tracing.inputs import picked_output

AMOUNTS: dict[str, tuple[float, ...]] = {
    "translate": (1, 2, 3, 4, 8),
    "translate-down": (1, 2, 3, 4, 8),
    "rotate": (5, 15, 30, 45, 90),
    "scale": (0.8, 0.9, 1.1, 1.25),
    "flip": (1,),
}
"""Pixels to the right, and down; degrees, counter-clockwise; factors; and a flip from left to right."""
AXES = {"translate-down": 0, "translate": 1}
"""The axis that each shift goes along: rows, columns."""
ROUNDING = 1e-5
"""A relative error below this is that of float32."""


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far one layer is from moving as the image does, by one amount."""

    layer: str
    amount: float
    error: float
    """`|f(t(x)) - t(f(x))|` over `|t(f(x))|`, both over all positions and images."""
    inside_error: float | None
    """The same over the units that see neither padding nor what came in from outside, in both; None without any."""
    inside_share: float
    """Share of the positions that are inside."""
    pooled_change: float
    """`|p(f(t(x))) - p(f(x))|` over `|p(f(x))|` with the mean over positions p: 0 where that is invariant."""
    reason: str
    """Where and why the layer is not equivariant, in words; empty where it is."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Equivariance:
    """How layers and output bear a transform of the image, by its amount; `str()` says what was found."""

    transform: str
    amounts: tuple[float, ...]
    layers: tuple[str, ...]
    rows: tuple[LayerError, ...]
    """For each layer each amount."""
    output_changes: tuple[float, ...]
    """By amount, how far the output moves, relative to its size."""
    agreement: tuple[float, ...]
    """By amount, share of the images whose largest output stays the same."""
    num_images: int
    set_aside: tuple[SetAside, ...] = ()

    def of(self, layer: str) -> tuple[LayerError, ...]:
        """Return one layer's rows, the curve over the amounts. Raises `UsageError` for another layer."""
        if layer not in self.layers:
            raise unknown_name("layer", layer, self.layers)
        return tuple(row for row in self.rows if row.layer == layer)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("rows", "set_aside")},
            "rows": [row.__dict__ for row in self.rows],
            "set_aside": [item.__dict__ for item in self.set_aside],
        }

    def __str__(self) -> str:
        exact = [name for name in self.layers if all((r.inside_error or 0.0) <= ROUNDING for r in self._inside(name))]
        exact = [name for name in exact if self._inside(name)]
        worst = max(range(len(self.amounts)), key=lambda place: abs(_strength(self.transform, self.amounts[place])))
        text = f"{len(exact)} of {len(self.layers)} layers are exactly equivariant inside the border"
        text += f" ({', '.join(exact[:4])}{', ...' if len(exact) > 4 else ''})" if exact else ""
        broken = next((row for row in self.rows if row.layer not in exact and row.reason), None)
        text += (
            f"; {broken.layer} breaks at {said_amount(self.transform, broken.amount)}: {broken.reason}"
            if broken
            else ""
        )
        keeping = round(self.agreement[worst] * self.num_images)
        text += f". At {said_amount(self.transform, self.amounts[worst])}, {keeping:,} of {self.num_images:,} images "
        return f"{text}{'keeps its' if keeping == 1 else 'keep their'} class."

    def __repr__(self) -> str:
        return f"Equivariance({self.transform}, {len(self.layers)} layers, {self.num_images} images)"

    def _inside(self, layer: str) -> list[LayerError]:
        return [row for row in self.of(layer) if row.inside_error is not None]


def said_amount(transform: str, amount: float) -> str:
    """Return an amount as one says it."""
    return {
        "translate": f"a shift of {amount:g} pixel{'' if abs(amount) == 1 else 's'}",
        "translate-down": f"a shift down by {amount:g} pixel{'' if abs(amount) == 1 else 's'}",
        "rotate": f"{amount:g} degrees",
        "scale": f"a scale of {amount:g}",
        "flip": "a flip",
    }[transform]


def equivariance(
    subject: Subject,
    images: Images,
    transform: str = "translate",
    layer: str | None = None,
    amounts: Sequence[float] | None = None,
    *,
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> Equivariance:
    """Measure how far `f(t(x))` is from `t(f(x))` for a layer, or for every module that gives maps, and the output.

    `transform`: `translate` (pixels to the right), `translate-down` (pixels), `rotate` (degrees), `scale` (factors) or
    `flip`; `amounts` by default `AMOUNTS`. Images are moved about their centre, bilinear between pixels, their edge
    repeated; maps by the same, with each unit at the centre of its receptive field. The model is left as it was.

    Raises `UsageError` for an unknown transform or layer, and a layer whose units lie on no even grid.
    """
    model, record = opened(subject, preprocessing)
    chosen = _amounts(transform, amounts)
    if layer is not None:
        layer_of(model, layer)
    source = stream(gather(images, model, record), model, record, batch_size)
    sums: _Sums | None = None
    for batch in source.batches:
        if batch.inputs.ndim != 4:
            raise UsageError(f"Transforms move images (C, H, W); got inputs of {by(tuple(batch.inputs.shape[1:]))}.")
        if sums is None:
            fields = _fields(model, tuple(batch.inputs.shape[1:]), layer)
            sums = _Sums(transform, chosen, fields, (batch.inputs.shape[2], batch.inputs.shape[3]))
        with explaining(tuple(batch.inputs.shape[1:]), record, model):
            sums.add(model, batch.inputs)
    if sums is None:
        raise UsageError("There is nothing to look at: expected at least one image, got none.")
    return Equivariance(
        transform=transform,
        amounts=chosen,
        layers=tuple(sums.fields),
        rows=sums.rows(),
        output_changes=tuple(_root(*sums.outputs[amount]) for amount in chosen),
        agreement=tuple(sums.agreeing[amount] / sums.count for amount in chosen),
        num_images=sums.count,
        set_aside=source.set_aside,
    )


def _strength(transform: str, amount: float) -> float:
    return math.log(amount) if transform == "scale" else amount


def _amounts(transform: str, amounts: Sequence[float] | None) -> tuple[float, ...]:
    if transform not in AMOUNTS:
        raise unknown_name("transform", str(transform), AMOUNTS)
    if amounts is None:
        return AMOUNTS[transform]
    found = tuple(float(amount) for amount in amounts)
    if transform == "flip":
        raise UsageError("A flip has no amount; leave amounts out.")
    if not found or not all(map(math.isfinite, found)) or (transform == "scale" and min(found) <= 0):
        what = "factors above 0" if transform == "scale" else "numbers"
        raise UsageError(f"amounts must be one or more {what}; got {list(amounts)}.")
    return found


def _fields(model: nn.Module, shape: tuple[int, ...], layer: str | None) -> dict[str, LayerReceptiveField]:
    found = receptive_fields(model, shape)
    if layer is None:
        modules = module_paths(model)
        leaves = [name for name in found if name in modules and not any(modules[name].children())]
        fields = {name: found[name] for name in leaves if _is_grid(found[name])}
        if not fields:
            raise UsageError("None of the model's layers gives maps on an even grid; equivariance has no subject here.")
        return fields
    if layer not in found or not _is_grid(found[layer]):
        raise UsageError(
            f"Equivariance needs a layer whose units lie on an even grid over the image; '{layer}' gives "
            f"{by(found[layer].output_shape) if layer in found else 'nothing'}. Choose a convolution or a pooling."
        )
    return {layer: found[layer]}


def _is_grid(field: LayerReceptiveField) -> bool:
    return len(field.output_shape) == 3 and min(field.output_shape[1:]) > 1 and None not in field.stride


def _root(difference: float, size: float) -> float:
    return math.sqrt(difference / size) if size > 0 else 0.0 if difference == 0 else math.inf


class _Sums:
    """Squared differences and sizes, over images."""

    def __init__(
        self,
        transform: str,
        amounts: tuple[float, ...],
        fields: dict[str, LayerReceptiveField],
        size: tuple[int, int],
    ) -> None:
        self.transform = transform
        self.amounts = amounts
        self.fields = fields
        self.pixels = image_grid(size)
        self.grids = {name: unit_grid(field) for name, field in fields.items()}
        self.count = 0
        self.outputs = {amount: [0.0, 0.0] for amount in amounts}
        self.agreeing = dict.fromkeys(amounts, 0)
        self.sums = {(name, amount): [0.0] * 6 for name in fields for amount in amounts}
        self.inside = {(n, a): self._inside(self.grids[n], a) for n in fields for a in amounts}

    def add(self, model: nn.Module, images: Tensor) -> None:
        """Take a batch `(B, C, H, W)`."""
        self.count += len(images)
        before, output = _pass(model, images, self.fields)
        for amount in self.amounts:
            turned, _ = moved(images, self.pixels, self.pixels, self.transform, amount)
            after, output_after = _pass(model, turned, self.fields)
            self.agreeing[amount] += int((output.flatten(1).argmax(1) == output_after.flatten(1).argmax(1)).sum())
            _add(self.outputs[amount], 0, output_after - output, output)
            for name, grid in self.grids.items():
                expected, _ = moved(before[name], grid, self.pixels, self.transform, amount)
                sums, inside = self.sums[name, amount], self.inside[name, amount].to(images.device)
                difference = after[name] - expected
                _add(sums, 0, difference, expected)
                _add(sums, 2, difference[..., inside], expected[..., inside])
                pooled = before[name].mean((2, 3))
                _add(sums, 4, after[name].mean((2, 3)) - pooled, pooled)

    def rows(self) -> tuple[LayerError, ...]:
        """Return what came out."""
        return tuple(self._row(name, amount) for name in self.fields for amount in self.amounts)

    def _row(self, name: str, amount: float) -> LayerError:
        sums, share = self.sums[name, amount], float(self.inside[name, amount].float().mean())
        inside = _root(sums[2], sums[3]) if share else None
        error = _root(sums[0], sums[1])
        return LayerError(
            layer=name,
            amount=amount,
            error=error,
            inside_error=inside,
            inside_share=share,
            pooled_change=_root(sums[4], sums[5]),
            reason=self._reason(self.fields[name], amount, error, inside),
        )

    def _inside(self, grid: Grid, amount: float) -> Tensor:
        """Return which units see neither padding nor what came in, in both the moved image and the moved maps."""
        height, width = len(self.pixels.rows), len(self.pixels.columns)
        everything = torch.ones(1, 1, height, width, dtype=torch.float64)
        _, is_known = moved(everything, self.pixels, self.pixels, self.transform, amount)
        in_moved = whole_boxes(is_known, grid)
        in_image = whole_boxes(torch.ones(height, width, dtype=torch.bool), grid)
        shifted, is_reached = moved(in_image[None, None].double(), grid, self.pixels, self.transform, amount)
        return in_moved & is_reached & (shifted[0, 0] > 1 - 1e-9)

    def _reason(self, field: LayerReceptiveField, amount: float, error: float, inside: float | None) -> str:
        if error <= ROUNDING:
            return ""
        if inside is None:
            return "every unit sees the border or what came in from outside"
        if inside <= ROUNDING:
            return "only at the border, where padding and what came in from outside are seen"
        is_between = not moved_to(self.grids[field.layer], self.pixels, self.transform, amount).is_on_grid
        if self.transform in AXES:
            stride = field.stride[AXES[self.transform]]
            if is_between and stride == 1:
                return "the shift is no whole number of pixels"
            if is_between:
                return f"the shift is no multiple of the stride {stride}"
            return "something on the way depends on the position"
        if is_between:
            return "units come to lie between units, and kernels prefer a direction or size"
        return "the kernels prefer a direction or size"


def _add(sums: list[float], place: int, difference: Tensor, size: Tensor) -> None:
    sums[place] += float(difference.double().square().sum())
    sums[place + 1] += float(size.double().square().sum())


def _pass(model: nn.Module, images: Tensor, layers: dict[str, LayerReceptiveField]) -> tuple[dict[str, Tensor], Tensor]:
    """Return the maps of the layers, and the output."""
    with ExitStack() as stack:
        caught = {name: stack.enter_context(capture_output(model, name, copies=True)) for name in layers}
        output = picked_output(model(images))
        return {name: found.output for name, found in caught.items()}, output
