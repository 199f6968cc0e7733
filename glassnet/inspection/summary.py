"""What a model is made of: a table of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import glassnet.nn as layers
from glassnet._errors import UsageError
from glassnet._modes import evaluating, refuse_lazy
from glassnet._types import Shape, by
from glassnet.inspection.counting import num_multiplications


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer: a module without children that the forward pass went through. Shapes are without the batch axis."""

    name: str
    """The module's path, such as `features.6`."""
    kind: str
    """Its class, such as `Conv2d`."""
    input_shape: Shape
    output_shape: Shape
    kernel_size: Shape = ()
    """One number for all axes or one an axis; empty for layers that slide no window, as are stride and padding."""
    stride: Shape = ()
    padding: Shape = ()
    num_parameters: int
    """Trainable or not; 0 where an earlier row already counted them (a module used twice)."""
    is_weighted: bool = False
    """True for convolutions and fully connected layers."""
    num_multiplications: int | None
    """For one input, see `glassnet.inspection.counting`. None where this kind of layer is not counted."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The layers of a model in the order in which the forward pass met them; `str()` is the table."""

    rows: tuple[LayerRow, ...]
    input_shape: Shape
    num_parameters: int
    """All of the model's, also of modules that the forward pass did not meet."""
    num_multiplications: int
    """The sum over the counted rows."""
    own_weights: tuple[str, ...] = ()
    """Modules with children and weights of their own, used in calls that no layer shows."""

    @property
    def num_weighted_multiplications(self) -> int:
        """Those of convolutions and fully connected layers alone, which most published totals give."""
        return sum(row.num_multiplications or 0 for row in self.rows if row.is_weighted)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the modules whose multiplications are not counted: without a rule, or with weights of their own."""
        return (*(row.name for row in self.rows if row.num_multiplications is None), *self.own_weights)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return {**asdict(self), "uncounted": self.uncounted}

    def __str__(self) -> str:
        met = sum(row.num_parameters for row in self.rows)
        lines = [COLUMNS, *(_cells(row) for row in self.rows)]
        if met < self.num_parameters:
            lines.append(("not met", "", "", "", "", "", "", f"{self.num_parameters - met:,}", ""))
        at_least = "at least " if self.uncounted or met < self.num_parameters else ""
        total = f"{self.num_parameters:,}", f"{at_least}{self.num_multiplications:,}"
        lines.append(("total", "", "", "", "", "", "", *total))
        if self.num_weighted_multiplications < self.num_multiplications:
            weighted = f"{self.num_weighted_multiplications:,}"
            lines.append(("with weights", "", "", "", "", "", "", "", weighted))
        widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column < 4 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


WEIGHTED = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, layers.TableConv2d, layers.LocallyConnected2d,
)  # fmt: skip
COLUMNS = ("layer", "kind", "input", "output", "kernel", "stride", "pad", "parameters", "multiplications")
"""As lecture tables have them; the channels in and out are the first numbers of input and output."""


def _cells(row: LayerRow) -> tuple[str, ...]:
    products = "not counted" if row.num_multiplications is None else f"{row.num_multiplications:,}"
    return (
        row.name,
        row.kind,
        by(row.input_shape),
        by(row.output_shape),
        by(row.kernel_size),
        by(row.stride if len(set(row.stride)) > 1 else row.stride[:1]),
        by(row.padding if len(set(row.padding)) > 1 else row.padding[:1]),
        f"{row.num_parameters:,}",
        products,
    )


def summary(model: nn.Module, input_shape: Shape) -> Summary:
    """Run one image of zeros `(C, H, W)` through the model and describe each layer it meets.

    Multiplications are those of layers with a rule in `glassnet.inspection.counting`; other kinds are said to be not
    counted. Products in functional calls without weights (attention's, for one) are not seen. The model is left as
    it was.

    Raises `UsageError` where the model is lazy or does not take the input.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a model (nn.Module); got {type(model).__name__}. For a run, pass run.model.")
    refuse_lazy(model)
    if not isinstance(input_shape, Sequence) or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise UsageError(f"input_shape must be positive whole numbers, such as (1, 32, 32); got {input_shape!r}.")
    rows: list[LayerRow] = []
    counted: set[int] = set()
    example = _example(model, input_shape)

    def record(name: str, module: nn.Module, given: object, output: object) -> None:
        whole = tuple(output.shape) if isinstance(output, Tensor) else ()
        own = [parameter for parameter in module.parameters() if id(parameter) not in counted]
        counted.update(id(parameter) for parameter in own)
        rows.append(
            LayerRow(
                name=name,
                kind=type(module).__name__,
                input_shape=tuple(given.shape[1:]) if isinstance(given, Tensor) else (),
                output_shape=whole[1:],
                **_geometry(module),
                is_weighted=isinstance(module, WEIGHTED),
                num_parameters=sum(parameter.numel() for parameter in own),
                num_multiplications=num_multiplications(module, whole) if whole else None,
            )
        )

    with _watching_leaves(model, record), evaluating(model):
        try:
            model(example)
        except Exception as error:  # the user's own code may raise anything
            reason = str(error).rstrip(".") or type(error).__name__
            raise UsageError(
                f"The model does not take an input of {by(tuple(input_shape))}: {reason}. "
                "Give the input shape it was built for, channels first."
            ) from None
    return Summary(
        rows=tuple(rows),
        input_shape=tuple(input_shape),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_multiplications=sum(row.num_multiplications or 0 for row in rows),
        own_weights=tuple(
            name or "(model)"
            for name, module in model.named_modules()
            if any(module.children()) and any(True for _ in module.parameters(recurse=False))
        ),
    )


@contextmanager
def _watching_leaves(model: nn.Module, record: Callable[[str, nn.Module, object, object], None]) -> Iterator[None]:
    """Call `record` with each leaf module's output during the block; no hook survives it."""
    handles = []
    try:
        for name, module in model.named_modules():
            if not any(True for _ in module.children()):

                def hook(module: nn.Module, inputs: tuple[object, ...], output: object, name: str = name) -> None:
                    record(name or "(model)", module, inputs[0] if inputs else None, output)

                handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _example(model: nn.Module, input_shape: Shape) -> Tensor:
    """Zeros `(1, C, H, W)` in the number format and on the device of the model."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device)


def _geometry(module: nn.Module) -> dict[str, Shape]:
    """Kernel, stride and padding of a layer that slides a window, one number an axis; empty for others."""
    found: dict[str, Shape] = {}
    for name in ("kernel_size", "stride", "padding"):
        value = getattr(module, name, None)
        if isinstance(value, int):
            found[name] = (value,)
        elif isinstance(value, tuple) and all(isinstance(number, int) for number in value):
            found[name] = value
    return found if "kernel_size" in found else {}
