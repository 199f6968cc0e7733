"""The backward half of `glassnet explain`: deltas, gradients of weights, and the steps that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from glassnet._errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from glassnet.inspection.tracing import Trace
    from glassnet.runs import Run
    from glassnet.training.optimizer import AnyOptimizer

Loss = Callable[[Any, "Tensor"], "Tensor"]


def trace_with_label(model: nn.Module, inputs: Any, run: Run | None, label: str | None) -> Trace:
    """Trace a network with the loss that its run was trained with, or cross-entropy.

    `label` is a class's name or number, or a value for a network that predicts one; without it the class that the
    network finds likeliest is taken, and said.
    """
    import torch

    from glassnet.inspection.tracing import trace

    if run is not None and not run.objective.is_loss_known:
        raise UsageError("A delta needs the loss, and this run's is the user's own. Use gn.trace(..., loss=function).")
    classes = run is None or run.objective.is_classification
    loss = None if run is None else _loss_of(run)
    if label is None:
        if not classes:
            raise UsageError("A delta needs a target to compare the output with; got none. Say --label VALUE.")
        output = trace(model, inputs).output
        place = int((output if run is None else run.objective.logits(output.float()))[0].argmax())
        name = run.class_names[place] if run is not None else f"output {place}"
        typer.echo(f"Note: no --label was given; gradients are of the likeliest class, {name}.", err=True)
    else:
        place = _class_number(label, run) if classes else 0
    if classes:
        return trace(model, inputs, torch.tensor([place]), loss)
    return trace(model, inputs, _values(label), loss)


def optimizer_by_name(model: nn.Module, name: str, lr: float | None) -> AnyOptimizer:
    """Return the optimizer that `glassnet train --optimizer NAME --lr LR` would start with."""
    from glassnet.training.config import TrainConfig
    from glassnet.training.optimizer import OPTIMIZERS, build_optimizer

    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    return build_optimizer(model, TrainConfig(optimizer=name, learning_rate=lr).resolved())


def written(found: Any, form: str, *, every: bool) -> str:
    """Return a result as text, Markdown or LaTeX."""
    if form == "latex":
        return str(found.to_latex(all=every))
    return str(found.to_markdown(all=every) if form == "markdown" else found.to_text(all=every))


def _loss_of(run: Run) -> Loss:
    objective = run.objective

    def loss(returned: Any, target: Tensor) -> Tensor:
        from glassnet.inspection.tracing.inputs import picked_output

        return objective.value(picked_output(returned), target, objective.label_smoothing)

    return loss


def _class_number(label: str, run: Run | None) -> int:
    names = run.class_names if run is not None else ()
    if label in names:
        return names.index(label)
    if not label.isdecimal():
        if names:
            raise unknown_name("class", label, names)
        raise UsageError(f"--label takes a class number; got '{label}'. A run knows classes by name.")
    if names and int(label) >= len(names):
        raise UsageError(f"--label must be a class, 0 to {len(names) - 1}, or its name; got {label}.")
    return int(label)


def _values(label: str | None) -> Any:
    import torch

    try:
        return torch.tensor([[float(part) for part in str(label).split(",")]])
    except ValueError:
        raise UsageError(f"--label takes the value to be predicted, such as 3.5; got '{label}'.") from None
