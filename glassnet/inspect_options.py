"""What the verbs of `glassnet inspect` share: arguments and options, opening the subject, saying what was found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassnet._errors import UsageError, WorkError, unknown_name
from glassnet.command_words import built_network, with_folders_expanded
from glassnet.printing import json_text, print_json

if TYPE_CHECKING:
    from torch import nn

    from glassnet._types import Shape
    from glassnet.data.examples import Dataset, ExampleSet
    from glassnet.data.images import SetAside
    from glassnet.data.records import InputRecord
    from glassnet.evaluation.inputs import GatheredInputs
    from glassnet.runs import Run

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
ImageArg = Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")]
MeasureOption = Annotated[str, typer.Option(help="cosine, euclidean or cka.")]
SeedOption = Annotated[int, typer.Option(help="Seed of whatever is drawn.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="An option of the method, such as steps=128.")
]


@dataclass(frozen=True, eq=False)
class OpenedSubject:
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
        from glassnet.evaluation.inputs import gather_inputs

        found = gather_inputs(with_folders_expanded(images), self.record)
        if not found.sources:
            reasons = "; ".join(f"{item.source}: {item.reason}" for item in found.set_aside)
            raise WorkError(f"None of the images can be read: {reasons}. Name others.")
        return found


def open_subject(
    subject: str,
    input_size: str | None,
    classes: int | None,
    weights: Path | None,
    device: str,
    trust: bool,
    *,
    needs_weights: bool = True,
) -> OpenedSubject:
    """Open a run, or build a network by its name or address; what it has no trained weights for is said.

    Raises `UsageError` for options that do not go with a run, and what opening and building raise.
    """
    from glassnet._device import resolve_device
    from glassnet._user_code import is_address
    from glassnet.models import list_models
    from glassnet.models.weights import load_weights
    from glassnet.runs import open_run

    if not is_address(subject) and subject not in list_models() and (Path(subject).exists() or "/" in subject):
        if input_size or classes or weights:
            raise UsageError("A run's network is as it was trained; leave out --input, --classes and --weights.")
        run = open_run(subject, device=device, trust=trust)
        return OpenedSubject(subject, run.model, run.preprocessing.input_shape, run)
    network, shape = built_network(subject, input_size, classes, {})
    if weights is not None:
        load_weights(network, weights, keep_head=True)
    elif needs_weights:
        typer.echo(f"Note: {subject} is no run; its weights are untrained. --weights names a file of them.", err=True)
    return OpenedSubject(subject, network.to(resolve_device(device)), shape, None)


def chosen_layer(layer: str | None, subject: OpenedSubject) -> str:
    """Return the layer asked for; raise `UsageError` that lists what there is where none was."""
    if layer is not None:
        return layer
    names = [name for name, module in subject.model.named_modules() if name and not any(module.children())]
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more (`glassnet summary`)" if len(names) > 12 else "")
    raise UsageError(f"Say which layer: --layer NAME. {subject.name} has {shown}.")


def with_classes(opened: OpenedSubject, examples: ExampleSet) -> InputRecord:
    """Return the record of the inputs; without a run, with the classes of the examples."""
    from dataclasses import replace

    record = opened.record
    return record if opened.run is not None else replace(record, class_names=examples.class_names)


def finish(
    finding: str, result: dict[str, object], name: str, sheets: dict[str, Any], out: Path | None, as_json: bool
) -> None:
    """Say what was found, and write the pictures and the numbers where a folder was named."""

    written = [] if out is None else _written(result, name, sheets, out)
    if as_json:
        print_json({**result, "finding": finding, "files": [str(path) for path in written]})
        return
    typer.echo(finding)
    for path in written:
        typer.echo(f"  {path}")


def _written(result: dict[str, object], name: str, sheets: dict[str, Any], out: Path) -> list[Path]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = []
        for title, draw in sheets.items():
            paths.append(out / f"{_file_name(title)}.png")
            draw().save(paths[-1], optimize=True)
        paths.append(out / f"{_file_name(name)}.json")
        paths[-1].write_text(json_text(result) + "\n", encoding="utf-8")
    except OSError as error:
        raise WorkError(f"Could not write to {out}: {error}. Name a folder you may write to with --out.") from None
    return paths


def _file_name(title: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-_.,@" else "-" for sign in title)


def say_set_aside(set_aside: tuple[SetAside, ...]) -> None:
    """Name what could not be read; that much of the work failed."""
    for item in set_aside:
        typer.echo(f"Set aside: {item.source}: {item.reason}", err=True)
    if set_aside:
        raise typer.Exit(1)


def fitted_files(opened: OpenedSubject, images: list[Path]) -> tuple[Any, tuple[SetAside, ...]]:
    """Return image files as pixels fitted to the input, and those that cannot be read."""
    from glassnet.inspection.batches import Fitted

    gathered = opened.gathered(images)
    return Fitted(gathered.inputs), gathered.set_aside


def images_or_split(
    opened: OpenedSubject, images: list[Path] | None, data: str | None, split: str, count: int | None, root: Path | None
) -> tuple[Any, tuple[SetAside, ...]]:
    """Return the images that were named, or the split's first."""
    if images:
        return fitted_files(opened, images)
    return opened.examples(data, split, count, root), ()
