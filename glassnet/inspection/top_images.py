"""The images, and the patch in each, that excite a unit most: the nearest thing to asking it what it looks for.

Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014), figure 2; Girshick, Donahue, Darrell
and Malik, "Rich feature hierarchies for accurate object detection" (2014), section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._types import Shape
from glassnet.arithmetic import Sides
from glassnet.data.images import SetAside
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Batch, Examples, Subject, explaining, opened, said_commonest, stream
from glassnet.inspection.capture import OutputReader, layer_of
from glassnet.inspection.receptive_field import LayerReceptiveField, receptive_field
from glassnet.inspection.units import LayerError, Unit, parse_unit


@dataclass(frozen=True, eq=False, kw_only=True)
class TopImage:
    """One of the images that excite the unit most."""

    position: int
    """Where it stands among the examples."""
    activation: float
    """Of the unit; of a channel its largest."""
    unit: Unit
    """The one unit of the channel that was excited most."""
    box: tuple[Sides, ...]
    """What that unit sees of the image, along each axis behind the channels, cut to the image: first pixel and the one
    behind the last."""
    label: int | None
    class_name: str
    """Empty where no classes are known."""
    image: Tensor
    """`(C, H, W)`, as the model saw it before normalisation: `uint8` pixels where there were such."""

    @property
    def patch(self) -> Tensor:
        """The part of the image in the box."""
        part = self.image
        first = part.ndim - len(self.box)
        for axis, (start, stop) in enumerate(self.box):
            part = part.narrow(first + axis, start, stop - start)
        return part

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {
            "position": self.position,
            "activation": self.activation,
            "unit": str(self.unit),
            "box": self.box,
            "label": self.label,
            "class_name": self.class_name,
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class TopImages(Sequence[TopImage]):
    """The images that excite a unit most, the strongest first; `gn.picture` draws them, `str()` says what was found."""

    unit: Unit
    rows: tuple[TopImage, ...]
    num_examples: int
    mean: float
    """Of the unit's activation (a channel's largest) over all examples."""
    field: LayerReceptiveField = field(repr=False)
    set_aside: tuple[SetAside, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.rows[index]

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels as plain values for JSON."""
        return {
            "unit": str(self.unit),
            "num_examples": self.num_examples,
            "mean": self.mean,
            "field_size": self.field.size,
            "images": [row.to_dict() for row in self.rows],
            "set_aside": [item.__dict__ for item in self.set_aside],
        }

    def __str__(self) -> str:
        first, last = self.rows[0].activation, self.rows[-1].activation
        if len(self.rows) == 1:
            text = f"The image of {self.num_examples:,} that excites {self.unit} most gives {first:.3g}"
        else:
            text = f"The {len(self.rows)} images of {self.num_examples:,} that excite {self.unit} most give {first:.3g}"
            text += f" to {last:.3g}"
        return f"{text} (mean of all {self.mean:.3g}){said_commonest([row.class_name for row in self.rows], 'them')}."

    def __repr__(self) -> str:
        return f"TopImages('{self.unit}', {len(self.rows)} of {self.num_examples} images)"


def top_images(
    subject: Subject,
    examples: Examples,
    unit: str | Unit,
    n: int = 9,
    *,
    preprocessing: InputRecord | None = None,
    batch_size: int | None = None,
) -> TopImages:
    """Find the `n` examples that excite a unit most, and what it sees of each.

    `subject` is any module, or a run, whose preprocessing then applies. `examples`: a split of a data set, inputs as
    the model takes them, or batches of them (a `DataLoader`). They are read once, a batch at a time; nothing is kept
    but the `n` best so far. `unit` is `layer:channel`, of which the strongest position of each image counts, or one
    unit, `layer:channel@row,col`; see `glassnet.inspection.units`.

    The model is left as it was. Raises `UsageError` for an unknown layer or unit, and for examples that the model does
    not take.
    """
    model, record = opened(subject, preprocessing)
    wanted = unit if isinstance(unit, Unit) else parse_unit(_layer_unit(unit, model))
    if not isinstance(n, int) or n < 1:
        raise UsageError(f"n must be a whole number of at least 1; got {n!r}.")
    layer_of(model, wanted.layer)
    if wanted.channel is None:
        raise UsageError(f"Expected one channel of '{wanted.layer}', such as '{wanted.layer}:0'; got '{unit}'.")
    source = stream(examples, model, record, batch_size)
    best = _Best(n, wanted)
    reader = OutputReader(model, wanted.layer, best.look)
    for batch in source.batches:
        input_shape = tuple(batch.inputs.shape[1:])
        with explaining(input_shape, record, model):
            reader.run(batch.inputs)
        best.add(batch)
    if not best.count:
        raise UsageError("There is nothing to look at: expected at least one example, got none.")
    seen = receptive_field(model, input_shape, wanted.layer)
    places = seen.output_shape[1:] if wanted.position is None else ()
    rows = tuple(_row(entry, wanted, places, seen, source.class_names) for entry in best.entries)
    mean = best.total / best.count
    return TopImages(unit=wanted, rows=rows, num_examples=best.count, mean=mean, field=seen, set_aside=source.set_aside)


def _layer_unit(unit: str, model: nn.Module) -> str:
    """Return `unit`; raise `UsageError` for `class:3`, which `visualize` takes, with the layer that gives classes."""
    layers = [name for name, module in model.named_modules() if not any(module.children())]
    if str(unit).startswith("class:") and "class" not in layers:
        raise UsageError(
            f"Expected a unit of a layer; got '{unit}'. A class is a feature of the layer that gives the scores, "
            f"such as '{layers[-1]}:3'."
        )
    return unit


@dataclass(frozen=True, eq=False)
class _Entry:
    activation: float
    place: int
    """Of the strongest unit among the positions, counted row by row."""
    position: int
    label: int | None
    image: Tensor


class _Best:
    """The strongest examples so far."""

    def __init__(self, n: int, unit: Unit) -> None:
        self.n = n
        self.unit = unit
        self.strongest = torch.zeros(0)
        """Of each example of the batch the unit's largest output, `(B,)`, and which place has it."""
        self.places = torch.zeros(0)
        self.entries: list[_Entry] = []
        self.count = 0
        self.total = 0.0

    def look(self, output: Tensor) -> None:
        """Take the layer's output for a batch, `(B, C, ...)`; the strongest position of each example counts."""
        if output.ndim < 2:
            raise LayerError(f"Layer '{self.unit.layer}' has no channels: it gives {tuple(output.shape)}.")
        self.unit.check(tuple(output.shape[1:]))
        assert self.unit.channel is not None, "top_images asks for one"
        values = output.select(1, self.unit.channel)
        for place in self.unit.position or ():
            values = values.select(1, place)
        self.strongest, self.places = values.reshape(len(values), -1).max(1)

    def add(self, batch: Batch) -> None:
        """Take the batch that was looked at last."""
        if len(self.strongest) != len(batch.inputs):
            raise LayerError(
                f"Expected layer '{self.unit.layer}' to give a row for each of {len(batch.inputs)} examples; got "
                f"{len(self.strongest)}. Choose another layer: `glassnet summary` lists them."
            )
        self.count += len(self.strongest)
        self.total += float(self.strongest.double().sum())
        found, rows = torch.nan_to_num(self.strongest.float(), nan=-math.inf).topk(min(self.n, len(self.strongest)))
        weakest = self.entries[-1].activation if len(self.entries) == self.n else None
        for activation, row in zip(found.tolist(), rows.tolist(), strict=True):
            if weakest is not None and activation <= weakest:
                break
            self.entries.append(
                _Entry(
                    activation=activation,
                    place=int(self.places[row]),
                    position=int(batch.positions[row]),
                    label=None if batch.labels is None or batch.labels.is_floating_point() else int(batch.labels[row]),
                    image=batch.given[row].cpu().clone(),
                )
            )
        self.entries.sort(key=lambda entry: (-entry.activation, entry.position))
        del self.entries[self.n :]


def _row(entry: _Entry, wanted: Unit, places: Shape, seen: LayerReceptiveField, class_names: Sequence[str]) -> TopImage:
    position = wanted.position
    if places:
        position = tuple(int(place) for place in torch.unravel_index(torch.tensor(entry.place), places))
    unit = Unit(layer=wanted.layer, channel=wanted.channel, position=position)
    return TopImage(
        position=entry.position,
        activation=entry.activation,
        unit=unit,
        box=seen.seen(unit),
        label=entry.label,
        class_name=class_names[entry.label] if entry.label is not None and entry.label < len(class_names) else "",
        image=entry.image,
    )
