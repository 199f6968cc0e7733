"""The command line: parse and call. Heavy imports stand inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassnet._errors import GlassnetError, UsageError
from glassnet.command_words import (
    built_network,
    fitting_size,
    input_size_of,
    prepare,
    split_settings,
    usual_config,
    with_folders_expanded,
)
from glassnet.explain_commands import explain, steps
from glassnet.inspect_commands import app as network_verbs
from glassnet.lens_commands import app as lens_verbs
from glassnet.object_commands import app as object_verbs
from glassnet.printing import print_json, print_parts
from glassnet.verify_command import verify as verify_command

if TYPE_CHECKING:
    from torch import nn

    from glassnet.data.examples import Dataset
    from glassnet.data.images import SetAside
    from glassnet.data.records import InputRecord
    from glassnet.runs import Run
    from glassnet.training.config import TrainConfig

app = typer.Typer(
    name="glassnet",
    help="Convolutional neural networks made of glass: train one, then open it down to each multiplication.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
inspect_app = typer.Typer(
    help="Look into a network: feature maps, filters, attribution, similarity and more.", no_args_is_help=True
)
for verbs in (network_verbs, lens_verbs, object_verbs):
    inspect_app.add_typer(verbs)
app.add_typer(inspect_app, name="inspect")
app.command()(verify_command)
app.command()(explain)
app.command()(steps)

RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/digits-lenet5.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
ForwardPrecisionOption = Annotated[
    str, typer.Option("--precision", help="fp32, bf16, fp16, or auto: bf16 where the hardware multiplies it.")
]
TtaOption = Annotated[
    str,
    typer.Option(help="Test-time augmentation: none, mirror, or mirror-shift; 2 or 6 times as long."),
]
ForwardCompileFlag = Annotated[
    bool, typer.Option("--compile", help="Compile the network first; pays for large networks and many inputs.")
]
TargetOption = Annotated[
    str | None, typer.Option(help="Column to predict: of a CSV (default: the last) or of an hf: data set.")
]
TaskOption = Annotated[
    str | None, typer.Option(help="classification or regression, for labels in a file. Default: by the labels.")
]
TrustFlag = Annotated[
    bool, typer.Option("--trust", help="Execute the source of a network of the user's own that the run holds.")
]
StrictFlag = Annotated[bool, typer.Option("--strict", help="Stop at files or rows that cannot be used.")]
FitOption = Annotated[
    str | None,
    typer.Option(
        help="Images of other proportions: crop, pad or stretch them. Default: crop for a folder, else stretch."
    ),
]
InterpolationOption = Annotated[str | None, typer.Option(help="nearest, bilinear (default), bicubic or lanczos.")]
SizeOption = Annotated[int | None, typer.Option(help="Height and width of the network's input in pixels.")]
AugmentOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT|default|none",
        help="Changes to training images, such as 'RandomCrop(padding=4),RandomHorizontalFlip'. "
        "They replace all that a recipe does to images. Default: the recipe's, or for photographs what suits them.",
    ),
]
RootOption = Annotated[
    Path | None, typer.Option(help="Folder with the data sets' files. Default: $GLASSNET_DATA, then the user's cache.")
]


@app.command()
def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A name (`glassnet datasets`), a folder, a file, shards, hf:owner/name."),
    ] = "digits",
    model: Annotated[
        str | None,
        typer.Option(
            help="A network: see `glassnet models`, or your own: file.py:Class, or file.py:function that returns one. "
            "Default: that of --recipe fast for grey and colour images, mlp for numbers, lenet5 for digits and "
            "for values of images."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/DATA-MODEL.")] = None,
    recipe_name: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="fast or accurate: a network and its training, chosen by measurement on MNIST and CIFAR-10.",
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training examples; 0.5 is half of one.")] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="N|all|auto", help="Examples per step; all is batch gradient descent, 1 stochastic."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam, adamw, rmsprop, adagrad or muon.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="A loss by name, such as rmse, or your own: file.py:function of outputs, labels.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split, the first weights and the training.")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")] = False,
    on_nan: Annotated[
        str | None, typer.Option(help="Where the loss is lost: stop, or halve-lr and go on. Default: stop.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run that was interrupted or killed.")
    ] = None,
    trust: TrustFlag = False,
    size: SizeOption = None,
    fit: FitOption = None,
    interpolation: InterpolationOption = None,
    augment: AugmentOption = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights to start from (.safetensors, .pth); another last layer is kept.")
    ] = None,
    target: TargetOption = None,
    task: TaskOption = None,
    strict: StrictFlag = False,
    root: RootOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any field of TrainConfig, model.OPTION of the network, or data.OPTION of the data; repeatable.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write events for TensorBoard, to RUN/tensorboard.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a network and write a run folder with weights, figures and a report."""
    if resume is not None:
        _resume(context, resume, root, loss, trust, not quiet, as_json)
        return
    if trust:
        raise UsageError("--trust is for runs that hold a network of the user's own; with --resume. Leave it out.")
    from glassnet.data.augmentation import DEFAULT
    from glassnet.data.overview import describe_dataset
    from glassnet.data.standard import STANDARD_SETS
    from glassnet.experiments import train as train_run
    from glassnet.models.weights import load_weights
    from glassnet.training.config import TrainConfig
    from glassnet.views.tensorboard import writer_class as require_tensorboard

    flags = {
        "seed": seed,
        "epochs": int(epochs) if epochs is not None and epochs.is_integer() else epochs,
        "batch_size": None if batch_size is None else TrainConfig.parse("batch_size", batch_size),
        "learning_rate": lr,
        "optimizer": optimizer,
        "device": device,
        "precision": precision,
        "compile": compile_ or None,
        "on_nan": on_nan,
        "loss": loss,
        "augment": augment,
    }
    if tensorboard:
        require_tensorboard()
    options, data_options, fields = split_settings(settings or [])
    prepared = prepare(
        data, model, recipe_name, flags, options, fields,
        size=size, root=root, target=target, task=task, strict=strict,
        data_options={**data_options, "fit": fit, "interpolation": interpolation},
    )  # fmt: skip
    network, examples, config = prepared.network, prepared.examples, prepared.config
    if not quiet and examples.source not in STANDARD_SETS:
        overview = describe_dataset(
            examples, notes=examples.notes, set_aside=examples.set_aside, input_size=input_size_of(network)
        )
        typer.echo("\n".join(overview.lines()), err=True)
    if weights is not None:
        loaded = load_weights(network, weights, keep_head=True)
        kept = f"; left as built: {', '.join(loaded.left_as_built)}" if loaded.left_as_built else ""
        typer.echo(f"Weights from {weights}: {loaded.num_loaded} tensors{kept}", err=True)
    if config.augment == DEFAULT and not quiet:
        _say_usual_augmentation(examples, network, config)
    run = train_run(
        network, examples, config, loss=prepared.own_loss, out=out, progress=not quiet, tensorboard=tensorboard
    )
    _say_trained(run, as_json, is_users=prepared.is_users)


def _resume(
    context: typer.Context,
    path: Path,
    root: Path | None,
    loss: str | None,
    trust: bool,
    progress: bool,
    as_json: bool,
) -> None:
    """Go on with an interrupted run, whose folder says everything that the other flags of `train` do."""
    from glassnet._user_code import is_address
    from glassnet.experiments import resume
    from glassnet.training.own_loss import load_loss

    takes = {"resume", "root", "loss", "trust", "quiet", "as_json"}
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    others = [name for name in given if name not in takes]
    if others:
        flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        words = ", ".join("DATA" if name == "data" else str(flags.get(name, name)) for name in others)
        raise UsageError(f"--resume takes everything from {path}: leave {words} out. Or train anew without --resume.")
    if loss is not None and not is_address(loss):
        raise UsageError(f"With --resume, --loss gives a loss of the user's own, file.py:function; got '{loss}'.")
    own_loss = load_loss(loss) if loss is not None else None
    run = resume(path, loss=own_loss, root=root, trust=trust, progress=progress)
    _say_trained(run, as_json, is_users=trust)


def _say_trained(run: Run, as_json: bool, *, is_users: bool) -> None:
    """Print what a training came to, and where it lies; of several processes, the first does."""
    if int(os.environ.get("RANK", "0")):
        return
    from glassnet.run_folder import EVENTS

    result, used = run.record["result"], run.record["data"]
    if as_json:
        losses = {name: used[name] for name in ("cropped_share", "num_set_aside", "set_aside") if name in used}
        print_json(
            {"run": str(run.path), "report": str(run.report_path), **result, "bound": run.record["bound"], **losses}
        )
        return
    if "test_accuracy" in result:
        accuracy, count = result["test_accuracy"], run.record["data"]["num_test"]
        typer.echo(f"Test accuracy  {accuracy:.2%} ({round(accuracy * count):,} of {count:,} right)")
    elif "test_rmse" in result:
        typer.echo(f"Test error     {result['test_rmse']:.6g} (root mean squared)")
    if used.get("num_set_aside"):
        typer.echo(f"Set aside      {used['num_set_aside']:,} not used, such as {'; '.join(used['set_aside'][:3])}")
    if changes := _changes_in_words(run.config):
        typer.echo(f"Augmentation   {changes}")
    if result.get("stop_reason") == "interrupted":
        typer.echo(f"Interrupted    go on with: glassnet train --resume {run.path}")
    typer.echo(f"Run folder     {run.path}")
    typer.echo(f"Report         {run.report_path}  (open it in any browser: {run.report_path.resolve().as_uri()})")
    if (run.path / EVENTS).is_dir():
        typer.echo(f"Events         tensorboard --logdir {run.path}")
    next_input = _kind_of_input(run.preprocessing) + (" --trust" if is_users else "")
    typer.echo(f"Next           glassnet predict {run.path} {next_input}")


@app.command(name="lr-range")
def lr_range(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A name (`glassnet datasets`), a folder, a file, shards, hf:owner/name."),
    ] = "digits",
    model: Annotated[
        str | None, typer.Option(help="As for `glassnet train`: a network by name, or your own, file.py:Class.")
    ] = None,
    low: Annotated[float, typer.Option(help="Learning rate of the first step.")] = 1e-5,
    high: Annotated[float, typer.Option(help="Learning rate of the last step.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Steps, each at a rate the same factor higher.")] = 100,
    recipe_name: Annotated[
        str | None,
        typer.Option("--recipe", help="fast or accurate: its network, and its training but for the rate."),
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="N|all|auto", help="Examples per step, as for `glassnet train`.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam, adamw, rmsprop, adagrad or muon.")] = None,
    loss: Annotated[str | None, typer.Option(help="A loss by name, or your own: file.py:function.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split, the first weights and the batches.")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    size: SizeOption = None,
    fit: FitOption = None,
    interpolation: InterpolationOption = None,
    augment: AugmentOption = None,
    out: Annotated[Path, typer.Option(help="Page to write; one that is there is replaced.")] = Path("lr-range.html"),
    target: TargetOption = None,
    task: TaskOption = None,
    strict: StrictFlag = False,
    root: RootOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="As for `glassnet train`; repeatable."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Find a learning rate: raise it step by step in one short run, and see where the loss falls."""
    from glassnet.curve_commands import check_fields, check_page, page_line, search_rate, write_range
    from glassnet.data.augmentation import DEFAULT
    from glassnet.training.config import TrainConfig
    from glassnet.training.learning_rate_range import check_range
    from glassnet.views.learning_rate_range import curve_lines, suggestion_sentence

    options, data_options, fields = split_settings(settings or [])
    check_fields(fields)
    check_range(low, high, steps)
    check_page(out)
    flags = {
        "seed": seed,
        "batch_size": None if batch_size is None else TrainConfig.parse("batch_size", batch_size),
        "optimizer": optimizer,
        "loss": loss,
        "device": device,
        "precision": precision,
        "augment": augment,
    }
    prepared = prepare(
        data, model, recipe_name, flags, options, fields,
        size=size, root=root, target=target, task=task, strict=strict,
        data_options={**data_options, "fit": fit, "interpolation": interpolation},
    )  # fmt: skip
    network, examples, config = prepared.network, prepared.examples, prepared.config
    if config.augment == DEFAULT and not quiet:
        _say_usual_augmentation(examples, network, config)
    result = search_rate(network, examples, config, prepared.own_loss, quiet, low=low, high=high, num_steps=steps)
    write_range(result, prepared.model, examples.name, out)
    if as_json:
        print_json({"data": examples.name, "model": prepared.model, **result.to_dict(), "page": str(out)})
        return
    typer.echo("\n".join([*curve_lines(result), suggestion_sentence(result), page_line(out)]))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders, finished or in training.")],
    sort: Annotated[
        str, typer.Option(help="given, name, loss, accuracy, test, time or speed; the best first.")
    ] = "given",
    out: Annotated[Path, typer.Option(help="Page with the curves to write; one that is there is replaced.")] = Path(
        "compare.html"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Set runs side by side: what differs, their curves, what came of it, and whether they can be compared at all."""
    from glassnet.curve_commands import compare_runs, page_line
    from glassnet.views.comparison import comparison_view

    comparison = compare_runs(runs, sort, out)
    if as_json:
        print_json({**comparison.to_dict(), "page": str(out)})
    else:
        print_parts(comparison_view(comparison), page_line(out))
    for failure in comparison.set_aside:
        typer.echo(f"Set aside: {failure.source}: {failure.reason}", err=True)
    if comparison.set_aside:
        raise typer.Exit(1)


@app.command()
def data(
    source: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="A name (`glassnet datasets`), a folder, a file, shards, hf:owner/name."),
    ] = None,
    clear_cache: Annotated[
        bool, typer.Option("--clear-cache", help="Remove the decoded images that are kept for training.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Look for duplicates, leakage, blank images, imbalance.")
    ] = False,
    show_augmented: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Write a sheet of images as training changes them.")
    ] = None,
    augment: AugmentOption = None,
    model: Annotated[
        str | None, typer.Option(help="The network whose input size is meant. Default: as in train.")
    ] = None,
    size: SizeOption = None,
    fit: FitOption = None,
    interpolation: InterpolationOption = None,
    target: TargetOption = None,
    task: TaskOption = None,
    strict: StrictFlag = False,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="data.OPTION=VALUE", help="Such as data.test_share=0.3, or a toy's data.noise."),
    ] = None,
    root: RootOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a data set is understood as: splits, classes, counts, sizes, and what looks wrong."""
    if clear_cache:
        from glassnet.data.image_cache import clear_cache as clear

        num_files, num_bytes = clear()
        typer.echo(f"Removed {num_files} files, {num_bytes / 2**20:,.1f} MiB, of decoded images.", err=as_json)
    if source is None:
        if clear_cache:
            return
        raise UsageError("Name a data set, a folder or a file, as in `glassnet data photos/`.")

    from glassnet.data.checks import check_dataset
    from glassnet.data.overview import describe_dataset
    from glassnet.data.sources import load_data
    from glassnet.recipes import default_recipe

    network_options, options, fields = split_settings(settings or [])
    if network_options or fields:
        raise UsageError(f"--set takes data.OPTION=VALUE here; got '{(settings or [''])[0]}'. Leave it out.")
    options |= {"fit": fit, "interpolation": interpolation}
    dataset = load_data(source, root, seed=seed, target=target, task=task, strict=strict, **options)
    input_size = None
    if dataset.train.is_image and (model is not None or size is not None or show_augmented is not None):
        chosen = default_recipe(dataset)
        input_size = fitting_size(model or (chosen.model if chosen else "lenet5"), dataset, size)
    overview = describe_dataset(dataset, notes=dataset.notes, set_aside=dataset.set_aside, input_size=input_size)
    findings = check_dataset(dataset) if check else None
    if show_augmented is not None:
        _write_sheet(dataset, usual_config(source, model, dataset, augment), input_size, show_augmented, seed)
    if as_json:
        print_json({**overview.to_dict(), "check": findings.to_dict() if findings else None})
        return
    typer.echo("\n".join(overview.lines()))
    if findings is not None:
        typer.echo("\n".join(["", *findings.lines()]))
    if show_augmented is not None:
        typer.echo(f"Augmented images: {show_augmented}")


@app.command()
def evaluate(
    run: RunArg,
    data: Annotated[
        str | None, typer.Option(help="Other data, read and encoded as the run's; classes are matched by name.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    root: RootOption = None,
    device: DeviceOption = "auto",
    precision: ForwardPrecisionOption = "fp32",
    is_compiled: ForwardCompileFlag = False,
    tta: TtaOption = "none",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Judge a trained network on a split: accuracy, top-5, loss, per class, confusion matrix."""
    from glassnet._errors import unknown_name
    from glassnet.runs import open_run
    from glassnet.views.tables import evaluation_view

    if split not in ("train", "validation", "test"):
        raise unknown_name("split", split, ("train", "validation", "test"))
    opened = open_run(run, device=device, precision=precision, compile=is_compiled, tta=tta, trust=trust)
    examples = opened.load_data(root) if data is None else opened.load_other(data, root)
    for note in examples.notes if data is not None else ():
        typer.echo(f"Note: {note}", err=True)
    _say_set_aside(examples.set_aside if data is not None else ())
    evaluation = opened.evaluate(getattr(examples, split))
    _say_unknown_loss(opened)
    if as_json:
        print_json({"run": str(run), "data": examples.name, "split": split, **evaluation.to_dict()})
    else:
        print_parts(f"{run} on the {split} split of {examples.name}", evaluation_view(evaluation))


@app.command()
def predict(
    run: RunArg,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Images or folders of them; a table (.csv) or arrays (.npz)."),
    ],
    top: Annotated[int, typer.Option(help="How many classes to show for each input.")] = 3,
    device: DeviceOption = "auto",
    precision: ForwardPrecisionOption = "fp32",
    is_compiled: ForwardCompileFlag = False,
    tta: TtaOption = "none",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what a network makes of images, rows of a table or arrays. What cannot be read is named and set aside."""
    from dataclasses import asdict

    from glassnet.runs import open_run
    from glassnet.views.tables import predictions_view

    opened = open_run(run, device=device, precision=precision, compile=is_compiled, tta=tta, trust=trust)
    predictions = opened.predict(with_folders_expanded(inputs), top_k=top)
    if as_json:
        rows, set_aside = ([asdict(row) for row in part] for part in (predictions.rows, predictions.set_aside))
        found = {"run": str(run), "predictions": rows, "set_aside": set_aside}
        target = getattr(predictions, "target", "")
        print_json({**found, "notes": predictions.notes, **({"target": target} if target else {})})
    elif len(predictions):
        print_parts(predictions_view(predictions))
    for note in predictions.notes:
        typer.echo(f"Note: {note}", err=True)
    _say_set_aside(predictions.set_aside)
    if predictions.set_aside:
        typer.echo(
            f"{len(predictions.set_aside)} of {len(predictions.set_aside) + len(predictions)} not read.", err=True
        )
        raise typer.Exit(1)


@app.command()
def report(run: RunArg, root: RootOption = None, device: DeviceOption = "auto", trust: TrustFlag = False) -> None:
    """Write a run's report.html again, from what the folder holds and the data it was trained on."""
    from glassnet.report import rewrite_report
    from glassnet.runs import open_run

    opened = open_run(run, device=device, trust=trust)
    path = rewrite_report(opened, root)
    _say_unknown_loss(opened)
    typer.echo(f"Report         {path}  (open it in any browser: {path.resolve().as_uri()})")


@app.command()
def summary(
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN", help="A network's name, your own as file.py:Class, or a run folder.")
    ],
    input_size: Annotated[str | None, typer.Option("--input", metavar="CxHxW", help="Such as 1x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes; default: the published one.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="model.OPTION=VALUE", help="An option of the network; repeatable."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, markdown, lecture or json.")] = "table",
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Print a network's layers and functions: shapes, parameters, multiplications, additions, memory, field."""
    from glassnet._errors import unknown_name
    from glassnet._user_code import is_address
    from glassnet.inspection.summary import summary as summarise
    from glassnet.models import list_models
    from glassnet.runs import open_run

    if form not in ("table", "markdown", "lecture", "json"):
        raise unknown_name("format", form, ("table", "markdown", "lecture", "json"))
    options, foreign, fields = split_settings(settings or [])
    if foreign or fields:
        raise UsageError(f"--set takes model.OPTION=VALUE here; got '{(settings or [''])[0]}'.")
    if not is_address(model) and model not in list_models() and (Path(model).exists() or "/" in model):
        if input_size or classes or options:
            raise UsageError("A run's network is as it was trained; leave out --input, --classes and --set.")
        opened = open_run(model, device="cpu", trust=trust)
        network, shape = opened.model, opened.preprocessing.input_shape
    else:
        network, shape = built_network(model, input_size, classes, options)
    result = summarise(network, shape)
    if as_json or form == "json":
        print_json({"model": model, **result.to_dict()})
        return
    if form == "markdown":
        typer.echo(result.markdown())
    elif form == "lecture":
        typer.echo(result.lecture_table())
    else:
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        typer.echo(result.table(shutil.get_terminal_size().columns if is_terminal else None))
    if result.uncounted:
        typer.echo(f"Multiplications and additions not counted in: {', '.join(result.uncounted)}")


@app.command()
def arithmetic(
    input_size: Annotated[str, typer.Option("--input", metavar="HxWxC", help="Such as 224x224x3, channels last.")],
    kernel: Annotated[str, typer.Option(help="Kernel size: 3, or one number an axis, 3x5.")],
    filters: Annotated[int, typer.Option(help="Number of kernels: channels of the output.")],
    stride: Annotated[str, typer.Option(help="Likewise.")] = "1",
    padding: Annotated[str, typer.Option(help="A number, one an axis, or valid, same, half, full.")] = "0",
    dilation: Annotated[str, typer.Option(help="Likewise: 1 is none.")] = "1",
    groups: Annotated[int, typer.Option(help="Groups of channels that do not see each other.")] = 1,
    bias: Annotated[bool, typer.Option(help="Whether each kernel has a bias.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Work out a convolution: output size, parameters, multiplications, and the same layer fully connected."""
    from dataclasses import asdict

    from glassnet.arithmetic import PADDING_NAMES, convolution_arithmetic, parse_size

    def sizes(text: str) -> int | tuple[int, ...]:
        is_plain = re.fullmatch(r"\d+(x\d+)*", text)  # zeros too, which are no sizes but paddings
        parsed = tuple(int(part) for part in text.split("x")) if is_plain else parse_size(text)
        return parsed[0] if len(parsed) == 1 else parsed

    result = convolution_arithmetic(
        parse_size(input_size),
        sizes(kernel),
        filters,
        stride=sizes(stride),
        padding=padding if padding in PADDING_NAMES else sizes(padding),
        dilation=sizes(dilation),
        groups=groups,
        bias=bias,
    )
    if as_json:
        print_json(asdict(result))
    else:
        typer.echo("\n".join(result.lines()))


@app.command(name="filter")
def filter_command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    kernel: Annotated[str, typer.Option(help="identity, mean, gaussian, sharpen, edge, sobel-x ...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the result, such as out.png.")],
    size: Annotated[int, typer.Option(help="Size of the kernel, odd; for mean and gaussian.")] = 3,
    sigma: Annotated[float | None, typer.Option(help="Spread of the Gaussian in pixels.")] = None,
    border: Annotated[str | None, typer.Option(help="reflect, zero, replicate or wrap.")] = None,
    negative: Annotated[str | None, typer.Option(help="Negative results: clip, absolute or shift.")] = None,
    where_zero: Annotated[bool, typer.Option("--where-zero", help="Replace lost (black) pixels only.")] = False,
) -> None:
    """Filter an image with a classic kernel, channel by channel; transparency is left alone."""
    from glassnet._errors import WorkError
    from glassnet.data.images import UnreadableImageError, open_picture
    from glassnet.nn.kernels import filter_image
    from glassnet.nn.kernels import kernel as classic_kernel

    weights = classic_kernel(kernel, size, sigma)
    try:
        picture = open_picture(image)
    except UnreadableImageError as error:
        raise WorkError(f"Could not read {image}: {error}.") from None
    result = filter_image(picture, weights, border=border, negative=negative, where_zero=where_zero)
    try:
        result.save(out)
    except (OSError, ValueError) as error:
        raise WorkError(f"Could not write {out}: {error}. Name an image file in a folder you may write to.") from None
    typer.echo(f"{image} filtered with {kernel}: {out} ({result.width}x{result.height}, {result.mode})")


@app.command()
def models(as_json: JsonFlag = False) -> None:
    """List the networks that can be built."""
    from glassnet.models import ARCHITECTURES
    from glassnet.views.tables import rows_view

    rows: list[dict[str, Any]] = [
        {"name": name, "input_shape": entry.input_shape, "takes_any_size": entry.any_size, "source": entry.source}
        for name, entry in ARCHITECTURES.items()
    ]
    rows.append(
        {
            "name": "file.py:Class",
            "input_shape": (),
            "takes_any_size": True,
            "source": "a network of your own, in a file",
        }
    )
    if as_json:
        print_json(rows)
        return
    cells = [(row["name"], "x".join(map(str, row["input_shape"])), row["source"]) for row in rows]
    print_parts(rows_view(("model", "input", "source"), cells))


@app.command()
def datasets(root: RootOption = None, as_json: JsonFlag = False) -> None:
    """List the data sets that can be loaded by name, and where their files lie."""
    from glassnet.data.sources import list_toys
    from glassnet.data.standard import STANDARD_SETS, locate
    from glassnet.views.tables import rows_view

    rows: list[dict[str, Any]] = []
    for name, entry in STANDARD_SETS.items():
        place = locate(name, root)
        where = "comes with scikit-learn" if not entry.files else str(place or "not here; loading it downloads it")
        rows.append(
            {
                "name": name,
                "description": entry.description,
                "input_shape": entry.input_shape,
                "num_classes": entry.num_classes,
                "num_train": entry.num_train,
                "num_test": entry.num_test,
                "where": where,
            }
        )
    rows += [
        {
            "name": name,
            "description": toy,
            "input_shape": shape,
            "num_classes": num_classes,
            "num_train": None,
            "num_test": None,
            "where": "drawn by seed",
        }
        for name, toy, shape, num_classes in list_toys()
    ]
    if as_json:
        print_json(rows)
        return
    header = ("data set", "inputs", "classes", "train", "test", "where")
    cells = [
        (
            row["name"],
            "x".join(map(str, row["input_shape"])),
            str(row["num_classes"]),
            "" if row["num_train"] is None else f"{row['num_train']:,}",
            "" if row["num_test"] is None else f"{row['num_test']:,}",
            row["where"],
        )
        for row in rows
    ]
    print_parts(rows_view(header, cells))


def _write_sheet(
    dataset: Dataset,
    config: TrainConfig,
    size: tuple[int, int] | None,
    out: Path,
    seed: int,
) -> None:
    """Write a picture of training images beside what `train` would make of them with the `config`."""
    from glassnet._errors import WorkError
    from glassnet.data.augmentation import Augmentation, augmentation_sheet, parse_augmentation
    from glassnet.data.preprocessing import make_preprocessing
    from glassnet.data.transforms import RandomHorizontalFlip, RandomShift

    if size is None:
        raise UsageError(f"Augmentation is for images, and '{dataset.name}' holds numbers. Leave --show-augmented out.")
    record = make_preprocessing(dataset.train[:64], size, dataset.framing)  # the pixels do not hang on the figures
    config = config.fitted_to(dataset.name, record)
    transforms = parse_augmentation(config.augment).transforms
    if config.max_shift:
        transforms = (RandomShift(max_shift=config.max_shift), *transforms)
    if config.alternating_flip:
        transforms = (RandomHorizontalFlip(), *transforms)
    sheet = augmentation_sheet(dataset.train, Augmentation(transforms), record=record, seed=seed)
    try:
        sheet.save(out)
    except (OSError, ValueError) as error:
        raise WorkError(f"Could not write {out}: {error}. Name an image file in a folder you may write to.") from None


def _kind_of_input(record: InputRecord) -> str:
    """Return what a user would give to `glassnet predict`, in words."""
    from glassnet.data.standardisation import Standardisation

    if not isinstance(record, Standardisation):
        return "IMAGE..."
    return "new.npz" if record.encoding is None else "new.csv"


def _say_set_aside(failures: Iterable[SetAside]) -> None:
    from glassnet.data.label_files import printable

    for failure in failures:
        typer.echo(f"Set aside: {printable(f'{failure.source}: {failure.reason}')}", err=True)


def _changes_in_words(config: TrainConfig) -> str:
    """Return the augmentation, and whether flips alternate; nothing where there is neither."""
    changes = [config.augment] if config.augment not in ("", "none") else []
    return ", ".join(changes + ["flips that alternate"] * config.alternating_flip)


def _say_usual_augmentation(data: Dataset, network: nn.Module, config: TrainConfig) -> None:
    """Say what `default` comes to for these images, where it comes to anything."""
    from glassnet.data.augmentation import default_augmentation

    if not data.train.is_image:
        return
    channels, height, width = data.train.input_shape
    usual = default_augmentation(data.name, data.class_names, channels, size=input_size_of(network) or (height, width))
    if changes := _changes_in_words(config.with_usual(usual)):
        typer.echo(f"Training images are changed at random: {changes}; --augment none leaves them.", err=True)


def _say_unknown_loss(run: Run) -> None:
    if not run.objective.is_loss_known:
        typer.echo(
            f"The loss is left out: '{run.config.loss}' is the user's own and is not stored in a run. In Python: "
            "gn.open_run(path, loss=function).",
            err=True,
        )


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from glassnet._version import __version__

        typer.echo(f"glassnet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake ends with its message and exit code, never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name the terminal's encoding lacks is no reason to fail
    try:
        app()
    except GlassnetError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, as in `| head`: nothing to say
        sys.exit(1)
    except OSError as error:
        typer.echo(f"Error: {error}. Free space or choose another place, then try again.", err=True)
        sys.exit(1)
    except Exception as error:
        from glassnet._user_code import in_line, words_of

        if not (line := in_line(error)):  # not from a file of the user's: it is glassnet's own
            raise
        typer.echo(f"Error: The network's code failed: {words_of(error)}{line}. Correct it there.", err=True)
        sys.exit(1)
