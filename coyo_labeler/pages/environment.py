"""The environment in which the templates of pages are rendered."""

import re
from collections.abc import Callable

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup, escape

#: Characters shown of the name of a class: WordNet's lists of synonyms can be long.
_NAME = 30
#: What `LabelSpace.display_name` puts behind a name that several classes have.
_MARK = re.compile(r" \((?:n\d{8}|\d+)\)$")


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
    """The first synonyms of a class; its tooltip shows all of them.

    A synset or number behind the name stays: it tells classes of one name apart.
    """
    if len(name) <= _NAME:
        return escape(name)
    mark = _MARK.search(name)
    words = name[: mark.start()] if mark else name
    if len(words) > _NAME:
        words = (words[: _NAME + 1].rpartition(",")[0] or words[: _NAME - 1]) + "…"
    return Markup('<span title="{}">{}{}</span>').format(name, words, mark[0] if mark else "")
