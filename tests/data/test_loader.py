from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glassnet.data import loader, preprocessing
from glassnet.data.augmentation import random_shift
from glassnet.data.loader import DeviceExamples, batch_bounds, shuffled_order, to_device
from glassnet.data.pixel_file import release_pages
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.data.sources import load_data

MIB = 1 << 20
CPU = torch.device("cpu")


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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """200 small images, which at 256x256 are 38 MiB."""
    monkeypatch.setenv("GLASSNET_CACHE", str(tmp_path / "cache"))
    for index in range(200):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
    return tmp_path / "images"


def mapped_bytes() -> int:
    """How much of the machine's memory the process has through files that it mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell what is mapped")
@pytest.mark.parametrize("releases", [True, False])
def test_a_folder_larger_than_the_budget_is_measured_read_and_loaded_a_little_at_a_time(
    folder: Path, releases: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocessing, "STATISTICS_BLOCK_BYTES", MIB)
    monkeypatch.setattr(loader, "COPY_BYTES", MIB)
    monkeypatch.setattr(loader, "ROWS_AT_ONCE", 2)
    mapped: list[int] = []

    def release(pixels: torch.Tensor) -> None:
        mapped.append(mapped_bytes())
        if releases:
            release_pages(pixels)

    for module in (preprocessing, loader):
        monkeypatch.setattr(module, "release_pages", release)
    train = load_data(folder, test_share=0, validation_share=0).train
    before = mapped_bytes()
    record = make_preprocessing(train, (256, 256))
    in_memory = to_device(train, record, CPU, None)
    on_disk = to_device(train, record, CPU, 4 * MIB)
    assert (in_memory.exceeded_bytes, on_disk.exceeded_bytes) == (None, 4 * MIB)
    for order in (None, shuffled_order(len(train), 0, 0, CPU)):
        for near, far in zip(in_memory.batches(10, order), on_disk.batches(10, order), strict=True):
            assert all(map(torch.equal, near, far))
    largest = max(mapped) - before
    assert largest < 10 * MIB if releases else largest > 36 * MIB


def test_the_budget_is_kept_to_the_byte(folder: Path) -> None:
    train = load_data(folder).train
    record = Preprocessing(class_names=train.class_names, mode="RGB", size=(8, 8), mean=(0.5,) * 3, std=(0.2,) * 3)
    num_bytes = len(train) * 3 * 8 * 8
    assert to_device(train, record, CPU, num_bytes).exceeded_bytes is None
    on_disk = to_device(train, record, CPU, num_bytes - 1)
    assert on_disk.exceeded_bytes == num_bytes - 1
    assert torch.equal(on_disk.inputs, to_device(train, record, CPU, num_bytes).inputs)
