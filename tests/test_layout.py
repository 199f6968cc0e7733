"""The import ranks of docs/design.md: a lower rank never imports a higher one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import glassnet

PACKAGE = Path(glassnet.__file__).parent

RANKS = {
    "_errors": 0,
    "_types": 0,
    "_version": 0,
    "arithmetic": 1,
    "_allocator": 1,
    "_compiled": 1,
    "_device": 1,
    "_modes": 1,
    "_native": 1,
    "_seed": 1,
    "_user_code": 1,
    "nn": 2,
    "data": 2,
    "models": 3,
    "evaluation": 3,
    "inspection": 3,
    "training": 4,
    "recipes": 5,
    "run_folder": 5,
    "runs": 5,
    "comparison": 5,
    "matching": 5,
    "rate_search": 6,
    "tuning": 6,
    "export": 6,
    "serving": 6,
    "views": 6,
    "printing": 7,
    "report": 7,
    "experiments": 7,
    "widgets": 7,
    "studio": 7,
    "curve_commands": 8,
    "cli": 8,
    "command_words": 8,
    "explain_commands": 8,
    "explain_gradients": 8,
    "inspect_commands": 8,
    "inspect_options": 8,
    "verify_command": 8,
    "lens_commands": 8,
    "object_commands": 8,
    "__main__": 9,
}
"""Rank of each file or folder directly in the package. `__init__` stands outside: it re-exports, nobody imports it."""

FORBIDDEN = {"inspection": {"models", "training", "evaluation"}}
"""Imports that the ranks would allow and the design does not."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(module: str) -> str:
    """Return the file or folder directly in the package that a dotted module name belongs to."""
    return module.split(".")[1]


def imported_modules(path: Path) -> set[str]:
    """Return the dotted names of glassnet modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name == "glassnet" or name.startswith("glassnet.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_its_own_rank_or_lower(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANKS, f"{own} has no rank: add it to the table and to docs/design.md"
    for module in imported_modules(path):
        assert module not in {"glassnet", "glassnet.__version__"}, "imports __init__, which only re-exports"
        other = part_of(module)
        assert RANKS[other] <= RANKS[own], f"{own} (rank {RANKS[own]}) imports {other} (rank {RANKS[other]})"
        assert other not in FORBIDDEN.get(own, set()), f"{own} must not import {other}"


def test_file_names_are_lower_case_nouns_without_catch_alls() -> None:
    for path in FILES:
        stem = path.stem.strip("_")
        assert stem == stem.lower()
        assert stem not in {"utils", "common", "helpers", "core", "base", "misc"}


def test_nothing_outside_the_package_root_is_left_unranked() -> None:
    tops = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert tops <= set(RANKS)
