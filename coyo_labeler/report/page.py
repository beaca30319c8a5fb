"""The report as one HTML page: no scripts, no remote requests, light and dark."""

from collections.abc import Mapping
from typing import Any

from coyo_labeler.pages.environment import open_environment
from coyo_labeler.report.figures import figures


def render(document: Mapping[str, Any], pictures: Mapping[int, str]) -> str:
    """The page. pictures: `data:` URIs of examples, by image id.

    Everything else is escaped: names, manifests and histories may be a stranger's.
    """
    template = open_environment("coyo_labeler.report").get_template("page.html.jinja")
    return template.render(doc=document, plots=figures(document), pictures=pictures)
