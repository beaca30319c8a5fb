"""Tars written member by member, apart from the code under test."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_members(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar of (name, content) at `path`, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
