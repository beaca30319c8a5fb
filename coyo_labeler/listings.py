"""What lies in a folder now: one entry after another, on S3 by many listings at once.

S3 lists a folder a thousand names at a time, each page after the one before. A folder of 70,000
shards has hundreds of pages, so the names are cut into ranges that are listed concurrently.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import takewhile
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

#: A range ends behind each of these, after what the names of the first page have in common. The
#: numbers of shards, parts and files of a table begin with them. All ranges are listed at a time:
#: with more of them, most of the requests for a folder of some thousand names would find nothing.
_ENDINGS = "0123456789"

#: Ends the names of S3's directory buckets (Express One Zone), whose listings are in no order and
#: cannot start behind a key.
_DIRECTORY_BUCKET = "--x-s3"

#: What is kept of an object's entry: `storage.version_of` reads the last two.
_KEPT = ("ETag", "LastModified")

#: Where fsspec's filesystems have the time at which a file was written.
_TIMES = ("mtime", "LastModified", "created")


def list_folder(
    fs: AbstractFileSystem, path: str, is_wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[dict[str, Any]]:
    """fsspec's info of the files and folders directly in a folder; none where there is no folder.

    They are as they are now, not as a cache has them, and in no order. is_wanted: of which names.
    """
    fs.invalidate_cache(path)
    if _is_s3(fs) and not _prefix_of(path)[0].endswith(_DIRECTORY_BUCKET):
        yield from (info for info in _list_keys(fs, path) if is_wanted(name_of(info)))
    elif isinstance(fs, LocalFileSystem):
        # One at a time: fsspec's `ls` holds the long description of every file at once.
        for entry in _scan(path):
            if not is_wanted(entry.name):
                continue
            try:
                info = fs.info(entry)
            except FileNotFoundError:  # it was removed meanwhile
                continue
            yield info
    elif fs.isdir(path):
        yield from (info for info in fs.ls(path, detail=True) if is_wanted(name_of(info)))


def list_names(fs: AbstractFileSystem, path: str) -> Iterator[str]:
    """The names of the files and folders directly in a folder. See `list_folder`."""
    if isinstance(fs, LocalFileSystem):
        yield from (entry.name for entry in _scan(path))
    else:
        for info in list_folder(fs, path):
            yield name_of(info)


def find_files(fs: AbstractFileSystem, path: str) -> Iterator[str]:
    """The paths of the files in a folder and below. Links to folders are not followed."""
    if isinstance(fs, LocalFileSystem):
        for folder, _, names in os.walk(path):
            yield from (posixpath.join(folder, name) for name in names)
    else:
        folders = [path]
        while folders:
            for info in list_folder(fs, folders.pop()):
                if info["type"] == "directory":
                    folders.append(info["name"])
                else:
                    yield info["name"]


def is_folder(fs: AbstractFileSystem, path: str) -> bool:
    """Whether there is a folder at a path. On S3 fsspec would list all of it to tell."""
    if not _is_s3(fs):
        return bool(fs.isdir(path))
    bucket, prefix = _prefix_of(path)
    try:
        return bool(_keys(_page(fs, bucket, prefix, MaxKeys=1)))
    except FileNotFoundError:  # the bucket
        return False


def name_of(info: dict[str, Any]) -> str:
    """The name of a file or folder, without the folder that it lies in."""
    name: str = info["name"]
    return posixpath.basename(name.rstrip("/"))


def etag_of(info: dict[str, Any]) -> str | None:
    """What names the content of an object; None where the filesystem has nothing that does."""
    etag = info.get("ETag", info.get("etag"))
    return None if etag is None else str(etag)


def identity_of(info: dict[str, Any]) -> str:
    """What tells a file from any other that had its name: its ETag, else size, time and inode.

    "" where the filesystem has neither ETags nor times.
    """
    etag = etag_of(info)
    if etag is not None:
        return etag
    time = next((info[name] for name in _TIMES if info.get(name) is not None), None)
    return "" if time is None else f"{info['size']} {time} {info.get('ino', '')}"


def _is_s3(fs: AbstractFileSystem) -> bool:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    return bool(protocols & {"s3", "s3a"})


def _scan(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = os.scandir(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        yield from entries


# -- S3 -------------------------------------------------------------------------------------------


def _list_keys(fs: AbstractFileSystem, path: str) -> Iterator[dict[str, Any]]:
    bucket, prefix = _prefix_of(path)
    try:
        page = _page(fs, bucket, prefix)
    except FileNotFoundError:  # the bucket
        return
    yield from _infos(page, bucket, prefix)
    if not page.get("IsTruncated"):
        return
    last = max(_keys(page))
    starts = [last, *(cut for cut in _cuts(_keys(page), prefix) if cut > last)]
    ends = [*starts[1:], None]
    with ThreadPoolExecutor(len(starts), "listing") as pool:
        for infos in pool.map(partial(_list_range, fs, bucket, prefix), starts, ends):
            yield from infos


def _prefix_of(path: str) -> tuple[str, str]:
    """The bucket of a folder, and what the keys in it begin with."""
    bucket, _, key = path.partition("/")
    return bucket, f"{key.rstrip('/')}/" if key else ""


def _cuts(keys: Sequence[str], prefix: str) -> list[str]:
    """Keys, in order, between which the rest of a folder is listed concurrently."""
    first, last = (key.removeprefix(prefix) for key in (min(keys), max(keys)))
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    stem = re.sub(r"\d+$", "", "".join(character for character, _ in alike))
    return [f"{prefix}{stem}{ending}" for ending in _ENDINGS]


def _list_range(
    fs: AbstractFileSystem, bucket: str, prefix: str, start: str, end: str | None
) -> list[dict[str, Any]]:
    """The entries whose keys are behind `start`, and not behind `end`."""
    infos: list[dict[str, Any]] = []
    more: dict[str, str] = {"StartAfter": start}
    while more:
        page = _page(fs, bucket, prefix, **more)
        infos += _infos(page, bucket, prefix, start, end)
        is_beyond = end is not None and max(_keys(page), default=end) > end
        ends_here = is_beyond or not page.get("IsTruncated")
        more = {} if ends_here else {"ContinuationToken": page["NextContinuationToken"]}
    return infos


def _page(fs: AbstractFileSystem, bucket: str, prefix: str, **more: Any) -> dict[str, Any]:
    if fs.session is None:
        fs.connect()
    parsers = fs.session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_parse_time)
    page: dict[str, Any] = fs.call_s3(
        "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **fs.req_kw, **more
    )
    return page


def _parse_time(text: str) -> datetime:
    """A time in an answer of S3. botocore's own parser takes two thirds of the time of a page."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # in headers: RFC 822
        return parsedate_to_datetime(text)


def _keys(page: dict[str, Any]) -> list[str]:
    return [
        *(each["Prefix"] for each in page.get("CommonPrefixes", ())),
        *(each["Key"] for each in page.get("Contents", ())),
    ]


def _infos(
    page: dict[str, Any], bucket: str, prefix: str, start: str = "", end: str | None = None
) -> list[dict[str, Any]]:
    """The entries of a page in a range of keys, as s3fs describes them."""
    folders = [
        {"name": f"{bucket}/{key.rstrip('/')}", "size": 0, "type": "directory"}
        for each in page.get("CommonPrefixes", ())
        if (key := each["Prefix"]) > start and (end is None or key <= end)
    ]
    files = [
        {
            "name": f"{bucket}/{key}",
            "size": each["Size"],
            "type": "file",
            **{name: each[name] for name in _KEPT},
        }
        for each in page.get("Contents", ())
        # The key of the folder itself is what some tools create an empty folder by.
        if (key := each["Key"]) > start and (end is None or key <= end) and key != prefix
    ]
    return folders + files
