"""Whether a layer knows an object again: the same one under pose, occlusion or age, against different ones.

What is asked is that of invariance and selectivity at once, as Goodfellow, Le, Saxe, Lee and Ng ask it of single units
in "Measuring invariances in deep networks" (2009): a layer may change little when an object turns, and be of no use if
it changes as little from one object to another. The figure is the area under the ROC curve, which is the probability
that a pair of the one kind ranks above a pair of the other: Hanley and McNeil, "The meaning and use of the area under
a receiver operating characteristic (ROC) curve" (1982).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet._errors import UsageError, unknown_name
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Fitted, Images, Subject, gather, opened, stream
from glassnet.inspection.layer_features import LayerFeatures, layer_features
from glassnet.inspection.likeness import compared_among
from glassnet.inspection.similarity import MOST_IMAGES
from glassnet.inspection.units import LayerError

SEPARATION_MEASURES = ("cosine", "euclidean")
"""CKA compares what varies over positions, and a pose moves just that."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How alike pairs of images of the same object are, against pairs of different ones."""

    same: float
    """Mean of the measure over the pairs of the same object."""
    different: float
    auc: float
    """Probability that a pair of the same object is more alike than a pair of different ones; a tie counts half. 0.5
    is chance, 1 tells all apart."""
    furthest_same: tuple[int, int]
    """The least alike pair of the same object, and the measure of it."""
    furthest_value: float
    closest_different: tuple[int, int]
    """The most alike pair of different objects, and the measure of it."""
    closest_value: float


@dataclass(frozen=True, kw_only=True)
class LayerSeparation:
    """How one layer tells the objects apart."""

    layer: str
    whole: Contrast
    """By all of its output."""
    pooled: Contrast | None
    """By the mean of each channel over the positions: what pooling buys where a pose moves things. None without any."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Separation:
    """Which layers know objects again; `gn.picture` draws it, `str()` says what was found."""

    measure: str
    """`cosine` is largest for the same, `euclidean` is a distance."""
    rows: tuple[LayerSeparation, ...]
    """In the order in which the layers ran."""
    objects: tuple[str, ...]
    """What each image shows."""
    images: Tensor
    """`(N, C, H, W)` before they were normalised: `uint8` pixels where there were such."""
    num_same: int
    """Pairs of the same object."""
    num_different: int
    set_aside: tuple[SetAside, ...] = ()

    @property
    def best(self) -> LayerSeparation:
        """The layer whose whole output tells the objects apart best; of equals the later one."""
        return max(reversed(self.rows), key=lambda row: row.whole.auc)

    @property
    def best_pooled(self) -> LayerSeparation | None:
        """The layer whose means over positions do so best; None where no layer has positions."""
        rows = [row for row in reversed(self.rows) if row.pooled is not None]
        return max(rows, key=lambda row: row.pooled.auc if row.pooled is not None else 0.0) if rows else None

    def of(self, layer: str) -> LayerSeparation:
        """Return one layer's row. Raises `UsageError` for another layer."""
        found = {row.layer: row for row in self.rows}
        if layer not in found:
            raise unknown_name("layer", layer, found)
        return found[layer]

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {
            "measure": self.measure,
            "objects": self.objects,
            "num_same": self.num_same,
            "num_different": self.num_different,
            "best": self.best.layer,
            "rows": [
                {
                    "layer": row.layer,
                    "whole": row.whole.__dict__,
                    "pooled": None if row.pooled is None else row.pooled.__dict__,
                }
                for row in self.rows
            ],
            "set_aside": [item.__dict__ for item in self.set_aside],
        }

    def __str__(self) -> str:
        best, pooled = self.best, self.best_pooled
        what = "cosine" if self.measure == "cosine" else "distance"
        text = f"Of {len(self.rows)} layers " if len(self.rows) > 1 else ""
        text += f"{best.layer} tells {len(set(self.objects))} objects apart"
        text += " best" if len(self.rows) > 1 else ""
        text += f": a pair of the same object is more alike than a pair of different ones in {best.whole.auc:.0%} of "
        text += f"{self.num_same:,} x {self.num_different:,} comparisons (mean {what} {best.whole.same:.3g} against "
        text += f"{best.whole.different:.3g})"
        if pooled is not None and pooled.pooled is not None:
            text += f"; averaged over positions, {pooled.layer} does so in {pooled.pooled.auc:.0%}"
        return text + "."

    def __repr__(self) -> str:
        return f"Separation({len(self.rows)} layers, {len(set(self.objects))} objects, {len(self.objects)} images)"


def separation(
    subject: Subject,
    images: Images,
    objects: Sequence[object],
    layers: Sequence[str] | str | None = None,
    measure: str = "cosine",
    *,
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> Separation:
    """Compare pairs of images of the same object with pairs of different ones, layer by layer, in one pass.

    `subject` and `images` are as for `similarity`; `objects` names what each image shows: pictures of one object under
    another pose, light or age, or partly hidden, share a name. `layers` are by default all modules without children
    that give a row of numbers for each image. `measure`: `cosine` of the angle between two outputs, or the `euclidean`
    distance.

    The model is left as it was. Raises `UsageError` for an unknown layer or measure, for fewer than two objects, where
    no object has two images, and for more images or numbers than can be held (`MOST_IMAGES`, `MOST_BYTES`).
    """
    model, record = opened(subject, preprocessing)
    if measure not in SEPARATION_MEASURES:
        raise unknown_name("measure", str(measure), SEPARATION_MEASURES)
    names = _names(objects)
    gathered = gather(images, model, record)
    count = len(gathered.inputs) if isinstance(gathered, Fitted) else len(gathered)
    if count != len(names):
        raise UsageError(f"Expected the name of an object for each of {count:,} images; got {len(names):,} names.")
    source = stream(gathered, model, record, batch_size)
    features, kept = layer_features(model, record, source.batches, layers, count)
    positions = torch.cat([batch.positions for batch in kept]).tolist()
    shown = _names([names[position] for position in positions])
    pairs = _Pairs(shown)
    rows = []
    while features:  # each is let go of before the next is worked out
        rows.append(_row(features.pop(0), pairs, measure))
    return Separation(
        measure=measure,
        rows=tuple(rows),
        objects=shown,
        images=torch.cat([batch.given.cpu() for batch in kept]),
        num_same=int(pairs.is_same.sum()),
        num_different=int((~pairs.is_same).sum()),
        set_aside=source.set_aside,
    )


def _names(objects: Sequence[object]) -> tuple[str, ...]:
    """Return the objects' names; raise `UsageError` where they leave nothing to compare."""
    if isinstance(objects, str):
        raise UsageError(f"Expected the name of an object for each image; got one text, '{objects}'. Give a list.")
    names = tuple(map(str, objects))
    if len(names) > MOST_IMAGES:
        raise UsageError(f"Expected at most {MOST_IMAGES:,} images to compare; got {len(names):,}. Take fewer of them.")
    counts = Counter(names)
    if len(counts) < 2:
        raise UsageError(
            f"Expected images of two objects at least; got {len(names)} of {len(counts)}. Add some of another object."
        )
    if max(counts.values()) < 2:
        raise UsageError(
            f"Expected two images at least of one of the objects; got one of each of {len(names)}. Give pictures of "
            "the same object the same name."
        )
    return names


class _Pairs:
    """Every two of the images, and whether they show the same object."""

    def __init__(self, names: tuple[str, ...]) -> None:
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        shown = torch.tensor([numbers[name] for name in names])
        self.first, self.second = torch.triu_indices(len(names), len(names), offset=1)
        self.is_same = shown[self.first] == shown[self.second]

    def at(self, place: Tensor, *, is_same: bool) -> tuple[int, int]:
        """Return the pair at a place among those of the same object, or of different ones."""
        chosen = (self.is_same if is_same else ~self.is_same).nonzero().flatten()[place]
        return int(self.first[chosen]), int(self.second[chosen])


def _row(features: LayerFeatures, pairs: _Pairs, measure: str) -> LayerSeparation:
    if not bool(features.whole.isfinite().all()):
        raise LayerError(
            f"Layer '{features.layer}' gives numbers that are not finite on these images; name other layers."
        )
    return LayerSeparation(
        layer=features.layer,
        whole=_contrast(features.whole, pairs, measure, features.layer),
        pooled=None if features.pooled is None else _contrast(features.pooled, pairs, measure, features.layer),
    )


def _contrast(rows: Tensor, pairs: _Pairs, measure: str, layer: str) -> Contrast:
    values = compared_among(rows, measure, layer)[pairs.first, pairs.second]
    same, different = values[pairs.is_same], values[~pairs.is_same]
    is_distance = measure == "euclidean"
    furthest = same.argmax() if is_distance else same.argmin()
    closest = different.argmin() if is_distance else different.argmax()
    return Contrast(
        same=float(same.mean()),
        different=float(different.mean()),
        auc=area_under_curve(-same, -different) if is_distance else area_under_curve(same, different),
        furthest_same=pairs.at(furthest, is_same=True),
        furthest_value=float(same[furthest]),
        closest_different=pairs.at(closest, is_same=False),
        closest_value=float(different[closest]),
    )


def area_under_curve(positives: Tensor, negatives: Tensor) -> float:
    """Return the share of pairs `(P,)` by `(Q,)` whose positive is larger, ties counted half (Hanley and McNeil, 1982).

    Numbers that are the same in float32 are ties: layers compute no finer.
    """
    ordered = negatives.float().sort().values
    smaller = torch.searchsorted(ordered, positives.float())
    not_larger = torch.searchsorted(ordered, positives.float(), right=True)
    return float((smaller + not_larger).double().mean() / (2 * len(negatives)))
