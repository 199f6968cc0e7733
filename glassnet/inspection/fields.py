"""Which input pixels each element of a value sees: boxes carried through the operations of a forward pass.

A `Span` holds, for one axis of the input, the first and last pixel that every element of a value sees along it, twice:
*exact*, within the image, where a padded zero sees nothing; and *nominal*, where padding counts as a continuation of
the grid, so that a unit at the border has the same size of field as one in the middle. The nominal numbers are those
of Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks" (Distill, 2019); the exact
ones are what a gradient shows.

Only four things can happen to spans. They are united element by element (an addition of branches), united over axes
(a sum, a matrix product), united over a sliding window (a convolution), or moved (a transposition, a slice). An axis
of the value along which a span does not vary has size 1 in it, as in broadcasting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glassnet._types import Shape

NOTHING = -math.inf
"""The end of an empty span: the identity of a union, which is a maximum."""
EXACT, NOMINAL = slice(0, 2), slice(2, 4)


@dataclass(frozen=True, eq=False)
class Span:
    """What the elements of a value see of one axis of the input."""

    ends: Tensor
    """`(4, ...)`, float32, the further axes those of the value or of size 1: minus the first pixel and the one behind
    the last, exact; the same, nominal. A union of spans is a maximum; whatever is empty is minus infinity."""
    axis: int | None
    """The axis of the value along which the span runs; None where it runs along none."""
    stride: int | None
    """Pixels between neighbours along that axis; None where these differ."""

    @property
    def is_empty(self) -> bool:
        """True where no element sees anything."""
        return bool((self.ends == NOTHING).all())


@dataclass(frozen=True, eq=False)
class Field:
    """What the elements of a value see of the input: a span for each of its axes behind the channels."""

    spans: tuple[Span, ...]
    unknown: frozenset[str] = frozenset()
    """Operations on the way that have no rule: they were taken to see everything they were given."""


def input_field(shape: Shape) -> Field:
    """Return the field of the model's input, `shape` with its batch axis: each pixel sees itself.

    The axes are those behind batch and channels; those behind the batch where there are no others.
    """
    first = 2 if len(shape) > 2 else 1
    spans = []
    for axis in range(first, len(shape)):
        places = torch.arange(shape[axis], dtype=torch.float32)
        ends = torch.stack([-places, places + 1]).repeat(2, 1)
        sizes = [4, *(shape[axis] if other == axis else 1 for other in range(len(shape)))]
        spans.append(Span(ends.reshape(sizes), axis, 1))
    return Field(tuple(spans))


def field_size(field: Field | None) -> Shape:
    """Return the largest extent of an element's field along each input axis in pixels, padding included; or ()."""
    if field is None or any(not math.isfinite(float(extents(span).max())) for span in field.spans):
        return ()
    return tuple(int(extents(span).max()) for span in field.spans)


def extents(span: Span) -> Tensor:
    """Return the nominal extent of each element's field in pixels."""
    return span.ends[NOMINAL].sum(0)


def per_span(fields: Sequence[Field], unite: Callable[[Sequence[Span]], Span]) -> Field:
    """Return the field whose span on each input axis is `unite` of the fields' spans there."""
    spans = tuple(unite(parts) for parts in zip(*(field.spans for field in fields), strict=True))
    return Field(spans, frozenset[str]().union(*(field.unknown for field in fields)))


# --- united


def unite(spans: Sequence[Span], ndim: int) -> Span:
    """Return the union of spans of values that are broadcast together to `ndim` axes."""
    if len(spans) == 1 and spans[0].ends.ndim == ndim + 1:
        return spans[0]
    aligned = [align(span, ndim) for span in spans]
    ends = aligned[0].ends
    for other in aligned[1:]:
        ends = torch.maximum(ends, other.ends)
    seeing = [span for span in aligned if not span.is_empty] or aligned[:1]
    axes, strides = {span.axis for span in seeing}, {span.stride for span in seeing}
    axis = axes.pop() if len(axes) == 1 else None
    return regular(Span(ends, axis, strides.pop() if len(strides) == 1 else None))


def align(span: Span, ndim: int) -> Span:
    """Return the span of a value with leading axes of size 1 added, up to `ndim`."""
    missing = ndim + 1 - span.ends.ndim
    if missing <= 0:
        return span
    ends = span.ends.reshape(4, *(1,) * missing, *span.ends.shape[1:])
    return Span(ends, None if span.axis is None else span.axis + missing, span.stride)


def unite_over(span: Span, axes: Sequence[int], *, keep: bool = True) -> Span:
    """Return the span of values that each see all of theirs along `axes`, which then have size 1 or are gone."""
    ndim = span.ends.ndim - 1
    axes = sorted({axis % ndim for axis in axes}) if ndim else []
    if not axes:
        return span
    ends = span.ends.amax([axis + 1 for axis in axes], keepdim=keep)
    axis = None if span.axis in axes or span.axis is None else span.axis
    if axis is not None and not keep:
        axis -= sum(gone < axis for gone in axes)
    return Span(ends, axis, span.stride)


def whole(span: Span, ndim: int) -> Span:
    """Return the span of `ndim` axes on which every element sees all that any element saw."""
    return Span(span.ends.reshape(4, -1).amax(1).reshape(4, *(1,) * ndim), None, None)


def slide(
    span: Span, axis: int, *, kernel: int, stride: int, padding: tuple[int, int], dilation: int, count: int
) -> Span:
    """Return the span after a window slid along `axis` of the value, `count` times.

    Padding sees nothing exactly, and nominally continues the grid where its stride is known.
    """
    place = axis + 1
    size = span.ends.shape[place]
    if size == 1 and span.axis != axis:
        return span
    reach = dilation * (kernel - 1) + 1
    after = max((count - 1) * stride + reach - size - padding[0], 0)
    padded = padded_ends(span, axis, padding[0], after)
    windows = padded.unfold(place, reach, stride)[..., ::dilation]
    ends = windows.amax(-1).narrow(place, 0, count)
    step = span.stride * stride if span.stride is not None else None
    return regular(Span(ends, span.axis, step)) if span.axis == axis else Span(ends, span.axis, span.stride)


def padded_ends(span: Span, axis: int, before: int, after: int) -> Tensor:
    """Return the ends with places added along `axis`: nothing exactly, the grid continued nominally. May also cut."""
    place = axis + 1
    ends = span.ends
    size = ends.shape[place]
    if before < 0 or after < 0:
        start, stop = max(-before, 0), size - max(-after, 0)
        return padded_ends(
            replace(span, ends=ends.narrow(place, start, stop - start)), axis, max(before, 0), max(after, 0)
        )
    if not before and not after:
        return ends
    parts = [ends]
    is_known = span.axis == axis and span.stride is not None
    step = torch.tensor([0.0, 0.0, 1.0, -1.0]).reshape(4, *(1,) * (ends.ndim - 1)) * (span.stride or 0)
    for count, edge, direction in ((before, 0, 1), (after, size - 1, -1)):
        shape = [1] * ends.ndim
        shape[place] = count
        distance = torch.arange(count, 0, -1) if direction == 1 else torch.arange(1, count + 1)
        added = (ends.narrow(place, edge, 1) + direction * step * distance.reshape(shape)).clone()
        added[EXACT] = NOTHING
        if not is_known:
            added[NOMINAL] = NOTHING
        parts.insert(0 if direction == 1 else len(parts), added)
    return torch.cat(parts, dim=place)


def regular(span: Span) -> Span:
    """Return the span with the stride that its nominal ends have, where there are neighbours to tell it by."""
    if span.axis is None or span.ends.shape[span.axis + 1] < 2:
        return span
    steps = span.ends[NOMINAL].diff(dim=span.axis + 1)
    firsts, lasts = (part[~part.isnan()] for part in steps)  # two neighbours that see nothing are no distance apart
    step = float(lasts[0]) if len(lasts) else math.nan
    is_even = math.isfinite(step) and bool((lasts == step).all() and (firsts == -step).all())
    return replace(span, stride=int(step) if is_even else None)


def spread(span: Span, axis: int, *, kernel: int, stride: int, padding: int, dilation: int, count: int) -> Span:
    """Return the span after a transposed convolution along `axis`: place `i` reaches `i * stride + tap * dilation`."""
    place = axis + 1
    if span.ends.shape[place] == 1 and span.axis != axis:
        return span
    reach = dilation * (kernel - 1) + 1
    extra = -(-reach // stride)
    ends = padded_ends(span, axis, extra, extra)
    shape = list(ends.shape)
    shape[place] = max(ends.shape[place] * stride, extra * stride + count + padding + reach)
    apart = torch.full(shape, NOTHING)
    apart.narrow(place, 0, ends.shape[place] * stride).unflatten(place, (-1, stride)).select(place + 1, 0).copy_(ends)
    first = extra * stride - (reach - 1 - padding)
    windows = apart.narrow(place, first, shape[place] - first).unfold(place, reach, 1)[..., ::dilation]
    return regular(Span(windows.amax(-1).narrow(place, 0, count), span.axis, None))


def pick(span: Span, axis: int, taps: Tensor) -> Span:
    """Return the span after a step in which place `o` along `axis` sees the places `i` with `taps[o, i]`."""
    place = axis + 1
    if span.ends.shape[place] == 1:
        return span
    ends = span.ends.movedim(place, -1)[..., None, :]
    seen = torch.where(taps, ends, torch.tensor(NOTHING)).amax(-1)
    return regular(Span(seen.movedim(-1, place), span.axis, None))


# --- moved


def move(span: Span, shape: Shape, function: Callable[[Tensor], Tensor]) -> Span:
    """Return the span of what `function` makes of a value of `shape` by moving its elements about."""
    full = span.ends.expand(4, *shape)
    return located(torch.stack([_thin(function(part)) for part in full]), span)


def _thin(part: Tensor) -> Tensor:
    """Return a tensor with the axes that repeat one element at size 1, so that no copy is made of the repetition."""
    for axis, (size, stride) in enumerate(zip(part.shape, part.stride(), strict=True)):
        if size > 1 and stride == 0:
            part = part.narrow(axis, 0, 1)
    return part


def located(ends: Tensor, origin: Span) -> Span:
    """Return `ends` as a span, with axes along which they do not vary at size 1, and the axis they vary along."""
    for place in range(1, ends.ndim):
        first = ends.narrow(place, 0, 1) if ends.shape[place] else ends
        if ends.shape[place] > 1 and bool((ends == first).all()):
            ends = first
    is_same = ends.ndim == origin.ends.ndim
    axis = _main_axis(ends, origin.axis if is_same else None)
    is_kept = is_same and axis == origin.axis
    return regular(Span(ends, axis, origin.stride if is_kept else None))


def _main_axis(ends: Tensor, likely: int | None) -> int | None:
    """Return the axis along which the ends vary; of several the one with an even stride, else the `likely` one.

    Where they do not vary at all it is the `likely` one, of size 1.
    """
    varying = [place - 1 for place in range(1, ends.ndim) if ends.shape[place] > 1]
    if len(varying) == 1:
        return varying[0]
    even = [axis for axis in varying if regular(Span(ends, axis, None)).stride]
    if len(even) == 1:
        return even[0]
    return likely if not varying or likely in varying else None
