"""Batches from examples that lie in memory: no worker processes, no per-image Python."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from glassnet._seed import seeded_generator
from glassnet.data.examples import ExampleSet
from glassnet.data.records import InputRecord


@dataclass(frozen=True, eq=False)
class DeviceExamples:
    """A split on the device at the network's input size, as one tensor.

    Keeping images as `uint8` costs a quarter of float32's memory; each batch is normalised when it is used.
    """

    inputs: Tensor
    """Fitted, not yet normalised: `uint8` `(N, C, H, W)`, or `float32` `(N, ...)`."""
    labels: Tensor
    """`int64` `(N,)`; for regression `float32` `(N,)` or `(N, K)`."""

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(inputs, labels)` in batches, in `order` `(N,)` where one is given, each example once.

        The last batch holds the remainder; a remainder of one example joins the batch before it, because batch
        normalisation has no spread over a single example.
        """
        for start, stop in batch_bounds(len(self), batch_size):
            if order is None:
                yield self.inputs[start:stop], self.labels[start:stop]
            else:
                chosen = order[start:stop]
                yield self.inputs.index_select(0, chosen), self.labels.index_select(0, chosen)


def batch_bounds(num_examples: int, batch_size: int) -> list[tuple[int, int]]:
    """Return `(start, stop)` of each batch over `num_examples`; a remainder of one joins the batch before it."""
    starts = list(range(0, num_examples, batch_size))
    if batch_size > 1 and len(starts) > 1 and num_examples - starts[-1] == 1:
        starts.pop()
    return [(start, stop) for start, stop in itertools.pairwise([*starts, num_examples]) if start < stop]


def shuffled_order(num_examples: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """Return the order `(N,)` of one epoch: a function of seed and epoch only, drawn on the CPU for every device."""
    return torch.randperm(num_examples, device="cpu", generator=seeded_generator(seed, "shuffle", epoch)).to(device)


def to_device(examples: ExampleSet, record: InputRecord, device: torch.device) -> DeviceExamples:
    """Fit a split to the network's input size, once, and put it on the device.

    Raises `UsageError` where a class of the split is not among the record's.
    """
    aligned = examples.aligned_to(record.class_names)
    return DeviceExamples(record.fit_inputs(aligned.inputs).to(device), aligned.labels.to(device))
