"""A page of curves and tables: one HTML file without scripts, which may load nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from glassnet._version import __version__
from glassnet.views.templates import template

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""A title, the names of the columns, the cells row by row."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One chart with its sentence and the table that says the same."""

    title: str
    summary: str
    svg: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class CurvesPage:
    """What the page says, from the answer down."""

    kind: str
    """What sort of page it is, in two or three words."""
    title: str
    headline: str
    lead: Sequence[str] = ()
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures_title: str
    keys: Sequence[tuple[Markup, str]] = ()
    """One legend for all figures: a picture of the line, and its name."""
    figures: Sequence[Figure] = ()
    remarks: Sequence[str] = ()


def render_curves(page: CurvesPage) -> str:
    """Return the page as text. Every name is escaped; what is no valid Unicode shows as question marks."""
    text = template("curves.html.j2").render(page=page, version=__version__)
    return text.encode("utf-8", "replace").decode("utf-8")
