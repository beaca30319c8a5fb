"""The members of a tar, read from its headers, with a bound on everything that a header states.

`tarfile` parses each header block. This module moves from one header to the next, because `tarfile`
trusts all sizes and extended headers: it reads a name of any length, calls itself for each nested
header, and goes backwards if a size is negative.
"""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

#: At most: bytes of an extended header, bytes of a name, extended headers before one member.
MAX_HEADER_BYTES = 2**20
MAX_NAME_BYTES = 4096
MAX_HEADERS = 8

#: Zeros after an archive that are searched for a further one. `tar` writes at most 10 KiB.
MAX_PADDING_BYTES = 64 * 2**20

#: Headers that describe the next member; XGLTYPE describes all that follow.
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
#: Types without content, whatever their size says: links, devices, folders and pipes.
_EMPTY = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)

#: A record of an extended header: its length, its key, its value and a line feed.
_RECORD = re.compile(rb"([0-9]{1,10}) ([^=]+)=")


@dataclass(frozen=True)
class Member:
    """A member of a tar.

    offset: where its content begins. is_file: whether it is no link, folder or device. is_whole:
    whether its content ends within the file.
    """

    name: str
    size: int
    offset: int
    is_file: bool
    is_whole: bool


def members(file: IO[bytes]) -> Iterator[Member]:
    """The members of a tar, in order, and those of further tars in the same file.

    file: seekable, at the start of the tar; the caller may move it between two members.

    Raises: tarfile.TarError where the file is no tar, breaks off, or has a header that lies about
    sizes, is sparse or exceeds the bounds above.
    """
    start = file.tell()
    total = file.seek(0, io.SEEK_END)
    position, common = start, _Extension()
    while True:
        file.seek(position)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            empty = position == start and not block
            raise tarfile.ReadError("empty file" if empty else "the end of the archive is missing")
        if not block.strip(b"\0"):
            following = _skip_zeros(file, position)
            if following is None:
                return
            position = following
            continue
        header, offset, extension = _read_headers(file, position, block, common)
        size, position = _extent(header, extension, offset)
        name = _name(header, extension)
        yield Member(name, size, offset, header.isfile(), offset + size <= total)
        if position > total:
            raise tarfile.ReadError(f"{shown(name)} breaks off")


def shown(name: str) -> str:
    """A member's name for messages: printable and short."""
    return ascii(name)[1:-1][:80]


@dataclass
class _Extension:
    """Name and size of a member according to extended headers; None if they do not say."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False

    def add(self, records: Mapping[bytes, bytes]) -> None:
        if b"path" in records:
            self.name = _text(records[b"path"])
        if b"size" in records:
            self.size = _number(records[b"size"])
        self.sparse |= any(key.startswith(b"GNU.sparse.") for key in records)


def _read_headers(
    file: IO[bytes], position: int, block: bytes, common: _Extension
) -> tuple[tarfile.TarInfo, int, _Extension]:
    """A member's own header, where its content begins, and what the headers before it say.

    position, block: of the first header. common: what global headers said so far; it is updated.
    """
    extension = _Extension(common.name, common.size, common.sparse)
    for _ in range(MAX_HEADERS + 1):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        position += tarfile.BLOCKSIZE
        if header.type not in _LONG_NAMES + _EXTENDED:
            return header, position, extension
        content = _read_content(file, header)
        if header.type == tarfile.GNUTYPE_LONGNAME:
            extension.name = _text(content.rstrip(b"\0"))
        elif header.type in _EXTENDED:
            extension.add(_records(content))
            if header.type == tarfile.XGLTYPE:
                common.add(_records(content))
        position += _padded(header.size)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or not block.strip(b"\0"):
            raise tarfile.ReadError("an extended header without its member")
    raise tarfile.ReadError(f"more than {MAX_HEADERS} extended headers before one member")


def _name(header: tarfile.TarInfo, extension: _Extension) -> str:
    return header.name if extension.name is None else extension.name


def _extent(header: tarfile.TarInfo, extension: _Extension, offset: int) -> tuple[int, int]:
    """The size of a member's content, and the position of the next header."""
    size = header.size if extension.size is None else extension.size
    name = shown(_name(header, extension))
    if header.type == tarfile.GNUTYPE_SPARSE or extension.sparse:
        raise tarfile.ReadError(f"{name} is a sparse file, which is not read")
    if size < 0:
        raise tarfile.ReadError(f"{name} has a negative size")
    return size, offset + (0 if header.type in _EMPTY else _padded(size))


def _read_content(file: IO[bytes], header: tarfile.TarInfo) -> bytes:
    """The content of an extended header; the file is left after its padding."""
    limit = MAX_NAME_BYTES if header.type in _LONG_NAMES else MAX_HEADER_BYTES
    if not 0 <= header.size <= limit:
        raise tarfile.ReadError(f"an extended header of {header.size:,} bytes, at most {limit:,}")
    padded = _padded(header.size)
    content = file.read(padded)
    if len(content) < padded:
        raise tarfile.ReadError("an extended header breaks off")
    return content[: header.size]


def _records(content: bytes) -> dict[bytes, bytes]:
    """The records of an extended header, by key."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content) and content[position]:
        match = _RECORD.match(content, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content):
            raise tarfile.ReadError("an extended header with a broken record")
        records[match[2]] = content[match.end() : end - 1]
        position = end
    return records


def _text(name: bytes) -> str:
    if len(name) > MAX_NAME_BYTES:
        raise tarfile.ReadError(f"a name of {len(name):,} bytes, at most {MAX_NAME_BYTES:,}")
    return name.decode("utf-8", "surrogateescape")


def _number(digits: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", digits):
        raise tarfile.ReadError(f"an extended header with the size {shown(_text(digits))}")
    return int(digits)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _skip_zeros(file: IO[bytes], position: int) -> int | None:
    """The first block, from a position on, that is not all zeros; None at the end of the file."""
    file.seek(position)
    for start in range(position, position + MAX_PADDING_BYTES, 2**16):
        chunk = file.read(2**16)
        if chunk.strip(b"\0"):
            used = len(chunk) - len(chunk.lstrip(b"\0"))
            return start + used // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        if len(chunk) < 2**16:
            return None
    raise tarfile.ReadError(f"more than {MAX_PADDING_BYTES:,} zeros after the archive")
