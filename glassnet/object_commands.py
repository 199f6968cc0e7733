"""Verbs of `glassnet inspect` about objects: known again or not, and two of them in one image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glassnet._errors import UsageError
from glassnet.command_words import with_folders_expanded
from glassnet.inspect_options import (
    ClassesOption,
    CountOption,
    DataOption,
    DeviceOption,
    InputOption,
    JsonFlag,
    OutOption,
    RootOption,
    SplitOption,
    SubjectArg,
    TrustFlag,
    WeightsOption,
    finish,
    open_subject,
    say_set_aside,
    with_classes,
)

if TYPE_CHECKING:
    from glassnet.data.examples import ExampleSet
    from glassnet.data.images import SetAside
    from glassnet.inspection.batches import Images

app = typer.Typer()
"""The verbs of this file."""

LayersOption = Annotated[
    list[str] | None, typer.Option("--layer", help="Layers, joined by commas or repeated. Default: all of them.")
]


@app.command()
def separation(
    subject: SubjectArg,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A folder with a folder of images for each object.")
    ] = None,
    layers: LayersOption = None,
    measure: Annotated[str, typer.Option(help="cosine or euclidean.")] = "cosine",
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
    """Tell which layers know an object again: under pose, occlusion or age. Without a folder classes are objects."""
    from glassnet.inspection.batches import Fitted
    from glassnet.inspection.separation import separation as separated
    from glassnet.views.lenses import picture

    if folder is not None and data is not None:
        raise UsageError(f"Expected a folder of objects or --data; got both, {folder} and {data}. Leave one out.")
    opened = open_subject(subject, input_size, classes, weights, device, trust)
    set_aside: tuple[SetAside, ...] = ()
    if folder is not None:
        gathered = opened.gathered(_object_files(folder))
        set_aside, record = gathered.set_aside, opened.record
        objects = [Path(source).parent.name for source in gathered.sources]
        examples: Images = Fitted(gathered.inputs)
    else:
        chosen = opened.examples(data, split, count, root)
        objects, record, examples = _class_of_each(chosen), with_classes(opened, chosen), chosen
    found = separated(opened.model, examples, objects, _names(layers), measure, preprocessing=record)
    name = f"separation-{measure}"
    finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)
    say_set_aside((*set_aside, *found.set_aside))


@app.command()
def composition(
    subject: SubjectArg,
    first: Annotated[Path, typer.Argument(metavar="A", help="An image of one object.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="An image of another.")],
    both: Annotated[Path, typer.Argument(metavar="BOTH", help="An image with both in it.")],
    layers: LayersOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Tell what layers make of two objects in one image: the one, the other, their mean, or the larger of both."""
    from glassnet.inspection.composition import composition as composed
    from glassnet.views.lenses import picture

    opened = open_subject(subject, input_size, classes, weights, device, trust)
    found = composed(opened.model, first, second, both, _names(layers), preprocessing=opened.record)
    name = f"composition-{both.stem}"
    finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)


def _names(layers: list[str] | None) -> list[str] | None:
    if not layers:
        return None
    names = [name.strip() for text in layers for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--layer takes names of layers, such as conv1,conv2; got '{layers[0]}'.")
    return names


def _object_files(folder: Path) -> list[Path]:
    """Return the images in each sub-folder; a sub-folder without any stands for itself, to be set aside by name."""
    if not folder.is_dir():
        raise UsageError(f"Expected a folder with a folder of images for each object; there is none called {folder}.")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not inside:
        raise UsageError(
            f"Expected a folder of images for each object in {folder}; it holds no folder. Sort the images into "
            "folders named after what they show."
        )
    return with_folders_expanded(inside)


def _class_of_each(examples: ExampleSet) -> list[str]:
    if examples.is_regression:
        raise UsageError(
            "Expected examples with classes, which are the objects; these have values to predict. Name a folder with a "
            "folder of images for each object."
        )
    return [examples.class_names[label] for label in examples.labels.tolist()]
