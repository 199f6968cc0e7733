"""What data costs while a network trains: `OMP_NUM_THREADS=1 python benchmarks/data_cost.py [--rounds 3]`.

First, time. ResNet-18 trains at 64x64 on a folder of JPEGs that come through the cache, with flips and crops. An epoch
is timed in two parts, as `fit` reports them: getting each batch (rows gathered and augmented), and the step
(normalised, forward, backward, update). Three ways in turn, a round each: from memory; from the mapped file, which is
in the page cache; and from the disk, after the system was asked to drop the file.

Then, memory. Folders whose fitted images exceed the budget, one of them twice the other, are trained on for an epoch,
each in a process of its own, and the larger again with a budget that it fits into. What is counted is the resident
memory of the process with the pages of mapped files (/proc/self/statm, sampled every 5 ms), from the examining
of the files to the report. Linux only. What it printed is in `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

import glassnet as gn
from glassnet.data.examples import Dataset
from glassnet.data.image_cache import CACHE_VARIABLE, cache_folder
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import Preprocessing, make_preprocessing
from glassnet.training.fit import fit

CPU = torch.device("cpu")
NUM_PICTURES = 200
CLASSES = ("ant", "bee", "cat", "dog")
AUGMENT = "RandomCrop(padding=4),RandomHorizontalFlip"
SAMPLED_S = 0.005
SMALL_GIB, LARGE_GIB = 0.25, 8.0


def write_folder(folder: Path, num_files: int, side: int) -> None:
    """Write JPEGs into a folder for each class: few pictures, each file with other bytes after its end."""
    random = np.random.default_rng(0)
    pictures = []
    for index in range(NUM_PICTURES):
        coarse = Image.fromarray(random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        stream = io.BytesIO()
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
        pictures.append(stream.getvalue())
        (folder / CLASSES[index % len(CLASSES)]).mkdir(parents=True, exist_ok=True)
    for index in range(num_files):
        path = folder / CLASSES[index % len(CLASSES)] / f"{index}.jpg"
        path.write_bytes(pictures[index % NUM_PICTURES] + index.to_bytes(4, "little"))


def forget_cached_files() -> None:
    """Ask the system to drop the pixels in the cache's folder from its memory."""
    for path in cache_folder().glob("*.pixels"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def epoch_times(data: Dataset, record: Preprocessing, budget_bytes: int | None, seed: int) -> tuple[float, float]:
    """Train for an epoch; return the seconds that a batch's data took, and those of its step."""
    examples = to_device(data.train, record, CPU, budget_bytes)
    assert (examples.exceeded_bytes is None) == (budget_bytes is None)
    nothing = to_device(data.validation[:0], record, CPU)
    config = gn.TrainConfig(epochs=1, batch_size=64, augment=AUGMENT, seed=seed)
    model = gn.build_model("resnet18", num_classes=len(CLASSES), input_shape=record.input_shape)
    result = fit(model, examples, nothing, record, config, precision="fp32")
    num_steps = result.history.rows[-1].step
    return result.timing.data_s / num_steps, result.timing.step_s / num_steps


def time_part(num_images: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = str(Path(folder) / "cache")
        write_folder(Path(folder) / "images", num_images, 160)
        data = gn.load_data(Path(folder) / "images")
        record = make_preprocessing(data.train, (64, 64))
        ways = {"memory": (None, False), "mapped file": (0, False), "disk": (0, True)}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, (budget, is_cold) in ways.items():
                if is_cold:
                    forget_cached_files()
                times[name].append(epoch_times(data, record, budget, number))
    print(f"\nResNet-18 at 64x64, {len(data.train)} images, batches of 64, {AUGMENT}")
    print(f"medians of {rounds} epochs (lowest to highest)")
    print(f"  {'':12} {'data, ms a batch':24} {'step, ms a batch':24} data / step")
    for name, ones in times.items():
        data_ms, step_ms = ([1e3 * pair[part] for pair in ones] for part in (0, 1))
        shares = [100 * data / step for data, step in zip(data_ms, step_ms, strict=True)]
        print(f"  {name:12} {spread(data_ms, 1):24} {spread(step_ms, 0):24} {spread(shares, 2)} %")


def spread(values: list[float], digits: int) -> str:
    return f"{np.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def watched() -> Iterator[list[int]]:
    """Yield a list of how much memory the process has, which grows until the context ends."""
    samples, is_over = [resident_bytes()], threading.Event()

    def sample() -> None:
        while not is_over.wait(SAMPLED_S):
            samples.append(resident_bytes())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


def train_with(budget_gib: float, folder: str) -> None:
    """Train for one epoch with a cold cache, and print what memory it took beyond that of a first, tiny run."""
    torch.set_num_threads(1)
    config = gn.TrainConfig(epochs=1, batch_size=64, memory_budget_gib=budget_gib)
    small = gn.build_model("softmax", num_classes=10, input_shape=(1, 8, 8))
    gn.train(small, gn.load_data("digits"), config, out=f"{folder}/small", progress=False)  # loads every library
    os.environ[CACHE_VARIABLE] = f"{folder}/cache {budget_gib}"
    with watched() as samples:
        data = gn.load_data(f"{folder}/images")
        model = gn.build_model("softmax", num_classes=len(CLASSES), input_shape=data.train.input_shape)
        gn.train(model, data, config, out=f"{folder}/run", progress=False)
    num_images = sum(map(len, (data.train, data.validation, data.test)))
    num_bytes = num_images * int(np.prod(data.train.input_shape))
    print(
        f"  budget {mib(budget_gib * 2**30)}: {num_images:,} images, fitted {mib(num_bytes)}; resident "
        f"{mib(samples[0])} before, {mib(max(samples))} at most: {mib(max(samples) - samples[0])} more",
        flush=True,
    )


def mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"


def memory_part(num_files: int) -> None:
    print("\nsoftmax at 256x256: examining, decoding, an epoch, the test split and the report")
    for count, budget_gib in ((num_files // 2, SMALL_GIB), (num_files, SMALL_GIB), (num_files, LARGE_GIB)):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder) / "images", count, 256)
            process = multiprocessing.get_context("spawn").Process(target=train_with, args=(budget_gib, folder))
            process.start()
            process.join()
            assert process.exitcode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=640, help="for the time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=6000, help="for the memory")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    print(
        f"{os.cpu_count()} processors ({platform.processor() or platform.machine()}), load {os.getloadavg()[0]:.1f}, "
        f"{torch.get_num_threads()} threads of torch, Python {platform.python_version()}, torch {torch.__version__}, "
        f"Pillow {PIL.__version__}",
        flush=True,
    )
    time_part(arguments.images, arguments.rounds)
    memory_part(arguments.files)


if __name__ == "__main__":
    main()
