"""Content-Encoding: what is unpacked, what is taken as it is, and within which bounds."""

import zlib
from collections.abc import Iterable

from coyo_labeler.fetch.status import FetchError, Status

#: Encodings that browsers unpack and this client, which asks for none, does not.
_UNSUPPORTED = frozenset({"br", "zstd", "dcb", "dcz"})
_GZIP = frozenset({"gzip", "x-gzip"})
_MAX_LAYERS = 3
#: A gzip body is one member, rarely a few; each one costs time, however small it is.
_MAX_MEMBERS = 1000
_CHUNK_BYTES = 2**16


def layers(headers: Iterable[str], http_status: int) -> list[str]:
    """The encodings of a body that must be undone, in the order in which they were applied.

    Object stores send `utf-8`, `aws-chunked`, `binary`, `none` or an image type for plain bytes:
    like a browser, this ignores what is no encoding of HTTP.

    Raises: FetchError (bad_response) for an encoding that cannot be undone.
    """
    names = [name.strip().lower() for header in headers for name in header.split(",")]
    unsupported = next((name for name in names if name in _UNSUPPORTED), None)
    if unsupported is not None:
        raise FetchError(Status.BAD_RESPONSE, f"Content-Encoding {unsupported}", http_status)
    known = [name for name in names if name in _GZIP or name == "deflate"]
    if len(known) > _MAX_LAYERS:
        raise FetchError(Status.BAD_RESPONSE, f"{len(known)} Content-Encodings", http_status)
    return known


def decompress(data: bytes, encodings: Iterable[str], max_bytes: int, http_status: int) -> bytes:
    """The plain body. Raises: FetchError beyond `max_bytes` at any layer, or where it is broken."""
    for encoding in reversed(list(encodings)):
        try:
            data = _gunzip(data, max_bytes) if encoding in _GZIP else _inflate(data, max_bytes)
        except zlib.error as error:
            message = f"compressed body: {error}"
            raise FetchError(Status.BAD_RESPONSE, message, http_status) from None
        if len(data) > max_bytes:
            message = f"more than {max_bytes:,} bytes when decompressed"
            raise FetchError(Status.TOO_LARGE, message, http_status)
    return data


def _inflate(data: bytes, max_bytes: int) -> bytes:
    """A deflate body, with zlib's header as in the standard, or bare as many servers send it."""
    try:
        return zlib.decompressobj().decompress(data, max_bytes + 1)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max_bytes + 1)


def _gunzip(data: bytes, max_bytes: int) -> bytes:
    """All members of a gzip body, or their first `max_bytes` + 1 bytes; what follows is ignored."""
    plain = bytearray()
    start = members = 0
    while data[start : start + 2] == b"\x1f\x8b" or not members:
        members += 1
        if members > _MAX_MEMBERS:
            raise zlib.error(f"more than {_MAX_MEMBERS:,} gzip members")
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        # In chunks, for what is behind a member is copied.
        while start < len(data) and not member.eof and len(plain) <= max_bytes:
            chunk = data[start : start + _CHUNK_BYTES]
            start += len(chunk)
            plain += member.decompress(chunk, max_bytes + 1 - len(plain))
        start -= len(member.unused_data)
        if not member.eof:  # cut short, or beyond the bound
            break
    return bytes(plain)
