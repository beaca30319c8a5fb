"""The comparison as one HTML page: no scripts, no remote requests, light and dark."""

from collections.abc import Mapping, Sequence
from typing import Any

from coyo_labeler.compare.draw import COLOURS, Example
from coyo_labeler.compare.figures import figures
from coyo_labeler.compare.summary import ROWS
from coyo_labeler.compare.tables import SIZES
from coyo_labeler.pages.environment import open_environment


def render(document: Mapping[str, Any], examples: Sequence[Example], top: int) -> str:
    """The page. examples: images to show. top: classes and pairs in each list."""
    classes = [row for row in document["by_class"] if row["a"]["instances"] + row["b"]["instances"]]
    template = open_environment("coyo_labeler.compare").get_template("page.html.jinja")
    return template.render(
        doc=document,
        rows=ROWS,
        sizes=SIZES,
        classes=sorted(classes, key=_change, reverse=True),
        confused=[row for row in document["confusion"] if row["a"] != row["b"]][:top],
        top=top,
        examples=examples,
        colours={name: f"rgb{colour}" for name, colour in COLOURS.items()},
        plots=figures(document),
    )


def _change(row: Mapping[str, Any]) -> tuple[int, int]:
    return abs(row["difference"]), row["a"]["instances"]
