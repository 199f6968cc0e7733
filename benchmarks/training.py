"""Seconds per epoch of `gn.train` beside other loops, same network, data and batch, in one sitting.

    python benchmarks/training.py [--data mnist] [--model lenet5] [--batch-sizes 64 512] [--rounds 3] [--share 0.2]

Sides, in turn within each round, so that a noisy machine is noisy to all:

- `gn.train`: whole, with progress, history, validation, checkpoints and the test split at the end; less its own
  preparation, its epochs are what the history says;
- `by hand`: the shortest loop over uint8 images in memory, with torch alone: the same shuffling, normalisation, layout,
  optimizer and precision, no validation, nothing saved;
- `DataLoader`: one image at a time through Pillow into tensors, as the documentation tells, with two workers;
- `Lightning`: the same DataLoader under `lightning.Trainer`, where the package is installed.

`--share` takes that share of the training and the validation split, so that a round is short; seconds are given for a
whole epoch. Prints hardware, versions, n, and medians with their range, the ratio to `gn.train`'s within each round,
and which share of the machine's peak an epoch comes to: of the fastest of 20 products of 2048x2048 matrices in the same
number format, with three times the multiplications and additions of a forward pass counted for a step, and validation
not counted. They are counted as the sums are written: convolutions by minimal filtering do a quarter of them, so that
the share may exceed 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import glassnet as gn
from glassnet._device import autocast, describe_device, resolve_device, resolve_precision
from glassnet.data.loader import to_device
from glassnet.data.records import make_record

CONFIG = gn.TrainConfig(epochs=1, optimizer="sgd", learning_rate=0.01, momentum=0.9, schedule="constant")


def network(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the network anew, so that each side trains from the same weights."""
    stem = {"stem": "cifar"} if name in ("resnet18", "resnet34", "resnet50") and max(shape[1:]) <= 64 else {}
    return gn.build_model(name, num_classes=classes, input_shape=shape, **stem)


def glassnet_epoch(data, name: str, shape: tuple[int, ...], batch_size: int) -> float:
    """Return the seconds of `gn.train`'s second epoch: the first has torch's first calls in it."""
    model = network(name, shape, data.train.num_classes)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        run = gn.train(model, data, replace(CONFIG, epochs=2, batch_size=batch_size), out=Path(folder) / "run")
    return run.history[-1].epoch_s


def by_hand_epoch(data, name: str, shape: tuple[int, ...], batch_size: int) -> float:
    """Return the seconds of the second epoch of a loop of a dozen lines."""
    device = resolve_device()
    record = make_record(data.train, shape[1:], data.framing)
    examples = to_device(data.train, record, device)
    images, labels = examples.inputs, examples.labels
    model = network(name, shape, data.train.num_classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    precision = resolve_precision("auto", device)
    for _ in range(2):
        started = time.perf_counter()
        order = torch.randperm(len(images), device=device)
        for start in range(0, len(images), batch_size):
            rows = order[start : start + batch_size]
            inputs = record.normalise(images[rows]).to(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, precision):
                loss = functional.cross_entropy(model(inputs), labels[rows])
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - started
    return seconds


class PillowImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets give them: a Pillow image, made a tensor and normalised, one at a time."""

    def __init__(self, data, shape: tuple[int, ...]) -> None:
        self.images, self.labels = data.train.inputs.numpy(), data.train.labels.tolist()
        record = make_record(data.train, shape[1:], data.framing)
        self.size, self.mean = shape[1:], torch.tensor(record.mean).view(-1, 1, 1)
        self.std = torch.tensor(record.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.images[index]
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        if image.size != (self.size[1], self.size[0]):
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(image)).view(*self.size, -1).permute(2, 0, 1).contiguous().float().div(255)
        return (values - self.mean) / self.std, self.labels[index]


def loader(data, shape: tuple[int, ...], batch_size: int) -> DataLoader[tuple[Tensor, int]]:
    """Return the DataLoader of the documentation, with two workers that stay."""
    return DataLoader(PillowImages(data, shape), batch_size, shuffle=True, num_workers=2, persistent_workers=True)


def data_loader_epoch(data, name: str, shape: tuple[int, ...], batch_size: int) -> float:
    """Return the seconds of the second epoch of the documentation's loop."""
    device = resolve_device()
    model = network(name, shape, data.train.num_classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = loader(data, shape, batch_size)
    for _ in range(2):
        started = time.perf_counter()
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - started
    return seconds


def lightning_epoch(data, name: str, shape: tuple[int, ...], batch_size: int) -> float:
    """Return the seconds of the second epoch under Lightning's trainer."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.ends = network(name, shape, data.train.num_classes), [0.0]

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            loss = functional.cross_entropy(self.network(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def on_train_epoch_end(self) -> None:
            self.ends.append(time.perf_counter())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    module = Module()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        trainer = lightning.Trainer(max_epochs=2, default_root_dir=folder, enable_progress_bar=False, logger=False)
        trainer.fit(module, loader(data, shape, batch_size))
    return module.ends[-1] - module.ends[-2]


def operations_of(model: nn.Module, shape: tuple[int, ...], num_examples: int) -> int:
    """Return the multiplications and additions of training on so many examples: three times those of their passes."""
    counted = gn.summary(model, shape)
    return 3 * (counted.num_multiplications + counted.num_additions) * num_examples


def peak(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of the fastest product of two square matrices."""
    kind, side = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision], 2048
    first, second = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    fastest = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        product = first @ second
        product[0, 0].item()  # waits for a GPU
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * side**3 / fastest


SIDES: dict[str, Callable[..., float]] = {
    "gn.train": glassnet_epoch,
    "by hand": by_hand_epoch,
    "DataLoader": data_loader_epoch,
    "Lightning": lightning_epoch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES))
    arguments = parser.parse_args()
    data = gn.load_data(arguments.data)
    train, validation = (part[: int(len(part) * arguments.share)] for part in (data.train, data.validation))
    data = replace(data, train=train, validation=validation)
    channels = data.train.input_shape[0]
    shape = (channels, 32, 32) if arguments.model == "lenet5" else data.train.input_shape
    device = resolve_device()
    print(
        f"{describe_device(device)}, {resolve_precision('auto', device)}, torch {torch.__version__}, "
        f"{arguments.data}/{arguments.model}, {len(data.train):,} of the images, n = {arguments.rounds}"
    )
    top = peak(device, resolve_precision("auto", device))
    model = network(arguments.model, shape, data.train.num_classes)
    operations = operations_of(model, shape, len(data.train)) / arguments.share
    print(f"peak {top / 1e9:,.0f} GFLOP/s; an epoch has {operations / 1e12:,.2f} TFLOP")
    for batch_size in arguments.batch_sizes:
        times: dict[str, list[float]] = {side: [] for side in arguments.sides}
        for _ in range(arguments.rounds):
            for side in arguments.sides:
                try:
                    seconds = SIDES[side](data, arguments.model, shape, batch_size)
                except ImportError as error:
                    seconds = float("nan")
                    print(f"  {side}: not installed ({error.name})")
                times[side].append(seconds / arguments.share)
        print(f"batch {batch_size}: seconds per epoch, median (least to most); ratio to gn.train's; share of peak")
        for side, values in times.items():
            ratios = [value / own for value, own in zip(values, times["gn.train"], strict=True)]
            print(
                f"  {side:12} {statistics.median(values):7.2f} ({min(values):.2f} to {max(values):.2f})"
                f"   {statistics.median(ratios):5.2f}x   {operations / statistics.median(values) / top:4.0%} of peak",
                flush=True,
            )


if __name__ == "__main__":
    main()
