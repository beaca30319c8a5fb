"""Webdataset tars: read sample by sample, and written so that equal samples give equal bytes.

The webdataset package would do this too. But it loads PyTorch where that is installed, has no
bounds, and takes the parts of one sample for two samples if they are not adjacent.
"""

import io
import posixpath
import tarfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

from coyo_labeler.errors import one_line
from coyo_labeler.formats.tar_headers import Member, members, shown

#: Endings of members that hold the picture of a sample.
IMAGE_ENDINGS = frozenset(
    {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "img", "image"}
)
#: Endings of the members that are read.
ENDINGS = IMAGE_ENDINGS | {"json"}

#: Bytes of one sample's members, and samples of one tar, at most.
MAX_SAMPLE_BYTES = 256 * 2**20
MAX_SAMPLES = 500_000

#: Samples, and their bytes, that wait for parts which may follow later in the tar.
WINDOW_SAMPLES = 256
WINDOW_BYTES = 4 * 2**20


class DamagedTarError(Exception):
    """A tar cannot be read to its end. url: the tar; why: the reason, short and on one line."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url = url
        self.why = why

    def __str__(self) -> str:
        return f"{self.url}: {self.why}"


@dataclass
class Group:
    """The members of one sample.

    key: the members' name up to the first dot after its folders. parts: content by ending (lower
    case, in the tar's order). oversized: says which member is too large to be read, and so makes
    the sample too large. repeated: an earlier sample, no longer waiting, has the same key.
    """

    key: str
    parts: dict[str, bytes] = field(default_factory=dict)
    oversized: str | None = None
    repeated: bool = False

    @property
    def size(self) -> int:
        """Bytes that its parts hold."""
        return sum(map(len, self.parts.values()))


def groups(
    file: IO[bytes], url: str, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, {ending: bytes}) of each sample of a tar made by `write`. See `read_groups`.

    Raises: DamagedTarError also where a sample is too large or occurs twice.
    """
    for group in read_groups(file, url, wanted):
        if group.oversized is not None or group.repeated:
            why = "is too large" if group.oversized is not None else "comes twice"
            raise DamagedTarError(url, f"{shown(group.key)} {why}")
        yield group.key, group.parts


def read_groups(
    file: IO[bytes],
    url: str,
    wanted: Callable[[str], bool] = lambda _: True,
    endings: Collection[str] = ENDINGS,
    without_content: Collection[str] = (),
) -> Iterator[Group]:
    """The samples of a tar in the order of their first members.

    file: seekable, at its start. url: names the tar in errors. wanted: whether to read the sample
    of a key. endings: of the members to read. without_content: endings of members whose content is
    not read; it is b"".

    Members of one key are normally adjacent, as webdataset writes them. If they are not, a sample
    without its picture or its JSON waits for WINDOW_SAMPLES further samples, or WINDOW_BYTES.
    Links, folders and devices are skipped, and so are files whose names begin with a dot (macOS
    adds `._a.jpg` to `a.jpg`).

    Raises: DamagedTarError where the file is no tar, breaks off (even between two members), exceeds
    a bound, or continues with something other than a further tar.
    """
    window = _Window(endings)
    try:
        for member in members(file):
            key, ending = _split(member.name)
            if not member.is_file or not key:
                continue
            group = window.group_of(key, ending) if wanted(key) else None
            yield from window.release(group)
            if group is not None and ending in endings:
                window.held += _read_part(file, member, group, ending, without_content)
                yield from window.release(group)
        yield from window.release(None, everything=True)
    except tarfile.TarError as error:
        raise DamagedTarError(url, one_line(error)) from None


def _split(name: str) -> tuple[str, str]:
    """(key, ending) of a member; the key is empty if the name begins with a dot."""
    folder, _, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return posixpath.join(folder, stem) if stem else "", ending.lower()


def _read_part(
    file: IO[bytes], member: Member, group: Group, ending: str, without_content: Collection[str]
) -> int:
    """Read a member into its group; returns how many bytes it holds."""
    if ending in without_content:
        group.parts[ending] = b""
        return 0
    if member.size > MAX_SAMPLE_BYTES - group.size:
        limit = f"at most {MAX_SAMPLE_BYTES:,} are read of a sample"
        group.oversized = f"{shown(member.name)} has {member.size:,} bytes; {limit}"
        return 0
    if not member.is_whole:
        raise tarfile.ReadError(f"{shown(member.name)} breaks off")
    file.seek(member.offset)
    content = file.read(member.size)
    if len(content) != member.size:
        raise tarfile.ReadError(f"{shown(member.name)} breaks off")
    group.parts[ending] = content
    return len(content)


class _Window:
    """Samples in the order of their first members, from the first that may be incomplete on."""

    def __init__(self, endings: Collection[str]) -> None:
        self.held = 0
        self._endings, self._with_json = endings, "json" in endings
        self._waiting: deque[Group] = deque()
        self._by_key: dict[str, Group] = {}
        self._seen: set[int] = set()  # hashes of keys: 32 bytes each

    def group_of(self, key: str, ending: str) -> Group | None:
        """The group that a member belongs to; None where it is not needed."""
        group = self._by_key.get(key)
        if group is not None and ending not in group.parts:
            return group
        repeated = hash(key) in self._seen
        if repeated and ending not in self._endings:
            return group
        self._seen.add(hash(key))
        if len(self._seen) > MAX_SAMPLES:
            raise tarfile.ReadError(f"more than {MAX_SAMPLES:,} samples")
        group = Group(key, repeated=repeated)
        self._waiting.append(group)
        self._by_key[key] = group
        return group

    def release(self, current: Group | None, everything: bool = False) -> Iterator[Group]:
        """Groups before the current one that are complete or have waited long enough."""
        while self._waiting and (group := self._waiting[0]) is not current:
            full = len(self._waiting) > WINDOW_SAMPLES or self.held > WINDOW_BYTES
            if not (everything or full or self._is_complete(group)):
                return
            self._waiting.popleft()
            self.held -= group.size
            if self._by_key.get(group.key) is group:
                del self._by_key[group.key]
            yield group

    def _is_complete(self, group: Group) -> bool:
        if group.oversized is not None:
            return True
        has_picture = not IMAGE_ENDINGS.isdisjoint(group.parts)
        return has_picture and ("json" in group.parts or not self._with_json)


def picture(parts: Mapping[str, bytes]) -> tuple[str, bytes] | None:
    """Ending and bytes of a sample's picture: the first in the tar if there are several."""
    return next((part for part in parts.items() if part[0] in IMAGE_ENDINGS), None)


def write(
    file: IO[bytes], samples: Iterable[tuple[str, Mapping[str, bytes]]], mark: str = ""
) -> None:
    """Write samples, (key, {ending: bytes}) each, as members `{key}.{ending}` in their order.

    mark: at most 31 ASCII characters that identify the tar without reading all of it. It is stored
    as the group name of each member, which no reader of webdatasets uses.

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
    """The mark of a tar, from its first 512 bytes; None if it has no member, "" if no mark."""
    if not head.strip(b"\0"):
        return None
    try:
        return tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").gname
    except tarfile.HeaderError:
        return ""
