"""What an epoch makes of the training images before a step."""

from __future__ import annotations

import pytest
import torch

from glassnet.data.examples import ExampleSet
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import make_preprocessing
from glassnet.training.batches import TrainingBatches
from glassnet.training.config import TrainConfig

COUNT, SIDE = 200, 6


def batches(**values: object) -> TrainingBatches:
    """Return batches of images whose first column is their number and whose others are 255."""
    images = torch.full((COUNT, 1, SIDE, SIDE), 255, dtype=torch.uint8)
    images[..., 0] = torch.arange(COUNT, dtype=torch.uint8)[:, None, None]
    examples = ExampleSet(images, torch.arange(COUNT) % 2, ("no", "yes"))
    record = make_preprocessing(examples, (SIDE, SIDE))
    config = TrainConfig(alternating_flip=True, **values)  # type: ignore[arg-type]
    return TrainingBatches(to_device(examples, record, torch.device("cpu")), record, config, 2)


def mirrored_in(training: TrainingBatches, epoch: int, first: int = 0) -> dict[int, bool]:
    """Return by an image's number whether an epoch mirrors it; an image is as it was, or the mirror of that."""
    seen = {}
    for inputs, labels in training.of_epoch(epoch, training.generators(epoch), first):
        is_mirrored = inputs[:, 0, 0, 0] == 255
        numbers = torch.where(is_mirrored, inputs[:, 0, 0, -1], inputs[:, 0, 0, 0]).long()
        assert torch.equal(labels, numbers % 2)
        assert (inputs == 255).sum() == len(inputs) * SIDE * (SIDE - 1)
        seen |= dict(zip(numbers.tolist(), is_mirrored.tolist(), strict=True))
    return seen


@pytest.mark.parametrize("batch_size", [1, 7, 199, COUNT])  # 199 leaves a remainder of one, which joins the batch
def test_an_image_is_mirrored_in_every_other_epoch_and_half_of_them_in_each(batch_size: int) -> None:
    training = batches(batch_size=batch_size)
    first, second, third = (mirrored_in(training, epoch) for epoch in (1, 2, 3))
    assert len(first) == COUNT
    assert first == third == {number: not is_mirrored for number, is_mirrored in second.items()}
    assert 0.35 < sum(first.values()) / COUNT < 0.65


def test_flips_hang_on_the_seed_and_not_on_the_batch_an_epoch_goes_on_from() -> None:
    training = batches(batch_size=30)
    whole, rest = mirrored_in(training, 2), mirrored_in(training, 2, first=4)
    assert len(rest) == COUNT - 4 * 30
    assert rest.items() <= whole.items()
    assert mirrored_in(batches(batch_size=50), 2) == whole
    assert mirrored_in(batches(batch_size=30, seed=1), 2) != whole
