"""The sha256 of a tar: recorded by fetch beside it, and compared by whoever reads all of it."""

import hashlib
import io
import json
from typing import IO

from fsspec import AbstractFileSystem

from coyo_labeler import storage
from coyo_labeler.formats import tars
from coyo_labeler.formats.tars import DamagedTarError

#: Key of a tar's sha256 in the receipt beside it.
TAR_SHA256 = "tar_sha256"

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


def recorded_sha256(fs: AbstractFileSystem, path: str, file: IO[bytes]) -> str | None:
    """The sha256 that the receipt beside a tar records; None where there is none for this tar.

    A receipt describes the tar whose mark is its digest: while fetch replaces both, a reader may
    find the new one of the one and the old one of the other.

    path: of the tar. file: the tar at its start, where it is left.
    """
    receipt = path.removesuffix(".tar") + "_stats.json"
    try:
        document = json.loads(storage.read_start(fs, receipt, _MAX_RECEIPT_BYTES))
    except (FileNotFoundError, RecursionError, ValueError):
        return None
    if not isinstance(document, dict):
        return None
    mark = tars.mark_of(file.read(_HEAD_BYTES))
    file.seek(0)
    sha256 = document.get(TAR_SHA256)
    return sha256 if isinstance(sha256, str) and mark and mark == document.get("digest") else None


def check_sha256(url: str, reader: HashedReader, recorded: str) -> None:
    """Compare a tar with what was recorded of it. Raises: DamagedTarError where they differ."""
    if reader.hexdigest() != recorded:
        raise DamagedTarError(url, "its bytes are not those that fetch wrote (sha256)")
