"""What a network made of an input, as tables: scores, what drove the largest, the steps of the pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from glassnet._types import by
from glassnet.inspection.tracing import Driver, Trace, Unit
from glassnet.views.tables import plain_table


def scores_view(scores: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return a row per output: its class, its probability where it has one, its score, its address."""
    has_shares = scores[0]["probability"] is not None
    table = plain_table(
        "class" if has_shares else "output", *(["probability"] if has_shares else []), "score", "address"
    )
    for row in scores:
        share = [f"{row['probability']:.2%}"] if has_shares else []
        table.add_row(Text(row["name"], style="bold"), *share, f"{row['score']:.4g}", Text(row["address"]))
    return table


def drivers_view(
    unit: Unit, layers: Sequence[Sequence[Driver]], measured: Mapping[str, float | None]
) -> RenderableType:
    """Return layer by layer the units that drove a number, each with what the number is without it."""
    table = plain_table("unit", "value", f"{unit.address} without it", "change")
    for number, layer in enumerate(layers):
        if number:
            table.add_row()
        for driver in sorted(layer, key=lambda driver: -_effect(unit, measured[driver.address])):
            without = measured[driver.address]
            cells = ("", "") if without is None else (f"{without:.4g}", f"{without - unit.value:+.4g}")
            table.add_row(Text(driver.address), f"{driver.value:.4g}", *cells)
    head = (
        f"What drove {unit.address} = {unit.value:.4g}: the strongest products, then the strongest of theirs.\n"
        "Each was set to 0, and torch computed the rest again."
    )
    return Group(Text(head), table)


def steps_view(trace: Trace) -> RenderableType:
    """Return a row per step: its address, operation and shape, and what it read."""
    table = plain_table("address", "operation", "shape", "reads", left=4)
    for step in trace.steps:
        read = ", ".join(dict.fromkeys(trace.naming.name(value) for value in step.inputs))
        table.add_row(Text(step.name), step.op, by(step.shape) or "one number", Text(read))
    return table


def _effect(unit: Unit, without: float | None) -> float:
    return 0.0 if without is None else abs(without - unit.value)
