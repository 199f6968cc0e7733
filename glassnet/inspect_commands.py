"""`glassnet inspect`: what a network sees, as a sentence, a picture and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassnet._errors import UsageError
from glassnet.inspect_options import (
    ClassesOption,
    CountOption,
    DataOption,
    DeviceOption,
    ImagesArg,
    InputOption,
    JsonFlag,
    LayerOption,
    OpenedSubject,
    OutOption,
    RootOption,
    SplitOption,
    SubjectArg,
    TrustFlag,
    WeightsOption,
    chosen_layer,
    finish,
    open_subject,
    say_set_aside,
    with_classes,
)

if TYPE_CHECKING:
    from torch import nn

    from glassnet.data.images import SetAside

app = typer.Typer()
"""The verbs of this file."""


@app.command()
def features(
    subject: SubjectArg,
    images: ImagesArg = None,
    layer: LayerOption = None,
    sort: Annotated[str, typer.Option(help="Channels by index, activation or variance.")] = "index",
    scale: Annotated[str, typer.Option(help="One shared colour scale, or each channel its own.")] = "shared",
    most: Annotated[int, typer.Option(help="Channels in a picture.")] = 64,
    data: DataOption = None,
    split: SplitOption = "test",
    count: CountOption = 100,
    root: RootOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what the channels of a layer make of images, and which of them are dead or saturated."""
    from glassnet.inspection.batches import Fitted
    from glassnet.inspection.feature_maps import feature_maps
    from glassnet.views.lenses import picture

    _check_most(most)
    opened = open_subject(subject, input_size, classes, weights, device, trust)
    name = chosen_layer(layer, opened)
    set_aside: tuple[SetAside, ...] = ()
    examples: Any
    if images:
        gathered = opened.gathered(images)
        examples, set_aside, keep, record = Fitted(gathered.inputs), gathered.set_aside, 8, opened.record
    else:
        examples, keep = opened.examples(data, split, count, root), 1
        record = opened.record
    found = feature_maps(opened.model, examples, name, sort=sort, scale=scale, keep=keep, preprocessing=record)
    sheets = {
        f"features-{name}" + (f"-{place + 1}" if len(found.maps) > 1 else ""): (
            lambda place=place: picture(found, image=place, most=most)
        )
        for place in range(len(found.maps))
    }
    finish(str(found), found.to_dict(), f"features-{name}", sheets, out, as_json)
    say_set_aside((*set_aside, *found.set_aside))


@app.command()
def filters(
    subject: SubjectArg,
    layer: LayerOption = None,
    most: Annotated[int, typer.Option(help="Filters in the picture.")] = 64,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the kernels of a convolution, their lengths and spread, and how far training moved them."""
    from glassnet.inspection.filters import filters as filters_of
    from glassnet.views.lenses import picture

    _check_most(most)
    opened = open_subject(subject, input_size, classes, weights, "cpu", trust)
    found = filters_of(opened.model, layer, initial=_initial(opened))
    sheets = {f"filters-{found.layer}": lambda: picture(found, most=most)}
    finish(str(found), found.to_dict(), f"filters-{found.layer}", sheets, out, as_json)


def _check_most(most: int) -> None:
    if most < 1:
        raise UsageError(f"--most must be at least 1; got {most}.")


def _initial(opened: OpenedSubject) -> nn.Module | None:
    """Return the run's network as it was before training, where its seed alone decides that."""
    from glassnet.models import build_model

    if opened.run is None:
        return None
    stored = opened.run.record["model"]
    if stored.get("name") is None or "seed" not in stored or "weights" in stored:
        return None
    return build_model(stored["name"], seed=stored["seed"], **stored["options"])


@app.command(name="receptive-field")
def receptive_field(
    subject: SubjectArg,
    layer: LayerOption = None,
    unit: Annotated[str | None, typer.Option(help="Position row,col, or channel@row,col. Default: the middle.")] = None,
    effective: Annotated[bool, typer.Option("--effective", help="Also how much each pixel counts.")] = False,
    image: Annotated[Path | None, typer.Option(help="An image to draw the field on.")] = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Work out which pixels the units of a layer see, and one unit's as a box, padding shown."""
    from glassnet.inspection.receptive_field import receptive_field as field_of
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust, needs_weights=effective)
    name = chosen_layer(layer, opened)
    pixels = opened.gathered([image]).inputs if image is not None else None
    inputs = None if pixels is None else opened.record.normalise(pixels)
    found = field_of(opened.model, opened.input_shape, name, effective=effective, images=inputs, unit=unit)
    box, padding = found.box(unit), found.padding(unit)
    finding = str(found)
    if unit is not None:
        place = ", ".join(f"{start} to {stop - 1}" for start, stop in box)
        is_inside = not any(map(sum, padding))
        finding += f" Unit {unit}: pixels {place}, {'all within the image' if is_inside else 'some of them padding'}."
    chosen = {"unit": unit, "box": box, "seen": found.seen(unit), "padding": padding}
    shown = None if pixels is None else pixels[0].numpy()
    sheets = {f"receptive-field-{name}": lambda: picture(found, unit=unit, image=shown)}
    finish(finding, {**found.to_dict(), "chosen": chosen}, f"receptive-field-{name}", sheets, out, as_json)


@app.command(name="top-images")
def top_images(
    subject: SubjectArg,
    unit: Annotated[str, typer.Option(help="layer:channel, or layer:channel@row,col, such as conv2:12.")],
    number: Annotated[int, typer.Option("-n", "--number", help="How many images.")] = 9,
    data: DataOption = None,
    split: SplitOption = "test",
    count: CountOption = None,
    root: RootOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the images, and the patch in each, that excite a unit most."""
    from glassnet.inspection.top_images import top_images as most_exciting
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    examples = opened.examples(data, split, count, root)
    found = most_exciting(opened.model, examples, unit, number, preprocessing=with_classes(opened, examples))
    name = f"top-images-{found.unit}"
    finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)
    say_set_aside(found.set_aside)


@app.command()
def ablation(
    subject: SubjectArg,
    layer: LayerOption = None,
    channels: Annotated[str | None, typer.Option(help="Such as 0,3,7. Default: each of the layer.")] = None,
    value: Annotated[str, typer.Option(help="What a silenced channel gives: zero, or its mean.")] = "zero",
    data: DataOption = None,
    split: SplitOption = "test",
    count: CountOption = None,
    root: RootOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure the accuracy without each channel of a layer, and without the layer."""
    from glassnet.inspection.ablation import ablate
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    name = chosen_layer(layer, opened)
    examples = opened.examples(data, split, count, root)
    of_run = opened.run if opened.run is not None else opened.model
    found = ablate(
        of_run, examples, name, _numbers(channels), value=value, preprocessing=with_classes(opened, examples)
    )
    connected = _connectivity(opened, name)
    result = {**found.to_dict(), "connectivity": None if connected is None else connected.to_dict()}
    file = f"ablation-{name}"
    finish(str(found), result, file, {file: lambda: picture(found)}, out, as_json)
    if not as_json and connected is not None:
        typer.echo(str(connected))
    say_set_aside(found.set_aside)


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--channels takes numbers joined by commas, such as 0,3,7; got '{text}'.")
    return [int(part) for part in parts]


def _connectivity(opened: OpenedSubject, layer: str):  # type: ignore[no-untyped-def]
    """Return the forms of a convolution with its own input shape; None for another kind of layer."""
    from glassnet.inspection.capture import layer_of
    from glassnet.inspection.connectivity import CONVOLUTIONS, connectivity
    from glassnet.inspection.summary import summary

    module = layer_of(opened.model, layer)
    if not isinstance(module, CONVOLUTIONS):
        return None
    rows = {row.name: row for row in summary(opened.model, opened.input_shape).rows}
    return connectivity(module, rows[layer].input_shape) if layer in rows else None
