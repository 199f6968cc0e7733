"""`glassnet verify`: recompute numbers drawn from a network and compare them with torch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glassnet._errors import UsageError
from glassnet.inspect_options import (
    ClassesOption,
    DeviceOption,
    ImagesArg,
    InputOption,
    JsonFlag,
    SubjectArg,
    TrustFlag,
    WeightsOption,
    open_subject,
)
from glassnet.printing import print_json


def verify(
    subject: SubjectArg,
    images: ImagesArg = None,
    units: Annotated[int, typer.Option(help="How many units, deltas and weights each.")] = 100,
    seed: Annotated[int, typer.Option(help="Decides which, and the input where no image is named.")] = 0,
    float64: Annotated[bool, typer.Option("--float64", help="Compute in float64, tolerance 1e-12.")] = False,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Recompute units, deltas and gradients of weights, term by term, and compare them with torch's own numbers.

    Exit code 1 where one is beyond its tolerance: 1e-5 of the sum of the absolute terms in float32, 1e-12 in float64.
    """
    import torch

    from glassnet.inspection.verification import verify as verified

    opened = open_subject(subject, input_size, classes, weights, device, trust, needs_weights=False)
    model = opened.model.double() if float64 else opened.model
    dtype = torch.float64 if float64 else torch.float32
    if images:
        given = opened.record.normalise(opened.gathered(list(_single(images))).inputs).to(dtype)
    else:
        given = torch.rand(1, *opened.input_shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    found = verified(model, given.to(next(model.parameters()).device), units=units, seed=seed)
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(str(found))
    if not found.passed:
        raise typer.Exit(1)


def _single(images: list[Path]) -> tuple[Path]:
    if len(images) != 1:
        raise UsageError(f"One image is run; got {len(images)}. Name one.")
    return (images[0],)
