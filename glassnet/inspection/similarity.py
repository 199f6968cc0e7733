"""How alike images are to a layer: a matrix, and the nearest among many.

Centred kernel alignment: Kornblith, Norouzi, Lee and Hinton, "Similarity of neural network representations revisited"
(2019). Of two images it compares, with channels as features and positions as examples, what varies over the positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError, unknown_name
from glassnet._types import by
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Batch, Examples, Images, Subject, explaining, gather, opened, stream
from glassnet.inspection.capture import capture_output, layer_of

MEASURES = ("cosine", "euclidean", "cka")
MOST_IMAGES = 2000
"""Of a similarity matrix: it grows with their square."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Similarity:
    """How alike every two of some images are to a layer."""

    layer: str
    measure: str
    """`cosine` (-1 to 1) and `cka` (0 to 1) are largest for the same; `euclidean` is a distance, 0 for the same."""
    matrix: Tensor
    """`(N, N)`, float64, symmetric."""
    images: Tensor
    """`(N, C, H, W)` before they were normalised: `uint8` pixels where there were such."""
    labels: tuple[int | None, ...]
    class_names: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()

    @property
    def closest(self) -> tuple[int, int]:
        """The two images that are most alike."""
        return self._pair(is_most_alike=True)

    @property
    def furthest(self) -> tuple[int, int]:
        """The two images that are least alike."""
        return self._pair(is_most_alike=False)

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {
            "layer": self.layer,
            "measure": self.measure,
            "matrix": self.matrix.tolist(),
            "labels": self.labels,
            "closest": self.closest,
            "furthest": self.furthest,
            "set_aside": [item.__dict__ for item in self.set_aside],
        }

    def __str__(self) -> str:
        (a, b), (c, d) = self.closest, self.furthest
        what = {"cosine": "cosine", "euclidean": "distance", "cka": "CKA"}[self.measure]
        return (
            f"To {self.layer}, images {a + 1} and {b + 1} of {len(self.matrix)} are most alike ({what} "
            f"{float(self.matrix[a, b]):.3g}), images {c + 1} and {d + 1} least ({float(self.matrix[c, d]):.3g})."
        )

    def __repr__(self) -> str:
        return f"Similarity('{self.layer}', {self.measure}, {len(self.matrix)} images)"

    def _pair(self, *, is_most_alike: bool) -> tuple[int, int]:
        rows, columns = torch.triu_indices(len(self.matrix), len(self.matrix), offset=1)
        values = self.matrix[rows, columns]
        is_largest = is_most_alike == (self.measure != "euclidean")
        place = int(values.argmax() if is_largest else values.argmin())
        return int(rows[place]), int(columns[place])


@dataclass(frozen=True, eq=False, kw_only=True)
class Neighbour:
    """One of the examples that are nearest to an image."""

    position: int
    """Where it stands among the examples."""
    value: float
    """Of the measure."""
    label: int | None
    class_name: str
    image: Tensor

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {name: getattr(self, name) for name in ("position", "value", "label", "class_name")}


@dataclass(frozen=True, eq=False, kw_only=True)
class Nearest(Sequence[Neighbour]):
    """The examples that a layer finds most like an image, the nearest first."""

    layer: str
    measure: str
    rows: tuple[Neighbour, ...]
    image: Tensor
    num_examples: int
    set_aside: tuple[SetAside, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.rows[index]

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {
            "layer": self.layer,
            "measure": self.measure,
            "num_examples": self.num_examples,
            "neighbours": [row.to_dict() for row in self.rows],
            "set_aside": [item.__dict__ for item in self.set_aside],
        }

    def __str__(self) -> str:
        text = f"To {self.layer}, example {self.rows[0].position} of {self.num_examples:,} is most like the image "
        text += f"({self.measure} {self.rows[0].value:.3g})"
        classes = [row.class_name for row in self.rows if row.class_name]
        if classes:
            most = max(dict.fromkeys(classes), key=classes.count)
            text += f"; {classes.count(most)} of the {len(self.rows)} nearest are '{most}'"
        return text + "."

    def __repr__(self) -> str:
        return f"Nearest('{self.layer}', {len(self.rows)} of {self.num_examples} examples)"


def similarity(
    subject: Subject,
    images: Images,
    layer: str,
    measure: str = "cosine",
    *,
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> Similarity:
    """Compare every two of the images by what `layer` makes of them.

    `subject` is any module, or a run, whose preprocessing then applies; `images`: see `batches.Images`. `measure`:
    `cosine` of the angle between the two outputs, the `euclidean` distance, or linear `cka` (needs positions).

    The model is left as it was. Raises `UsageError` for an unknown layer or measure, and for fewer than 2 images.
    """
    model, record = opened(subject, preprocessing)
    _check_measure(measure)
    layer_of(model, layer)
    source = stream(gather(images, model, record), model, record, batch_size)
    features, kept = collected(layer_outputs(model, record, source.batches, layer), MOST_IMAGES)
    if len(features) < 2:
        raise UsageError(f"A comparison needs at least 2 images; got {len(features)}.")
    matrix = _compared(features, features, measure, layer)
    matrix = (matrix + matrix.T) / 2
    return Similarity(
        layer=layer,
        measure=measure,
        matrix=matrix.fill_diagonal_(0.0) if measure == "euclidean" else matrix,
        images=torch.cat([batch.given.cpu() for batch in kept]),
        labels=labels_of(kept),
        class_names=tuple(source.class_names),
        set_aside=source.set_aside,
    )


def nearest(
    subject: Subject,
    image: Images,
    examples: Examples,
    layer: str,
    n: int = 5,
    measure: str = "cosine",
    *,
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> Nearest:
    """Find the `n` examples that `layer` finds most like one image, in one streaming pass over them.

    The model is left as it was. Raises `UsageError` for an unknown layer or measure, several images, and no example.
    """
    model, record = opened(subject, preprocessing)
    _check_measure(measure)
    if not isinstance(n, int) or n < 1:
        raise UsageError(f"n must be a whole number of at least 1; got {n!r}.")
    layer_of(model, layer)
    wanted, own = collected(
        layer_outputs(model, record, stream(gather(image, model, record), model, record).batches, layer), 2
    )
    if len(wanted) != 1:
        raise UsageError(f"nearest compares one image with the examples; got {len(wanted)}.")
    source = stream(examples, model, record, batch_size)
    best: list[Neighbour] = []
    count = 0
    for batch, output in layer_outputs(model, record, source.batches, layer):
        values = _compared(wanted, output, measure, layer)[0]
        count += len(values)
        ahead = values.topk(min(n, len(values)), largest=measure != "euclidean")
        best += [
            _neighbour(batch, row, value, source.class_names)
            for value, row in zip(ahead.values.tolist(), ahead.indices.tolist(), strict=True)
        ]
        best.sort(key=lambda found: (found.value if measure == "euclidean" else -found.value, found.position))
        del best[n:]
    if not best:
        raise UsageError("There is nothing to compare with: expected at least one example, got none.")
    return Nearest(
        layer=layer,
        measure=measure,
        rows=tuple(best),
        image=own[0].given[0].cpu(),
        num_examples=count,
        set_aside=source.set_aside,
    )


def _check_measure(measure: str) -> None:
    if measure not in MEASURES:
        raise unknown_name("measure", str(measure), MEASURES)


def layer_outputs(
    model: nn.Module, record: InputRecord | None, batches: Iterator[Batch], layer: str
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch with what the layer makes of it, `(B, C, ...)`."""
    with capture_output(model, layer) as found:
        for batch in batches:
            with explaining(tuple(batch.inputs.shape[1:]), record, model):
                model(batch.inputs)
            output = found.output
            if output.ndim < 2 or len(output) != len(batch.inputs) or not output.is_floating_point():
                raise UsageError(
                    f"Expected layer '{layer}' to give a row of numbers for each of {len(batch.inputs)} images; got "
                    f"{output.dtype} {tuple(output.shape)}. Choose another layer: `glassnet summary` lists them."
                )
            yield batch, output
            found.clear()


def collected(outputs: Iterator[tuple[Batch, Tensor]], most: int | None) -> tuple[Tensor, list[Batch]]:
    """Return the outputs of all batches on the CPU, and the batches without their inputs; refuse more than `most`."""
    features, kept, count = list[Tensor](), list[Batch](), 0
    for batch, output in outputs:
        features.append(output.float().cpu().clone())
        kept.append(replace(batch, inputs=batch.inputs[:0]))
        count += len(output)
        if most is not None and count > most:
            raise UsageError(f"Expected at most {most:,} images to compare; there are more. Take fewer of them.")
    return torch.cat(features) if features else torch.zeros(0, 1), kept


def labels_of(batches: list[Batch]) -> tuple[int | None, ...]:
    """Return the class number of each example, None where there is none."""
    found: list[int | None] = []
    for batch in batches:
        is_known = batch.labels is not None and not batch.labels.is_floating_point()
        found += batch.labels.tolist() if is_known and batch.labels is not None else [None] * len(batch.given)
    return tuple(found)


def _neighbour(batch: Batch, row: int, value: float, class_names: Sequence[str]) -> Neighbour:
    label = None if batch.labels is None or batch.labels.is_floating_point() else int(batch.labels[row])
    return Neighbour(
        position=int(batch.positions[row]),
        value=value,
        label=label,
        class_name=class_names[label] if label is not None and label < len(class_names) else "",
        image=batch.given[row].cpu().clone(),
    )


def _compared(first: Tensor, second: Tensor, measure: str, layer: str) -> Tensor:
    """Return the measure between outputs `(N, C, ...)` and `(M, C, ...)` as float64 `(N, M)`."""
    first, second = first.double(), second.double().to(first.device)
    if measure == "cka":
        return _cka(first, second, layer)
    a, b = first.flatten(1), second.flatten(1)
    if measure == "euclidean":
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T


def _cka(first: Tensor, second: Tensor, layer: str) -> Tensor:
    """Return linear CKA: `|X'Y|^2 / (|X'X| |Y'Y|)`, X and Y centred, `(positions, channels)`."""
    if first.ndim < 3 or math.prod(first.shape[2:]) < 2:
        raise UsageError(
            f"CKA compares what varies over positions; layer '{layer}' gives {by(tuple(first.shape[1:]))}. Choose a "
            "convolution, or measure='cosine'."
        )
    a, b = (part.flatten(2) - part.flatten(2).mean(2, keepdim=True) for part in (first, second))
    own = [torch.linalg.matrix_norm(part @ part.transpose(1, 2)) for part in (a, b)]
    cross = torch.stack([(row @ b.transpose(1, 2)).square().sum((1, 2)) for row in a])
    sizes = own[0][:, None] * own[1][None]
    return torch.where(sizes > 0, cross / sizes.clamp(min=torch.finfo(sizes.dtype).tiny), 0.0)
