"""`glassnet steps` and `glassnet explain`: the calls of one pass, and what any of its numbers was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glassnet._errors import UsageError
from glassnet.inspect_options import (
    ClassesOption,
    InputOption,
    JsonFlag,
    SubjectArg,
    TrustFlag,
    WeightsOption,
    open_subject,
)
from glassnet.printing import print_json, print_parts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from glassnet.inspection.tracing import Trace, Unit
    from glassnet.runs import Run

IMAGE_HELP = "An image, or what else the network takes."
ImageArg = Annotated[Path, typer.Argument(metavar="IMAGE", help=IMAGE_HELP)]


@dataclass(frozen=True, eq=False)
class _Traced:
    """A pass of a network on one input."""

    subject: str
    source: str
    trace: Trace
    run: Run | None


def steps(
    subject: SubjectArg,
    image: Annotated[Path | None, typer.Argument(metavar="[IMAGE]", help=f"{IMAGE_HELP} Default: a blank one.")] = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """List the calls of one pass: the address of each, its operation, the shape that came out, and what it read."""
    from glassnet.views.explanation import steps_view

    trace = _traced(subject, image, input_size, classes, weights, trust).trace
    read = [[trace.naming.name(value) for value in step.inputs] for step in trace.steps]
    if as_json:
        print_json(
            {
                "steps": [
                    {"address": step.name, "op": step.op, "shape": list(step.shape), "reads": names}
                    for step, names in zip(trace.steps, read, strict=True)
                ],
                "coverage": trace.coverage,
                "without_rule": dict(trace.without_rule),
                "gaps": list(trace.gaps),
            }
        )
        return
    print_parts(steps_view(trace))
    typer.echo(f"{len(trace.steps)} steps, {trace.coverage:.0%} itemised by a rule. {_example(trace, subject, image)}")
    for op, count in trace.without_rule.items():
        typer.echo(f"Note: {op} ({count}) has no rule and is answered by its derivatives.")
    _say_gaps(trace)


def explain(
    subject: SubjectArg,
    image: ImageArg,
    unit: Annotated[
        str | None, typer.Option(help="Itemise this number: step:channel@row,col, such as conv1:3@4,5 or fc:7.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every term, not the largest alone.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The itemised number as Markdown.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="The itemised number as LaTeX.")] = False,
    change: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS=VALUE", help="Set a pixel, unit or weight and see what changes: input:0@5,6=1."),
    ] = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="The number's delta, dL/d(unit), from the units that it feeds.")
    ] = False,
    label: Annotated[
        str | None, typer.Option(metavar="CLASS", help="What the loss compares with. Default: the likeliest class.")
    ] = None,
    weight: Annotated[
        str | None, typer.Option(help="Itemise this weight's gradient: conv1.weight[3,0,1,1] or fc.bias[7].")
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(help="Also the weight's first step by sgd, adam, adamw, rmsprop, adagrad or muon."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of --optimizer. Default: its usual one.")] = None,
    top: Annotated[int, typer.Option(help="How many classes, and units of each layer, to show.")] = 5,
    depth: Annotated[int | None, typer.Option(help="How many layers to walk down. Default: 12.")] = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    trust: TrustFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what a network makes of an image, what drove it layer by layer, and of what any number is the sum."""
    if top < 1:
        raise UsageError(f"--top must be at least 1; got {top}.")
    is_backward = backward or weight is not None
    if not is_backward and label is not None:
        raise UsageError("--label is what gradients are compared with; add --backward, or --weight ADDRESS.")
    if weight is None and optimizer is not None:
        raise UsageError("--optimizer steps a weight; say which with --weight ADDRESS.")
    if optimizer is None and lr is not None:
        raise UsageError("--lr is the learning rate of --optimizer; say which one.")
    if backward and unit is None and weight is None:
        raise UsageError("--backward is of one number; say which with --unit ADDRESS or --weight ADDRESS.")
    if unit is not None and weight is not None:
        raise UsageError("One number at a time: give --unit or --weight.")
    if change is not None and is_backward:
        raise UsageError("One question at a time: give --change, or --backward and --weight.")
    if unit is None and weight is None and (every or markdown or latex):
        raise UsageError("--all, --markdown and --latex write one number out; say which with --unit ADDRESS.")
    if markdown + latex + as_json > 1:
        raise UsageError("One form at a time: give --markdown, --latex or --json.")
    form = "markdown" if markdown else "latex" if latex else "json" if as_json else "text"
    if is_backward:
        _explain_gradient(
            _prepared(subject, image, input_size, classes, weights, trust), unit, weight, label, optimizer, lr, form,
            every=every,
        )  # fmt: skip
        return
    traced = _traced(subject, image, input_size, classes, weights, trust)
    # Each question about the pass is one function of the trace; the first that was asked is answered.
    if change is not None:
        _explain_change(traced, change, unit, as_json=as_json)
    elif unit is not None:
        _explain_unit(traced, unit, form, every=every)
    else:
        _explain_output(traced, top, 12 if depth is None else depth, as_json=as_json)
    if not as_json:
        _say_gaps(traced.trace)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A network and one input as it takes it."""

    source: str
    model: nn.Module
    inputs: Tensor
    run: Run | None


def _traced(
    subject: str, image: Path | None, input_size: str | None, classes: int | None, weights: Path | None, trust: bool
) -> _Traced:
    """Trace a network on one input."""
    from glassnet.inspection.tracing import trace

    found = _prepared(subject, image, input_size, classes, weights, trust)
    return _Traced(subject, found.source, trace(found.model, found.inputs), found.run)


def _prepared(
    subject: str, image: Path | None, input_size: str | None, classes: int | None, weights: Path | None, trust: bool
) -> _Prepared:
    """Open a network, and prepare one input as its run prepares it."""
    opened = open_subject(subject, input_size, classes, weights, "cpu", trust, needs_weights=image is not None)
    if image is None:
        import torch

        return _Prepared("a blank input", opened.model, torch.zeros(1, *opened.input_shape), opened.run)
    gathered = opened.gathered([image])
    if len(gathered.inputs) > 1:
        typer.echo(f"Note: {image} holds {len(gathered.inputs)} inputs; the first is explained.", err=True)
    inputs = opened.record.normalise(gathered.inputs[:1])
    return _Prepared(gathered.sources[0], opened.model, inputs, opened.run)


def _explain_gradient(
    found: _Prepared,
    unit: str | None,
    weight: str | None,
    label: str | None,
    optimizer: str | None,
    lr: float | None,
    form: str,
    *,
    every: bool,
) -> None:
    """Write out a delta or a weight's gradient, and the step that follows."""
    from glassnet.explain_gradients import optimizer_by_name, trace_with_label, written

    trace = trace_with_label(found.model, found.inputs, found.run, label)
    gradient = trace.delta(str(unit)) if weight is None else trace.weight(weight)
    step = None if optimizer is None else trace.weight(str(weight)).step(optimizer_by_name(found.model, optimizer, lr))
    if form == "json":
        print_json({**gradient.to_dict(), **({} if step is None else {"step": step.to_dict()})})
        return
    typer.echo(written(gradient, form, every=every))
    if step is not None:
        typer.echo("\n" + (step.to_markdown() if form == "markdown" else str(step)))
    _say_gaps(trace)


def _explain_unit(traced: _Traced, address: str, form: str, *, every: bool) -> None:
    """Write out one number."""
    unit = traced.trace.unit(address)
    if form == "json":
        print_json(unit.to_dict())
    elif form == "latex":
        typer.echo(unit.to_latex(all=every))
    else:
        typer.echo(unit.to_markdown(all=every) if form == "markdown" else unit.to_text(all=every))


def _explain_change(traced: _Traced, change: str, unit: str | None, *, as_json: bool) -> None:
    """Say what follows from another number."""
    address, sign, number = change.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        sign = ""
    if not sign:
        raise UsageError(f"--change takes ADDRESS=NUMBER, such as input:0@5,6=1; got '{change}'.")
    found = traced.trace.perturb(address.strip(), value, watch=unit)
    if as_json:
        print_json(found.to_dict())
        return
    typer.echo(str(found))


def _explain_output(traced: _Traced, top: int, depth: int, *, as_json: bool) -> None:
    """Say the scores, then what drove the largest, layer by layer."""
    from glassnet.views.explanation import drivers_view, scores_view

    scores = _scores(traced, top)
    unit = traced.trace.unit(scores[0]["address"])
    layers = unit.drivers(top, depth)
    measured = {driver.address: _without(unit, driver.address) for layer in layers for driver in layer}
    if as_json:
        rows = [[{**driver._asdict(), "without": measured[driver.address]} for driver in layer] for layer in layers]
        print_json({"input": traced.source, "scores": scores, "explained": unit.address, "layers": rows})
        return
    typer.echo(traced.source)
    print_parts(scores_view(scores))
    typer.echo()
    print_parts(drivers_view(unit, layers, measured))
    typer.echo(f"\n{_example(traced.trace, traced.subject, Path(traced.source), unit)}")


def _without(unit: Unit, address: str) -> float | None:
    """Return a number without another, None where the model's own code would have to be asked."""
    from glassnet._errors import WorkError

    try:
        return unit.without(address)
    except WorkError:
        return None


def _scores(traced: _Traced, top: int) -> list[dict[str, Any]]:
    """Return the largest outputs with their names, addresses and, where they are classes, probabilities."""
    import numpy as np

    trace, run = traced.trace, traced.run
    output = trace.output[0].double().flatten()
    shape = trace.output_value.shape[1:]
    names = run.class_names if run is not None and len(shape) == 1 else ()
    shares = run.objective.logits(trace.output.float())[0].softmax(-1).tolist() if run is not None and names else []
    found = []
    for place in output.argsort(descending=True, stable=True)[:top].tolist():
        index = (0, *(int(part) for part in np.unravel_index(place, shape)))
        # One output tells two classes apart: its sign names the class.
        label = int(shares[1] > shares[0]) if len(output) == 1 and len(shares) == 2 else place
        found.append(
            {
                "name": names[label] if label < len(names) else f"output {place}",
                "probability": shares[label] if label < len(shares) else None,
                "score": float(output[place]),
                "address": trace.naming.text((trace.output_value, index)),
            }
        )
    return found


def _example(trace: Trace, subject: str, image: Path | None, unit: Unit | None = None) -> str:
    """Return the command that itemises one number."""
    if unit is None:
        step = next((step for step in trace.steps if step.output.tensor.is_floating_point()), trace.steps[0])
        middle = tuple(size // 2 if axis > 1 else 0 for axis, size in enumerate(step.shape))
        address = trace.naming.text((step.output, middle))
    else:
        address = unit.address
    return f"Write one number out: glassnet explain {subject} {image or 'IMAGE'} --unit {address}"


def _say_gaps(trace: Trace) -> None:
    for gap in trace.gaps:
        typer.echo(f"Note: {gap}", err=True)
