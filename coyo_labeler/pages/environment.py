"""The environment in which the templates of pages are rendered."""

from collections.abc import Callable

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup, escape

#: Characters shown of the name of a class: WordNet's lists of synonyms can be long.
_NAME = 30


def open_environment(package: str) -> Environment:
    """The templates in a package, which may include page.css.

    What they show is escaped: names, manifests and histories may be a stranger's.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(package, "."), PackageLoader("coyo_labeler.pages", ".")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "count": lambda value: "–" if value is None else f"{value:,}",
        "points": lambda value: "–" if value is None else f"{value * 100:.1f}",
        "signed": lambda value: "–" if value is None else f"{value:+.2f}".replace("-", "−"),
        "change": lambda value: f"{value:+,}".replace("-", "−") if value else "0",
        "share": lambda value: "–" if value is None else f"{value * 100:.1f}\u202f%",
        "fine": lambda value: "–" if value is None else f"{value * 100:.2f}\u202f%",
        "decimal": lambda value: "–" if value is None else f"{value:.3f}",
        "duration": _duration,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "short": _short,
    }
    environment.filters |= filters
    return environment


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _short(name: str) -> Markup:
    """The first synonyms of a class; its tooltip shows all of them."""
    if len(name) <= _NAME:
        return escape(name)
    listed = name[: _NAME + 1].rpartition(",")[0] or name[: _NAME - 1]
    return Markup('<span title="{}">{}…</span>').format(name, listed)
