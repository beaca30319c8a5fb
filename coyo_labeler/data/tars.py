"""Webdataset tars, read in one forward pass: which there are, and the samples in one."""

import json
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.errors import InputError

#: Endings of members that hold the picture of a sample.
IMAGE_ENDINGS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})

#: `status` of an image that is in the tar, in the tables of img2dataset and of fetch.
SUCCESS = "success"


@dataclass(frozen=True)
class Shard:
    """One tar. name: its file name without `.tar`, the same as that of its labels file."""

    name: str
    url: str


@dataclass(frozen=True)
class Member:
    """One sample of a tar: its webdataset key, the id that joins it to its labels, its bytes."""

    key: str
    id: int
    image: bytes


def find_shards(images: str) -> list[Shard]:
    """The tars of a file, folder or glob, by name.

    Raises: InputError where there are none, or two of one name.
    """
    try:
        files = storage.files_of(images, ".tar")
    except FileNotFoundError:
        raise InputError(f"images: nothing at {images}; give a folder of tars or a glob") from None
    shards = [Shard(posixpath.basename(url).removesuffix(".tar"), url) for url in files]
    if not shards:
        raise InputError(f"images: no .tar files at {images}; give the folder that fetch wrote")
    for name, times in Counter(shard.name for shard in shards).items():
        if times > 1:
            raise InputError(f"images: {times} tars at {images} are called {name}; rename them")
    return shards


def read_members(shard: Shard) -> Iterator[Member]:
    """The samples of a tar in their order, each whole before the next is read.

    Members of one key stand together, as webdataset writes them; those that are neither a picture
    nor `{key}.json` are passed over.

    Raises: InputError naming the shard where it is no whole tar, or a sample lacks picture or id.
    """
    fs, path = storage.resolve(shard.url)
    try:
        with fs.open(path, "rb") as file:
            yield from _group(shard, file)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(
            f"images: shard {shard.name}: {shard.url} is damaged ({error}); fetch it again"
        ) from None
    except FileNotFoundError:
        raise InputError(
            f"images: shard {shard.name}: {shard.url} has gone; put it back, or start anew"
        ) from None


def _group(shard: Shard, file: IO[bytes]) -> Iterator[Member]:
    key, image, meta = None, None, None
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
                if key is not None:
                    yield _member(shard, key, image, meta)
                key, image, meta = found, None, None
            ending = ending.lower()
            if ending in IMAGE_ENDINGS:
                image = _content(tar, info)
            elif ending == "json":
                meta = _content(tar, info)
    if key is not None:
        yield _member(shard, key, image, meta)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    content = file.read() if file is not None else b""
    if len(content) != info.size:
        raise tarfile.ReadError(f"{info.name} breaks off")
    return content


def _member(shard: Shard, key: str, image: bytes | None, meta: bytes | None) -> Member:
    where = f"images: shard {shard.name}: sample {key}"
    if image is None:
        raise InputError(f"{where} has no picture ({', '.join(sorted(IMAGE_ENDINGS))})")
    try:
        document: Any = json.loads(meta or b"{}")
        number = document.get("id")
    except (ValueError, AttributeError):
        raise InputError(f"{where}: {key}.json is no JSON object; fetch the shard again") from None
    if not isinstance(number, int):
        try:
            number = int(number)
        except (TypeError, ValueError):
            raise InputError(
                f"{where}: {key}.json has no whole number 'id' to join labels by; img2dataset "
                'writes it with save_additional_columns=["id"]'
            ) from None
    return Member(key, number, image)


def read_ids(shard: Shard) -> npt.NDArray[np.int64]:
    """The ids of a tar's samples; from the table beside it where there is one, else from the tar.

    The table (`{shard}.parquet`, with `id` and `status`) says in kilobytes what the tar says in
    gigabytes; its rows need not stand in the tar's order.
    """
    table = shard.url.removesuffix(".tar") + ".parquet"
    fs, path = storage.resolve(table)
    if fs.exists(path):
        try:
            with fs.open(path, "rb") as file:
                rows = pq.ParquetFile(file)
                if {"id", "status"} <= set(rows.schema_arrow.names):
                    columns = rows.read(columns=["id", "status"], use_threads=False)
                    kept = columns.filter(pc.equal(columns["status"], SUCCESS))
                    return kept["id"].cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]
        except pa.ArrowInvalid as error:
            raise InputError(
                f"images: shard {shard.name}: {table} is not readable ({error}); remove it"
            ) from None
    return np.fromiter((member.id for member in read_members(shard)), dtype=np.int64)
