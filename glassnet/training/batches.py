"""The batches of an epoch as a network meets them: in their order, changed by chance, normalised."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from glassnet._seed import seeded_generator
from glassnet.data.augmentation import Augmentation, parse_augmentation, random_shift
from glassnet.data.loader import DeviceExamples, batch_bounds, shuffled_order
from glassnet.data.preprocessing import Preprocessing
from glassnet.data.records import InputRecord
from glassnet.data.transforms import mirrored
from glassnet.training.config import TrainConfig

PURPOSES = ("shift", "augmentation")
"""What an epoch draws from generators of its own for, beside the order of the examples."""


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """The training split, and what the config does to it before each step."""

    examples: DeviceExamples
    record: InputRecord
    config: TrainConfig
    num_classes: int
    """0 for regression; what augmentation that mixes labels needs to know."""
    augmentation: Augmentation = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentation", parse_augmentation(self.config.augment))

    @property
    def step_size(self) -> int:
        """Examples of one optimizer step: `batch_size` times `accumulate`."""
        assert isinstance(self.config.batch_size, int), "fit knows the size of the split"
        return self.config.batch_size * self.config.accumulate

    def __len__(self) -> int:
        """Return the number of optimizer steps of a whole epoch."""
        return len(batch_bounds(len(self.examples), self.step_size))

    def generators(self, epoch: int) -> dict[str, torch.Generator]:
        """Return the generators that an epoch draws from, at their start."""
        return {purpose: seeded_generator(self.config.seed, purpose, epoch) for purpose in PURPOSES}

    @functools.cached_property
    def _mirrors(self) -> Tensor:
        """Whether each example is mirrored in the odd epochs, `(N,)`, where flips alternate."""
        generator = seeded_generator(self.config.seed, "alternating flip")
        return (torch.rand(len(self.examples), generator=generator) < 0.5).to(self.examples.device)

    def of_epoch(
        self, epoch: int, generators: dict[str, torch.Generator], first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(inputs, labels)` of an epoch from its batch `first` (0-based) on, not yet normalised.

        Inputs are fitted, as `DeviceExamples` has them; what is drawn for a batch comes from `generators`.
        """
        order = shuffled_order(len(self.examples), self.config.seed, epoch, self.examples.device)
        fill = self.record.fill if isinstance(self.record, Preprocessing) else 0
        parts = iter(batch_bounds(len(order), self.step_size)[first:])
        for inputs, labels in self.examples.batches(self.step_size, order, first=first):
            if self.config.alternating_flip:
                start, stop = next(parts)  # no zip, which would keep the inputs until the next batch
                inputs = mirrored(inputs, self._mirrors[order[start:stop]] ^ (epoch % 2 == 0))
            if self.config.max_shift:
                inputs = random_shift(inputs, self.config.max_shift, fill, generators["shift"])
            if self.augmentation.transforms:
                inputs, labels = self.augmentation(
                    inputs, labels, generators["augmentation"], num_classes=self.num_classes, fill=fill
                )
            yield inputs, labels
