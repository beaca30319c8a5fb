"""A shard's files: a webdataset tar, a Parquet row for every catalog row, and statistics.

The tar's bytes depend on its images alone: in index order, with fixed times and owners.
"""

import io
import json
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import IO

import pyarrow as pa

from coyo_labeler import schemas, storage
from coyo_labeler.fetch.status import Status


@dataclass(frozen=True)
class ImageRow:
    """A row of schemas.IMAGES."""

    key: str
    id: int
    url: str
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


#: What stands in `{key}.json` beside each image.
JSON_FIELDS = (
    "key",
    "id",
    "url",
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


class Spool:
    """Images of a shard in the order in which they arrive, on local disk and not in memory.

    The file has no name, so that a killed process leaves none.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._lock = threading.Lock()
        self._places: dict[int, tuple[int, int, str]] = {}

    def add(self, index: int, extension: str, data: bytes) -> None:
        """Keep the image of a row."""
        with self._lock:
            start = self._file.seek(0, io.SEEK_END)
            self._file.write(data)
            self._places[index] = (start, len(data), extension)

    def images(self) -> Iterator[tuple[int, str, bytes]]:
        """(index, extension, bytes), in index order."""
        for index, (start, length, extension) in sorted(self._places.items()):
            self._file.seek(start)
            yield index, extension, self._file.read(length)

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()


def keys(shard: int, count: int) -> list[str]:
    """`{shard:05d}{index:04d}`; more digits for the index where `count` needs them."""
    digits = max(4, len(str(count - 1)))
    return [f"{shard:05d}{index:0{digits}d}" for index in range(count)]


def write_tar(url: str, images: Iterator[tuple[int, str, bytes]], rows: Sequence[ImageRow]) -> None:
    """Write `{key}.{extension}` and `{key}.json` of every image; rows: by index."""
    with (
        storage.open_atomic(url) as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for index, extension, data in images:
            row = rows[index]
            _add(tar, f"{row.key}.{extension}", data)
            document = {name: getattr(row, name) for name in JSON_FIELDS}
            _add(tar, f"{row.key}.json", json.dumps(document, ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def write_rows(url: str, rows: Sequence[ImageRow]) -> None:
    """Write the shard's Parquet file."""
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(ImageRow)}
    columns["status"] = [row.status.value for row in rows]
    storage.write_parquet(url, pa.table(columns, schema=schemas.IMAGES))
