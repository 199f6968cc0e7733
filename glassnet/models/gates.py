"""Threshold units and the logic gates that they make."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from glassnet._errors import UsageError, unknown_name
from glassnet._types import Shape
from glassnet.nn.threshold import Step

Bits = tuple[int, ...]
"""Zeros and ones, one for each input."""


@dataclass(frozen=True)
class UnitWeights:
    """The numbers of one threshold unit: `y = 1` where `w1 x1 + w2 x2 + ... - theta >= 0`, else 0."""

    weights: tuple[float, ...]
    threshold: float


UNITS = {
    "and": UnitWeights((1, 1), 1.5),
    "or": UnitWeights((1, 1), 0.5),
    "not": UnitWeights((-1,), -0.5),
    "nand": UnitWeights((-1, -1), -1.5),
    "nor": UnitWeights((-1, -1), -0.5),
}
"""AND and OR as in Haykin, "Neural Networks and Learning Machines" (2009), section 4.5. The others are their negations:
`-z` is at least 0 where `z` is at most 0, and no input makes z = 0."""
XOR_HIDDEN = ("and", "or")
XOR_OUTPUT = UnitWeights((-2, 1), 0.5)
"""XOR is OR, but not AND. Haykin, the same section, after Touretzky and Pomerleau (1989)."""

LOGIC: dict[str, Callable[..., int]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "not": lambda a: 1 - a,
    "nand": lambda a, b: 1 - (a & b),
    "nor": lambda a, b: 1 - (a | b),
    "xor": lambda a, b: a ^ b,
}
"""What each gate must answer."""


@dataclass(frozen=True, kw_only=True)
class Inequality:
    """What one unit must fulfil for one row of the truth table, with its numbers."""

    unit: str
    """`gate`, or in a gate of two layers `hidden.and`, `hidden.or` and `output`."""
    row: Bits
    """The inputs of the gate."""
    inputs: Bits
    """The inputs of the unit: those of the gate, or the answers of the hidden units."""
    weights: tuple[float, ...]
    threshold: float
    target: int
    """The answer that the unit must give, 0 or 1."""

    @property
    def total(self) -> float:
        """The left side: `w . x - theta`."""
        return sum(w * x for w, x in zip(self.weights, self.inputs, strict=True)) - self.threshold

    @property
    def holds(self) -> bool:
        """Whether the unit answers right."""
        return (self.total >= 0) == bool(self.target)

    @property
    def symbols(self) -> str:
        """The inequality as a textbook writes it, such as `w1*0 + w2*1 - theta < 0`."""
        products = " + ".join(f"w{number}*{x}" for number, x in enumerate(self.inputs, start=1))
        return f"{products} - theta {self._relation} 0"

    @property
    def numbers(self) -> str:
        """The same in numbers, such as `1*0 + 1*1 - 1.5 = -0.5 < 0`; false where `holds` is."""
        products = " + ".join(f"{w:g}*{x}" for w, x in zip(self.weights, self.inputs, strict=True))
        threshold = f"({self.threshold:g})" if self.threshold < 0 else f"{self.threshold:g}"
        return f"{products} - {threshold} = {self.total:g} {self._relation} 0"

    @property
    def _relation(self) -> str:
        return ">=" if self.target else "<"


@dataclass(frozen=True, kw_only=True)
class GateInequalities:
    """The inequalities of all units of a gate, unit by unit, a row of the truth table each."""

    name: str
    rows: tuple[Inequality, ...]

    @property
    def hold(self) -> bool:
        """Whether all hold: then the weights make the gate."""
        return all(row.holds for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{row.unit}  {row.symbols}:  {row.numbers}  {'holds' if row.holds else 'FAILS'}" for row in self.rows]
        return "\n".join([*lines, "all hold" if self.hold else "not all hold"])


@dataclass(frozen=True, kw_only=True)
class TruthRow:
    """One row of a truth table."""

    inputs: Bits
    value: float
    """What the model gives."""
    output: int
    """1 where the value lies above the table's limit, else 0."""


@dataclass(frozen=True, kw_only=True)
class TruthTable:
    """What a model answers to every combination of zeros and ones, counting up from all zeros."""

    rows: tuple[TruthRow, ...]

    @property
    def outputs(self) -> Bits:
        """The column of answers."""
        return tuple(row.output for row in self.rows)

    def __str__(self) -> str:
        return "\n".join(f"{' '.join(map(str, row.inputs))} | {row.output}" for row in self.rows)


def gate_inequalities(
    name: str, weights: Sequence[float] | None = None, threshold: float | None = None
) -> GateInequalities:
    """Return what the weights of a gate must fulfil, row by row of its truth table, and whether they do.

    `name` is `and`, `or`, `not`, `nand`, `nor` or `xor`, also with `gate-` before it. Without `weights` and
    `threshold` they are the published ones, which `build_model` uses. With them, one unit of these numbers is held
    against the whole table; no single unit passes for `xor` (Minsky and Papert, "Perceptrons", 1969).

    Raises `UsageError` for an unknown name and for a number of weights that is not the number of inputs.
    """
    short = name.removeprefix("gate-")
    if short not in LOGIC:
        raise unknown_name("gate", name, LOGIC)
    if (weights is None) != (threshold is None):
        raise UsageError("gate_inequalities expects weights and a threshold together, or neither; got one of them.")
    if weights is not None and threshold is not None:
        rows = _unit_inequalities("gate", short, UnitWeights(tuple(weights), threshold))
    elif short == "xor":
        rows = _xor_inequalities()
    else:
        rows = _unit_inequalities("gate", short, UNITS[short])
    return GateInequalities(name=short, rows=tuple(rows))


def truth_table(model: nn.Module, limit: float = 0.0) -> TruthTable:
    """Return what `model` `(B, D)` -> `(B, 1)` answers to all `2^D` rows of zeros and ones.

    D is the number of inputs of its first linear layer. A value above `limit` counts as 1: 0 suits threshold units
    and logits, 0.5 probabilities. Raises `UsageError` where there is no linear layer, or more than one output.
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Linear)), None)
    if first is None:
        raise UsageError(f"truth_table expects a model with a linear layer; got {type(model).__name__} without one.")
    if first.in_features > 16:
        raise UsageError(f"A truth table has 2^inputs rows; {first.in_features} inputs are too many. 16 are the most.")
    rows = list(itertools.product((0, 1), repeat=first.in_features))
    with torch.no_grad():
        answers = model(torch.tensor(rows, dtype=first.weight.dtype, device=first.weight.device))
    if answers.shape != (len(rows), 1):
        raise UsageError(f"truth_table expects one output a row, ({len(rows)}, 1); got {tuple(answers.shape)}.")
    values = answers[:, 0].tolist()
    return TruthTable(
        rows=tuple(
            TruthRow(inputs=row, value=value, output=int(value > limit))
            for row, value in zip(rows, values, strict=True)
        )
    )


def threshold_unit(weights: Sequence[float], threshold: float) -> nn.Module:
    """McCulloch and Pitts' neuron: `y = 1` where `w . x >= threshold`, else 0; `(B, D)` -> `(B, 1)`.

    The weights are fixed (no gradients). McCulloch and Pitts, "A logical calculus of the ideas immanent in nervous
    activity" (1943), where all excitatory weights are equal and one inhibitory input silences the unit; signed
    weights, as here, are the later common form.

    Raises `UsageError` for no weights.
    """
    if len(weights) == 0:
        raise UsageError("A threshold unit expects at least one weight; got none.")
    unit = UnitWeights(tuple(weights), threshold)
    return nn.Sequential(OrderedDict(unit=_fixed_linear(unit), step=Step()))


def gate_and(*, num_classes: int = 1, input_shape: Shape = (2,), unit: str = "threshold") -> nn.Module:
    """AND as one unit: `1*x1 + 1*x2 - 1.5`. See `gate_inequalities` for the weights of all gates.

    `bits` `(B, 2)`, zeros and ones as floats, -> `(B, 1)`. With `unit` `threshold` the weights are the published ones
    and fixed (no gradients), and the output is 0 or 1. With `sigmoid` the network has the same shape and random
    weights to be trained: inner units are sigmoids, and the output is one logit, whose sigmoid is the probability of
    a 1 (its loss: binary cross-entropy on logits).

    A gate has one output and two classes, false and true: `num_classes` may be 1 or 2 and changes nothing.

    Raises `UsageError` for another `input_shape` or `num_classes`, and for an unknown `unit`.
    """
    return _gate("and", num_classes, input_shape, unit)


def gate_or(*, num_classes: int = 1, input_shape: Shape = (2,), unit: str = "threshold") -> nn.Module:
    """OR as one unit: `1*x1 + 1*x2 - 0.5`. Options as for `gate_and`."""
    return _gate("or", num_classes, input_shape, unit)


def gate_not(*, num_classes: int = 1, input_shape: Shape = (1,), unit: str = "threshold") -> nn.Module:
    """NOT as one unit with one input: `-1*x1 + 0.5`, `bits` `(B, 1)` -> `(B, 1)`. Options as for `gate_and`."""
    return _gate("not", num_classes, input_shape, unit)


def gate_nand(*, num_classes: int = 1, input_shape: Shape = (2,), unit: str = "threshold") -> nn.Module:
    """NAND as one unit: `-1*x1 - 1*x2 + 1.5`. Options as for `gate_and`."""
    return _gate("nand", num_classes, input_shape, unit)


def gate_nor(*, num_classes: int = 1, input_shape: Shape = (2,), unit: str = "threshold") -> nn.Module:
    """NOR as one unit: `-1*x1 - 1*x2 + 0.5`. Options as for `gate_and`."""
    return _gate("nor", num_classes, input_shape, unit)


def gate_xor(*, num_classes: int = 1, input_shape: Shape = (2,), unit: str = "threshold") -> nn.Module:
    """XOR in two layers: `-2*and(x1, x2) + 1*or(x1, x2) - 0.5`. Options as for `gate_and`."""
    return _gate("xor", num_classes, input_shape, unit)


def _gate(name: str, num_classes: int, input_shape: Shape, unit: str) -> nn.Module:
    num_inputs = 1 if name == "not" else 2
    if input_shape != (num_inputs,):
        raise UsageError(f"gate-{name} takes {num_inputs} input(s): input_shape ({num_inputs},); got {input_shape}.")
    if num_classes not in (1, 2):
        raise UsageError(f"gate-{name} has one output, false or true: num_classes 1 or 2; got {num_classes}.")
    if unit not in BUILD_LAYERS:
        raise unknown_name("unit", unit, BUILD_LAYERS)
    return nn.Sequential(BUILD_LAYERS[unit](name))


def _threshold_layers(name: str) -> OrderedDict[str, nn.Module]:
    if name != "xor":
        return OrderedDict(unit=_fixed_linear(UNITS[name]), step=Step())
    hidden = _fixed_linear(*(UNITS[unit] for unit in XOR_HIDDEN))
    return OrderedDict(hidden=hidden, hidden_step=Step(), output=_fixed_linear(XOR_OUTPUT), step=Step())


def _sigmoid_layers(name: str) -> OrderedDict[str, nn.Module]:
    if name != "xor":
        return OrderedDict(unit=nn.Linear(len(UNITS[name].weights), 1))
    return OrderedDict(hidden=nn.Linear(2, 2), hidden_sigmoid=nn.Sigmoid(), output=nn.Linear(2, 1))


BUILD_LAYERS = {"threshold": _threshold_layers, "sigmoid": _sigmoid_layers}


def _fixed_linear(*units: UnitWeights) -> nn.Linear:
    """Return `W x + b` with one row of weights and one bias `-theta` for each of `units`, without gradients."""
    layer = nn.Linear(len(units[0].weights), len(units))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([unit.weights for unit in units]))
        layer.bias.copy_(torch.tensor([-unit.threshold for unit in units]))
    return layer.requires_grad_(False)


def _unit_inequalities(label: str, logic: str, unit: UnitWeights) -> list[Inequality]:
    num_inputs = 1 if logic == "not" else 2
    if len(unit.weights) != num_inputs:
        raise UsageError(f"Gate '{logic}' expects {num_inputs} weight(s), one an input; got {len(unit.weights)}.")
    rows = itertools.product((0, 1), repeat=num_inputs)
    return [_inequality(label, unit, bits, bits, LOGIC[logic](*bits)) for bits in rows]


def _xor_inequalities() -> list[Inequality]:
    rows = [row for name in XOR_HIDDEN for row in _unit_inequalities(f"hidden.{name}", name, UNITS[name])]
    for bits in itertools.product((0, 1), repeat=2):
        hidden = tuple(LOGIC[name](*bits) for name in XOR_HIDDEN)
        rows.append(_inequality("output", XOR_OUTPUT, bits, hidden, LOGIC["xor"](*bits)))
    return rows


def _inequality(label: str, unit: UnitWeights, row: Bits, inputs: Bits, target: int) -> Inequality:
    weights, threshold = unit.weights, unit.threshold
    return Inequality(unit=label, row=row, inputs=inputs, weights=weights, threshold=threshold, target=target)
