"""Batches from examples at the network's input size: no worker processes, no per-image Python."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet._errors import UsageError
from glassnet._seed import seeded_generator
from glassnet.data.examples import ExampleSet
from glassnet.data.image_cache import readable_files
from glassnet.data.image_files import ImageFiles
from glassnet.data.images import SetAside
from glassnet.data.memory import available_bytes
from glassnet.data.pixel_file import release_pages
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord

MEMORY_SHARE = 0.5
"""The share of the available memory that one split may take where no budget is given."""
ROWS_AT_ONCE = 16
"""Rows that are mapped from a file at a time: a system may map 2 MiB for each, whatever its length."""
COPY_BYTES = 1 << 24
"""How much of a file is copied into memory at a time."""


@dataclass(frozen=True, eq=False)
class DeviceExamples:
    """A split for the device at the network's input size, as one tensor.

    Keeping images as `uint8` costs a quarter of float32's memory; each batch is normalised when it is used. A split
    that is too large for the memory lies where there is room, and each batch is moved when it is used.
    """

    inputs: Tensor
    """Fitted, not yet normalised: `uint8` `(N, C, H, W)`, or `float32` `(N, ...)`. On the device where it has room,
    else in the machine's memory, else on disk."""
    labels: Tensor
    """`int64` `(N,)`; for regression `float32` `(N,)` or `(N, K)`. Always on the device."""
    set_aside: tuple[SetAside, ...] = ()
    """Image files that could not be decoded and are not among the examples."""
    positions: Tensor | None = None
    """Where each example stands in the split, `int64` `(N,)` on the CPU; None where all of the split is here."""
    exceeded_bytes: int | None = None
    """The memory budget that the inputs exceed, so that they are read from disk; None where they lie in memory."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.labels.device

    def present(self, examples: ExampleSet) -> ExampleSet:
        """Return those of `examples`, the split that this was made of, that are here: all but the files set aside."""
        return examples if self.positions is None else examples[self.positions]

    def batches(
        self, batch_size: int, order: Tensor | None = None, *, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(inputs, labels)` in batches on the device, in `order` `(N,)` where one is given, each example once.

        The first `first` batches are left out.
        The last batch holds the remainder; a remainder of one example joins the batch before it, because batch
        normalisation has no spread over a single example.
        """
        if self.inputs.device != self.device or self.exceeded_bytes is not None:
            yield from self._moved_batches(batch_size, order, first)
            return
        for start, stop in batch_bounds(len(self), batch_size)[first:]:
            if order is None:
                yield self.inputs[start:stop], self.labels[start:stop]
            else:
                chosen = order[start:stop]
                yield self.inputs.index_select(0, chosen), self.labels.index_select(0, chosen)

    def _moved_batches(self, batch_size: int, order: Tensor | None, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Gather each batch in pinned memory, from which an accelerator fetches it while it still computes."""
        near = None if order is None else order.to(self.inputs.device)
        is_pinnable = self.device.type == "cuda"
        for start, stop in batch_bounds(len(self), batch_size)[first:]:
            rows = self._rows(torch.arange(start, stop) if near is None else near[start:stop])
            labels = self.labels[start:stop] if order is None else self.labels.index_select(0, order[start:stop])
            yield (rows.pin_memory() if is_pinnable else rows).to(self.device, non_blocking=is_pinnable), labels

    def _rows(self, chosen: Tensor) -> Tensor:
        """Return the chosen inputs in memory; of what is on disk, only a few rows are mapped at a time."""
        if self.exceeded_bytes is None:
            return self.inputs.index_select(0, chosen)
        rows = self.inputs.new_empty((len(chosen), *self.inputs.shape[1:]))
        for part, places in zip(rows.split(ROWS_AT_ONCE), chosen.split(ROWS_AT_ONCE), strict=True):
            torch.index_select(self.inputs, 0, places, out=part)
            release_pages(self.inputs)
        return rows


def batch_bounds(num_examples: int, batch_size: int) -> list[tuple[int, int]]:
    """Return `(start, stop)` of each batch over `num_examples`; a remainder of one joins the batch before it."""
    starts = list(range(0, num_examples, batch_size))
    if batch_size > 1 and len(starts) > 1 and num_examples - starts[-1] == 1:
        starts.pop()
    return [(start, stop) for start, stop in itertools.pairwise([*starts, num_examples]) if start < stop]


def shuffled_order(num_examples: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """Return the order `(N,)` of one epoch: a function of seed and epoch only, drawn on the CPU for every device."""
    return torch.randperm(num_examples, device="cpu", generator=seeded_generator(seed, "shuffle", epoch)).to(device)


def to_device(
    examples: ExampleSet, record: InputRecord, device: torch.device, memory_budget_bytes: int | None = None
) -> DeviceExamples:
    """Fit a split to the network's input size, once, and put it on the device.

    `memory_budget_bytes` is what the fitted inputs may take of the device's memory, and of the machine's; by default
    half of what is available of each when they come to lie there. Inputs above it stay in the machine's memory, and
    those of image files above that too are read from disk batch by batch. Files that cannot be decoded are set aside.

    Raises `UsageError` where a class of the split is not among the record's, `WorkError` where images cannot be
    decoded or cached.
    """
    aligned = examples.aligned_to(record.class_names)
    if not isinstance(aligned.inputs, ImageFiles):
        inputs = _placed(record.fit_inputs(aligned.inputs), device, memory_budget_bytes)
        return DeviceExamples(inputs, aligned.labels.to(device))
    if not isinstance(record, Preprocessing):
        raise UsageError(f"This network takes numbers of shape {record.input_shape}; got {examples!r}.")
    pixels, set_aside = record.fit_readable(aligned.inputs)
    inputs = _placed(pixels, device, memory_budget_bytes)
    exceeded = None
    if inputs is pixels:
        inputs, exceeded = _loaded(pixels, memory_budget_bytes)
    labels, positions = aligned.labels, None
    if set_aside:
        positions = readable_files(aligned.inputs, set_aside).nonzero().flatten()
        labels = labels[positions]
    return DeviceExamples(inputs, labels.to(device), set_aside, positions, exceeded)


def _placed(inputs: Tensor, device: torch.device, budget_bytes: int | None) -> Tensor:
    """Return `inputs` on the device where they fit into the budget, else as they are."""
    if device.type == "cpu" or inputs.nbytes > _budget(device, budget_bytes):
        return inputs
    return inputs.to(device)


def _loaded(mapped: Tensor, budget_bytes: int | None) -> tuple[Tensor, int | None]:
    """Return what is mapped from a file in memory where it fits into the budget; else as it is, and the budget."""
    budget = _budget(torch.device("cpu"), budget_bytes)
    if mapped.nbytes > budget:
        return mapped, budget
    loaded = torch.empty_like(mapped)
    num_rows = max(1, COPY_BYTES // max(1, mapped[:1].nbytes))
    for rows, copies in zip(mapped.split(num_rows), loaded.split(num_rows), strict=True):
        copies.copy_(rows)
        release_pages(mapped)  # else all would be in memory twice
    return loaded, None


def _budget(device: torch.device, given: int | None) -> int:
    return int(MEMORY_SHARE * available_bytes(device)) if given is None else given
