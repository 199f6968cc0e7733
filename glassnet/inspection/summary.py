"""What a model is made of: its layers and the functions called between them, with shapes, counts and fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

import glassnet.nn as layers
from glassnet._errors import UsageError
from glassnet._modes import refuse_lazy
from glassnet._types import Shape, by
from glassnet.inspection.calls import COMPILED, Call, Operation, Watcher, plain_path, run_watched
from glassnet.inspection.counting import count_call
from glassnet.inspection.field_tracker import FieldTracker
from glassnet.inspection.fields import field_size
from glassnet.inspection.rows import Container as Container
from glassnet.inspection.rows import LayerRow as LayerRow
from glassnet.inspection.summary_table import FULL, LECTURE, lecture_rows, markdown_table, text_table, tree


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The layers and functions of a model in the order in which the forward pass met them; `str()` is the table."""

    rows: tuple[LayerRow, ...]
    containers: tuple[Container, ...] = ()
    """The modules that hold the layers, from the outside in."""
    input_shape: Shape
    num_parameters: int
    """All of the model's, also of modules that the forward pass did not meet."""
    num_multiplications: int
    """The sum over the counted rows, as is that of the additions."""
    num_additions: int = 0

    @property
    def num_weighted_multiplications(self) -> int:
        """Those with weights alone, which most published totals give: convolutions and fully connected layers."""
        return sum(row.num_multiplications or 0 for row in self.rows if row.is_weighted)

    @property
    def num_bytes(self) -> int:
        """Memory of all outputs for one input, as training keeps them; not the input, nor what layers need inside."""
        return sum(row.num_bytes for row in self.rows)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of the rows whose multiplications and additions are not counted: an operation in them has no rule."""
        return tuple(row.name for row in self.rows if row.num_multiplications is None)

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values for JSON."""
        return {**asdict(self), "num_bytes": self.num_bytes, "uncounted": self.uncounted}

    def table(self, max_width: int | None = None) -> str:
        """Return the tree as text; columns are left out, the most easily missed first, to keep to `max_width` signs."""
        return text_table(FULL, tree(self.rows, self.containers), self._totals(), max_width)

    def markdown(self) -> str:
        """Return the table in Markdown, each row with its full name."""
        return markdown_table(FULL, [(row.name, row) for row in self.rows], self._totals())

    def lecture_table(self) -> str:
        """Return the table as lectures have it: in, out, kernel, stride, pad, channels, parameters.

        Rows that only move, compare or squash numbers are left out, except pooling.
        """
        chosen = lecture_rows(self.rows)
        totals = [("total", {"parameters": f"{self.num_parameters:,}"})]
        return text_table(LECTURE, [(row.name, row) for row in chosen], totals)

    def __str__(self) -> str:
        return self.table()

    def _totals(self) -> list[tuple[str, dict[str, str]]]:
        """Return the lines under the table: a label and cells by column."""
        not_met = self.num_parameters - sum(row.num_parameters for row in self.rows)
        lines = [("not met", {"parameters": f"{not_met:,}"})] if not_met > 0 else []
        at_least = "at least " if self.uncounted else ""
        total = {
            "parameters": f"{self.num_parameters:,}",
            "multiplications": f"{at_least}{self.num_multiplications:,}",
            "additions": f"{at_least}{self.num_additions:,}",
            "KiB": f"{self.num_bytes / 1024:,.1f}",
        }
        lines.append(("total", total))
        if self.num_weighted_multiplications < self.num_multiplications:
            lines.append(("with weights", {"multiplications": f"{self.num_weighted_multiplications:,}"}))
        return lines


WEIGHTED = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
    layers.TableConv2d, layers.LocallyConnected2d,
)  # fmt: skip
PRODUCTS = {"convolution", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv"}
"""Operations by which a function multiplies by weights."""
WINDOWS = {"convolution", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"}


def summary(model: nn.Module, input_shape: Shape) -> Summary:
    """Run one image of zeros `(C, H, W)` through the model and describe each layer and function that it meets.

    Multiplications and additions are counted as `glassnet.inspection.counting` says; what holds an operation without a
    rule is said to be not counted. Attention, recurrence and weights outside layers are counted by the products they
    come down to. The model is left as it was.

    Raises `UsageError` where the model is lazy or does not take the input.
    """
    check_model(model)
    tracker = FieldTracker()
    rows = _Rows(model, tracker)
    run_on_zeros(model, input_shape, tracker, rows)
    found = tuple(rows.finished())
    return Summary(
        rows=found,
        containers=tuple(_containers(model, found)),
        input_shape=tuple(input_shape),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_multiplications=sum(row.num_multiplications or 0 for row in found),
        num_additions=sum(row.num_additions or 0 for row in found),
    )


def check_model(model: object) -> None:
    """Raise `UsageError` for what is no model that can be run."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"Expected a model (nn.Module); got {type(model).__name__}. For a run, pass run.model.")
    refuse_lazy(model)


def run_on_zeros(model: nn.Module, input_shape: Shape, *watchers: Watcher) -> None:
    """Run one input of zeros through the model, watched. Raises `UsageError` where the model does not take it."""
    if not isinstance(input_shape, Sequence) or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise UsageError(f"input_shape must be positive whole numbers, such as (1, 32, 32); got {input_shape!r}.")
    try:
        run_watched(model, _example(model, input_shape), *watchers)
    except Exception as error:  # the user's own code may raise anything
        reason = str(error).rstrip(".") or type(error).__name__
        remedy = "Give the input shape it was built for, channels first."
        if isinstance(error, TypeError):
            remedy = "It is called with one tensor: wrap a model that takes others."
        raise UsageError(f"The model does not take an input of {by(tuple(input_shape))}: {reason}. {remedy}") from None


class _Rows(Watcher):
    """Makes a row of each call."""

    def __init__(self, model: nn.Module, tracker: FieldTracker) -> None:
        self.rows: list[tuple[str, LayerRow]] = []
        self.tracker = tracker
        self.parameters = {id(parameter) for parameter in model.parameters()}

    def call(self, call: Call) -> None:
        own = [parameter for parameter in _parameters(call) if id(parameter) in self.parameters]
        self.parameters -= {id(parameter) for parameter in own}
        output = call.outputs[0] if call.outputs else None
        count = count_call(call, self.tracker.depends) if output is not None else None
        row = LayerRow(
            name=call.name,
            kind=call.kind,
            is_function=call.module is None,
            input_shape=tuple(call.inputs[0].shape[1:]) if call.inputs else (),
            output_shape=() if output is None else tuple(output.shape[1:]),
            **_geometry(call),
            is_weighted=_is_weighted(call),
            num_parameters=sum(parameter.numel() for parameter in own),
            num_multiplications=None if count is None else count.multiplications,
            num_additions=None if count is None else count.additions,
            num_bytes=_new_bytes(call),
        )
        self.rows.append((call.name, row))

    def finished(self) -> Iterable[LayerRow]:
        """Yield the rows with their receptive fields."""
        for name, row in self.rows:
            yield replace(row, field_size=field_size(self.tracker.by_call.get(name)))


def _parameters(call: Call) -> list[nn.Parameter]:
    if call.module is not None:
        return list(call.module.parameters())
    return [tensor for tensor in call.inputs if isinstance(tensor, nn.Parameter)]


def _is_weighted(call: Call) -> bool:
    if call.module is not None:
        return isinstance(call.module, WEIGHTED)
    multiplies = any(operation.name in PRODUCTS for operation in call.operations)
    return multiplies and any(isinstance(tensor, nn.Parameter) for tensor in call.inputs)


def _new_bytes(call: Call) -> int:
    """Return the bytes of the outputs that lie in memory of their own."""
    taken = {tensor.untyped_storage()._cdata for tensor in call.inputs}
    total = 0
    for output in call.outputs:
        memory = output.untyped_storage()._cdata
        if memory not in taken:
            taken.add(memory)
            total += output.numel() * output.element_size()
    return total


def _geometry(call: Call) -> dict[str, Shape]:
    """Kernel, stride and padding of what slides one window, one number an axis; empty for others."""
    windows = [operation for operation in call.operations if operation.name in WINDOWS]
    found = {} if call.module is None else _geometry_of_layer(call.module)
    if found or call.module is not None or len(windows) != 1:
        return found
    return _geometry_of_operation(windows[0])


def _geometry_of_layer(module: nn.Module) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for name in ("kernel_size", "stride", "padding"):
        value = getattr(module, name, None)
        if isinstance(value, int):
            found[name] = (value,)
        elif isinstance(value, tuple) and all(isinstance(number, int) for number in value):
            found[name] = value
    return found if "kernel_size" in found else {}


def _geometry_of_operation(operation: Operation) -> dict[str, Shape]:
    given = operation.given
    kernel = tuple(given["weight"].shape[2:]) if operation.name == "convolution" else tuple(given["kernel_size"])
    return {"kernel_size": kernel, "stride": tuple(given["stride"]) or kernel, "padding": tuple(given["padding"])}


def _containers(model: nn.Module, rows: Sequence[LayerRow]) -> Iterable[Container]:
    for path, module in model.named_modules():
        name = plain_path(path)
        inside = [row for row in rows if row.name.startswith(f"{name}.")]
        if name and inside and not path.endswith(COMPILED):
            yield Container(
                name=name,
                kind=type(module).__name__,
                num_parameters=sum(row.num_parameters for row in inside),
                num_multiplications=sum(row.num_multiplications or 0 for row in inside),
                num_additions=sum(row.num_additions or 0 for row in inside),
            )


def _example(model: nn.Module, input_shape: Shape) -> Tensor:
    """Zeros `(1, C, H, W)` in the number format and on the device of the model; for a model of tokens, token 0."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    takes_tokens = len(input_shape) == 1 and any(isinstance(module, nn.Embedding) for module in model.modules())
    return torch.zeros(1, *input_shape, dtype=torch.int64 if takes_tokens else like.dtype, device=like.device)
