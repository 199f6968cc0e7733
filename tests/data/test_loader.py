from __future__ import annotations

import pytest
import torch

from glassnet.data.augmentation import random_shift
from glassnet.data.loader import DeviceExamples, batch_bounds, shuffled_order


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (10, 4, [(0, 4), (4, 8), (8, 10)]),
        (8, 4, [(0, 4), (4, 8)]),
        (9, 4, [(0, 4), (4, 9)]),  # one left over joins the batch before it
        (1, 4, [(0, 1)]),
        (3, 1, [(0, 1), (1, 2), (2, 3)]),
        (0, 4, []),
    ],
)
def test_batches_cover_every_example_once(count: int, size: int, expected: list[tuple[int, int]]) -> None:
    assert batch_bounds(count, size) == expected


def test_a_shuffled_epoch_shows_each_example_once_with_its_own_label() -> None:
    labels = torch.arange(11)
    examples = DeviceExamples(labels.to(torch.uint8).reshape(-1, 1, 1, 1), labels)
    order = shuffled_order(11, seed=3, epoch=1, device=torch.device("cpu"))
    seen = []
    for pixels, batch_labels in examples.batches(4, order):
        assert pixels.flatten().tolist() == batch_labels.tolist()
        seen += batch_labels.tolist()
    assert sorted(seen) == list(range(11))
    assert seen == order.tolist() != list(range(11))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    device = torch.device("cpu")
    first = shuffled_order(50, 0, 1, device)
    torch.rand(7)
    assert torch.equal(first, shuffled_order(50, 0, 1, device))
    assert not torch.equal(first, shuffled_order(50, 0, 2, device))
    assert not torch.equal(first, shuffled_order(50, 1, 1, device))


def test_a_shift_moves_whole_images_by_whole_pixels_and_fills_what_is_free() -> None:
    pixels = torch.randint(1, 256, (200, 1, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moved = random_shift(pixels, 2, fill=0, generator=torch.Generator().manual_seed(1))
    seen = set()
    for before, after in zip(pixels[:, 0].numpy(), moved[:, 0].numpy(), strict=True):
        matches = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                expected = before * 0
                expected[max(down, 0) : 5 + min(down, 0), max(right, 0) : 5 + min(right, 0)] = before[
                    max(-down, 0) : 5 - max(down, 0), max(-right, 0) : 5 - max(right, 0)
                ]
                if (expected == after).all():
                    matches.append((down, right))
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 25  # every shift occurs
