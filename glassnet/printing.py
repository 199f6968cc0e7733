"""What commands print: tables and lines for a person, JSON for a program."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import typer


def print_parts(*parts: Any) -> None:
    """Print lines and tables, as wide as the terminal."""
    from rich.console import Console

    # A pipe has no width: let nothing wrap there, so that other programs can read lines.
    console = (
        Console(highlight=False)
        if sys.stdout is not None and sys.stdout.isatty()
        else Console(highlight=False, width=10_000)
    )
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)


def print_json(value: object) -> None:
    """Print a value as `json_text` has it."""
    typer.echo(json_text(value))


def json_text(value: object) -> str:
    """Return a value as JSON; what JSON has no word for stands as text, and numbers that are not finite as null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """Return a value with None for each number that JSON has no word for: nan and the infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value
