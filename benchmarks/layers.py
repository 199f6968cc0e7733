"""Forward and backward pass of convolutions, normalisation, 2x2 max pooling and GELU, ours beside torch's, one sitting.

    python benchmarks/layers.py [--rounds 7] [--batch 128]

A line for each shape: milliseconds of both sides (medians, taken in turns) and their ratio with its range over the
rounds; for convolutions the work as it is written in GFLOP/s (2 x U x U x C x K x outputs, three times for forward and
backward, twice for a network's first layer, whose images need no gradient), and the largest error of either side as a
share of the largest value, against float64. Pooling has torch's bits, which is checked. Freed memory is kept, as in
training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from glassnet._allocator import memory_kept
from glassnet.nn.gelu import gelu, has_gelu
from glassnet.nn.narrow import has_narrow, narrow_conv2d
from glassnet.nn.normalising import batch_norm2d, has_batch_norm
from glassnet.nn.pooling import has_max_pool, max_pool2d
from glassnet.nn.winograd import has_winograd, winograd_conv2d

Times = tuple[list[float], list[float]]
SHAPES = (
    # height and width, channels in, channels out
    (32, 8, 8), (32, 16, 16), (32, 24, 24), (31, 24, 64), (32, 32, 32), (32, 64, 64),
    (16, 16, 16), (16, 24, 24), (16, 32, 32), (15, 64, 256), (16, 128, 128), (8, 32, 32), (8, 64, 64),
    (7, 256, 256), (8, 256, 256), (4, 64, 64), (4, 512, 512), (3, 256, 256),
)  # fmt: skip
NARROW = (
    # images, height and width, channels in and out, height and width of the kernels, padding, whether it is the first
    (64, 32, 1, 6, 5, 0, True), (512, 32, 1, 6, 5, 0, True), (192, 28, 1, 8, 5, 0, True), (128, 28, 1, 32, 3, 0, True),
    (128, 32, 3, 16, 3, 1, True), (128, 32, 3, 64, 3, 1, True), (16, 224, 3, 64, 3, 1, True),
    (64, 14, 6, 16, 5, 0, False), (512, 14, 6, 16, 5, 0, False), (192, 12, 8, 32, 3, 0, False),
    (128, 32, 8, 8, 3, 1, False), (128, 32, 16, 16, 3, 1, False), (128, 14, 8, 64, 5, 0, False),
    (128, 16, 16, 24, 3, 1, False), (128, 14, 16, 32, 5, 0, False), (64, 12, 20, 50, 5, 0, False),
)  # fmt: skip
FEW_TILES = ((16, 4, 128), (32, 4, 128), (64, 4, 128), (128, 4, 128), (16, 4, 512), (32, 4, 512), (64, 4, 512))
"""Images, height and width, channels."""
NORMALISATIONS = ((192, 12, 8), (192, 5, 32), (192, 3, 64), (500, 15, 64), (500, 7, 256), (128, 32, 64), (16, 56, 256))
"""Images, height and width, channels: speednet's, airbench94's and ResNet's."""
POOLINGS = (
    (64, 28, 6),
    (64, 10, 16),
    (512, 28, 6),
    (512, 10, 16),
    (192, 24, 8),
    (192, 10, 32),
    (500, 31, 64),
    (500, 15, 256),
)
"""Images, height and width, channels: LeNet-5's, speednet's and airbench94's."""
GELUS = ((500, 3, 256), (500, 7, 256), (500, 15, 64), (1000, 31, 24))
"""Images, height and width, channels: airbench94's."""


def torchs_pooling(images: Tensor) -> Tensor:
    return functional.max_pool2d(images, 2)


def passed(operation: Callable[..., Tensor], inputs: Sequence[Tensor], slopes: Tensor) -> tuple[Tensor, ...]:
    outputs = operation(*inputs)
    leaves = [leaf for leaf in inputs if leaf.requires_grad]
    return outputs.detach(), *torch.autograd.grad(outputs, leaves, slopes)


def drawn(*shape: int, needs_grad: bool = True) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
    return values.contiguous(memory_format=torch.channels_last).requires_grad_(needs_grad)


def times(sides: Sequence[Callable[..., Tensor]], inputs: Sequence[Tensor], slopes: Tensor, rounds: int) -> Times:
    """Return the seconds of both sides in each round."""
    seconds: Times = ([], [])
    for _ in range(rounds):
        for side, taken in zip(sides, seconds, strict=True):
            started = time.perf_counter()
            passed(side, inputs, slopes)
            taken.append(time.perf_counter() - started)
    return seconds


def described(seconds: Times) -> str:
    ratios = sorted(one / other for one, other in zip(*seconds, strict=True))
    theirs, ours = (1e3 * statistics.median(side) for side in seconds)
    return f"{theirs:7.1f} {ours:7.1f} ms   {statistics.median(ratios):4.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def measure(
    ours: Callable[..., Tensor],
    count: int,
    size: int,
    channels: tuple[int, int],
    rounds: int,
    side: int = 3,
    padding: int = 1,
    is_first: bool = False,
) -> None:
    in_channels, out_channels = channels
    inputs = [
        drawn(count, in_channels, size, size, needs_grad=not is_first),
        drawn(out_channels, in_channels, side, side),
    ]
    sides = [
        lambda *leaves, operation=operation: operation(*leaves, padding=padding)
        for operation in (functional.conv2d, ours)
    ]
    slopes = torch.randn(sides[0](*inputs).shape).contiguous(memory_format=torch.channels_last)
    exact = passed(
        sides[0], [leaf.detach().double().requires_grad_(leaf.requires_grad) for leaf in inputs], slopes.double()
    )
    errors = []
    for one in sides:
        pairs = zip(passed(one, inputs, slopes), exact, strict=True)
        errors.append(max(float((own - true).abs().max() / true.abs().max()) for own, true in pairs))
    seconds = times(sides, inputs, slopes, rounds)
    work = (2 if is_first else 3) * 2 * side**2 * in_channels * slopes.numel() / 1e9
    kernels = f"{side}x{side}{' first' if is_first else '      '}"
    print(
        f"{count:4} x {size:3}x{size:<3} {in_channels:3} -> {out_channels:<3} {kernels}  {described(seconds)}   "
        f"{work / statistics.median(seconds[0]):4.0f} {work / statistics.median(seconds[1]):4.0f} GFLOP/s   "
        f"{errors[0]:.0e} {errors[1]:.0e}",
        flush=True,
    )


def measure_normalisation(count: int, size: int, channels: int, rounds: int) -> None:
    inputs = drawn(count, channels, size, size), *(torch.ones(channels, requires_grad=True) for _ in range(2))
    statistics = torch.zeros(channels), torch.ones(channels)
    slopes = drawn(count, channels, size, size, needs_grad=False)
    sides = (
        lambda images, *rest: functional.batch_norm(images, *statistics, *rest, training=True),
        lambda images, *rest: batch_norm2d(images, *statistics, *rest),
    )
    seconds = times(sides, inputs, slopes, rounds)
    print(f"{count:4} x {size:3}x{size:<3} {channels:3}                   {described(seconds)}", flush=True)


def measure_pooling(count: int, size: int, channels: int, rounds: int) -> None:
    images = drawn(count, channels, size, size)
    slopes = drawn(count, channels, size // 2, size // 2, needs_grad=False)
    results = [passed(side, [images], slopes) for side in (torchs_pooling, max_pool2d)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    seconds = times((torchs_pooling, max_pool2d), [images], slopes, rounds)
    print(f"{count:4} x {size:3}x{size:<3} {channels:3}                   {described(seconds)}", flush=True)


def measure_gelu(count: int, size: int, channels: int, rounds: int) -> None:
    images = drawn(count, channels, size, size)
    slopes = drawn(count, channels, size, size, needs_grad=False)
    seconds = times((functional.gelu, gelu), [images], slopes, rounds)
    print(f"{count:4} x {size:3}x{size:<3} {channels:3}                   {described(seconds)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    if not (has_winograd() and has_narrow() and has_batch_norm() and has_max_pool() and has_gelu()):
        raise SystemExit("No C compiler here that compiles the C files in glassnet/nn.")
    load = os.getloadavg()[0]
    print(f"{torch.get_num_threads()} threads, load {load:.1f}, torch {torch.__version__}, n = {arguments.rounds}")
    print(
        "images, size, channels, kernels           torch    ours      times faster          work, torch ours    errors"
    )
    with memory_kept():
        for size, in_channels, out_channels in SHAPES:
            measure(winograd_conv2d, arguments.batch, size, (in_channels, out_channels), arguments.rounds)
        print("few tiles:")
        for count, size, channels in FEW_TILES:
            measure(winograd_conv2d, count, size, (channels, channels), arguments.rounds)
        print("few channels:")
        for count, size, in_channels, out_channels, side, padding, is_first in NARROW:
            shape = (count, size, (in_channels, out_channels), arguments.rounds, side, padding, is_first)
            measure(narrow_conv2d, *shape)
        print("batch normalisation:")
        for count, size, channels in NORMALISATIONS:
            measure_normalisation(count, size, channels, arguments.rounds)
        print("max pooling:")
        for count, size, channels in POOLINGS:
            measure_pooling(count, size, channels, arguments.rounds)
        print("GELU:")
        for count, size, channels in GELUS:
            measure_gelu(count, size, channels, arguments.rounds)


if __name__ == "__main__":
    main()
