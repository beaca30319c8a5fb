"""Image tars: the ids in one, its samples in one forward pass, and the same with labels inside."""

import io
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.errors import InputError

#: Endings of members that hold the picture of a sample.
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "img", "image")

#: `status` of an image that is in the tar, in the tables of img2dataset and of fetch.
_SUCCESS = "success"

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
    tars = [Tar(number, url) for number, url in enumerate(storage.files_of(images, ".tar"))]
    if not tars:
        raise InputError(f"export: images: no .tar files at {images}; give what fetch wrote")
    seen: dict[str, str] = {}
    for tar in tars:
        if tar.name in seen:
            raise InputError(
                f"export: images: {seen[tar.name]} and {tar.url} have the same name; rename one"
            )
        seen[tar.name] = tar.url
    return tars


def read_index(tar: Tar) -> pa.Table:
    """Key and id of every image of a tar (INDEX), from the table beside it, else from the tar.

    The id is the `id` of the table or of `{key}.json`; without one it is the key.

    Raises: InputError naming the tar whose images have no id.
    """
    table = tar.url.removesuffix(".tar") + ".parquet"
    fs, path = storage.resolve(table)
    if fs.exists(path):
        with fs.open(path, "rb") as file:
            names = pq.read_schema(file).names
            if {"key", "status"} <= set(names):
                columns = [name for name in ("key", "status", "id") if name in names]
                rows = pq.read_table(file, columns=columns, use_threads=False)
                rows = rows.filter(pc.equal(rows["status"], _SUCCESS))
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
    tars = pa.array([tar.number] * len(keys), pa.int32())
    return pa.table([tars, keys.cast(pa.string()), numbers], schema=INDEX)


def read_samples(tar: Tar) -> Iterator[Sample]:
    """The samples of a tar that hold a picture, in their order.

    Raises: InputError where the tar is no whole tar.
    """
    fs, path = storage.resolve(tar.url)
    try:
        with fs.open(path, "rb") as file:
            for key, members in _groups(file):
                endings = [name for name in IMAGE_ENDINGS if name in members]
                if endings:
                    facts = _facts(tar, key, members.get("json"))
                    yield Sample(key, endings[0], members[endings[0]], facts)
    except (tarfile.TarError, EOFError) as error:
        told = " ".join(str(error).split())
        raise InputError(
            f"export: images: {tar.url} is no whole tar ({told}); fetch it again"
        ) from None


def _groups(file: IO[bytes]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, {ending: bytes}) of the members of each key; they stand together.

    The webdataset package would do this too, but loads PyTorch where there is one.
    """
    key: str | None = None
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for header in tar:
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header read
            content = tar.extractfile(header) if header.isfile() else None
            if content is None:
                continue
            folder, _, name = header.name.rpartition("/")
            stem, _, ending = name.partition(".")
            found = posixpath.join(folder, stem)
            if found != key:
                if key is not None:
                    yield posixpath.basename(key), members
                key, members = found, {}
            members[ending.lower()] = content.read()
    if key is not None:
        yield posixpath.basename(key), members


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


@contextmanager
def open_tar(file: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """A tar to write, forward only."""
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        yield tar


def write_sample(tar: tarfile.TarFile, sample: Sample, labels: Mapping[str, Any]) -> None:
    """Append a sample, its picture as it was, with `labels` in its `{key}.json`.

    Times and owners are fixed, so that a tar's bytes depend on its samples alone.
    """
    document = json.dumps({**sample.facts, **labels}, ensure_ascii=False).encode()
    for ending, data in ((sample.ending, sample.image), ("json", document)):
        header = tarfile.TarInfo(f"{sample.key}.{ending}")
        header.size = len(data)
        header.mode = 0o644
        tar.addfile(header, io.BytesIO(data))
