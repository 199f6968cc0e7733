"""The proof: numbers drawn from a pass, recomputed from their terms and compared with the framework's own."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from glassnet._errors import GlassnetError, UsageError
from glassnet.inspection.tracing import Trace, Value, WeightAddress, trace
from glassnet.inspection.tracing.inputs import picked_output
from glassnet.inspection.tracing.terms import UnitTrace

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
"""Largest difference relative to the sum of the absolute terms, by the type that the number was computed in."""

HALF = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""The same of types whose numbers have few bits: the spacing of their numbers at one."""

TIMES_HALF = 4
"""Roundings that may add up in those."""


@dataclass(frozen=True, kw_only=True)
class VerifiedOperation:
    """What recomputing numbers of one operation came to."""

    quantity: str
    """`unit` (forward), `delta`, or `weight` (a weight's gradient)."""
    op: str
    """What made the unit, what the delta flows back through, what reads the weight."""
    num_checked: int
    num_linearised: int
    """Of those, how many have no rule: their Jacobian's row is shown, and there is nothing to compare."""
    worst: float
    """The largest relative difference; nan where nothing could be compared."""
    address: str
    """Whose difference that is."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """True where the largest difference is within the tolerance, or there was nothing to compare."""
        return self.num_checked == self.num_linearised or self.worst <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Recomputed numbers of one pass beside the framework's, by operation."""

    rows: tuple[VerifiedOperation, ...]
    seed: int
    loss: str
    """What the gradients are of."""
    failures: tuple[str, ...] = ()
    """Numbers that could not be recomputed, with the reason."""
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True where every number could be recomputed, and agreed."""
        return not self.failures and all(row.passed for row in self.rows)

    @property
    def num_checked(self) -> int:
        """Numbers recomputed."""
        return sum(row.num_checked for row in self.rows)

    def __str__(self) -> str:
        header = ("number", "operation", "checked", "largest relative difference", "tolerance", "at")
        cells = [header, *(_cells(row) for row in self.rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
        lines = [
            "  ".join(
                cell.rjust(width) if place in {2, 3, 4} else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        beyond = sum(not row.passed for row in self.rows)
        verdict = "All within their tolerance" if self.passed else f"{beyond} operations beyond their tolerance"
        if self.failures:
            verdict += f"; {len(self.failures)} numbers could not be recomputed"
        lines.append(f"{verdict}: {self.num_checked:,} numbers (seed {self.seed}), gradients of {self.loss}.")
        lines += [f"Failed: {failure}" for failure in self.failures]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rows = [{**asdict(row), "worst": _finite(row.worst), "passed": row.passed} for row in self.rows]
        return {**asdict(self), "rows": rows, "passed": self.passed, "num_checked": self.num_checked}


def verify(
    model: nn.Module | Trace,
    inputs: Any = None,
    *,
    units: int = 100,
    seed: int = 0,
    label: Any = None,
    loss: Callable[[Any, Tensor], Tensor] | None = None,
) -> Verification:
    """Recompute `units` units, as many deltas and as many gradients of weights, and compare them with torch's own.

    Operations take turns, so that rare ones are met too; which numbers, `seed` decides. `inputs` are as `gn.trace`
    takes them. Without a label the gradients are of cross-entropy with the class that the model finds likeliest, or of
    the outputs' mean square where it has no classes. A trace may be given in place of a model and inputs.

    Raises `UsageError` where there is nothing to run the model on, and for what `gn.trace` refuses.
    """
    if units < 1:
        raise UsageError(f"At least one unit must be asked for; got {units}.")
    found, loss_name = _traced(model, inputs, label, loss)
    tally = _Tally()
    draw = random.Random(seed)
    for op, value, index in _turns(_by_maker(found), units, draw):
        address = found.naming.text((value, index))
        tally.add("unit", op, address, value, partial(found.unit, address))
    if found.loss_value is not None:
        for op, value, index in _turns(_by_readers(found), units, draw):
            address = found.naming.text((value, index))
            tally.add("delta", op, address, value, partial(found.delta, address))
        for path, value, index in _weights(found, units, draw):
            at = WeightAddress(path, index)
            op = next((step.op for step, _ in found.consumers(value)), "unused")
            tally.add("weight", op, found.naming.text((value, index)), value, partial(found.weight, at))
    return Verification(
        rows=tuple(tally.rows()), seed=seed, loss=loss_name, failures=tuple(tally.failures), notes=found.gaps
    )


class _Tally:
    """Differences by quantity and operation."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self._found: dict[tuple[str, str], list[tuple[str, float, float, bool]]] = {}

    def add(self, quantity: str, op: str, address: str, value: Value, recompute: Callable[[], UnitTrace]) -> None:
        """Recompute one number and note how far it is off; one that cannot be is noted by name."""
        try:
            unit = recompute()
        except (GlassnetError, RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
            self.failures.append(f"{quantity} {address} ({op}): {type(error).__name__}: {error}")
            return
        entry = (address, unit.relative_difference, tolerance_of(value.tensor.dtype), unit.is_linearisation)
        self._found.setdefault((quantity, op), []).append(entry)

    def rows(self) -> Iterator[VerifiedOperation]:
        """Yield a row for every quantity and operation, in the order in which they were met."""
        for (quantity, op), entries in self._found.items():
            compared = [entry for entry in entries if not entry[3]]
            # The furthest off relative to what is allowed: an operation may have numbers of several types.
            worst = max(compared, key=lambda entry: _share(entry[1], entry[2]), default=("", math.nan, 0.0, True))
            yield VerifiedOperation(
                quantity=quantity,
                op=op,
                num_checked=len(entries),
                num_linearised=len(entries) - len(compared),
                worst=worst[1],
                address=worst[0],
                tolerance=worst[2],
            )


def tolerance_of(dtype: torch.dtype) -> float:
    """Return the difference allowed of numbers of a type, relative to the sum of the absolute terms."""
    return TOLERANCES.get(dtype, TIMES_HALF * HALF.get(dtype, 1e-5 / TIMES_HALF))


def _share(difference: float, tolerance: float) -> float:
    return math.inf if math.isnan(difference) else difference / tolerance


def _traced(model: nn.Module | Trace, inputs: Any, label: Any, loss: Any) -> tuple[Trace, str]:
    if isinstance(model, Trace):
        if inputs is not None or label is not None or loss is not None:
            raise UsageError("A trace has its inputs, label and loss already; leave them out.")
        return model, "the trace's loss" if model.loss_value is not None else "nothing (traced without a label)"
    if inputs is None:
        raise UsageError("A model needs inputs to be run on; got none. Give an image or a batch as the model takes it.")
    if label is not None:
        return trace(model, inputs, label, loss), "the loss given" if loss is not None else "cross-entropy"
    output = trace(model, inputs).output
    if output.is_floating_point() and output.ndim >= 2 and output.shape[1] > 1:
        likeliest = output.argmax(1)
        return trace(model, inputs, likeliest), "cross-entropy with the likeliest class"
    return trace(model, inputs, torch.zeros_like(output), _mean_square), "the outputs' mean square"


def _mean_square(returned: Any, target: Tensor) -> Tensor:
    return F.mse_loss(picked_output(returned), target)


def _by_maker(found: Trace) -> dict[str, list[Value]]:
    """Return the first outputs of the steps by operation."""
    by_op: dict[str, list[Value]] = {}
    for step in found.steps:
        if _has_numbers(step.output):
            by_op.setdefault(step.op, []).append(step.output)
    return by_op


def _by_readers(found: Trace) -> dict[str, list[Value]]:
    """Return the model's inputs and the first outputs of the steps by the operations that read them."""
    by_op: dict[str, list[Value]] = {}
    for value in (*found.inputs, *(step.output for step in found.steps)):
        readers = dict.fromkeys(step.op for step, _ in found.consumers(value))
        if readers and _has_numbers(value) and value.gradient is not None:
            by_op.setdefault(", ".join(readers), []).append(value)
    return by_op


def _has_numbers(value: Value) -> bool:
    tensor = value.tensor
    return tensor.is_floating_point() and tensor.numel() > 0 and tensor.layout == torch.strided


def _turns(
    by_op: Mapping[str, list[Value]], count: int, draw: random.Random
) -> Iterator[tuple[str, Value, tuple[int, ...]]]:
    """Yield `count` times an operation, a value and a place in it; operations take turns."""
    ops = list(by_op)
    for turn in range(count if ops else 0):
        op = ops[turn % len(ops)]
        value = draw.choice(by_op[op])
        yield op, value, _place(value.shape, draw)


def _weights(found: Trace, count: int, draw: random.Random) -> Iterator[tuple[str, Value, tuple[int, ...]]]:
    """Yield `count` weights of parameters that the pass read; the ways of reading them take turns."""
    by_use: dict[tuple[str, ...], list[tuple[str, Value]]] = {}
    for path, value in found.parameters.items():
        readers = found.consumers(value)
        if value.tensor.is_floating_point() and value.tensor.numel() and readers:
            use = tuple(sorted({f"{step.op} {step.input_names[position]}" for step, position in readers}))
            by_use.setdefault(use, []).append((path, value))
    for turn in range(count if by_use else 0):
        path, value = draw.choice(list(by_use.values())[turn % len(by_use)])
        yield path, value, _place(value.shape, draw)


def _place(shape: Sequence[int], draw: random.Random) -> tuple[int, ...]:
    return tuple(draw.randrange(size) for size in shape)


def _cells(row: VerifiedOperation) -> tuple[str, ...]:
    quantity: Mapping[str, str] = {"unit": "unit", "delta": "delta through", "weight": "weight's gradient"}
    if row.num_checked == row.num_linearised:
        return (quantity[row.quantity], row.op, str(row.num_checked), "no rule: linearised", "", "")
    mark = "" if row.passed else "  BEYOND"
    return (
        quantity[row.quantity],
        row.op,
        str(row.num_checked),
        f"{row.worst:.1e}",
        f"{row.tolerance:.0e}",
        row.address + mark,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
