"""How each operation carries receptive fields from its inputs to its outputs; see `glassnet.inspection.fields`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from glassnet.inspection.calls import Operation, tensors_in
from glassnet.inspection.fields import (
    NOTHING,
    Field,
    Span,
    align,
    located,
    move,
    padded_ends,
    per_span,
    pick,
    regular,
    slide,
    spread,
    unite,
    unite_over,
    whole,
)

Lookup = Callable[[object], Field | None]
"""The field of a value; None for one that sees nothing of the input, and for what is no tensor."""
Rule = Callable[[Operation, Lookup], Sequence[Field | None] | None]
"""The field of each output; None where the rule does not apply."""


def carry(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    """Return the field of each output of an operation.

    One without a rule is taken to see, in every element, all that its inputs see, and is named in `Field.unknown`.
    """
    seen = [field for tensor in tensors_in((operation.args, operation.kwargs)) if (field := lookup(tensor))]
    if not seen:
        return [None] * len(operation.outputs)
    try:
        fields = _rule_for(operation)(operation, lookup)
    except (RuntimeError, LookupError, TypeError, ValueError):  # an overload with other arguments than the rule's
        fields = None
    if fields is None:
        ndim = max((output.ndim for output in operation.outputs), default=0)
        everything = per_span(seen, lambda spans: unite([whole(span, ndim) for span in spans], ndim))
        marked = Field(everything.spans, everything.unknown | {operation.name})
        fields = [_trimmed(marked, output.ndim) for output in operation.outputs]
    return fields


def _rule_for(operation: Operation) -> Rule:
    if operation.name in RULES:
        return RULES[operation.name]
    if operation.is_view or operation.name in MOVES:
        return _moved
    return _element_by_element if operation.is_pointwise else _no_rule


def _no_rule(operation: Operation, lookup: Lookup) -> None:
    return None


def _trimmed(field: Field, ndim: int) -> Field:
    return per_span([field], lambda spans: whole(spans[0], ndim))


def _mapped(field: Field | None, change: Callable[[Span], Span]) -> Field | None:
    return None if field is None else per_span([field], lambda spans: change(spans[0]))


def _all(field: Field | None, operation: Operation) -> list[Field | None]:
    """Return `field` for the outputs with as many axes as the first one, nothing for others."""
    return [field if output.ndim == operation.outputs[0].ndim else None for output in operation.outputs]


# --- element by element, and over axes


def _element_by_element(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    fields = [field for tensor in tensors_in((operation.args, operation.kwargs)) if (field := lookup(tensor))]
    ndim = operation.outputs[0].ndim
    return _all(per_span(fields, lambda spans: unite(spans, ndim)), operation)


def _copied(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    ndim = operation.outputs[0].ndim
    return [_mapped(lookup(operation.given["src"]), lambda span: unite([span], ndim))]


def _filled(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    return [None]


def _normalised(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    """Batch normalisation; with the batch's own statistics each channel sees all of its positions."""
    given = operation.given
    field = lookup(given["input"])
    if given.get("training", False) or given.get("running_mean", given["input"]) is None:
        axes = [axis for axis in range(given["input"].ndim) if axis != 1]
        field = _mapped(field, lambda span: unite_over(span, axes))
    return [field, *[None] * (len(operation.outputs) - 1)]


def _layer_normalised(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    given, ndim = operation.given, operation.outputs[0].ndim
    axes = range(ndim - len(given["normalized_shape"]), ndim)
    field = _mapped(lookup(given["input"]), lambda span: unite_over(span, axes))
    return [field, *[None] * (len(operation.outputs) - 1)]


def _group_normalised(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    axes = range(1, operation.outputs[0].ndim)
    field = _mapped(lookup(operation.given["input"]), lambda span: unite_over(span, axes))
    return [field, *[None] * (len(operation.outputs) - 1)]


def _reduced(operation: Operation, lookup: Lookup) -> Sequence[Field | None] | None:
    """A sum, mean, maximum over axes; over all of them where none is given."""
    given = operation.given
    if not isinstance(given.get("self"), Tensor) or any(name in given for name in ("other", "index")):
        return None
    axes, keep = given.get("dim"), bool(given.get("keepdim", False))
    axes = range(given["self"].ndim) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
    return _all(_mapped(lookup(given["self"]), lambda span: unite_over(span, list(axes), keep=keep)), operation)


def _along(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    """What each element along one axis makes of all of them: softmax, sorting."""
    given = operation.given
    field = _mapped(lookup(given["self"]), lambda span: unite_over(span, [given.get("dim", -1)]))
    return _all(field, operation)


# --- products


def _matrix_product(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    """Rows of the first see all of their row, columns of the second all of their column."""
    given, ndim = operation.given, operation.outputs[0].ndim
    first, second = _factors(given)
    fields = [
        _mapped(lookup(first), lambda span: _as_rows(unite_over(span, [-1]), first.ndim, ndim)),
        _mapped(lookup(second), lambda span: _as_columns(span, second.ndim, ndim)),
    ]
    if any(name in given for name in ("mat1", "batch1", "mat", "vec1")) and "self" in given:
        fields.append(_mapped(lookup(given["self"]), lambda span: align(span, ndim)))
    seen = [field for field in fields if field is not None]
    return [per_span(seen, lambda spans: unite(spans, ndim))]


def _factors(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    for names in (("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec"), ("self", "mat2"), ("self", "vec")):
        if all(name in given for name in names):
            return given[names[0]], given[names[1]]
    return given["self"], given["tensor"]


def _as_rows(span: Span, ndim: int, wanted: int) -> Span:
    """Return a matrix's span `(..., rows, 1)`; of a product with a vector `(rows,)`."""
    return unite_over(span, [-1], keep=False) if wanted < ndim else span


def _as_columns(span: Span, ndim: int, wanted: int) -> Span:
    """Return a matrix's span `(..., 1, columns)`; of a vector nothing but what all of it sees."""
    return whole(span, wanted) if ndim < 2 or wanted < 2 else unite_over(span, [-2])


def _embedded(operation: Operation, lookup: Lookup) -> Sequence[Field | None] | None:
    given = operation.given
    if lookup(given["weight"]) is not None:
        return None
    return [_mapped(lookup(given["indices"]), lambda span: Span(span.ends[..., None], span.axis, span.stride))]


# --- windows


def _convolved(operation: Operation, lookup: Lookup) -> Sequence[Field | None] | None:
    given, output = operation.given, operation.outputs[0]
    if lookup(given["weight"]) is not None or given["input"].ndim != output.ndim:
        return None
    weight, groups = given["weight"], given["groups"]

    def change(span: Span) -> Span:
        span = Span(_over_channels(span.ends, groups, output.shape[1]), span.axis, span.stride)
        for axis in range(2, output.ndim):
            options = {
                "kernel": weight.shape[axis],
                "stride": _at(given["stride"], axis - 2),
                "dilation": _at(given["dilation"], axis - 2),
                "count": output.shape[axis],
            }
            padding = _at(given["padding"], axis - 2)
            if given["transposed"]:
                span = spread(span, axis, padding=padding, **options)
            else:
                span = slide(span, axis, padding=(padding, padding), **options)
        return span

    return [_mapped(lookup(given["input"]), change)]


def _over_channels(ends: Tensor, groups: int, out_channels: int) -> Tensor:
    """Return ends `(4, B, C, ...)` after every output channel united the input channels of its group."""
    if ends.shape[2] == 1:
        return ends
    if groups == 1:
        return ends.amax(2, keepdim=True)
    by_group: Tensor = ends.unflatten(2, (groups, -1)).amax(3)
    return by_group.repeat_interleave(out_channels // groups, dim=2)


def _at(values: Sequence[int] | int, place: int) -> int:
    """Return one axis' number of what may be one number for all."""
    return values if isinstance(values, int) else values[place if len(values) > 1 else 0]


def _pooled(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    given, output = operation.given, operation.outputs[0]
    kernel = given["kernel_size"]
    num_axes = 1 if operation.name.endswith("1d") else 3 if "3d" in operation.name else 2

    def change(span: Span) -> Span:
        for place in range(num_axes):
            padding = _at(given["padding"], place)
            axis = output.ndim - num_axes + place
            span = slide(
                span,
                axis,
                kernel=_at(kernel, place),
                stride=_at(given["stride"] or kernel, place),
                padding=(padding, padding),
                dilation=_at(given.get("dilation", 1), place),
                count=output.shape[axis],
            )
        return span

    return _all(_mapped(lookup(given["self"]), change), operation)


def _resampled(operation: Operation, lookup: Lookup) -> Sequence[Field | None] | None:
    """Interpolation and adaptive pooling: the same taps for every channel, found by asking the operation itself."""
    given = operation.given
    values = given.get("self", given.get("input"))
    if not isinstance(values, Tensor):
        return None
    taps = {axis: _taps(operation, tuple(values.shape[2:]), axis) for axis in range(2, values.ndim)}

    def change(span: Span) -> Span:
        for axis, seen in taps.items():
            span = pick(span, axis, seen)
        return span

    return _all(_mapped(lookup(values), change), operation)


def _taps(operation: Operation, size: tuple[int, ...], axis: int) -> Tensor:
    """Return which places along `axis` `(out, in)` an operation on values of `size` reads, one axis at a time."""
    count = size[axis - 2]
    unit = torch.eye(count).reshape(count, 1, *(count if a == axis - 2 else 1 for a in range(len(size))))
    function = ADAPTIVE_AVERAGES.get(operation.name, operation.function)
    answer: Tensor = function(unit.expand(count, 1, *size).contiguous(), *operation.args[1:], **operation.kwargs)
    line = answer[:, 0].movedim(axis - 1, 1).flatten(2)[:, :, 0]
    taps: Tensor = (line != 0).transpose(0, 1)
    return taps


ADAPTIVE_AVERAGES = {
    "adaptive_max_pool2d": torch.ops.aten._adaptive_avg_pool2d.default,
    "adaptive_max_pool3d": torch.ops.aten._adaptive_avg_pool3d.default,
}
"""Pooling that reads the same places as the operation and has no zeros by chance."""


def _unfolded(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    """`im2col`: a move whose padding sees nothing."""
    given = operation.given
    high = 2.0**22  # added, it makes every end positive and leaves it exact; padding alone stays 0

    def function(part: Tensor) -> Tensor:
        moved: Tensor = operation.function(torch.where(part == NOTHING, 0.0, part + high), *operation.args[1:])
        return torch.where(moved == 0, NOTHING, moved - high)

    return [_mapped(lookup(given["self"]), lambda span: move(span, tuple(given["self"].shape), function))]


# --- moves


def _padded(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    given = operation.given
    shape, pads = tuple(given["self"].shape), list(given["pad"])

    def change(span: Span) -> Span:
        for place in range(len(pads) // 2):
            axis, before, after = len(shape) - 1 - place, pads[2 * place], pads[2 * place + 1]
            if not before and not after:
                continue
            if span.ends.shape[axis + 1] != shape[axis]:
                sizes = list(span.ends.shape)
                sizes[axis + 1] = shape[axis]
                span = Span(span.ends.expand(sizes), span.axis, span.stride)
            span = regular(Span(padded_ends(span, axis, before, after), span.axis, span.stride))
        return span

    return [_mapped(lookup(given["self"]), change)]


def _moved(operation: Operation, lookup: Lookup) -> Sequence[Field | None] | None:
    """Apply the operation to the ends themselves; the first argument is the value, the others are plain."""
    value, rest = operation.args[0], operation.args[1:]
    field = lookup(value)
    others = tensors_in((rest, operation.kwargs))
    if field is None or not isinstance(value, Tensor) or any(lookup(t) or t.is_meta for t in others):
        return None
    rest = tuple(_on_cpu(part) for part in rest)
    shape = tuple(value.shape)

    def moved(part: Tensor) -> Any:
        if operation.name in RESHAPES:
            return part.reshape(operation.outputs[0].shape)
        return operation.function(part, *rest, **operation.kwargs)

    if len(operation.outputs) == 1:
        return [_mapped(field, lambda span: move(span, shape, lambda part: tensors_in(moved(part))[0]))]
    return [
        _mapped(field, lambda span, place=place: move(span, shape, lambda part: moved(part)[place]))  # type: ignore[misc]
        for place in range(len(operation.outputs))
    ]


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    return [_on_cpu(part) for part in value] if isinstance(value, list | tuple) else value


def _joined(operation: Operation, lookup: Lookup) -> Sequence[Field | None]:
    """`cat` and `stack`: each part in its place, constants as places that see nothing."""
    ndim, dim = operation.outputs[0].ndim, operation.given.get("dim", 0)
    axis, is_stack = dim % ndim, operation.name == "stack"
    tensors = [tensor for tensor in operation.args[0] if is_stack or tensor.ndim == ndim]  # an empty one may differ
    fields = [lookup(tensor) for tensor in tensors]
    seen = [field for field in fields if field is not None]

    def join(spans: Sequence[Span], index: int) -> Span:
        parts = []
        for tensor, field in zip(tensors, fields, strict=True):
            shape = [1] * (ndim - is_stack)
            ends = torch.full((4, *shape), NOTHING) if field is None else field.spans[index].ends
            ends = ends.unsqueeze(axis + 1) if is_stack else ends
            parts.append((ends, 1 if is_stack else tensor.shape[axis]))
        shape = list(torch.broadcast_shapes(*(ends.narrow(axis + 1, 0, min(count, 1)).shape for ends, count in parts)))
        expanded = [ends.expand(*shape[: axis + 1], count, *shape[axis + 2 :]) for ends, count in parts]
        axes = {span.axis + (is_stack and span.axis >= axis) if span.axis is not None else None for span in spans}
        strides = {span.stride for span in spans}
        ends = torch.cat(expanded, dim=axis + 1)
        likely = axes.pop() if len(axes) == 1 else None
        return located(ends, Span(ends, likely, strides.pop() if len(strides) == 1 else None))

    spans = tuple(join([field.spans[index] for field in seen], index) for index in range(len(seen[0].spans)))
    return [Field(spans, frozenset[str]().union(*(field.unknown for field in seen)))]


RESHAPES = {"view", "_unsafe_view", "_reshape_alias", "reshape", "_reshape_copy"}

MOVES = {
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "flip", "roll", "repeat", "index", "index_select", "gather",
    "unsafe_split", "unsafe_split_with_sizes", "_unsafe_view", "_reshape_copy", "reflection_pad1d", "reflection_pad2d",
    "reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d", "rot90", "repeat_interleave",
}  # fmt: skip
"""Operations that move elements and are no views."""

RULES: dict[str, Rule] = {
    "convolution": _convolved,
    "constant_pad_nd": _padded,
    "im2col": _unfolded,
    "embedding": _embedded,
    "copy": _copied,
    "as_strided": _no_rule,
    "view_as_real": _no_rule,
    "view_as_complex": _no_rule,
    **dict.fromkeys(("fill", "zero", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones",
                     "new_empty", "new_full", "rand_like", "randn_like", "bernoulli", "uniform", "normal"), _filled),
    **dict.fromkeys(("clone", "_to_copy", "contiguous", "tril", "triu", "native_dropout", "detach", "alias",
                     "masked_fill", "where", "dropout"), _element_by_element),
    **dict.fromkeys(("cat", "stack"), _joined),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
                     "cudnn_batch_norm", "miopen_batch_norm"), _normalised),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), _layer_normalised),
    "native_group_norm": _group_normalised,
    **dict.fromkeys(("sum", "nansum", "mean", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean",
                     "std_mean", "linalg_vector_norm", "norm", "logsumexp", "argmax", "argmin", "any", "all",
                     "median", "mode"), _reduced),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "logcumsumexp", "sort", "topk",
                     "argsort"), _along),
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot"), _matrix_product),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
                     "max_pool2d", "max_pool3d"), _pooled),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
                     "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_nearest_exact1d",
                     "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
                     "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
                    _resampled),
}  # fmt: skip
"""By ATen's name. `_filled` is for what looks at the shape of its argument alone."""
