"""Speed of tracing: `OMP_NUM_THREADS=1 python benchmarks/tracing.py [--model resnet50] [--size 224] [--units 4]`.

A network on one image: a plain forward pass, and a trace of it, in turn; then random units of every step, itemised one
by one. The first unit of each operation is asked for once before, so that nothing is loaded while the clock runs. Times
are medians with the 95th percentile; every unit is also compared with torch's value.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch

import glassnet as gn


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(int(share * len(times)), len(times) - 1)]


def measure_passes(model: torch.nn.Module, image: torch.Tensor, rounds: int) -> None:
    plain, traced = [], []
    model.eval()
    for _ in range(rounds):
        with torch.no_grad():
            plain.append(milliseconds(lambda: model(image[None])))
            traced.append(milliseconds(lambda: gn.trace(model, image)))
    ratio = statistics.median(one / other for one, other in zip(traced, plain, strict=True))
    print(f"forward {statistics.median(plain):.0f} ms, trace {statistics.median(traced):.0f} ms, {ratio:.2f} x forward")


def measure_units(model: torch.nn.Module, image: torch.Tensor, number: int) -> None:
    trace = gn.trace(model, image)
    generator = torch.Generator().manual_seed(0)
    times, worst = defaultdict(list), 0.0
    print(f"{len(trace.steps)} steps, {trace.memory / 2**20:.0f} MiB, coverage {trace.coverage:.0%}")
    for step in trace.steps:
        for _ in range(number):
            index = tuple(int(torch.randint(size, (), generator=generator)) for size in step.shape)
            address = trace.naming.text((step.output, index))
            start = time.perf_counter()
            unit = trace.unit(address)
            times[step.op].append(1000 * (time.perf_counter() - start))
            worst = max(worst, unit.relative_difference)
    every = [value for found in times.values() for value in found]
    print(f"{'':24}{'n':>6}{'median ms':>12}{'p95 ms':>10}{'most ms':>10}")
    for op, found in [("every unit", every), *times.items()]:
        middle, high = statistics.median(found), percentile(found, 0.95)
        print(f"{op:24}{len(found):>6}{middle:>12.2f}{high:>10.2f}{max(found):>10.2f}")
    print(f"largest difference from torch: {worst:.1e} of the sum of the absolute terms")


def measure_kernel(rounds: int) -> None:
    layer = torch.nn.Conv2d(512, 512, 3, padding=1)
    trace = gn.trace(torch.nn.Sequential(layer), torch.rand(512, 14, 14))
    trace.unit("0:0@0,0")
    times = [milliseconds(lambda place=place: trace.unit(f"0:{place}@7,7")) for place in range(rounds)]
    print(f"a unit of a 512x3x3 kernel, 4,608 terms: {statistics.median(times):.2f} ms (n={rounds})")
    whole = [milliseconds(lambda place=place: trace.units(f"0:{place}")) for place in range(rounds // 4)]
    print(f"its channel, 196 units at once: {statistics.median(whole):.1f} ms (n={len(whole)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--units", type=int, default=4, help="random units of each step")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(
        f"{options.model} at {options.size}; {os.cpu_count()} processors ({platform.machine()}), "
        f"{torch.get_num_threads()} thread, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )
    model = gn.build_model(options.model)
    image = torch.rand(3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    measure_passes(model, image, options.rounds)
    measure_units(model, image, options.units)
    measure_kernel(40)


if __name__ == "__main__":
    main()
