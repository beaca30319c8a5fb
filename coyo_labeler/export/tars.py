"""Image tars: which there are, the ids in one, and its samples in one forward pass."""

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas, tars

#: Which images lie in a tar. tar: its number in the plan.
INDEX = pa.schema(
    [pa.field("tar", pa.int32()), pa.field("key", pa.string()), pa.field("id", pa.int64())]
)


@dataclass(frozen=True)
class Tar:
    """One tar, with its number among all."""

    number: int
    url: str

    @property
    def name(self) -> str:
        """Its file name without `.tar`."""
        return posixpath.basename(self.url).removesuffix(".tar")


@dataclass(frozen=True)
class Sample:
    """One sample of a tar. ending: of the picture's name. facts: its `{key}.json`, {} without."""

    key: str
    ending: str
    image: bytes
    facts: Mapping[str, Any]


def find_tars(images: str) -> list[Tar]:
    """The tars of a file, folder or glob, by name.

    Raises: InputError where there are none, or two of one name.
    """
    found = [Tar(number, url) for number, url in enumerate(storage.files_of(images, ".tar"))]
    if not found:
        raise InputError(f"export: images: no .tar files at {images}; give what fetch wrote")
    seen: dict[str, str] = {}
    for tar in found:
        if tar.name in seen:
            raise InputError(
                f"export: images: {seen[tar.name]} and {tar.url} have the same name; rename one"
            )
        seen[tar.name] = tar.url
    return found


def read_index(tar: Tar) -> pa.Table:
    """Key and id of every image of a tar (INDEX), from the table beside it, else from the tar.

    The id is the `id` of the table or of `{key}.json`; without one it is the key.

    Raises: InputError naming the tar whose images have no id.
    """
    table = tar.url.removesuffix(".tar") + ".parquet"
    fs, path = storage.resolve(table)
    if fs.exists(path):
        with storage.open_parquet("export: images", table, "remove it") as file:
            names = file.schema_arrow.names
            if {"key", "status"} <= set(names):
                columns = [name for name in ("key", "status", "id") if name in names]
                rows = file.read(columns=columns, use_threads=False)
                rows = rows.filter(pc.equal(rows["status"], schemas.SUCCESS))
                return _index(tar, rows["key"], rows["id" if "id" in names else "key"])
    found = [(sample.key, str(sample.facts.get("id", sample.key))) for sample in read_samples(tar)]
    keys, ids = (pa.chunked_array([[pair[at] for pair in found]], pa.string()) for at in (0, 1))
    return _index(tar, keys, ids)


def _index(tar: Tar, keys: pa.ChunkedArray, ids: pa.ChunkedArray) -> pa.Table:
    try:
        numbers = ids.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise InputError(
            f"export: images: {tar.url}: not every image has a whole number for its id ({error}); "
            'img2dataset writes it with save_additional_columns=["id"]'
        ) from None
    numbered = pa.array([tar.number] * len(keys), pa.int32())
    return pa.table([numbered, keys.cast(pa.string()), numbers], schema=INDEX)


def read_samples(tar: Tar) -> Iterator[Sample]:
    """The samples of a tar that hold a picture, in their order.

    Raises: InputError where the tar is no whole tar.
    """
    fs, path = storage.resolve(tar.url)
    try:
        with fs.open(path, "rb") as file:
            for path_in_tar, parts in tars.groups(file, tar.url):
                picture = tars.picture(parts)
                if picture is not None:
                    key = posixpath.basename(path_in_tar)
                    yield Sample(key, *picture, _facts(tar, key, parts.get("json")))
    except tars.DamagedTarError as error:
        raise InputError(
            f"export: images: {error.url} is no whole tar ({error.why}); fetch it again"
        ) from None


def _facts(tar: Tar, key: str, data: bytes | None) -> Mapping[str, Any]:
    try:
        document = json.loads(data or b"{}")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise InputError(
            f"export: images: {tar.url}: {key}.json is no JSON object; fetch the shard again"
        )
    return document
