"""What many layers make of the same images, gathered in one pass: the numbers that images are compared by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from glassnet._errors import UsageError
from glassnet._types import Shape, by
from glassnet.data.records import InputRecord
from glassnet.inspection.batches import Batch, explaining
from glassnet.inspection.calls import plain_path
from glassnet.inspection.capture import layer_of, reading_outputs
from glassnet.inspection.units import LayerError

MOST_BYTES = 2**30
"""Of memory for the outputs that are kept, in float32: 1 GiB."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerFeatures:
    """One layer's outputs, on the CPU in float32."""

    layer: str
    whole: Tensor
    """`(N, F)`: all channels at all positions."""
    pooled: Tensor | None
    """`(N, C)`: each channel's mean over the positions; None where there are none."""


def layer_features(
    model: nn.Module,
    record: InputRecord | None,
    batches: Iterator[Batch],
    layers: Sequence[str] | str | None,
    num_images: int,
) -> tuple[list[LayerFeatures], list[Batch]]:
    """Return what the layers make of the images, in the order they run, and the batches without their inputs.

    By default of every module without children that gives a row of numbers for each image. Of one that runs several
    times in a pass the last output counts. `num_images` is how many come, at most.

    Raises `UsageError` for an unknown layer or one without such rows, and where the outputs would take more than
    `MOST_BYTES`.
    """
    chosen = None if layers is None else _names(layers, model)
    gathered = _Gathered(num_images, chosen)
    kept = list[Batch]()
    for batch in batches:
        gathered.start(len(batch.inputs))
        with explaining(tuple(batch.inputs.shape[1:]), record, model), reading_outputs(model, chosen, gathered.read):
            model(batch.inputs)
        gathered.end()
        kept.append(replace(batch, inputs=batch.inputs[:0]))
    return gathered.features(), kept


def _names(layers: Sequence[str] | str, model: nn.Module) -> tuple[str, ...]:
    """Return the layers that were named, each once."""
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise UsageError("Expected one or more layers; got none. Leave layers out for all of them.")
    for name in names:
        layer_of(model, name)
    return tuple(dict.fromkeys(map(plain_path, names)))


@dataclass(frozen=True, eq=False)
class _Output:
    """Of one layer for one batch."""

    shape: Shape
    """Without the axis of the images."""
    whole: Tensor
    pooled: Tensor | None


class _Gathered:
    """The outputs so far."""

    def __init__(self, num_images: int, chosen: tuple[str, ...] | None) -> None:
        self.num_images = num_images
        self.chosen = chosen
        """The layers that were named: each of them must give rows."""
        self.outputs: dict[str, list[_Output]] = {}
        """By layer, one a batch, in the order of the first batch."""
        self._batch: dict[str, _Output] = {}
        self._num_rows = 0

    def start(self, num_rows: int) -> None:
        """Expect a batch of so many images."""
        self._num_rows = num_rows
        self._batch = {}

    def read(self, layer: str, output: Tensor) -> None:
        """Take a copy of what a layer gave, `(B, C, ...)`."""
        if output.ndim < 2 or len(output) != self._num_rows or not output.is_floating_point():
            if self.chosen is not None:
                raise LayerError(
                    f"Expected layer '{layer}' to give a row of numbers for each of {self._num_rows} images; got "
                    f"{output.dtype} {by(tuple(output.shape))}. Choose another layer: `glassnet summary` lists them."
                )
            return
        shape = tuple(output.shape[1:])
        self._batch.pop(layer, None)  # of several calls the last one counts, and its place among the layers
        if not self.outputs:
            self._check_size(layer, math.prod(shape))
        values = output.detach().float()
        pooled = values.flatten(2).mean(2).cpu() if values.ndim > 2 else None
        copy = torch.empty(values.shape, dtype=torch.float32).copy_(values)
        self._batch[layer] = _Output(shape, copy.flatten(1), pooled)

    def end(self) -> None:
        """Keep what the batch gave."""
        expected = list(self.outputs) or self.chosen or list(self._batch)
        if not expected:
            raise LayerError("No layer gives a row of numbers for each image: there is nothing to compare them by.")
        for layer in expected:
            if layer not in self._batch:
                on = "some images and not on others" if self.outputs else "none of the images"
                raise LayerError(f"Layer '{layer}' ran on {on}. Choose one that `glassnet summary` shows.")
        for layer in self._batch if not self.outputs else expected:
            output, before = self._batch[layer], self.outputs.setdefault(layer, [])
            if before and before[0].shape != output.shape:
                raise LayerError(
                    f"Expected layer '{layer}' to give {by(before[0].shape)} for every image; got {by(output.shape)} "
                    "too. Only outputs of one shape can be compared: choose other layers, or images of one size."
                )
            before.append(output)
        self._batch = {}

    def features(self) -> list[LayerFeatures]:
        """Return what was kept, and let go of the batches."""
        found = []
        for layer in list(self.outputs):
            parts = self.outputs.pop(layer)
            pooled = [part.pooled for part in parts if part.pooled is not None]
            whole = torch.cat([part.whole for part in parts])
            found.append(LayerFeatures(layer=layer, whole=whole, pooled=torch.cat(pooled) if pooled else None))
        return found

    def _check_size(self, layer: str, num_values: int) -> None:
        """Refuse what would not fit into memory before it is all there."""
        so_far = sum(output.whole.shape[1] for output in self._batch.values())
        wanted = 4 * self.num_images * (so_far + num_values)
        if wanted > MOST_BYTES:
            raise LayerError(
                f"Expected outputs of at most {MOST_BYTES / 2**30:g} GiB in all; those of {self.num_images:,} images "
                f"up to layer '{layer}' take {wanted / 2**30:.1f} GiB. Name fewer layers, such as the last ones, or "
                "take fewer images."
            )
