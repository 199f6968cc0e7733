"""Scaled dot-product attention."""

from __future__ import annotations

import math

import torch

from glassnet.inspection.tracing.rules.question import Answer, Question, grid, places, summed
from glassnet.inspection.tracing.values import Value


def attention(question: Question) -> Answer | None:
    """y_l = sum over s of softmax(q_l . k_s * scale + mask)_s * v_s (Vaswani et al. 2017, section 3.2.1)."""
    step = question.step
    query, key, value = (step.input(name) for name in ("query", "key", "value"))
    if query is None or key is None or value is None or float(question.argument("dropout_p", 0.0) or 0.0):
        return None
    if query.shape[:-2] != value.shape[:-2] and not question.argument("enable_gqa"):
        return None
    num_keys, width = key.shape[-2], query.shape[-1]
    scale = question.argument("scale")
    scale = 1 / math.sqrt(width) if scale is None else float(scale)
    lead, row, column = question.index[:, :-2], question.index[:, -2], question.index[:, -1]
    shared = lead.clone()
    if question.argument("enable_gqa") and lead.shape[1]:
        shared[:, -1] = shared[:, -1].div(query.shape[-3] // key.shape[-3], rounding_mode="floor")
    dots = torch.stack([
        (key.tensor[tuple(at)].cpu().double() @ query.tensor[(*own, place)].cpu().double()) * scale
        for at, own, place in zip(shared.tolist(), map(tuple, lead.tolist()), row.tolist(), strict=True)
    ])  # fmt: skip
    mask = step.input("attn_mask")
    dots = dots if mask is None else _masked(question, dots, mask)
    if question.argument("is_causal"):
        dots = dots.masked_fill(torch.arange(num_keys) > row[:, None], -torch.inf)
    shares = dots.softmax(-1)
    place = grid((num_keys,))[None].expand(question.num_units, -1, -1)
    at = torch.cat([shared[:, None].expand(-1, num_keys, -1), place, column[:, None, None].expand(-1, num_keys, 1)], -1)
    numbers = question.read(value, at)
    size = (numbers.abs() * shares).sum(-1) * (1 + dots.masked_fill(dots.isinf(), 0).abs().amax(-1))
    return summed(
        "sum of softmax(q . k x scale) x v",
        numbers,
        shares,
        places(value, at),
        scale=size,
        working=(("scale", torch.full((question.num_units,), scale, dtype=torch.float64)),),
    )


def _masked(question: Question, dots: torch.Tensor, mask: Value) -> torch.Tensor:
    """Return the products with the mask's row for each unit added, or what it forbids at minus infinity."""
    shape = (*question.value.shape[:-1], dots.shape[1])
    whole = mask.tensor.cpu().expand(shape)
    rows = whole[tuple(question.index[:, :-1].unbind(-1))]
    if rows.dtype == torch.bool:
        return dots.masked_fill(~rows, -torch.inf)
    return dots + rows.double()
