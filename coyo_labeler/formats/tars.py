"""Webdataset tars, read in one forward pass and written so that equal samples give equal bytes.

The webdataset package would do this too, but loads PyTorch where there is one.
"""

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO

from coyo_labeler.errors import one_line

#: Endings of members that hold the picture of a sample.
IMAGE_ENDINGS = frozenset(
    {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "img", "image"}
)


class DamagedTarError(Exception):
    """A tar cannot be read to its end. url: of the tar; why: in a few words, on one line."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url = url
        self.why = why

    def __str__(self) -> str:
        return f"{self.url}: {self.why}"


def groups(
    file: IO[bytes], url: str, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, {ending: bytes}) of each sample of a tar, whole before the next is read.

    file: seekable, at its start; it is moved forward only. url: names the tar in errors. wanted:
    says of a key whether its sample is read at all.

    The key is a member's name without what follows the first dot of its last part; members of one
    key stand together, as webdataset writes them. Endings are in lower case, in the tar's order;
    only pictures (IMAGE_ENDINGS) and `json` are read. Links, folders and devices are no members.

    Raises: DamagedTarError where it is no tar or breaks off, be it between two members.
    """
    try:
        yield from _groups(file, wanted)
    except (tarfile.TarError, EOFError) as error:
        why = one_line(error)
        raise DamagedTarError(url, why) from None


def _groups(
    file: IO[bytes], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    key: str | None = None
    parts: dict[str, bytes] = {}
    # "r:" moves forward only, and unlike "r|" does not copy a buffer for every header.
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header read
            if not info.isfile():
                continue
            folder, _, name = info.name.rpartition("/")
            stem, _, ending = name.partition(".")
            found = posixpath.join(folder, stem)
            if found != key:
                if key is not None and wanted(key):
                    yield key, parts
                key, parts = found, {}
            ending = ending.lower()
            if (ending in IMAGE_ENDINGS or ending == "json") and wanted(found):
                parts[ending] = _content(tar, info)
        _check_end(file, tar)
    if key is not None and wanted(key):
        yield key, parts


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    content = file.read() if file is not None else b""
    if len(content) != info.size:
        raise tarfile.ReadError(f"{info.name} breaks off")
    return content


def _check_end(file: IO[bytes], tar: tarfile.TarFile) -> None:
    """A tar ends in blocks of zeros; one that breaks off, or goes on in garbage, does not.

    `tarfile` takes both for the end, unless they come first.
    """
    file.seek(tar.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise tarfile.ReadError("the end of the archive is missing")


def picture(parts: Mapping[str, bytes]) -> tuple[str, bytes] | None:
    """Ending and bytes of a sample's picture: the first in the tar, where it has more than one."""
    return next((part for part in parts.items() if part[0] in IMAGE_ENDINGS), None)


def write(
    file: IO[bytes], samples: Iterable[tuple[str, Mapping[str, bytes]]], mark: str = ""
) -> None:
    """Write samples, (key, {ending: bytes}) each, as members `{key}.{ending}` in their order.

    mark: at most 31 ASCII characters by which to know the tar again without reading through it; it
    stands where a member's group has its name, which no reader of webdatasets looks at.

    Times and owners are fixed, so that a tar's bytes depend on its samples and mark alone.
    """
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for key, parts in samples:
            for ending, data in parts.items():
                header = tarfile.TarInfo(f"{key}.{ending}")
                header.size = len(data)
                header.mode = 0o644
                header.gname = mark
                tar.addfile(header, io.BytesIO(data))


def mark_of(head: bytes) -> str | None:
    """The mark of a tar by its first 512 bytes; None where it has no member, "" where no mark."""
    if not head.strip(b"\0"):
        return None
    try:
        return tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").gname
    except tarfile.HeaderError:
        return ""
