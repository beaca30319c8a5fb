"""Checksums of the files under `_state`: a flipped bit in one of them is no other result.

Arrays end in the CRC-32 of what stands before it, which their readers pass over. A document holds
the CRC-32 of its other values.
"""

import io
import json
import mmap
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_BYTES = 4  # of a CRC-32
_BLOCK_BYTES = 2**24

#: The key of a document's checksum.
_KEY = "crc32"


class ChecksumError(ValueError):
    """The bytes are not those that were written."""

    def __init__(self) -> None:
        super().__init__("its checksum differs")


class CheckedWriter(io.RawIOBase):
    """Writes to a file; `end` writes the checksum of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum = file, 0

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes; returns their number."""
        self._sum = zlib.crc32(data, self._sum)
        return self._file.write(data)

    def end(self) -> None:
        """Write the checksum."""
        self._file.write(_encoded(self._sum))


def with_checksum(data: bytes) -> bytes:
    """The bytes, and behind them their checksum."""
    return data + _encoded(zlib.crc32(data))


def without_checksum(data: bytes) -> memoryview:
    """The bytes without the checksum behind them. Raises: ChecksumError."""
    content = memoryview(data)[:-_BYTES]
    if len(data) < _BYTES or _encoded(zlib.crc32(content)) != data[-_BYTES:]:
        raise ChecksumError
    return content


def check_file(path: str) -> None:
    """Compare the checksum at the end of a file of this machine. Raises: ChecksumError."""
    size = Path(path).stat().st_size
    if size < _BYTES:
        raise ChecksumError
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        found = 0
        for start in range(0, size - _BYTES, _BLOCK_BYTES):
            found = zlib.crc32(mapped[start : min(start + _BLOCK_BYTES, size - _BYTES)], found)
        if _encoded(found) != mapped[-_BYTES:]:
            raise ChecksumError


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document with the checksum of its values."""
    return {**document, _KEY: _sum_of(document)}


def check_sealed(document: Mapping[str, Any]) -> None:
    """Compare a document's checksum. Raises: ChecksumError."""
    rest = {key: value for key, value in document.items() if key != _KEY}
    if document.get(_KEY) != _sum_of(rest):
        raise ChecksumError


def _sum_of(document: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(document, sort_keys=True).encode())


def _encoded(checksum: int) -> bytes:
    return checksum.to_bytes(_BYTES, "little")
