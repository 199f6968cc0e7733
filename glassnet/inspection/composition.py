"""What a layer makes of two objects in one image: the one, the other, their mean, or the larger of both.

In the monkey's inferotemporal cortex the response to several objects is near the mean of the responses to each
(Zoccolan, Cox and DiCarlo, "Multiple object response normalization in monkey inferotemporal cortex", 2005); a model
that takes the larger one keeps what it knows of each in clutter (Riesenhuber and Poggio, "Hierarchical models of object
recognition in cortex", 1999). Cosines do not tell the mean from the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassnet._errors import unknown_name
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import ImageArg, Subject, explaining, gather, opened, stream
from glassnet.inspection.layer_features import layer_features
from glassnet.inspection.tracing.inputs import picked_output

ROLES = ("first", "second", "mean", "maximum")
DIGITS = 7
"""Of a cosine: layers compute no finer, and what is equal to these is equal."""


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Cosines between the output for the image with both, and what comes of the images with one."""

    first: float
    """With the output for the first object alone."""
    second: float
    mean: float
    """With the mean of the two outputs; the same as with their sum."""
    maximum: float
    """With the larger of the two, element by element."""

    @property
    def dominant(self) -> str:
        """Which of the two the output is more like: `first`, `second`, or `neither`."""
        return "neither" if self.first == self.second else "first" if self.first > self.second else "second"

    @property
    def nearest(self) -> str:
        """What the output is most like: `mean`, `maximum`, `first` or `second`; of equals in this order."""
        return max(("mean", "maximum", "first", "second"), key=lambda role: getattr(self, role))

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return {**self.__dict__, "dominant": self.dominant, "nearest": self.nearest}


@dataclass(frozen=True, kw_only=True)
class LayerComposition:
    """What one layer makes of both objects in one image."""

    layer: str
    whole: Blend
    """By all of its output."""
    pooled: Blend | None
    """By the mean of each channel over the positions: both objects need not lie where they lay alone. None without."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Which classes the network says, by number and name; the names are empty where none are known."""

    first: int
    """Of the image with the first object."""
    second: int
    both: tuple[int, int]
    """Of the image with both: the largest output, and the next."""
    names: tuple[str, str, str, str]
    """Of all of these in this order."""

    @property
    def is_both(self) -> bool:
        """True where the two largest outputs for both are those of each alone; of one class the largest decides."""
        return self.both[0] == self.first if self.first == self.second else {self.first, self.second} == {*self.both}


@dataclass(frozen=True, eq=False, kw_only=True)
class Composition:
    """What layers make of two objects in one image; `gn.picture` draws it, `str()` says what was found."""

    rows: tuple[LayerComposition, ...]
    """In the order in which the layers ran."""
    answer: Answer | None
    """None where the network gives no row of two outputs or more."""
    images: Tensor
    """Of the first object, the second and both, `(3, C, H, W)` before they were normalised."""

    def of(self, layer: str) -> LayerComposition:
        """Return one layer's row. Raises `UsageError` for another layer."""
        found = {row.layer: row for row in self.rows}
        if layer not in found:
            raise unknown_name("layer", layer, found)
        return found[layer]

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {
            "rows": [
                {
                    "layer": row.layer,
                    "whole": row.whole.to_dict(),
                    "pooled": None if row.pooled is None else row.pooled.to_dict(),
                }
                for row in self.rows
            ],
            "answer": None if self.answer is None else {**self.answer.__dict__, "is_both": self.answer.is_both},
        }

    def __str__(self) -> str:
        nearest = [row.whole.nearest for row in self.rows]
        dominant = [row.whole.dominant for row in self.rows]
        most = max(dict.fromkeys(nearest), key=nearest.count)
        stronger = "first" if dominant.count("first") >= dominant.count("second") else "second"
        said = {"mean": "the mean of the two", "maximum": "the larger of the two"}.get(most, f"the {most} alone")
        text = f"In {nearest.count(most)} of {len(self.rows)} layers the output for both is most like {said}"
        text += f"; the {stronger} object dominates in {dominant.count(stronger)}"
        if self.answer is not None:
            classes = " and ".join(f"'{name}'" for name in self._said())
            text += f"; the first two classes for both are {classes}, "
            text += "those of the two alone" if self.answer.is_both else "not those of the two alone"
        return text + "."

    def __repr__(self) -> str:
        return f"Composition({len(self.rows)} layers)"

    def _said(self) -> tuple[str, str]:
        assert self.answer is not None
        names = self.answer.names[2:]
        return (names[0] or str(self.answer.both[0]), names[1] or str(self.answer.both[1]))


def composition(
    subject: Subject,
    first: ImageArg,
    second: ImageArg,
    both: ImageArg,
    layers: Sequence[str] | str | None = None,
    *,
    preprocessing: InputRecord | None = None,
) -> Composition:
    """Compare what layers make of an image with two objects with what they make of each object alone.

    `subject` is any module, or a run, whose preprocessing then applies; the images are one each, as for `similarity`.
    `layers` are by default all modules without children that give a row of numbers for each image.

    The model is left as it was. Raises `UsageError` for an unknown layer, and images that the model does not take.
    """
    model, record = opened(subject, preprocessing)
    gathered = gather([first, second, both], model, record)
    batches = list(stream(gathered, model, record, 3).batches)
    features, kept = layer_features(model, record, iter(batches), layers, 3)
    rows = tuple(
        LayerComposition(
            layer=found.layer,
            whole=_blend(found.whole),
            pooled=None if found.pooled is None else _blend(found.pooled),
        )
        for found in features
    )
    return Composition(
        rows=rows,
        answer=_answer(model, torch.cat([batch.inputs for batch in batches]), record),
        images=torch.cat([batch.given.cpu() for batch in kept]),
    )


def _blend(rows: Tensor) -> Blend:
    """Return the cosines of what a layer makes of the three images, `(3, F)`."""
    one, other, both = rows.double()
    made = (one, other, (one + other) / 2, torch.maximum(one, other))
    cosines = [round(float(torch.cosine_similarity(both, part, dim=0)), DIGITS) for part in made]
    return Blend(**dict(zip(ROLES, cosines, strict=True)))


def _answer(model: nn.Module, inputs: Tensor, record: InputRecord | None) -> Answer | None:
    with explaining(tuple(inputs.shape[1:]), record, model):
        output = picked_output(model(inputs))
    if output.ndim != 2 or output.shape[1] < 2:
        return None
    (first, _), (second, _), (largest, next_one) = (
        output.sort(dim=1, descending=True, stable=True).indices[:, :2].tolist()
    )
    names = record.class_names if record is not None else ()
    a, b, c, d = (names[number] if number < len(names) else "" for number in (first, second, largest, next_one))
    return Answer(first=first, second=second, both=(largest, next_one), names=(a, b, c, d))
