"""How a number came about, as text, Markdown, LaTeX and plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glassnet.inspection.tracing.terms import Terms, UnitTrace

MOST_CHANNELS = 8
Cells = tuple[str, ...]


def number(value: float | None, digits: int = 6) -> str:
    """Return a number in at most `digits` figures; nothing for none."""
    if value is None or math.isnan(value):
        return "" if value is None else "nan"
    text = f"{value:.{digits}g}"
    return "0" if float(value) == 0 else text


def to_text(unit: UnitTrace, *, all: bool, limit: int) -> str:
    """Return an aligned table, the formula above it and the comparison below."""
    shown, note = _shown(unit, all=all, limit=limit)
    head = f"{unit.address} = {number(unit.value)}   ({unit.op}: {unit.formula})"
    rows = [unit.heads, *_rows(shown)]
    lines = [head, *(f"  {line}" for line in aligned(rows)), *([f"  {note}"] if note else [])]
    lines += _by_channel(unit)
    lines += [f"  {line}" for line in aligned(_summary(unit))]
    return "\n".join([*lines, *(f"  Note: {text}" for text in unit.notes)])


def to_markdown(unit: UnitTrace, *, all: bool, limit: int) -> str:
    """Return a heading, a table of terms and a table of the sums."""
    shown, note = _shown(unit, all=all, limit=limit)
    rows = _rows(shown)
    lines = [f"**`{unit.address}` = {number(unit.value)}** ({unit.op}: {unit.formula})", ""]
    lines += ["| " + " | ".join([*unit.heads, ""]) + " |", "|---|---:|---:|---:|---|"]
    lines += ["| " + " | ".join([f"`{row[0]}`" if row[0] else "", *row[1:]]) + " |" for row in rows]
    lines += ["", *([note, ""] if note else []), "| | |", "|---|---:|"]
    lines += [f"| {row[0]} | {' '.join(part for part in row[1:] if part)} |" for row in _summary(unit)]
    return "\n".join([*lines, *(f"\n> {text}" for text in unit.notes)])


def to_latex(unit: UnitTrace, *, all: bool, limit: int) -> str:
    """Return the sum written out, its value and torch's, as an `align*` block; the text of a function otherwise."""
    shown, _ = _shown(unit, all=all, limit=limit)
    name = rf"\text{{{_escaped(unit.address)}}}"
    lines = [rf"{name} &= {_latex_formula(unit)} \\"]
    if unit.is_sum:
        factors = zip(shown.value.tolist(), shown.factor.tolist(), shown.product.tolist(), strict=True)
        summands = [_latex_product(*parts) for parts in factors]
        rest = len(unit.terms) - len(shown)
        if rest:
            left = float(unit.terms.product.sum() - shown.product.sum())
            summands.append(rf"\underbrace{{{_latex(left)}}}_{{\text{{{rest} more terms}}}}")
        if unit.bias is not None:
            summands.append(rf"\underbrace{{{_latex(unit.bias)}}}_{{\text{{bias}}}}")
        for start in range(0, len(summands), 3):
            before = "=" if start == 0 else r"\quad +"
            lines.append(f"&{before} " + " + ".join(summands[start : start + 3]) + r" \\")
    for word, value in unit.working:
        lines.append(rf"\text{{{_escaped(word)}}} &= {_latex(value)} \\")
    lines.append(rf"{name} &= {_latex(unit.total)} \qquad \text{{(torch: }} {_latex(unit.value)} \text{{)}}")
    return "\n".join([r"\begin{align*}", *lines, r"\end{align*}"])


def to_dict(unit: UnitTrace) -> dict[str, Any]:
    """Return plain values."""
    terms = unit.terms
    columns = zip(
        terms.sources, _finite(terms.value.tolist()), terms.factor_sources, _finite(terms.factor.tolist()),
        _finite(terms.product.tolist()), terms.words, strict=True,
    )  # fmt: skip
    names = ("source", "value", "factor_source", "factor", "product", "kind")
    return {
        "address": unit.address,
        "op": unit.op,
        "formula": unit.formula,
        "heads": list(unit.heads),
        "is_linearisation": unit.is_linearisation,
        "terms": [dict(zip(names, row, strict=True)) for row in columns],
        "partial_sums": [part._asdict() for part in terms.partial_sums()] if unit.is_sum else [],
        "working": {word: value if math.isfinite(value) else None for word, value in unit.working},
        "bias": unit.bias,
        "bias_source": unit.bias_source,
        **dict(
            zip(
                ("total", "value", "difference", "relative_difference"),
                _finite([unit.total, unit.value, unit.difference, unit.relative_difference]),
                strict=True,
            )
        ),
        "notes": list(unit.notes),
    }


def _finite(numbers: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in numbers]


def _shown(unit: UnitTrace, *, all: bool, limit: int) -> tuple[Terms, str]:
    """Return the terms to show, and what to say of the others."""
    terms = unit.terms
    if all or len(terms) <= limit:
        return terms, ""
    shown = terms.largest(limit)
    rest = f"... and {len(terms) - limit:,} smaller terms"
    if unit.is_sum:
        rest += f", together {number(float(terms.product.sum() - shown.product.sum()))}"
    return shown, f"{rest} (all=True, or --all, shows every term)"


def _rows(terms: Terms) -> list[Cells]:
    has_origin = terms.factor_at is not None
    factors = [("" if math.isnan(factor) else number(factor)) for factor in terms.factor.tolist()]
    names = terms.factor_sources if has_origin else [""] * len(terms)
    return [
        (source, number(value), factor, number(product), " ".join(part for part in (name, word) if part))
        for source, value, factor, product, name, word in zip(
            terms.sources, terms.value.tolist(), factors, terms.product.tolist(), names, terms.words, strict=True
        )
    ]


def _by_channel(unit: UnitTrace) -> list[str]:
    """Return the partial sums by input channel, where there are several terms in several channels."""
    if not unit.is_sum or len(unit.terms) < 2:
        return []
    parts = unit.terms.partial_sums()
    if not 1 < len(parts) < len(unit.terms):
        return []
    largest = sorted(parts, key=lambda part: -abs(part.total))[:MOST_CHANNELS]
    more = f"; and {len(parts) - len(largest)} more" if len(parts) > len(largest) else ""
    shown = "  ".join(f"{part.source} {number(part.total, 4)}" for part in largest)
    return [f"  by channel: {shown}{more}"]


def _summary(unit: UnitTrace) -> list[Cells]:
    rows: list[Cells] = [(word, number(value)) for word, value in unit.working]
    is_choice = any(word in {"taken", "not taken"} for word in unit.terms.words)
    if unit.is_sum and not is_choice and (len(unit.terms) > 1 or unit.bias is not None):
        rows.append(("sum of products", number(float(unit.terms.product.sum()))))
    if unit.bias is not None:
        rows.append((f"bias {unit.bias_source}".strip(), number(unit.bias)))
    apart = (
        "the same" if unit.difference == 0
        else f"difference {number(unit.difference, 2)}, {number(unit.relative_difference, 2)} of the absolute terms"
    )  # fmt: skip
    if unit.is_linearisation:
        return [*rows, ("torch's value", number(unit.value, 9))]
    return [*rows, ("total", number(unit.total, 9)), ("torch's value", number(unit.value, 9), apart)]


def aligned(rows: Sequence[Cells]) -> list[str]:
    """Return rows as lines: the first column and those after the fourth set left, numbers right."""
    count = max((len(row) for row in rows), default=0)
    widths = [max((len(row[place]) for row in rows if place < len(row)), default=0) for place in range(count)]
    lines = []
    for row in rows:
        is_number = [place > 0 and place < (4 if count > 3 else 2) for place in range(len(row))]
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=False)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _latex_formula(unit: UnitTrace) -> str:
    if not unit.is_sum:
        return rf"\text{{{_escaped(unit.formula)}}}"
    return r"\sum_i x_i w_i" + (" + b" if unit.bias is not None else "")


def _latex_product(value: float, factor: float, product: float) -> str:
    if math.isnan(factor):
        return _latex(product)
    return rf"({_latex(value)})({_latex(factor)})"


def _latex(value: float) -> str:
    text = number(value, 5)
    if "e" not in text:
        return {"inf": r"\infty", "-inf": r"-\infty", "nan": r"\mathrm{nan}"}.get(text, text)
    digits, exponent = text.split("e")
    return rf"{digits} \cdot 10^{{{int(exponent)}}}"


def _escaped(text: str) -> str:
    for character in "\\_#%&{}$":
        text = text.replace(character, "\\" + character if character != "\\" else r"\textbackslash ")
    return text.replace("^", r"\^{}")
