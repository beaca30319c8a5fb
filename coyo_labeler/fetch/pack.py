"""A shard's files: a webdataset tar and a Parquet row for every catalog row.

Both hold a digest of the rows, which shows whether a tar and a Parquet file belong together. The
tar's bytes depend on the rows alone: in index order, with fixed times and owners.
"""

import hashlib
import heapq
import io
import json
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, cast

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.errors import WorkError
from coyo_labeler.fetch.status import Status
from coyo_labeler.formats import schemas, tars
from coyo_labeler.formats.tar_digests import (
    ROWS_DIGEST,
    HashedReader,
    HashedWriter,
    check_sha256,
)
from coyo_labeler.parquet_pages import read_tables


@dataclass(frozen=True)
class ImageRow:
    """A row of schemas.IMAGES, and fetched_url: the URL that the image came from."""

    key: str
    id: int
    url: str | None
    status: Status
    error: str | None = None
    http_status: int | None = None
    imagehash: str | None = None
    actual_imagehash: str | None = None
    hash_distance: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    fetched_url: str | None = None


#: Fields of `{key}.json` beside each image.
JSON_FIELDS = (
    "key",
    "id",
    "url",
    "fetched_url",
    "status",
    "width",
    "height",
    "original_width",
    "original_height",
    "imagehash",
    "actual_imagehash",
    "hash_distance",
    "sha256",
)


#: Index in the shard, key, and the files of one image as {extension: bytes}.
Sample = tuple[int, str, Mapping[str, bytes]]


class Spool:
    """Images of a shard in order of arrival, on local disk instead of in memory.

    The file has no name, so that a killed process leaves none. `add` may be called from threads.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._lock = threading.Lock()
        self._spans: dict[int, tuple[int, int, str]] = {}

    def add(self, index: int, extension: str, data: bytes) -> None:
        """Keep the image of a row; it replaces an earlier one."""
        with self._lock:
            start = self._file.seek(0, io.SEEK_END)
            self._file.write(data)
            self._spans[index] = (start, len(data), extension)

    def samples(self, rows: Mapping[int, ImageRow]) -> Iterator[Sample]:
        """The tar's samples in index order. rows: by index."""
        for index, (start, length, extension) in sorted(self._spans.items()):
            self._file.seek(start)
            row = rows[index]
            document = {name: getattr(row, name) for name in JSON_FIELDS}
            parts = {
                extension: self._file.read(length),
                "json": json.dumps(document, ensure_ascii=False).encode(),
            }
            yield index, row.key, parts

    def close(self) -> None:
        """Release the disk space."""
        self._file.close()


def keys(shard: int, count: int) -> list[str]:
    """`{shard:05d}{index:04d}`; more digits for the index where `count` needs them."""
    digits = max(4, len(str(count - 1)))
    return [f"{shard:05d}{index:0{digits}d}" for index in range(count)]


def digest(rows: Iterable[ImageRow]) -> str:
    """16 hex digits of a hash of the rows, without the seconds that each took."""
    names = [name for name in schemas.IMAGES.names if name != "seconds"]
    hashed = hashlib.sha256()
    for row in rows:
        hashed.update(json.dumps([getattr(row, name) for name in names]).encode())
    return hashed.hexdigest()[:16]


def write_tar(url: str, mark: str, *sources: Iterable[Sample]) -> str:
    """Merge sources of samples, each in index order, into one tar; returns the tar's sha256.

    mark: the digest of the rows.
    """
    merged = heapq.merge(*sources, key=lambda sample: sample[0])
    with storage.open_atomic(url) as file:
        writer = HashedWriter(file)
        tars.write(cast(IO[bytes], writer), ((key, parts) for _, key, parts in merged), mark)
    return writer.hexdigest()


def read_tar(url: str, index_of: Mapping[str, int], sha256: str | None) -> Iterator[Sample]:
    """The wanted samples of a tar, in its order.

    index_of: index in the shard by key, for each wanted sample. sha256: of the tar, where known.

    Raises: WorkError where it is not whole, or another one.
    """
    fs, path = storage.resolve(url)
    try:
        with fs.open(path, "rb") as file:
            reader = HashedReader(file)
            for key, parts in tars.groups(cast(IO[bytes], reader), url, index_of.__contains__):
                yield index_of[key], key, parts
            if sha256 is not None:
                check_sha256(url, reader, sha256)
    except tars.DamagedTarError as error:
        raise WorkError(
            f"fetch: {error}; its images cannot be kept: remove the file, and run the same command "
            "again, which fetches this shard anew"
        ) from None


def write_rows(url: str, rows: Sequence[ImageRow], mark: str) -> None:
    """Write the shard's Parquet file. mark: the digest of the rows."""
    columns = {name: [getattr(row, name) for row in rows] for name in schemas.IMAGES.names}
    columns["status"] = [row.status.value for row in rows]
    storage.write_parquet(url, pa.table(columns, schema=schemas.IMAGES), {ROWS_DIGEST: mark})


def read_rows(url: str) -> list[ImageRow]:
    """The rows of a shard's Parquet file."""
    with storage.open_parquet("fetch: output", url) as parquet:
        tables = read_tables(parquet, schemas.IMAGES.names)
        records = [record for table in tables for record in table.to_pylist()]
    return [ImageRow(**{**record, "status": Status(record["status"])}) for record in records]
