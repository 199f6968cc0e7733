"""Forward and backward pass of 3x3 convolutions by Winograd's minimal filtering and by torch's own, in one sitting.

    python benchmarks/winograd.py [--rounds 7] [--batch 128]

A line for each shape: milliseconds of both sides (medians, taken in turns), their ratio with its range over the
rounds, the work as it is written in GFLOP/s (2 x 9 x C x K x outputs, three times for forward and backward), and the
largest error of either side as a share of the largest value, against float64. Freed memory is kept, as in training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
from torch import Tensor
from torch.nn import functional

from glassnet._allocator import memory_kept
from glassnet.nn.winograd import has_winograd, winograd_conv2d

SHAPES = (
    # height and width, channels in, channels out
    (32, 8, 8), (32, 16, 16), (32, 24, 24), (31, 24, 64), (32, 32, 32), (32, 64, 64),
    (16, 16, 16), (16, 24, 24), (16, 32, 32), (15, 64, 256), (16, 128, 128), (8, 32, 32), (8, 64, 64),
    (7, 256, 256), (8, 256, 256), (4, 64, 64), (4, 512, 512), (3, 256, 256),
)  # fmt: skip
FEW_TILES = ((16, 4, 128), (32, 4, 128), (64, 4, 128), (128, 4, 128), (16, 4, 512), (32, 4, 512), (64, 4, 512))
"""Images, height and width, channels."""


def torchs(images: Tensor, kernels: Tensor) -> Tensor:
    return functional.conv2d(images, kernels, padding=1)


def passed(convolution, images: Tensor, kernels: Tensor, slopes: Tensor) -> tuple[Tensor, ...]:
    outputs = convolution(images, kernels)
    return outputs.detach(), *torch.autograd.grad(outputs, (images, kernels), slopes)


def measure(count: int, size: int, in_channels: int, out_channels: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, in_channels, size, size, generator=generator).requires_grad_()
    kernels = torch.randn(out_channels, in_channels, 3, 3, generator=generator).requires_grad_()
    slopes = torch.randn(count, out_channels, size, size, generator=generator)
    images, kernels, slopes = (
        tensor.detach().contiguous(memory_format=torch.channels_last).requires_grad_(tensor.requires_grad)
        for tensor in (images, kernels, slopes)
    )
    exact = passed(torchs, *(t.detach().double().requires_grad_() for t in (images, kernels)), slopes.double())
    errors, seconds = [], {torchs: [], winograd_conv2d: []}
    for side in seconds:
        results = passed(side, images, kernels, slopes)
        pairs = zip(results, exact, strict=True)
        errors.append(max(float((own - true).abs().max() / true.abs().max()) for own, true in pairs))
    for _ in range(rounds):
        for side, taken in seconds.items():
            started = time.perf_counter()
            passed(side, images, kernels, slopes)
            taken.append(time.perf_counter() - started)
    direct, filtered = seconds.values()
    ratios = sorted(one / other for one, other in zip(direct, filtered, strict=True))
    work = 3 * 2 * 9 * in_channels * out_channels * count * size**2 / 1e9
    print(
        f"{count:4} x {size:2}x{size:<2} {in_channels:3} -> {out_channels:<3}  "
        f"{1e3 * statistics.median(direct):7.1f} {1e3 * statistics.median(filtered):7.1f} ms   "
        f"{statistics.median(ratios):4.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})   "
        f"{work / statistics.median(direct):4.0f} {work / statistics.median(filtered):4.0f} GFLOP/s   "
        f"{errors[0]:.0e} {errors[1]:.0e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    if not has_winograd():
        raise SystemExit("No C compiler here that compiles winograd.c.")
    load = os.getloadavg()[0]
    print(f"{torch.get_num_threads()} threads, load {load:.1f}, torch {torch.__version__}, n = {arguments.rounds}")
    print("images, size, channels      torch    ours      times faster          work, torch ours    error, torch ours")
    with memory_kept():
        for size, in_channels, out_channels in SHAPES:
            measure(arguments.batch, size, in_channels, out_channels, arguments.rounds)
        print("few tiles:")
        for count, size, channels in FEW_TILES:
            measure(count, size, channels, channels, arguments.rounds)


if __name__ == "__main__":
    main()
