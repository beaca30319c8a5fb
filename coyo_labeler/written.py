"""The files that a run wrote, as its receipts describe them, against what lies in the output now.

A file is described by its size and a digest of its last bytes. In a Parquet file these hold the
footer, and with it the bounds of every column: two files of one size do not pass for each other.
On object stores its ETag is described too. A file that still has it is not read again.
"""

import hashlib
import posixpath
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any

from coyo_labeler import storage
from coyo_labeler.errors import WorkError
from coyo_labeler.listings import etag_of, list_folder, name_of

#: {name below the output: [bytes, digest of the last ones]}, as it stands in receipts; on object
#: stores [bytes, digest, ETag].
Files = Mapping[str, Any]

#: Endings of files that no reader takes for a part of a table.
_NO_DATA = (".json", ".md", ".html", ".txt")

_TAIL_BYTES = 16 * 2**10
_FILES_AT_ONCE = 256  # whose ends are read together


def describe_files(output: str, names: Iterable[str]) -> dict[str, list[Any]]:
    """The description of files that have just been written; names: below the output."""
    fs, folder = storage.resolve(output)
    described = {}
    for name in names:
        path = storage.join(folder, name)
        fs.invalidate_cache(posixpath.dirname(path))
        info = fs.info(path)
        size, etag = int(info["size"]), etag_of(info)
        tail = fs.cat_file(path, start=max(0, size - _TAIL_BYTES), end=size)
        described[name] = [size, _digest(tail), *([] if etag is None else [etag])]
    return described


def differing(output: str, described: Files) -> dict[str, str]:
    """The described files that are not there, or not as they were: {name: what is wrong}.

    A file that the listing of its folder lacks is asked for by its name: a listing may be late.
    """
    fs, folder = storage.resolve(output)
    listed = _listed(output, {posixpath.dirname(name) for name in described})
    wrong: dict[str, str] = {}
    ends: dict[str, int] = {}
    for name, (size, _, *etag) in described.items():
        present, *etag_now = listed.get(name, (None,))
        if present is None:
            try:
                present = int(fs.info(storage.join(folder, name))["size"])
            except FileNotFoundError:
                wrong[name] = "is missing"
                continue
        if present != size:
            wrong[name] = f"has {present:,} bytes, {size:,} were written"
        elif not etag or etag != etag_now:
            ends[name] = size
    left = iter(ends)
    while names := list(islice(left, _FILES_AT_ONCE)):
        paths = [storage.join(folder, name) for name in names]
        starts = [max(0, ends[name] - _TAIL_BYTES) for name in names]
        tails = fs.cat_ranges(paths, starts, [ends[name] for name in names], on_error="return")
        for name, tail in zip(names, tails, strict=True):
            if isinstance(tail, FileNotFoundError):
                wrong[name] = "is missing"
            elif isinstance(tail, BaseException):
                raise tail
            elif _digest(tail) != described[name][1]:
                wrong[name] = "is not the file that was written"
    return wrong


def strangers(output: str, folders: Collection[str], described: Collection[str]) -> list[str]:
    """The data files in folders below the output that are not among the described ones."""
    return sorted(_listed(output, folders).keys() - set(described))


def check_written(stage: str, output: str, described: Files) -> None:
    """Check that all described files lie in the output as they were written.

    Raises: WorkError naming the first that does not.
    """
    wrong = differing(output, described)
    if wrong:
        name, why = min(wrong.items())
        others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise WorkError(
            f"{stage}: output: {storage.join(output, name)} {why}{others}; something else has "
            "changed the output while this run worked. Run the same command again: it writes these "
            "files anew"
        )


def refuse_strangers(
    stage: str, output: str, folders: Collection[str], described: Collection[str]
) -> None:
    """Check that no data file lies in folders below the output beside the described ones.

    Raises: WorkError naming the first.
    """
    others = strangers(output, folders, described)
    if others:
        raise WorkError(
            f"{stage}: output: this run did not write {storage.join(output, others[0])}, which "
            f"readers would take for a part of the table ({len(others)} such files); remove it, "
            "and run the same command again when no other run writes to this output"
        )


def _listed(output: str, folders: Collection[str]) -> dict[str, tuple[Any, ...]]:
    """{name below the output: (bytes,) or (bytes, ETag)} of the data files directly in folders."""
    fs, root = storage.resolve(output)
    listed: dict[str, tuple[Any, ...]] = {}
    for folder in folders:
        parent = storage.join(root, folder) if folder else root
        for info in list_folder(fs, parent):
            name = name_of(info)
            is_data = not name.startswith(("_", ".")) and not name.endswith(_NO_DATA)
            if info["type"] == "file" and is_data:
                etag = etag_of(info)
                described = (int(info["size"]), *(() if etag is None else (etag,)))
                listed[posixpath.join(folder, name)] = described
    return listed


def _digest(tail: bytes) -> str:
    return hashlib.sha256(tail).hexdigest()[:16]
