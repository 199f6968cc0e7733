"""Cutting a split out of labelled examples, by seed."""

from __future__ import annotations

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._seed import seeded_generator


def stratified_cut(labels: Tensor, share: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """Cut a `share` of each class out of `labels` `(N,)` at random; return the positions `(kept, cut)`, ascending.

    Each class gives `round(count * share)` examples and keeps at least one. The same arguments give the same cut.

    Raises `UsageError` for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise UsageError(f"The share to cut off must be at least 0 and below 1; got {share}.")
    is_cut = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        num_cut = min(round(len(members) * share), len(members) - 1)
        order = torch.randperm(len(members), device="cpu", generator=seeded_generator(seed, purpose, label))
        is_cut[members[order[:num_cut]]] = True
    return (~is_cut).nonzero().flatten(), is_cut.nonzero().flatten()
