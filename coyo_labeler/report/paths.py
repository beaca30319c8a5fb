"""Paths as a page shows them that is published."""

from pathlib import Path

from coyo_labeler import storage
from coyo_labeler.redact import redact


def shown(url: str) -> str:
    """A URL for a page that is published: without secrets, and without the folder of its author.

    A path below the working folder is given from there, one in the home folder from `~`.
    """
    path = storage.local_path(url)
    if path is None:
        return redact(url)
    for folder, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        inside = len(folder.parts) > 1 and Path(path).is_relative_to(folder)
        if inside and Path(path) != folder:
            return prefix + str(Path(path).relative_to(folder))
    return path
