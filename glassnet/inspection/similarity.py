"""How alike every two of some images are to a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Batch, Images, Subject, explaining, gather, opened, stream
from glassnet.inspection.capture import OutputReader, layer_of
from glassnet.inspection.likeness import check_measure, compared_among
from glassnet.inspection.units import LayerError

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
    check_measure(measure)
    layer_of(model, layer)
    source = stream(gather(images, model, record), model, record, batch_size)
    features, kept = collected(model, record, source.batches, layer, MOST_IMAGES)
    if len(features) < 2:
        raise UsageError(f"A comparison needs at least 2 images; got {len(features)}.")
    matrix = compared_among(features, measure, layer)
    return Similarity(
        layer=layer,
        measure=measure,
        matrix=matrix,
        images=torch.cat([batch.given.cpu() for batch in kept]),
        labels=labels_of(kept),
        class_names=tuple(source.class_names),
        set_aside=source.set_aside,
    )


def collected(
    model: nn.Module, record: InputRecord | None, batches: Iterator[Batch], layer: str, most: int | None
) -> tuple[Tensor, list[Batch]]:
    """Return the layer's outputs for all batches, `(N, C, ...)` on the CPU in float32, and the batches without inputs.

    Raises `UsageError` for more than `most` images.
    """
    features, kept, count = list[Tensor](), list[Batch](), 0

    def keep(output: Tensor) -> None:
        features.append(torch.empty_like(output, dtype=torch.float32, device="cpu").copy_(output))

    for batch in read_layer(model, record, batches, layer, keep):
        kept.append(replace(batch, inputs=batch.inputs[:0]))
        count += len(batch.given)
        if most is not None and count > most:
            raise UsageError(f"Expected at most {most:,} images to compare; there are more. Take fewer of them.")
    return torch.cat(features) if features else torch.zeros(0, 1), kept


def read_layer(
    model: nn.Module, record: InputRecord | None, batches: Iterator[Batch], layer: str, read: Callable[[Tensor], None]
) -> Iterator[Batch]:
    """Yield each batch once `read` has seen what the layer makes of it, `(B, C, ...)`, as it came out."""
    num_rows = 0

    def look(output: Tensor) -> None:
        if output.ndim < 2 or len(output) != num_rows or not output.is_floating_point():
            raise LayerError(
                f"Expected layer '{layer}' to give a row of numbers for each of {num_rows} images; got "
                f"{output.dtype} {tuple(output.shape)}. Choose another layer: `glassnet summary` lists them."
            )
        read(output)

    reader = OutputReader(model, layer, look)
    for batch in batches:
        num_rows = len(batch.inputs)
        with explaining(tuple(batch.inputs.shape[1:]), record, model):
            reader.run(batch.inputs)
        yield batch


def labels_of(batches: list[Batch]) -> tuple[int | None, ...]:
    """Return the class number of each example, None where there is none."""
    found: list[int | None] = []
    for batch in batches:
        is_known = batch.labels is not None and not batch.labels.is_floating_point()
        found += batch.labels.tolist() if is_known and batch.labels is not None else [None] * len(batch.given)
    return tuple(found)
