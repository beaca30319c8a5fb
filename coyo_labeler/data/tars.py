"""Webdataset tars, read in one forward pass: which there are, and the samples in one."""

import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas, tars


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

    Raises: InputError naming the shard where it is no whole tar, or a sample lacks picture or id.
    """
    fs, path = storage.resolve(shard.url)
    try:
        with fs.open(path, "rb") as file:
            for key, parts in tars.groups(file, shard.url):
                yield _member(shard, key, parts)
    except tars.DamagedTarError as error:
        raise InputError(
            f"images: shard {shard.name}: {error.url} is damaged ({error.why}); fetch it again"
        ) from None
    except FileNotFoundError:
        raise InputError(
            f"images: shard {shard.name}: {shard.url} has gone; put it back, or start anew"
        ) from None


def _member(shard: Shard, key: str, parts: Mapping[str, bytes]) -> Member:
    where = f"images: shard {shard.name}: sample {key}"
    picture = tars.picture(parts)
    if picture is None:
        raise InputError(f"{where} has no picture ({', '.join(sorted(tars.IMAGE_ENDINGS))})")
    try:
        document: Any = json.loads(parts.get("json") or b"{}")
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
    return Member(key, number, picture[1])


def read_ids(shard: Shard) -> npt.NDArray[np.int64]:
    """The ids of a tar's samples; from the table beside it where there is one, else from the tar.

    The table (`{shard}.parquet`, with `id` and `status`) says in kilobytes what the tar says in
    gigabytes; its rows need not stand in the tar's order.
    """
    table = shard.url.removesuffix(".tar") + ".parquet"
    fs, path = storage.resolve(table)
    if fs.exists(path):
        with storage.open_parquet(f"images: shard {shard.name}", table, "remove it") as file:
            if {"id", "status"} <= set(file.schema_arrow.names):
                columns = file.read(columns=["id", "status"], use_threads=False)
                kept = columns.filter(pc.equal(columns["status"], schemas.SUCCESS))
                return kept["id"].cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]
    return np.fromiter((member.id for member in read_members(shard)), dtype=np.int64)
