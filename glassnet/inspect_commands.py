"""`glassnet inspect`: what a network sees, as a sentence, a picture and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassnet._errors import UsageError, WorkError, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from glassnet._types import Shape
    from glassnet.data.examples import Dataset, ExampleSet
    from glassnet.data.images import SetAside
    from glassnet.data.records import InputRecord
    from glassnet.evaluation.inputs import GatheredInputs
    from glassnet.runs import Run

app = typer.Typer(
    help="Look into a network: feature maps, filters, attribution, similarity and more.", no_args_is_help=True
)

SubjectArg = Annotated[
    str, typer.Argument(metavar="RUN|MODEL", help="A run folder, a network's name, or your own as file.py:Class.")
]
ImagesArg = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[IMAGE...]", help="Images or folders of them. Default: the split's first."),
]
LayerOption = Annotated[str | None, typer.Option(help="Path of a layer, such as conv2: `glassnet summary` lists them.")]
InputOption = Annotated[str | None, typer.Option("--input", metavar="CxHxW", help="Input of a network without a run.")]
ClassesOption = Annotated[int | None, typer.Option(help="Number of classes of a network without a run.")]
WeightsOption = Annotated[Path | None, typer.Option(help="Weights for a network without a run.")]
DataOption = Annotated[str | None, typer.Option(help="Other data than the run's own.")]
SplitOption = Annotated[str, typer.Option(help="train, validation or test.")]
CountOption = Annotated[int | None, typer.Option(help="Take this many of the split, from its start. Default: all.")]
RootOption = Annotated[Path | None, typer.Option(help="Folder with the data sets' files. Default: $GLASSNET_DATA.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
TrustFlag = Annotated[bool, typer.Option("--trust", help="Execute the source of a network of the user's own.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder to write the picture (PNG) and the numbers (JSON) to.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is looked at: a run, or a network without one."""

    name: str
    model: nn.Module
    input_shape: Shape
    run: Run | None

    @cached_property
    def record(self) -> InputRecord:
        """How inputs are prepared; without a run, pixels are brought to -1..1, which is said."""
        from glassnet.data.preprocessing import MODES, Preprocessing

        if self.run is not None:
            return self.run.preprocessing
        channels, *size = self.input_shape
        if channels not in MODES or len(size) != 2:
            raise UsageError(
                f"Only images (1 or 3 channels) can be prepared without a run; {self.name} takes {self.input_shape}. "
                "Name a run folder."
            )
        typer.echo("Note: no run says how images are prepared; they are stretched and brought to -1..1.", err=True)
        halves = (0.5,) * channels
        return Preprocessing(
            class_names=(), mode=MODES[channels], size=(size[0], size[1]), mean=halves, std=halves, fit="stretch"
        )

    def examples(self, data: str | None, split: str, count: int | None, root: Path | None) -> ExampleSet:
        """Return a split of the run's data, or of other data, or its first `count` examples."""
        if split not in ("train", "validation", "test"):
            raise unknown_name("split", split, ("train", "validation", "test"))
        if count is not None and count < 1:
            raise UsageError(f"--count must be at least 1; got {count}.")
        examples: ExampleSet = getattr(self._dataset(data, root), split)
        return examples if count is None else examples[:count]

    def _dataset(self, data: str | None, root: Path | None) -> Dataset:
        from glassnet.data.sources import load_data

        if self.run is not None:
            return self.run.load_data(root) if data is None else self.run.load_other(data, root)
        if data is None:
            raise UsageError(f"{self.name} is no run and has no data of its own. Say --data, or name a run folder.")
        return load_data(data, root)

    def gathered(self, images: list[Path]) -> GatheredInputs:
        """Return image files, prepared as far as pixels."""
        from glassnet.cli import _expand_folders
        from glassnet.evaluation.inputs import gather_inputs

        found = gather_inputs(_expand_folders(images), self.record)
        if not found.sources:
            reasons = "; ".join(f"{item.source}: {item.reason}" for item in found.set_aside)
            raise WorkError(f"None of the images can be read: {reasons}. Name others.")
        return found


def _opened(
    subject: str,
    input_size: str | None,
    classes: int | None,
    weights: Path | None,
    device: str,
    trust: bool,
    *,
    needs_weights: bool = True,
) -> _Subject:
    from glassnet._device import resolve_device
    from glassnet._user_code import is_address
    from glassnet.cli import _built
    from glassnet.models import list_models
    from glassnet.models.weights import load_weights
    from glassnet.runs import open_run

    if not is_address(subject) and subject not in list_models() and (Path(subject).exists() or "/" in subject):
        if input_size or classes or weights:
            raise UsageError("A run's network is as it was trained; leave out --input, --classes and --weights.")
        run = open_run(subject, device=device, trust=trust)
        return _Subject(subject, run.model, run.preprocessing.input_shape, run)
    network, shape = _built(subject, input_size, classes, {})
    if weights is not None:
        load_weights(network, weights, keep_head=True)
    elif needs_weights:
        typer.echo(f"Note: {subject} is no run; its weights are untrained. --weights names a file of them.", err=True)
    return _Subject(subject, network.to(resolve_device(device)), shape, None)


def _layer(layer: str | None, subject: _Subject) -> str:
    """Return the layer asked for; raise `UsageError` that lists what there is where none was."""
    if layer is not None:
        return layer
    names = [name for name, module in subject.model.named_modules() if name and not any(module.children())]
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more (`glassnet summary`)" if len(names) > 12 else "")
    raise UsageError(f"Say which layer: --layer NAME. {subject.name} has {shown}.")


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

    opened = _opened(subject, input_size, classes, weights, device, trust)
    name = _layer(layer, opened)
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
    _finish(str(found), found.to_dict(), f"features-{name}", sheets, out, as_json)
    _say_set_aside((*set_aside, *found.set_aside))


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

    opened = _opened(subject, input_size, classes, weights, "cpu", trust)
    found = filters_of(opened.model, layer, initial=_initial(opened))
    sheets = {f"filters-{found.layer}": lambda: picture(found, most=most)}
    _finish(str(found), found.to_dict(), f"filters-{found.layer}", sheets, out, as_json)


def _initial(opened: _Subject) -> nn.Module | None:
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

    opened = _opened(subject, input_size, classes, weights, device, trust, needs_weights=effective)
    name = _layer(layer, opened)
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
    _finish(finding, {**found.to_dict(), "chosen": chosen}, f"receptive-field-{name}", sheets, out, as_json)


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

    opened = _opened(subject, input_size, classes, weights, device, trust)
    examples = opened.examples(data, split, count, root)
    found = most_exciting(opened.model, examples, unit, number, preprocessing=_classed(opened, examples))
    name = f"top-images-{found.unit}"
    _finish(str(found), found.to_dict(), name, {name: lambda: picture(found)}, out, as_json)
    _say_set_aside(found.set_aside)


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

    opened = _opened(subject, input_size, classes, weights, device, trust)
    name = _layer(layer, opened)
    examples = opened.examples(data, split, count, root)
    of_run = opened.run if opened.run is not None else opened.model
    found = ablate(of_run, examples, name, _numbers(channels), value=value, preprocessing=_classed(opened, examples))
    connected = _connectivity(opened, name)
    result = {**found.to_dict(), "connectivity": None if connected is None else connected.to_dict()}
    file = f"ablation-{name}"
    _finish(str(found), result, file, {file: lambda: picture(found)}, out, as_json)
    if not as_json and connected is not None:
        typer.echo(str(connected))
    _say_set_aside(found.set_aside)


def _classed(opened: _Subject, examples: ExampleSet) -> InputRecord:
    """Return the record of the inputs; without a run, with the classes of the examples."""
    from dataclasses import replace

    record = opened.record
    return record if opened.run is not None else replace(record, class_names=examples.class_names)


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--channels takes numbers joined by commas, such as 0,3,7; got '{text}'.")
    return [int(part) for part in parts]


def _connectivity(opened: _Subject, layer: str):  # type: ignore[no-untyped-def]
    """Return the forms of a convolution with its own input shape; None for another kind of layer."""
    from glassnet.inspection.capture import layer_of
    from glassnet.inspection.connectivity import CONVOLUTIONS, connectivity
    from glassnet.inspection.summary import summary

    module = layer_of(opened.model, layer)
    if not isinstance(module, CONVOLUTIONS):
        return None
    rows = {row.name: row for row in summary(opened.model, opened.input_shape).rows}
    return connectivity(module, rows[layer].input_shape) if layer in rows else None


def _finish(
    finding: str, result: dict[str, object], name: str, sheets: dict[str, Any], out: Path | None, as_json: bool
) -> None:
    """Say what was found, and write the pictures and the numbers where a folder was named."""
    from glassnet.cli import _print_json

    written = [] if out is None else _written(result, name, sheets, out)
    if as_json:
        _print_json({**result, "finding": finding, "files": [str(path) for path in written]})
        return
    typer.echo(finding)
    for path in written:
        typer.echo(f"  {path}")


def _written(result: dict[str, object], name: str, sheets: dict[str, Any], out: Path) -> list[Path]:
    import json

    from glassnet.cli import _finite

    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = []
        for title, draw in sheets.items():
            paths.append(out / f"{_file_name(title)}.png")
            draw().save(paths[-1], optimize=True)
        paths.append(out / f"{_file_name(name)}.json")
        text = json.dumps(_finite(result), indent=2, ensure_ascii=False, default=str, allow_nan=False)
        paths[-1].write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise WorkError(f"Could not write to {out}: {error}. Name a folder you may write to with --out.") from None
    return paths


def _file_name(title: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-_.,@" else "-" for sign in title)


def _say_set_aside(set_aside: tuple[SetAside, ...]) -> None:
    """Name what could not be read; that much of the work failed."""
    for item in set_aside:
        typer.echo(f"Set aside: {item.source}: {item.reason}", err=True)
    if set_aside:
        raise typer.Exit(1)
