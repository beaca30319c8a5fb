"""Webdataset tars, ours and img2dataset's: which there are, and the samples of one."""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats import tars
from coyo_labeler.formats.tars import DamagedTarError

#: Bytes that are fetched at once from a remote filesystem.
_READ_BYTES = 2**24

#: What the column of the pHash is called: the first that is there counts.
_HASH = ("imagehash", "image_phash", "actual_imagehash")


@dataclass(frozen=True)
class Shard:
    """One tar; its number names the files that are written of it.

    stamp: stands for the content of the tar and of the table beside it, by size and time or ETag.
    """

    number: int
    url: str
    stamp: str = ""


@dataclass(frozen=True)
class Sample:
    """One image of a tar. id: None where neither its JSON nor the side table has one.

    url, imagehash: None where not recorded, or not as text. width, height: of the original picture,
    None where not recorded, or no number of pixels.
    """

    key: str
    id: int | None
    url: str | None
    imagehash: str | None
    width: int | None
    height: int | None
    image: bytes | None


def find_shards(images: str) -> list[Shard]:
    """The tars of a file, folder or glob, by number.

    Raises: InputError where there are none, or their names are not `{number}.tar`.
    """
    shards: dict[int, Shard] = {}
    found = storage.files_of(images, ".tar")
    folders = {posixpath.dirname(url) for url in found}
    tables = {k: v for url in folders for k, v in storage.files_of(url, ".parquet").items()}
    for url, info in found.items():
        name = posixpath.basename(url)
        match = re.fullmatch(r"(\d+)\.tar", name)
        if not match:
            raise InputError(
                f"images: {url}: the name of a tar must be its shard's number, as 00000.tar; "
                "rename it"
            )
        beside = tables.get(url.removesuffix(".tar") + ".parquet")
        shard = Shard(int(match[1]), url, _stamp(info, beside))
        if shard.number in shards:
            raise InputError(
                f"images: {shards[shard.number].url} and {url} have the same number; rename one"
            )
        shards[shard.number] = shard
    if not shards:
        raise InputError(f"images: no .tar files at {images}; give the folder that fetch wrote")
    return [shards[number] for number in sorted(shards)]


def _stamp(*infos: Mapping[str, Any] | None) -> str:
    facts = [(info.get("size"), storage.version_of(info)) for info in infos if info is not None]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def read_samples(shard: Shard) -> Iterator[Sample]:
    """The samples of a tar in their order, each whole before the next is read.

    Raises: DamagedTarError where the tar is unreadable or breaks off.
    """
    fs, path = storage.resolve(shard.url)
    try:
        table = _SideTable.read(shard)
        with fs.open(path, "rb", block_size=_READ_BYTES) as file:
            for key, parts in tars.groups(file, shard.url):
                yield _sample(key, parts, table)
    except OSError as error:
        why = one_line(error)
        raise DamagedTarError(shard.url, f"{type(error).__name__}: {why}") from None


def _sample(key: str, parts: Mapping[str, bytes], table: "_SideTable") -> Sample:
    picture = tars.picture(parts)
    name = posixpath.basename(key)
    facts: dict[str, Any] = dict(table.row(name))
    if "json" in parts:
        try:
            document = json.loads(parts["json"])
        except (ValueError, RecursionError):  # nested without end, it is no description either
            document = None
        if isinstance(document, dict):
            facts.update({k: v for k, v in document.items() if v is not None})
    return Sample(
        name.encode(errors="backslashreplace").decode(),  # a tar's names may be any bytes
        _id_of(facts, name),
        _text(facts.get("url")),
        next((text for column in _HASH if (text := _text(facts.get(column)))), None),
        _side(facts.get("original_width")),
        _side(facts.get("original_height")),
        picture and picture[1],
    )


def _id_of(facts: Mapping[str, Any], name: str) -> int | None:
    """The `id` column; without one the key, which img2dataset makes of digits."""
    given = (facts.get("id"), facts.get("key"), name)
    return next((number for number in map(_whole, given) if number is not None), None)


def _whole(value: Any) -> int | None:
    """A whole number within int64, also where it is written as text or as 3.0."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if isinstance(value, bool) or (isinstance(value, float) and number != value):
        return None
    return number if -(2**63) <= number < 2**63 else None


def _side(value: Any) -> int | None:
    """A width or height in pixels, within int32."""
    number = _whole(value)
    return number if number is not None and 0 < number < 2**31 else None


def _text(value: Any) -> str | None:
    """A string that UTF-8 can hold: JSON can also spell halves of surrogate pairs."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


class _SideTable:
    """`{shard}.parquet` beside the tar: columns of samples whose JSON lacks them."""

    _COLUMNS = ("key", "id", "url", *_HASH[:2], "original_width", "original_height")

    def __init__(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        self._rows = rows

    @classmethod
    def read(cls, shard: Shard) -> "_SideTable":
        """The table beside a tar; empty where there is none.

        Raises: DamagedTarError where it is no Parquet file.
        """
        fs, path = storage.resolve(shard.url.removesuffix(".tar") + ".parquet")
        if not fs.exists(path):
            return cls({})
        try:
            with fs.open(path, "rb") as file:
                parquet = pq.ParquetFile(file)
                names = [name for name in cls._COLUMNS if name in parquet.schema_arrow.names]
                if "key" not in names:
                    return cls({})
                rows = parquet.read(columns=names, use_threads=False).to_pylist()
        except (pa.ArrowException, UnicodeDecodeError) as error:
            why = f"the table beside it is unreadable ({error})"
            raise DamagedTarError(shard.url, why) from None
        return cls({str(row.pop("key")): row for row in rows})

    def row(self, key: str) -> Mapping[str, Any]:
        return self._rows.get(key, {})
