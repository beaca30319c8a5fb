"""Finds image shards and reads their samples; every stage reads them through this module.

A shard is a webdataset tar, ours or img2dataset's, with the Parquet table beside it where there is
one. A sample is read as a `Sample`, with an id and a picture, or as a `Failure` that says what it
lacks.
"""

import hashlib
import io
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import IO, Any, cast

from coyo_labeler import storage
from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats import tars
from coyo_labeler.formats.faults import Fault
from coyo_labeler.formats.image_ids import (
    IdRule,
    Ids,
    NoIdError,
    id_of,
    is_given,
    key_number,
    rule_of,
    whole_number,
)
from coyo_labeler.formats.side_tables import HASHES, SideTable, read_side_table
from coyo_labeler.formats.tar_digests import HashedReader, check_sha256, recorded_sha256
from coyo_labeler.formats.tars import IMAGE_ENDINGS, DamagedTarError, Group

#: Bytes that are fetched at once from a remote filesystem, and from a local one.
_READ_BYTES = 2**24
_LOCAL_READ_BYTES = 2**20

#: Shards that are opened at once where the first ones hold no images.
_SHARDS_AT_ONCE = 32

#: Bytes and nesting levels of a JSON document, at most. Parsed, a byte takes some thirty.
_MAX_JSON_BYTES = 8 * 2**20
_MAX_DEPTH = 100


@dataclass(frozen=True)
class Shard:
    """One tar.

    name: the file name without `.tar`. stamp: changes with the content of the tar and of the table
    beside it, by size and time or ETag. ids: where the ids of its images come from.
    """

    name: str
    url: str
    stamp: str = ""
    ids: IdRule = IdRule.NUMBER

    @property
    def number(self) -> int:
        """The name as a number, in folders where all names are numbers."""
        return int(self.name)


@dataclass(frozen=True)
class Sample:
    """One image of a shard.

    key: as in the tar, with folders where it has some. ending: of the picture's name. url,
    imagehash: None where not recorded as text. width, height: of the original picture, None where
    not recorded as a number of pixels. document: its JSON unchanged, {} where there is none.
    """

    key: str
    id: int
    ending: str
    image: bytes
    url: str | None = None
    imagehash: str | None = None
    width: int | None = None
    height: int | None = None
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The key without folders, as tables have it."""
        return posixpath.basename(self.key)


@dataclass(frozen=True)
class Failure:
    """A sample that cannot be used. id: None where it has none."""

    key: str
    id: int | None
    fault: Fault
    detail: str

    @property
    def name(self) -> str:
        """The key without folders, as tables have it."""
        return posixpath.basename(self.key)


# -- shards ---------------------------------------------------------------------------------------


def find_shards(images: str, ids: Ids = "auto", key: str = "images") -> list[Shard]:
    """The tars of a file, folder or glob, sorted by name, all with one rule for their images' ids.

    key: the setting, for messages.

    Raises: InputError where there are none, or two of one name.
    """
    try:
        present = storage.files_of(images, "")
    except FileNotFoundError:
        raise InputError(f"{key}: nothing at {images}; give a folder of tars or a glob") from None
    files = {url: info for url, info in present.items() if url.endswith(".tar")}
    if not files:
        raise InputError(f"{key}: no .tar files at {images}; give the folder that fetch wrote")
    # The tables beside them: those of a folder have just been listed with it.
    fs, path = storage.resolve(images)
    folders = {posixpath.dirname(url) for url in files} - {fs.unstrip_protocol(path)}
    tables = {k: v for url in folders for k, v in storage.files_of(url, ".parquet").items()}
    tables |= present
    shards: dict[str, Shard] = {}
    for url, info in files.items():
        name = posixpath.basename(url).removesuffix(".tar")
        if name in shards:
            raise InputError(
                f"{key}: {shards[name].url} and {url} have the same name; rename one of them"
            )
        stamp = _stamp(info, tables.get(url.removesuffix(".tar") + ".parquet"))
        shards[name] = Shard(name, url, stamp)
    in_order = [shards[name] for name in sorted(shards)]
    rule = decide_ids(in_order, ids)
    return [replace(shard, ids=rule) for shard in in_order]


def _stamp(*infos: Mapping[str, Any] | None) -> str:
    versions = [(info.get("size"), storage.version_of(info)) for info in infos if info is not None]
    return hashlib.sha256(repr(versions).encode()).hexdigest()[:16]


def decide_ids(shards: Sequence[Shard], ids: Ids = "auto") -> IdRule:
    """Where the ids of these shards come from, by the first shard that holds images.

    Its table decides if it has an `id`. Else its tar is read up to an image with an `id`, or with a
    key that is no number. A later image that contradicts the decision is a failure.
    """

    def rule_by(shard: Shard) -> IdRule | None:
        return rule_of(ids, _ids_of_first(shard))

    rule = rule_by(shards[0]) if shards else None
    if rule is not None:
        return rule
    with ThreadPoolExecutor(_SHARDS_AT_ONCE, "ids") as pool:
        for start in range(1, len(shards), _SHARDS_AT_ONCE):
            for rule in pool.map(rule_by, shards[start : start + _SHARDS_AT_ONCE]):
                if rule is not None:
                    return rule
    return IdRule.HASH if ids == "hash" else IdRule.NUMBER


def _ids_of_first(shard: Shard) -> Iterator[tuple[str, str, Any]]:
    """(shard's name, key, `id` or None) of images, until the shard ends or is damaged."""
    try:
        table = read_side_table(shard.url, ("key", "status", "id"))
        for image_id in table.columns.get("id", ()):
            if is_given(image_id):
                yield shard.name, "", image_id
                return
        for group in _read_groups(shard, without_content=IMAGE_ENDINGS):
            document = read_document(group.parts.get("json"))
            yield shard.name, posixpath.basename(group.key), (document or {}).get("id")
    except DamagedTarError:
        return  # reading the shard reports the damage


# -- samples --------------------------------------------------------------------------------------


def read_samples(shard: Shard, with_images: bool = True) -> Iterator[Sample | Failure]:
    """The samples of a tar, in its order.

    Behind the last one the bytes of the tar are compared with the sha256 that fetch recorded.

    with_images: if false, pictures are not read, and `Sample.image` is b"".

    Raises: DamagedTarError where the tar or the table beside it is unreadable or breaks off, or
    the tar is not the one that was recorded.
    """
    table = read_side_table(shard.url)
    seen: set[int] = set()
    without = () if with_images else IMAGE_ENDINGS
    for group in _read_groups(shard, without, table.digest):
        sample = _sample(shard, group, table)
        is_repeated = isinstance(sample, Failure) and sample.fault is Fault.DUPLICATE_KEY
        if sample.id in seen and not is_repeated:
            detail = "an earlier sample of the shard has the same id"
            sample = Failure(sample.key, sample.id, Fault.DUPLICATE_ID, detail)
        elif sample.id is not None:
            seen.add(sample.id)
        yield sample


def _read_groups(
    shard: Shard, without_content: frozenset[str] | tuple[()], rows_digest: str | None = None
) -> Iterator[Group]:
    fs, path = storage.resolve(shard.url)
    try:
        with fs.open(path, "rb", block_size=_READ_BYTES) as opened:
            # Python's own buffer is so small that every member takes several calls of the system.
            file = io.BufferedReader(opened, _LOCAL_READ_BYTES) if storage.is_local(fs) else opened
            recorded = (
                None if without_content else recorded_sha256(fs, shard.url, file, rows_digest)
            )
            if recorded is None:
                yield from tars.read_groups(file, shard.url, without_content=without_content)
            else:
                reader = HashedReader(file)
                yield from tars.read_groups(cast(IO[bytes], reader), shard.url)
                check_sha256(shard.url, reader, recorded)
    except OSError as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        raise DamagedTarError(shard.url, why) from None


def _sample(shard: Shard, group: Group, table: SideTable) -> Sample | Failure:
    key = text_of_key(group.key)
    row = table.row(posixpath.basename(group.key))
    document = read_document(group.parts.get("json")) or {}
    try:
        image_id = id_of(shard.ids, shard.name, group.key, document, row)
    except NoIdError as error:
        image_id, no_id = None, str(error)
    if group.repeated:
        detail = "its key, or other parts of this sample, come much earlier in the tar"
        return Failure(key, image_id, Fault.DUPLICATE_KEY, detail)
    if group.oversized is not None:
        return Failure(key, image_id, Fault.TOO_LARGE, group.oversized)
    picture = tars.picture(group.parts)
    if picture is None:
        return Failure(key, image_id, Fault.NO_IMAGE, "the tar holds no picture under this key")
    if image_id is None:
        return Failure(key, None, Fault.NO_ID, no_id)
    given = {name: value for name, value in document.items() if value is not None}
    metadata = {**row, **given}
    return Sample(
        key,
        image_id,
        *picture,
        url=_text(metadata.get("url")),
        imagehash=next((text for name in HASHES if (text := _text(metadata.get(name)))), None),
        width=_side(metadata.get("original_width")),
        height=_side(metadata.get("original_height")),
        document=document,
    )


def read_index(shard: Shard) -> list[tuple[str, int]]:
    """(key without folders, id) of each image of a shard; of two with the same id only the first.

    They come from the table beside the tar if it has them all: a few kilobytes instead of the tar's
    gigabytes. Its rows need not be in the tar's order.

    Raises: DamagedTarError, see `read_samples`.
    """
    images = _index_of_table(shard)
    if images is None:
        samples = read_samples(shard, with_images=False)
        images = [(sample.name, sample.id) for sample in samples if isinstance(sample, Sample)]
    key_of: dict[int, str] = {}
    for key, image_id in images:
        key_of.setdefault(image_id, key)
    return [(key, image_id) for image_id, key in key_of.items()]


def _index_of_table(shard: Shard) -> list[tuple[str, int]] | None:
    rows = read_side_table(shard.url, ("key", "status", "id")).in_tar()
    images: list[tuple[str, int]] = []
    for key, value in rows if rows is not None else ():
        number = whole_number(value)
        if shard.ids is IdRule.KEY:
            number = None if is_given(value) else key_number(shard.name, key)
        if number is None:
            return None
        images.append((text_of_key(key), number))
    return None if rows is None else images


# -- values ---------------------------------------------------------------------------------------


def read_document(data: bytes | None) -> dict[str, Any] | None:
    """A JSON object; None if the data are none, or exceed the bounds above."""
    if not data or len(data) > _MAX_JSON_BYTES:
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or _is_deep(document, data):
        return None
    return document


def _is_deep(document: Any, data: bytes) -> bool:
    if data.count(b"[") + data.count(b"{") <= _MAX_DEPTH:
        return False
    level, depth = [document], 0
    while level:
        depth += 1
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
        if depth > _MAX_DEPTH:
            return True
    return False


def text_of_key(key: str) -> str:
    """A key that UTF-8 can hold: names in a tar may be any bytes."""
    return key.encode(errors="backslashreplace").decode()


def _side(value: Any) -> int | None:
    """A width or height in pixels, within int32."""
    number = whole_number(value)
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
