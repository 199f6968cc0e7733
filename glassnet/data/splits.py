"""The three splits: what people call them, and cutting them out of labelled examples, by seed."""

from __future__ import annotations

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._seed import seeded_generator

SPLITS = ("train", "validation", "test")
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What people call a split, in lower case, and what it is called here: in folders, columns and names of arrays."""


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


def scattered_cut(labels: Tensor, share: float, seed: int, purpose: str) -> Tensor:
    """Cut a `share` of all out of `labels` `(N,)` where no class is large enough; return the positions, ascending.

    `floor(N * share)` classes, drawn at random from those with two examples at least, give one example each.
    """
    generator = seeded_generator(seed, purpose, "scattered")
    order = torch.randperm(len(labels), generator=generator)
    values, counts = labels.unique(return_counts=True)
    willing = set(values[counts > 1].tolist())
    chosen: list[int] = []
    for position in order.tolist():
        if len(chosen) < int(len(labels) * share) and (label := int(labels[position])) in willing:
            willing.remove(label)
            chosen.append(position)
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def cut_positions(
    labels: Tensor, seed: int, validation_share: float, test_share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut `labels` `(N, ...)` at random; return the positions to train, to validate and to test, each ascending.

    Both are shares of each class, or of all rows where the labels are values. A share above 0 gives one example at
    least, taken from the largest class. Raises `UsageError` for shares that leave nothing to train, and for too few
    examples.
    """
    if not (validation_share >= 0 and test_share >= 0 and validation_share + test_share < 1):
        raise UsageError(
            "The shares to validate and to test must be at least 0 and below 1 together; "
            f"got {validation_share} and {test_share}. Try 0.1 and 0.2."
        )
    classes = torch.zeros(len(labels), dtype=torch.int64) if labels.is_floating_point() else labels
    kept, test = _cut_some(classes, test_share, seed, "test")
    train, validation = _cut_some(classes[kept], validation_share / (1 - test_share), seed, "validation")
    return kept[train], kept[validation], test


def _cut_some(classes: Tensor, share: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    kept, cut = stratified_cut(classes, share, seed, purpose)
    if len(cut) or not share:
        return kept, cut
    values, counts = classes.unique(return_counts=True)
    if not len(counts) or counts.max() < 2:
        raise UsageError(
            f"Expected enough examples to cut some off for {purpose}; got {len(classes)}, no two of one class. "
            f"Add examples, or set {purpose}_share to 0."
        )
    members = (classes == values[counts.argmax()]).nonzero().flatten()
    chosen = torch.randint(len(members), (1,), generator=seeded_generator(seed, purpose, "one"))
    cut = members[chosen]
    return torch.tensor([place for place in range(len(classes)) if place != int(cut)]), cut
