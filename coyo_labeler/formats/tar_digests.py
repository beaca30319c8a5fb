"""The sha256 of a tar: recorded by fetch beside it, and compared by whoever reads all of it."""

import hashlib
import io
import json
import posixpath
from collections.abc import Mapping
from typing import IO, Any

from fsspec import AbstractFileSystem

from coyo_labeler import storage
from coyo_labeler.formats import tars
from coyo_labeler.formats.tars import DamagedTarError

#: Key of a tar's sha256 in the receipt beside it.
TAR_SHA256 = "tar_sha256"

#: Key of the rows' digest in the metadata of the table beside a tar.
ROWS_DIGEST = "coyo_labeler.digest"

#: Folder beside the tars in which fetch makes later generations of shards.
STAGING = "_next"

_HEAD_BYTES = 512  # a tar's first header, with its mark
_BLOCK_BYTES = 2**22
_MAX_RECEIPT_BYTES = 2**22


class HashedWriter(io.RawIOBase):
    """Writes to a file, and hashes what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write bytes; returns their number."""
        self._hash.update(data)
        self._file.write(data)
        return len(data)

    def hexdigest(self) -> str:
        """The sha256 of what was written."""
        return self._hash.hexdigest()


class HashedReader(io.RawIOBase):
    """Reads a seekable file, and hashes its bytes as they go by; those that a seek skips too."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash, self._end = file, hashlib.sha256(), 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See io.IOBase."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """See io.IOBase."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read from where the file stands."""
        position = self._file.tell()
        if position > self._end:
            self._file.seek(self._end)
            while self._end < position:
                self._add(self._file.read(min(_BLOCK_BYTES, position - self._end)))
        data = self._file.read(size)
        if position + len(data) > self._end:
            self._add(memoryview(data)[self._end - position :])
        return data

    def _add(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._end += len(data)

    def hexdigest(self) -> str:
        """The sha256 of the whole file, the rest of which is read now."""
        self._file.seek(self._end)
        while data := self._file.read(_BLOCK_BYTES):
            self._add(data)
        return self._hash.hexdigest()


def recorded_sha256(
    fs: AbstractFileSystem, url: str, file: IO[bytes], rows_digest: str | None = None
) -> str | None:
    """The sha256 that the receipt beside a tar records; None where there is none for this tar.

    Tar, table and receipt of a shard hold the same digest. While fetch replaces them, a reader may
    find the new one of the one and the old one of the other.

    file: the tar at its start, where it is left. rows_digest: of the table beside it, where known.

    Raises: DamagedTarError where they differ, and nothing is there to replace them: two runs of
    fetch wrote the shard at the same moment.
    """
    mark = tars.mark_of(file.read(_HEAD_BYTES))
    file.seek(0)
    receipt = _read_receipt(fs, url)
    if not _differ(mark, rows_digest, receipt):
        return receipt.get(TAR_SHA256) if mark and mark == receipt.get("digest") else None
    if _is_being_replaced(fs, url):
        return None
    again = _read_receipt(fs, url)  # the replacement may have ended meanwhile
    if again == receipt:
        raise DamagedTarError(
            url,
            "it and the files beside it are of two runs of fetch that wrote this shard at the same "
            "time; run fetch again with retry=true",
        )
    return None


def _read_receipt(fs: AbstractFileSystem, url: str) -> dict[str, Any]:
    """The digests that the receipt beside a tar holds, {} where there is none of ours."""
    _, path = storage.resolve(url)
    receipt = path.removesuffix(".tar") + "_stats.json"
    try:
        document = json.loads(storage.read_start(fs, receipt, _MAX_RECEIPT_BYTES))
    except (FileNotFoundError, RecursionError, ValueError):
        return {}
    read = document if isinstance(document, dict) else {}
    return {key: read[key] for key in ("digest", TAR_SHA256) if isinstance(read.get(key), str)}


def _differ(mark: str | None, rows_digest: str | None, receipt: Mapping[str, Any]) -> bool:
    """Whether the digests of tar, table and receipt differ, as far as they are there."""
    digests = {mark, rows_digest, receipt["digest"]} if receipt.get("digest") else set()
    return len(digests - {None, ""}) > 1


def _is_being_replaced(fs: AbstractFileSystem, url: str) -> bool:
    """Whether fetch has a later generation of a shard, which it moves into place or will move."""
    _, path = storage.resolve(url)
    folder = storage.join(posixpath.dirname(path), STAGING)
    shard = posixpath.basename(path).removesuffix(".tar")
    fs.invalidate_cache(folder)
    try:
        staged = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return False
    return any(posixpath.basename(name.rstrip("/")).startswith(f"{shard}-") for name in staged)


def check_sha256(url: str, reader: HashedReader, recorded: str) -> None:
    """Compare a tar with what was recorded of it. Raises: DamagedTarError where they differ."""
    if reader.hexdigest() != recorded:
        raise DamagedTarError(url, "its bytes are not those that fetch wrote (sha256)")
