"""Further verbs of `glassnet inspect`: attribution, visualisation, similarity, projection, equivariance."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from glassnet._errors import UsageError
from glassnet.inspect_options import (
    ClassesOption,
    CountOption,
    DataOption,
    DeviceOption,
    ImageArg,
    ImagesArg,
    InputOption,
    JsonFlag,
    LayerOption,
    MeasureOption,
    OutOption,
    RootOption,
    SeedOption,
    SetOption,
    SplitOption,
    SubjectArg,
    TrustFlag,
    WeightsOption,
    chosen_layer,
    finish,
    fitted_files,
    images_or_split,
    open_subject,
    say_set_aside,
    with_classes,
)

app = typer.Typer()
"""The verbs of this file."""


@app.command()
def attribute(
    subject: SubjectArg,
    image: ImageArg,
    method: Annotated[
        str, typer.Option(help="saliency, integrated_gradients, deeplift, lrp, grad_cam, occlusion and more.")
    ] = "integrated_gradients",
    target: Annotated[str | None, typer.Option(help="Name or number of a class. Default: the largest output.")] = None,
    options: SetOption = None,
    seed: SeedOption = 0,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Tell which pixels of an image made a class' score what it is; also drawn on the photo itself."""
    from glassnet.data.preprocessing import Preprocessing
    from glassnet.inspection.attribution import attribute as attributed
    from glassnet.inspection.attribution import map_to_photo
    from glassnet.views.attribution_sheets import photo_sheet
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    record = opened.record
    inputs, _ = fitted_files(opened, [image])
    chosen: int | str | None = target
    if target is not None and target not in record.class_names and target.isdecimal():
        chosen = int(target)
    found = attributed(opened.model, inputs, chosen, method, preprocessing=record, seed=seed, **_settings(options))
    name = f"attribution-{method}-{image.stem}"
    sheets: dict[str, Any] = {name: lambda: picture(found)}
    if isinstance(record, Preprocessing):
        sheets[f"{name}-photo"] = lambda: photo_sheet(found, map_to_photo(found.map, record, image), image)
    finish(str(found), found.to_dict(), name, sheets, out, as_json)


@app.command()
def visualize(
    subject: SubjectArg,
    unit: Annotated[str, typer.Option(help="layer:channel, layer:channel@row,col, a layer, or class:3.")],
    steps: Annotated[int, typer.Option(help="Steps of the ascent.")] = 256,
    size: Annotated[int | None, typer.Option(help="Side of the image in pixels. Default: the network's input.")] = None,
    number: Annotated[int, typer.Option("-n", "--number", help="How many different images.")] = 1,
    seed: SeedOption = 0,
    colours: Annotated[
        str, typer.Option(help="auto: vary as the training images' do, where they are here; or imagenet.")
    ] = "auto",
    data: Annotated[str | None, typer.Option(help="Other data to take the colours of.")] = None,
    root: RootOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make images that excite a unit, a channel, a layer or a class."""
    from glassnet.inspection.visualisation import visualize as visualised
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    images = None if data is None and root is None else opened.examples(data, "train", None, root)
    found = visualised(
        opened.model if opened.run is None else opened.run,
        unit,
        steps=steps,
        size=size,
        n=number,
        seed=seed,
        colours=colours,
        images=images,
        preprocessing=opened.record if images is None else with_classes(opened, images),
    )
    name = f"visualization-{found.subject}"
    finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)


@app.command()
def similarity(
    subject: SubjectArg,
    images: ImagesArg = None,
    layer: LayerOption = None,
    measure: MeasureOption = "cosine",
    data: DataOption = None,
    split: SplitOption = "test",
    count: CountOption = 16,
    root: RootOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare every two of some images by what a layer makes of them."""
    from glassnet.inspection.similarity import similarity as compared
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    chosen = chosen_layer(layer, opened)
    examples, set_aside = images_or_split(opened, images, data, split, count, root)
    found = compared(opened.model, examples, chosen, measure, preprocessing=opened.record)
    name = f"similarity-{chosen}-{measure}"
    finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)
    say_set_aside((*set_aside, *found.set_aside))


@app.command()
def nearest(
    subject: SubjectArg,
    image: ImageArg,
    layer: LayerOption = None,
    number: Annotated[int, typer.Option("-n", "--number", help="How many examples.")] = 5,
    measure: MeasureOption = "cosine",
    data: DataOption = None,
    split: SplitOption = "train",
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
    """Find the examples of a data set that a layer finds most like an image."""
    from glassnet.inspection.neighbours import nearest as nearest_of
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    chosen = chosen_layer(layer, opened)
    examples = opened.examples(data, split, count, root)
    inputs, _ = fitted_files(opened, [image])
    record = with_classes(opened, examples)
    found = nearest_of(opened.model, inputs, examples, chosen, number, measure, preprocessing=record)
    name = f"nearest-{chosen}-{image.stem}"
    finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)
    say_set_aside(found.set_aside)


@app.command()
def project(
    subject: SubjectArg,
    layer: LayerOption = None,
    method: Annotated[str, typer.Option(help="pca or tsne.")] = "pca",
    perplexity: Annotated[float | None, typer.Option(help="How many neighbours count, about (t-SNE).")] = None,
    seed: SeedOption = 0,
    data: DataOption = None,
    split: SplitOption = "test",
    count: CountOption = 1000,
    root: RootOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Lay examples out on a plane by what a layer makes of them."""
    from glassnet.inspection.projection import project as projected
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    chosen = chosen_layer(layer, opened)
    examples = opened.examples(data, split, count, root)
    record = with_classes(opened, examples)
    found = projected(opened.model, examples, chosen, method, perplexity=perplexity, seed=seed, preprocessing=record)
    name = f"projection-{chosen}-{method}"
    finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)
    say_set_aside(found.set_aside)


@app.command()
def equivariance(
    subject: SubjectArg,
    images: ImagesArg = None,
    transform: Annotated[
        str, typer.Option(help="translate (right), translate-down, rotate, scale or flip.")
    ] = "translate",
    layer: LayerOption = None,
    amounts: Annotated[str | None, typer.Option(help="Pixels, degrees or factors, such as 1,2,4.")] = None,
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
    """Measure how far the maps of each layer move as the image does, and whether the class stays."""
    from glassnet.inspection.equivariance import equivariance as measured
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    examples, set_aside = images_or_split(opened, images, data, split, count, root)
    found = measured(opened.model, examples, transform, layer, _amounts(amounts), preprocessing=opened.record)
    name = f"equivariance-{transform}" + (f"-{layer}" if layer else "")
    finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)
    say_set_aside((*set_aside, *found.set_aside))


def _amounts(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--amounts takes numbers joined by commas, such as 1,2,4; got '{text}'.") from None


def _settings(options: list[str] | None) -> dict[str, Any]:
    """Return `--set` options as numbers where they are numbers; the method checks their names."""
    found: dict[str, Any] = {}
    for option in options or []:
        name, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"--set takes OPTION=VALUE, such as steps=128; got '{option}'.")
        if name in ("baseline", "batch_size", "seed", "preprocessing"):
            raise UsageError(f"--set takes options of the method alone; got '{name}'.")
        found[name] = _number(value)
    return found


def _number(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
