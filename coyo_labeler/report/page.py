"""The report as one HTML page: no script, no remote request, light and dark."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from coyo_labeler.report.figures import figures

#: Characters of a class's name that are shown; WordNet's lists of synonyms can be long.
_NAME = 30


def render(document: Mapping[str, Any], pictures: Mapping[int, str]) -> str:
    """The page. pictures: `data:` URIs of examples, by image id; everything else is escaped."""
    environment = Environment(
        loader=PackageLoader("coyo_labeler.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: "–" if value is None else f"{value:,}",
        "points": lambda value: "–" if value is None else f"{value * 100:.1f}",
        "signed": lambda value: "–" if value is None else f"{value:+.2f}".replace("-", "−"),
        "share": lambda value: "–" if value is None else f"{value * 100:.1f}\u202f%",
        "fine": lambda value: "–" if value is None else f"{value * 100:.2f}\u202f%",
        "decimal": lambda value: "–" if value is None else f"{value:.3f}",
        "duration": _duration,
        "size": _size,
        "short": _short,
    }
    template = environment.get_template("page.html.jinja")
    return template.render(doc=document, plots=figures(document), pictures=pictures)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _size(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def _short(name: str) -> Markup:
    """A class's first synonyms; the pointer shows the rest."""
    if len(name) <= _NAME:
        return escape(name)
    listed = name[: _NAME + 1].rpartition(",")[0] or name[: _NAME - 1]
    return Markup('<span title="{}">{}…</span>').format(name, listed)
