"""Receptive fields: what a layer's units see of the input, and one unit's as a box and as a mask of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from glassnet._types import Shape, by
from glassnet.arithmetic import Sides
from glassnet.inspection.effective_field import EffectiveField, effective_field
from glassnet.inspection.field_mask import field_mask
from glassnet.inspection.field_tracker import FieldTracker
from glassnet.inspection.fields import EXACT, NOMINAL, Field, extents
from glassnet.inspection.summary import check_model, run_on_zeros
from glassnet.inspection.units import Unit, UnitArg, check_layer, resolve_unit


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerReceptiveField:
    """What the units of one layer see of the input, along each axis of it behind the channels, in pixels.

    `size`, `stride` and `start` treat padding as a continuation of the image, as published tables do: Araujo, Norris
    and Sim, "Computing receptive fields of convolutional neural networks" (Distill, 2019). `str()` says it in a
    sentence.
    """

    layer: str
    input_shape: Shape
    """`(C, H, W)`, as is the output's."""
    output_shape: Shape
    size: Shape
    """From the first to the last pixel that a unit sees, padding included: the largest of any unit."""
    stride: tuple[int | None, ...]
    """Between the fields of neighbouring units; None where it differs, or where the layer has no such neighbours."""
    start: Shape
    """First pixel of the first unit's field; negative means padding."""
    unknown: tuple[str, ...] = ()
    """Operations on the way without a rule: their results were taken to see all that the operation was given."""
    effective: EffectiveField | None = None
    """How much each pixel counts, where it was asked for."""
    _field: Field = field(repr=False)
    _model: nn.Module = field(repr=False)

    def box(self, unit: UnitArg = None) -> tuple[Sides, ...]:
        """Return (first pixel, the one behind the last) of a unit's field along each axis, padding included.

        What lies below 0 or beyond the image is padding: see `padding`. Without a channel, the union over channels.
        """
        return self._ends(unit, NOMINAL)

    def seen(self, unit: UnitArg = None) -> tuple[Sides, ...]:
        """Return the box around the pixels of the image that a unit truly depends on: what `mask` is true in."""
        return self._ends(unit, EXACT)

    def padding(self, unit: UnitArg = None) -> tuple[Sides, ...]:
        """Return how many pixels of a unit's box lie (before, after) the image along each axis."""
        sizes = self.input_shape[-len(self.size) :]
        return tuple((max(-a, 0), max(b - n, 0)) for (a, b), n in zip(self.box(unit), sizes, strict=True))

    def mask(self, unit: UnitArg = None) -> Tensor:
        """Return which pixels a unit depends on, bool `(H, W)`, found by a gradient instead of by arithmetic.

        See `glassnet.inspection.field_mask`. The model is left as it was. Raises `UsageError` where no gradient comes
        through (a lookup by number).
        """
        return field_mask(self._model, self.input_shape, self._unit(unit))

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON, with the middle unit's box."""
        return {
            "layer": self.layer,
            "input_shape": self.input_shape,
            "output_shape": self.output_shape,
            "size": self.size,
            "stride": self.stride,
            "start": self.start,
            "unknown": self.unknown,
            "middle_unit": {"position": self._unit(None).position, "box": self.box(), "seen": self.seen()},
            "effective": None if self.effective is None else self.effective.to_dict(),
        }

    def __str__(self) -> str:
        if not any(self.size):
            return f"{self.layer} sees nothing of the input."
        steps = {step for step in self.stride if step is not None}
        apart = by(tuple(steps)) if len(steps) == 1 else by(tuple(step or 0 for step in self.stride))
        rule = f" (without a rule, taken to see everything: {', '.join(self.unknown)})" if self.unknown else ""
        whole, start = by(self.input_shape[-len(self.size) :]), ", ".join(map(str, self.start))
        text = (
            f"A unit of {self.layer} sees {by(self.size)} of {whole} pixels; those of the first unit start at {start}"
        )
        text += f", those of neighbours lie {apart} apart" if steps and None not in self.stride else ""
        text += f"{rule}."
        return text if self.effective is None else f"{text} {self.effective}"

    def _unit(self, unit: UnitArg) -> Unit:
        return resolve_unit(unit, self.layer, self.output_shape)

    def _ends(self, unit: UnitArg, which: slice) -> tuple[Sides, ...]:
        chosen = self._unit(unit)
        index = [chosen.channel, *(chosen.position or ())]
        box = []
        for span in self._field.spans:
            ends = span.ends[which].amax(
                1
            )  # positions that a model folds into the batch axis are no units of their own
            for place in index:
                size = ends.shape[1]
                ends = ends.amax(1) if place is None else ends.select(1, place if size > 1 else 0)
            first, last = ends.reshape(2, -1).amax(1).tolist()
            box.append((-int(first), int(last)) if math.isfinite(first) else (0, 0))
        return tuple(box)


def receptive_field(
    model: nn.Module,
    input_shape: Shape,
    layer: str,
    *,
    effective: bool = False,
    images: Tensor | None = None,
    unit: UnitArg = None,
    seed: int = 0,
) -> LayerReceptiveField:
    """Work out the receptive field of a layer's units on inputs of `input_shape` `(C, H, W)`.

    `layer` is the path of any module, or the name of a function in `gn.summary`, such as `layer1.0.add`. One image of
    zeros is run, and each operation that runs carries intervals of pixels along: through branches, residuals, padding,
    slices, transposed convolutions and interpolation; any `nn.Module` will do.

    `effective` adds how much each pixel counts for one unit (`unit`, by default the middle one): the mean size of the
    gradient over `images` `(N, C, H, W)`, as the model takes them, or over 16 images of normal noise drawn from `seed`.

    The model is left as it was. Raises `UsageError` for an unknown layer, a model that does not take the input, and a
    unit that the layer has not.
    """
    record = _record(*_tracked(model, input_shape), model, tuple(input_shape), layer)
    if not effective:
        return record
    heat = effective_field(model, record.input_shape, record._unit(unit), images=images, seed=seed)
    return LayerReceptiveField(**{**record.__dict__, "effective": heat})


def receptive_fields(model: nn.Module, input_shape: Shape) -> dict[str, LayerReceptiveField]:
    """Return `receptive_field` of every module and function of a model by name, in one pass."""
    tracker, fields = _tracked(model, input_shape)
    return {name: _record(tracker, fields, model, tuple(input_shape), name) for name in fields if name}


def _tracked(model: nn.Module, input_shape: Shape) -> tuple[FieldTracker, dict[str, Field | None]]:
    check_model(model)
    tracker = FieldTracker()
    run_on_zeros(model, input_shape, tracker)
    return tracker, {**tracker.by_call, **tracker.by_module}


def _record(
    tracker: FieldTracker, fields: dict[str, Field | None], model: nn.Module, input_shape: Shape, layer: str
) -> LayerReceptiveField:
    check_layer(layer, fields)
    found = fields[layer]
    num_axes = max(len(input_shape) - 1, 1)
    return LayerReceptiveField(
        layer=layer,
        input_shape=input_shape,
        output_shape=tracker.shapes[layer][1:],
        size=_sizes(found, num_axes),
        stride=tuple(span.stride if span.axis is not None else None for span in found.spans)
        if found is not None
        else (None,) * num_axes,
        start=_starts(found, num_axes),
        unknown=tuple(sorted(found.unknown)) if found is not None else (),
        effective=None,
        _field=found if found is not None else Field(()),
        _model=model,
    )


def _sizes(found: Field | None, num_axes: int) -> Shape:
    if found is None:
        return (0,) * num_axes
    return tuple(max(int(torch.nan_to_num(extents(span), neginf=0).max()), 0) for span in found.spans)


def _starts(found: Field | None, num_axes: int) -> Shape:
    if found is None:
        return (0,) * num_axes
    firsts = [
        float(span.ends[NOMINAL][0].movedim((span.axis or 0), 0)[0].max())
        if span.axis is not None
        else float(span.ends[NOMINAL][0].max())
        for span in found.spans
    ]
    return tuple(-int(first) if math.isfinite(first) else 0 for first in firsts)
