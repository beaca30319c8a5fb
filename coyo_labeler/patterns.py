"""Names that look like patterns: fsspec takes `*`, `?` and `[` for patterns in some of its calls.

`fs.glob`, and in most filesystems `fs.rm` and `fs.mv` too, expand them; all other calls take a path
as it is. So a folder `run [1]` needs its bracket escaped in the former.
"""

import re
from pathlib import Path

from fsspec import AbstractFileSystem

_MAGIC = re.compile(r"[*?\[]")


def has_magic(path: str) -> bool:
    """Whether a path has a character of patterns."""
    return _MAGIC.search(path) is not None


def literal(path: str) -> str:
    """A pattern that matches the path alone."""
    return _MAGIC.sub(r"[\g<0>]", path)


def pattern_of(fs: AbstractFileSystem, path: str) -> str:
    """A path as a pattern, in which the folders that have such a name stand for themselves."""
    parts = path.split("/")
    escaped = list(parts)
    for number, part in enumerate(parts):
        if has_magic(part):
            if not fs.exists("/".join(parts[: number + 1])):
                break  # from here on it is a pattern
            escaped[number] = literal(part)
    return "/".join(escaped)


def remove_folder(fs: AbstractFileSystem, path: str) -> None:
    """Remove a folder and all in it, and no other that its name matches."""
    expands = not _is_local(fs) and has_magic(path)
    fs.rm(literal(path) if expands else path, recursive=True)


def move_file(fs: AbstractFileSystem, source: str, target: str) -> None:
    """Rename a file, whatever its name. A folder of that name is an error: `mv` moves into it."""
    if _is_local(fs):
        Path(source).replace(target)
    elif type(fs).mv is AbstractFileSystem.mv:
        fs.cp_file(source, target)
        fs.rm_file(source)
    else:
        fs.mv(source, target)


def _is_local(fs: AbstractFileSystem) -> bool:
    return "file" in fs.protocol
