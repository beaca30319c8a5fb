"""The files of a finished output: counted when the run ends, and compared when they are read.

The manifest holds the number of files and bytes of each folder, so that one listing tells whether
an output is as it was. `_files.json` beside it holds the size of each file, and names the one that
differs.
"""

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from coyo_labeler import storage
from coyo_labeler.listings import list_folder, name_of
from coyo_labeler.storage_errors import DamagedFileError

#: The size of each file of the tables, by its name below the output.
FILES = "_files.json"

#: {folder below the output, "" for the output itself: [files, bytes]}, as in manifests.
Tables = Mapping[str, Any]

#: Files that readers take for a part of a table. Others may be added to an output and removed.
_TABLE = re.compile(r"[^_.].*\.(parquet|tar|csv|csv\.gz|tfrecord-\d+-of-\d+)")

#: Results that are no tables, directly in an output: of report and of pretrain_vit.
_RESULTS = {"index.html", "model.safetensors"}

#: A folder below the output, without a way out of it.
_FOLDER = re.compile(r"(?!.*\.\.|/)[^\0]{0,1000}")

#: Rows that an export left out, where readers of datasets do not look.
_REJECTS = "_rejects"

_MAX_FILES_BYTES = 2**28


def list_tables(output: str) -> dict[str, int]:
    """Bytes of each file of the tables of an output, by its name below it.

    Of the folders whose names begin with `_` or `.` only export's rejects hold a table.
    """
    sizes: dict[str, int] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        for name, info in _entries(output, folder).items():
            if info["type"] != "directory":
                sizes[posixpath.join(folder, name)] = int(info["size"])
            elif name == _REJECTS or not name.startswith(("_", ".")):
                folders.append(posixpath.join(folder, name))
    return dict(sorted(sizes.items()))


def count_tables(sizes: Mapping[str, int]) -> dict[str, list[int]]:
    """Files and bytes by folder, for the manifest."""
    tables: dict[str, list[int]] = {}
    for name, size in sizes.items():
        counted = tables.setdefault(posixpath.dirname(name), [0, 0])
        counted[0] += 1
        counted[1] += size
    return dict(sorted(tables.items()))


def tables_of(manifest: Mapping[str, Any]) -> Tables:
    """What a manifest says of its files; {} where another version or program wrote it."""
    tables = manifest.get("files")
    return {
        folder: counts
        for folder, counts in (tables.items() if isinstance(tables, dict) else ())
        if isinstance(counts, list)
        and [type(number) for number in counts] == [int, int]
        and _FOLDER.fullmatch(folder)
    }


def difference(output: str, tables: Tables) -> str | None:
    """How an output differs from what its manifest says of its files; None where it does not.

    tables: of the manifest, or those of its folders that matter.
    """
    for folder, (count, size) in sorted(tables.items()):
        present = _files(output, folder)
        if len(present) != count or sum(present.values()) != size:
            return _name_one(output, folder, present) or (
                f"{storage.join(output, folder)} holds {len(present):,} files of "
                f"{sum(present.values()):,} bytes, and {count:,} of {size:,} were written"
            )
    return None


def _name_one(output: str, folder: str, present: Mapping[str, int]) -> str | None:
    """The first file of a folder that differs from `_files.json`; None where that does not tell."""
    try:
        document = storage.read_json(storage.join(output, FILES), max_bytes=_MAX_FILES_BYTES)
    except DamagedFileError:
        return None
    written = {
        name: size
        for name, size in (document or {}).items()
        if posixpath.dirname(name) == folder and isinstance(size, int)
    }
    differing = sorted(
        name for name in written.keys() | present.keys() if written.get(name) != present.get(name)
    )
    if not written or not differing:
        return None
    lost = [name for name in differing if name not in present]
    first = (lost or differing)[0]
    if first not in present:
        why = "is missing"
    elif first not in written:
        why = "was added"
    else:
        why = f"has {present[first]:,} bytes, {written[first]:,} were written"
    others = f" (and {len(differing) - 1:,} more differ)" if len(differing) > 1 else ""
    return f"{storage.join(output, first)} {why}{others}"


def _files(output: str, folder: str) -> dict[str, int]:
    return {
        posixpath.join(folder, name): int(info["size"])
        for name, info in _entries(output, folder).items()
        if info["type"] != "directory"
    }


def _entries(output: str, folder: str) -> dict[str, dict[str, Any]]:
    """The folders, and the files of tables, directly in a folder below the output."""
    fs, root = storage.resolve(output)
    path = storage.join(root, folder) if folder else root
    named = ((name_of(info), info) for info in list_folder(fs, path))
    return {name: info for name, info in named if _counts(folder, name, info)}


def _counts(folder: str, name: str, info: Mapping[str, Any]) -> bool:
    if info["type"] == "directory" or _TABLE.fullmatch(name):
        return True
    return not folder and name in _RESULTS
