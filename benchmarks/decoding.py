"""Speed of decoding a folder of JPEGs: `OMP_NUM_THREADS=1 python benchmarks/decoding.py [--rounds 9]`.

Images are synthetic, so that anyone has the same: noise with the spectrum of photographs (amplitude falls with
frequency) under discs with sharp edges. Every way of reading is measured once a round, in turn, over many short rounds,
so that a change of the machine's load meets them all. Speeds and ratios are medians over the rounds with the quartiles;
a ratio is to the DataLoader of the same round. CPU is the time of all processes and threads for an image, which other
work on the machine disturbs least. The files are in the page cache. What it printed is in `benchmarks/README.md`.

    DataLoader        torch's, 2 workers: open, resize the shorter side, crop the centre, float32, standardise
    DataLoader, fit   torch's, 2 workers, with `Preprocessing.fit_image` in place of all that, uint8
    threads, whole    2 threads, `fit_image` without reduced decoding
    threads           2 threads, `fit_image`
    threads, Pillow   the same, resized by Pillow alone
    simplejpeg        2 threads, simplejpeg decodes the whole, `fit_image` fits it; where it is installed
    simplejpeg, part  the same, decoded at the fewest eighths that keep the input's size
    cache, first      `cached_pixels` with 2 threads, writing and flushing the cache included
    cache, later      the finished cache, copied to memory in batches

Also printed: how far the pixels after reduced decoding lie from those after decoding the whole, and, to compare, how
far the JPEG's own loss moves them, in levels of 255.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import PIL
import torch
from PIL import Image, ImageDraw, features
from torch.utils.data import DataLoader, Dataset

from glassnet.data import resizing
from glassnet.data.image_cache import cached_pixels, clear_cache
from glassnet.data.image_files import ImageFiles, content_digest
from glassnet.data.images import open_image
from glassnet.data.preprocessing import Preprocessing

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
NUM_WORKERS = 2
BATCH_SIZE = 64


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Draw a picture of a photograph's spectrum with some discs in it."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (4, 8, 16, 32, 64, 128, 256, 512):
        noise = rng.standard_normal((max(2, height * cells // width), cells, 3)).astype(np.float32)
        layers = [Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        total += np.stack([np.asarray(layer) for layer in layers], -1) / cells**0.6
    image = Image.fromarray((total / total.std() * 50 + 120).clip(0, 255).astype(np.uint8))
    for _ in range(20):
        x, y, radius = rng.integers(width), rng.integers(height), rng.integers(4, width // 8)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def write_files(folder: Path, count: int, width: int, height: int) -> ImageFiles:
    """Write `count` JPEGs of quality 92."""
    paths = tuple(folder / f"{index}.jpg" for index in range(count))
    for index, path in enumerate(paths):
        picture(index, width, height).save(path, quality=92)
    digests = tuple(content_digest(path.read_bytes()) for path in paths)
    return ImageFiles(paths, "RGB", torch.tensor([[height, width]] * count), digests)


def usual_transform(path: Path, size: int) -> torch.Tensor:
    """Do what training scripts do: resize to 256/224 of the input, crop the centre, to float, standardise."""
    image = Image.open(path).convert("RGB")
    scale = size * 256 / 224 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, upper = (image.width - size) // 2, (image.height - size) // 2
    image = image.crop((left, upper, left + size, upper + size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255).sub_(MEAN).div_(STD)


class Files(Dataset[torch.Tensor]):
    """A map-style data set of files."""

    def __init__(self, paths: tuple[Path, ...], read: Callable[[Path], torch.Tensor]) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.read(self.paths[index])


def by_loader(files: ImageFiles, read: Callable[[Path], torch.Tensor]) -> Iterable[object]:
    return DataLoader(Files(files.paths, read), batch_size=BATCH_SIZE, num_workers=NUM_WORKERS)


def by_threads(files: ImageFiles, read: Callable[[Path], torch.Tensor]) -> Iterable[object]:
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        yield from pool.map(read, files.paths)


def by_pillow(files: ImageFiles, record: Preprocessing) -> Iterable[object]:
    with mock.patch.object(resizing, "MOST_PIXELS", 0):
        yield from by_threads(files, record.fit_image)


def by_simplejpeg(files: ImageFiles, record: Preprocessing, least: int) -> Iterable[object]:
    def read(path: Path) -> torch.Tensor:
        pixels = simplejpeg.decode_jpeg(path.read_bytes(), min_height=least, min_width=least, min_factor=1)
        return record.fit_image(Image.fromarray(pixels))

    return by_threads(files, read)


def by_cache(files: ImageFiles, record: Preprocessing, folder: Path) -> Iterable[object]:
    pixels, _ = cached_pixels(files, record, cache_root=folder, progress=False, num_threads=NUM_WORKERS)
    return (batch.clone() for batch in pixels.split(BATCH_SIZE))


def ways(files: ImageFiles, size: int, folder: Path) -> dict[str, Callable[[], Iterable[object]]]:
    record = make_record(size)

    def first() -> Iterable[object]:
        clear_cache(folder)
        return by_cache(files, record, folder)

    others: dict[str, Callable[[], Iterable[object]]] = {
        "simplejpeg": lambda: by_simplejpeg(files, record, 0),
        "simplejpeg, part": lambda: by_simplejpeg(files, record, size),
    }
    return {
        "DataLoader": lambda: by_loader(files, lambda path: usual_transform(path, size)),
        "DataLoader, fit": lambda: by_loader(files, record.fit_image),
        "threads, whole": lambda: by_threads(files, lambda path: record.fit_image(open_image(path, "RGB"))),
        "threads": lambda: by_threads(files, record.fit_image),
        "threads, Pillow": lambda: by_pillow(files, record),
        **(others if simplejpeg else {}),
        "cache, first": first,
        "cache, later": lambda: by_cache(files, record, folder),
    }


def make_record(size: int) -> Preprocessing:
    return Preprocessing(class_names=("a",), mode="RGB", size=(size, size), mean=(0.0,) * 3, std=(1.0,) * 3, fit="crop")


class Timing(NamedTuple):
    """One reading of all files."""

    images_per_s: float
    cpu_s: float
    """Processor time of an image, over all processes and threads."""


def timing(read: Callable[[], Iterable[object]], count: int) -> Timing:
    started, before = time.perf_counter(), os.times()
    for _ in read():  # when it ends, so have the workers of a DataLoader: the time of a child counts from then on
        pass
    elapsed = time.perf_counter() - started
    return Timing(count / elapsed, (sum(os.times()[:4]) - sum(before[:4])) / count)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return median and quartiles as text."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:9,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def differences(files: ImageFiles, size: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what reduced decoding, and what the JPEG itself, changes in each pixel after fitting."""
    record, chosen = make_record(size), range(min(20, len(files)))
    whole = [record.fit_image(open_image(files.paths[index], "RGB")).numpy().astype(int) for index in chosen]
    reduced = [record.fit_image(files.paths[index]).numpy().astype(int) for index in chosen]
    original = [record.fit_image(picture(index, width, height)).numpy().astype(int) for index in chosen]
    return np.abs(np.subtract(reduced, whole)), np.abs(np.subtract(whole, original))


def describe(values: np.ndarray) -> str:
    return f"mean {values.mean():.2f}, 99 % below {np.percentile(values, 99):.0f}, largest {values.max()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--image-size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--sizes", type=int, nargs="+", default=(224, 128, 64))
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    width, height = arguments.image_size
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), arguments.images, width, height)
        kilobytes = statistics.mean(path.stat().st_size for path in files.paths) / 1e3
        print(
            f"{arguments.images} JPEGs of {width}x{height}, {kilobytes:.0f} kB each; {os.cpu_count()} processors "
            f"({platform.processor() or platform.machine()}), load {os.getloadavg()[0]:.1f}, Python "
            f"{platform.python_version()}, torch {torch.__version__}, Pillow {PIL.__version__}, libjpeg-turbo "
            f"{features.version('libjpeg_turbo')}; medians of {arguments.rounds} rounds (quartiles)"
        )
        for size in arguments.sizes:
            named = ways(files, size, Path(folder) / "cache")
            timings: dict[str, list[Timing]] = {name: [] for name in named}
            for _ in range(arguments.rounds):
                for name, read in named.items():
                    timings[name].append(timing(read, len(files)))
            base = [one.images_per_s for one in timings["DataLoader"]]
            print(f"\nto {size}x{size}\n{'':19}{'images/s':26}{'x DataLoader':28}CPU ms/image")
            for name, ones in timings.items():
                speeds = [one.images_per_s for one in ones]
                ratios = [speed / other for speed, other in zip(speeds, base, strict=True)]
                cpu = [1e3 * one.cpu_s for one in ones]
                print(f"  {name:16} {spread(speeds):25} {spread(ratios, 2):27} {spread(cpu, 2)}")
            reduced, own = differences(files, size, width, height)
            print(f"  reduced decoding changes a pixel by {describe(reduced)}; the JPEG itself by {describe(own)}")


if __name__ == "__main__":
    main()
