"""The gradient of one weight: the sum over all the places where it is used of input times delta.

Rumelhart, Hinton and Williams (1986), equation 6: a weight w_ji from y_i to x_j has dE/dw_ji = dE/dx_j * y_i. A weight
that is used several times (at every position of a convolution, for every image of a batch, in a module that is called
twice) has the sum over its uses: section "recurrent networks" there, LeCun et al. (1989) for convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from glassnet._errors import UsageError
from glassnet.inspection.tracing.address import WeightAddress
from glassnet.inspection.tracing.deltas import places, scale_of
from glassnet.inspection.tracing.local_derivatives import gradient_of
from glassnet.inspection.tracing.naming import Naming
from glassnet.inspection.tracing.terms import Kind, Terms, UnitTrace
from glassnet.inspection.tracing.uses import Use, uses_of
from glassnet.inspection.tracing.values import Value

if TYPE_CHECKING:
    from glassnet.inspection.tracing.record import Trace
    from glassnet.inspection.tracing.updates import Update

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightTrace(UnitTrace):
    """How dL/d(weight) comes about; `value` is autograd's gradient, `weight` the weight itself."""

    weight: float
    parameter: Value = field(repr=False)
    """All of the parameter that it is an entry of."""
    index: Index
    """Its place there."""

    def step(self, optimizer: Any) -> Update:
        """Return what one step of `optimizer` makes of this weight, term by term, beside torch's own step.

        `optimizer` is one of torch's over the traced model (SGD, Adam, AdamW, RMSprop, Adagrad, Muon) or glassnet's;
        its state counts, and it is not changed. Raises `UsageError` for another kind, and where it does not have this
        weight.
        """
        from glassnet.inspection.tracing.updates import update_of

        return update_of(self, optimizer)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; numbers that are not finite are None."""
        return {**super().to_dict(), "weight": self.weight}


def weight_trace(trace: Trace, address: str | WeightAddress) -> WeightTrace:
    """Return how dL/d(weight) comes about; see `Trace.weight`."""
    trace._require_label()
    if isinstance(address, str) and address in trace.parameters and not trace.parameter(address).shape:
        address = WeightAddress(address, ())  # one number without axes
    parameter, index = trace.locate_weight(address)
    address = WeightAddress.parse(address) if isinstance(address, str) else address
    text = str(address) if index else address.path
    if not parameter.tensor.is_floating_point():
        raise UsageError(f"A gradient is of a real weight; '{text}' is {parameter.tensor.dtype}. Name another weight.")
    uses: list[Use] = []
    notes: list[str] = []
    ops: dict[str, None] = {}
    for step, position in trace.consumers(parameter):
        found = uses_of(step, position, index)
        uses += found.uses
        ops[step.op] = None
        if found.unexplained is not None:
            uses.append(_whole(step.output, found.unexplained))
            notes.append(f"What {step.name} passes back stands as one number: its backward function is no product.")
        elif found.uses and any(use.given is None and step.inputs[0] != use.given for use in found.uses):
            notes += _said_of(step.op, step.input_names[position])
    gradient = gradient_of(parameter)
    if gradient is None:
        notes = ["The loss does not depend on this weight by a way that autograd knows."]
    terms = in_columns(uses, trace.naming)
    return WeightTrace(
        address=text,
        op=", ".join(ops) or "unused",
        formula="dL/d(weight) = sum over its uses of input x delta",
        terms=terms,
        bias=None,
        total=float(terms.product.sum()),
        value=0.0 if gradient is None else float(gradient[index]),
        scale=scale_of(terms, parameter.tensor.dtype),
        heads=("input", "value", "delta", "product"),
        working=(("the weight", float(parameter.tensor[index])),),
        notes=tuple(dict.fromkeys(notes)),
        weight=float(parameter.tensor[index]),
        parameter=parameter,
        index=index,
    )


def in_columns(uses: Sequence[Use], naming: Naming) -> Terms:
    """Return the uses of a weight as one table: the inputs, and the deltas that they are multiplied by."""
    none = [torch.zeros(0, dtype=torch.float64)]
    values = torch.cat([use.derivative for use in uses] or none)
    deltas = torch.cat([use.delta for use in uses] or none)
    kinds = [
        torch.full((len(use.delta),), Kind.PRODUCT, dtype=torch.int8)
        if use.is_padding is None
        else torch.where(use.is_padding, int(Kind.PADDING), int(Kind.PRODUCT)).to(torch.int8)
        for use in uses
    ]
    return Terms(
        value=values,
        factor=deltas,
        product=values * deltas,
        kind=torch.cat(kinds or [torch.zeros(0, dtype=torch.int8)]),
        at=places((use.given, use.given_index, len(use.delta)) for use in uses),
        factor_at=places((use.value, use.index) for use in uses),
        naming=naming,
    )


def _said_of(op: str, name: str) -> list[str]:
    if name == "bias":
        return ["A shift is added to every number, so that each delta counts once."]
    return [f"The value of a term is the local derivative of {op} by this weight."]


def _whole(value: Value, passed: float) -> Use:
    empty = torch.zeros(1, 0, dtype=torch.long)
    number = torch.tensor([passed], dtype=torch.float64)
    return Use(value, empty, number, torch.ones_like(number))
