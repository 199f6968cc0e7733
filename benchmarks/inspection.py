"""Inspection against plain inference: `python benchmarks/inspection.py [--repeats 7] [lenet5/c1 ...]`.

Each is a network and a layer. The same images pass through the same batches: plain (`predict_outputs`), with feature
maps of the layer, in search of a unit's top images, and of the images nearest to one. A ratio of 1 means as fast as
plain inference; the design asks for 0.8. Repeats of them alternate, so that a slow moment of the machine meets all of
them; on a CPU the time is that of the process, which other programs do not lengthen.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch

import glassnet as gn
from glassnet._device import describe_device, resolve_device
from glassnet.data.examples import ExampleSet
from glassnet.data.loader import to_device
from glassnet.data.preprocessing import Preprocessing
from glassnet.evaluation.prediction import predict_outputs

CASES = {
    "lenet5/c1": ("lenet5", (1, 32, 32), 10_000),
    "lenet5/act3": ("lenet5", (1, 32, 32), 10_000),
    "cnn2d/conv1": ("cnn2d", (3, 32, 32), 2048),
    "resnet20/layer1.0.conv1": ("resnet20", (3, 32, 32), 256),
    "resnet18/conv1": ("resnet18", (3, 96, 96), 64),
    "vgg11/features.3": ("vgg11", (3, 96, 96), 64),
}
"""Network, input shape and number of images by name."""


def seconds(run: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def measure(case: str, repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Return the seconds of each repeat: plain, feature maps, top images, nearest."""
    name, shape, count = CASES[case]
    layer = case.partition("/")[2]
    model = gn.build_model(name, num_classes=10, input_shape=shape).to(device)
    channels = shape[0]
    pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = tuple(str(index) for index in range(10))
    examples = ExampleSet(pixels, torch.arange(count) % 10, names)
    half, mode = (0.5,) * channels, "L" if channels == 1 else "RGB"
    record = Preprocessing(class_names=names, mode=mode, size=shape[1:], mean=half, std=half)

    def plain() -> object:
        return predict_outputs(model, to_device(examples, record, device).inputs, record)

    runs: dict[str, Callable[[], object]] = {
        "plain": plain,
        "feature maps": lambda: gn.feature_maps(model, examples, layer, preprocessing=record),
        "top images": lambda: gn.top_images(model, examples, f"{layer}:0", preprocessing=record),
        "nearest": lambda: gn.nearest(model, pixels[:1], examples, layer, preprocessing=record),
    }
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(repeats):
        for what, run in runs.items():
            found[what].append(seconds(run, device))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="NETWORK/LAYER")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    device = resolve_device()
    described = f"{describe_device(device)}, {platform.processor() or platform.machine()}, torch {torch.__version__}"
    print(f"{described}, n = {arguments.repeats}")
    for case in arguments.cases:
        found = measure(case, arguments.repeats, device)
        plain = statistics.median(found["plain"])
        figures = [f"plain {CASES[case][2] / plain:,.0f} img/s"]
        for what in ("feature maps", "top images", "nearest"):
            ratios = [a / b for a, b in zip(found["plain"], found[what], strict=True)]
            figures.append(f"{what} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"{case:26} " + "   ".join(figures), flush=True)


if __name__ == "__main__":
    main()
