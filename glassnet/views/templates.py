"""The templates of the pages, in `static/`: what they escape, and the words and colours they know."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from glassnet.views.charts import number, percent
from glassnet.views.pictures import image_uri, share_theme
from glassnet.views.wording import plural, share, times

STATIC = Path(__file__).parent.parent / "static"


@cache
def template(name: str) -> Template:
    """Return the template `static/<name>`; everything it is given is escaped, unless it is `Markup`."""
    environment = Environment(
        loader=FileSystemLoader(STATIC),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "plural": plural,
        "times": times,
        "share": share,
        "picture": image_uri,
        "size": lambda shape: " \N{MULTIPLICATION SIGN} ".join(map(str, shape)),
    }
    light, dark = share_theme(is_dark=False), share_theme(is_dark=True)
    environment.globals |= {"css": Markup((STATIC / "report.css").read_text("utf-8")), "light": light, "dark": dark}
    return environment.get_template(name)
