"""The labels of a shard's images, without ever holding the table that they come from.

Two layouts are told apart by their file names. *Co-indexed*: `{shard}.parquet` per tar, rows in the
tar's order (beliefs, as label writes them); tar and rows are streamed side by side. *By id*: any
other Parquet files (the posterior of merge, whose files are Spark's; the published files). Of each
row group the footer says which ids it can hold; a shard reads only the row groups that can hold its
own ids, and keeps only its own rows: some 4 MB for 10,000 images of 50 labels.
"""

import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.data.targets import F32, I64
from coyo_labeler.data.tars import Shard, read_ids
from coyo_labeler.errors import InputError

_COLUMNS = ["id", "labels", "label_probs"]

#: Rows decoded at a time.
_ROWS = 1024

#: Files looked into at a time; object stores take some 50 ms to answer.
_THREADS = 16

#: Rows that one shard may have to look through by id. More means that ids lie scattered over the
#: files, so that every shard would read the whole table.
SCAN_LIMIT = 5_000_000


class ShardLabels(Protocol):
    """The labels of one shard, asked for in the order of its tar."""

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        """Labels and probabilities of the next image of the tar; None where it has none.

        Raises: InputError naming the shard where the labels cannot be of this tar.
        """

    def finish(self) -> None:
        """To be called at the end of the tar. Raises: InputError where labels are left over."""


class Labels(Protocol):
    """A labels folder."""

    def open(self, shard: Shard) -> ShardLabels:
        """The labels of one shard."""

    def count(self, shards: Sequence[Shard], exclude: frozenset[int] = frozenset()) -> int:
        """How many images of the shards have a row of labels, but for the ids to leave out."""


def open_labels(labels: str, scan_limit: int = SCAN_LIMIT) -> Labels:
    """The labels in a Parquet file, a folder or a glob; `posterior/` of a merge output is found.

    Raises: InputError where there are none.
    """
    url = storage.locate(labels, "posterior")
    try:
        files = list(storage.files_of(url))
    except FileNotFoundError:
        raise InputError(f"labels: nothing at {labels}; give a folder of Parquet files") from None
    if not files:
        raise InputError(f"labels: no Parquet files at {url}; give what label or merge wrote")
    by_name = {posixpath.basename(file).removesuffix(".parquet"): file for file in files}
    if all(name.isdecimal() for name in by_name):
        return CoIndexed(url, by_name)
    return ById(url, _index(files), scan_limit)


# -- co-indexed -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoIndexed:
    """One labels file per tar, of the same name. files: {shard name: URL}."""

    url: str
    files: dict[str, str]

    def open(self, shard: Shard) -> ShardLabels:
        """See `Labels`."""
        file = self.files.get(shard.name)
        if file is None:
            raise InputError(
                f"labels: shard {shard.name}: there is no {shard.name}.parquet in {self.url} for "
                f"{shard.url}; label that shard, or give only the tars that are labelled"
            )
        return _Streamed(shard, file)

    def count(self, shards: Sequence[Shard], exclude: frozenset[int] = frozenset()) -> int:
        """See `Labels`. Reads the ids alone, 8 bytes an image."""
        names = {shard.name for shard in shards}
        files = [file for name, file in self.files.items() if name in names]
        left_out = np.array(sorted(exclude), dtype=np.int64)
        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(int((~np.isin(ids, left_out)).sum()) for ids in pool.map(_read_ids, files))


class _Streamed:
    """The rows of one labels file, beside a tar in the same order."""

    def __init__(self, shard: Shard, url: str) -> None:
        self._shard, self._url = shard, url
        self._ids = _read_ids(url)  # 8 bytes a row: they tell a gap from a mismatch
        self._rows = _rows(url)
        self._next = 0

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        left = self._ids[self._next :]
        if len(left) and left[0] == image_id:
            self._next += 1
            return next(self._rows)
        if (self._ids == image_id).any():
            raise InputError(
                f"labels: shard {self._shard.name}: id {image_id} stands elsewhere in {self._url} "
                f"than in {self._shard.url}; label the shard again, or give the file a name that "
                "is no number, to look labels up by id"
            )
        return None

    def finish(self) -> None:
        if self._next < len(self._ids):
            raise InputError(
                f"labels: shard {self._shard.name}: {self._url} holds labels of id "
                f"{self._ids[self._next]}, which is not in {self._shard.url}; they are of another "
                "fetch: label the shard again"
            )


# -- by id ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """Which ids each row group of each file can hold. lowest, highest: inclusive; rows: counts."""

    files: tuple[str, ...]
    file: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    lowest: npt.NDArray[np.int64]
    highest: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]


def _index(files: list[str]) -> Index:
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = [
            (number, *entry)
            for number, groups in enumerate(pool.map(_footer, files))
            for entry in groups
        ]
    columns = np.array(entries, dtype=np.int64).reshape(-1, 5).T
    return Index(tuple(files), *columns)


def _footer(url: str) -> list[tuple[int, int, int, int]]:
    """(row group, lowest id, highest id, rows) of one file; every id where it does not say."""
    with _open(url) as file:
        metadata = file.metadata
        names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        column = names.index("id")
        groups = []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            statistics = group.column(column).statistics
            bounds = np.iinfo(np.int64).min, np.iinfo(np.int64).max
            if statistics is not None and statistics.has_min_max:
                bounds = statistics.min, statistics.max
            if group.num_rows:
                groups.append((number, *bounds, group.num_rows))
        return groups


@dataclass(frozen=True)
class ById:
    """Labels in files of any names and order."""

    url: str
    index: Index
    scan_limit: int = SCAN_LIMIT

    def open(self, shard: Shard) -> "_Found":
        """See `Labels`."""
        wanted = np.unique(read_ids(shard))
        index = self.index
        # The first wanted id that is not below the group's lowest must not be above its highest.
        first = np.searchsorted(wanted, index.lowest)
        hit = first < len(wanted)
        hit[hit] = wanted[first[hit]] <= index.highest[hit]
        scanned = int(index.rows[hit].sum())
        if scanned > self.scan_limit:
            raise InputError(
                f"labels: shard {shard.name}: its ids lie scattered over {scanned:,} rows of "
                f"{self.url}, and every shard would read them all; write the labels sorted by id, "
                "or one file per shard"
            )
        found: dict[int, tuple[I64, F32]] = {}
        for number in np.unique(index.file[hit]):
            groups = index.group[hit & (index.file == number)]
            self._collect(shard, index.files[number], groups.tolist(), wanted, found)
        if len(wanted) and not found:
            raise InputError(
                f"labels: shard {shard.name}: {self.url} has labels for none of its "
                f"{len(wanted):,} images (the first id is {wanted[0]}); are these the labels of "
                f"{shard.url}?"
            )
        return _Found(found)

    def count(self, shards: Sequence[Shard], exclude: frozenset[int] = frozenset()) -> int:
        """See `Labels`. Looks every shard's labels up."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(len(found.rows.keys() - exclude) for found in pool.map(self.open, shards))

    def _collect(
        self,
        shard: Shard,
        url: str,
        groups: list[int],
        wanted: npt.NDArray[np.int64],
        found: dict[int, tuple[I64, F32]],
    ) -> None:
        with _open(url) as file:
            for batch in file.iter_batches(_ROWS, groups, _COLUMNS, use_threads=False):
                ids = _ids_of(url, batch.column("id"))
                kept = np.flatnonzero(np.isin(ids, wanted))
                if not len(kept):
                    continue
                rows = _split(url, batch.take(pa.array(kept)))
                for image_id, row in zip(ids[kept].tolist(), rows, strict=True):
                    if image_id in found:
                        raise InputError(
                            f"labels: shard {shard.name}: id {image_id} is in {self.url} twice; "
                            "keep one row per image"
                        )
                    found[image_id] = row


@dataclass(frozen=True)
class _Found:
    rows: dict[int, tuple[I64, F32]]

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        return self.rows.get(image_id)

    def finish(self) -> None:
        """Rows of other shards lie in the same files: none is left over."""


# -- Parquet --------------------------------------------------------------------------------------


class _open:  # noqa: N801  # used as a function: `with _open(url) as parquet`
    """A Parquet file of labels on any filesystem, with its columns checked."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> pq.ParquetFile:
        fs, path = storage.resolve(self._url)
        self._file = fs.open(path, "rb")
        try:
            parquet = pq.ParquetFile(self._file)
        except pa.ArrowInvalid as error:
            self._file.close()
            raise InputError(
                f"labels: {self._url} is not a readable Parquet file ({error}); write it again"
            ) from None
        missing = [name for name in _COLUMNS if name not in parquet.schema_arrow.names]
        if missing:
            self._file.close()
            raise InputError(
                f"labels: {self._url} has no column '{missing[0]}' (its columns: "
                f"{', '.join(parquet.schema_arrow.names)}); give beliefs or a posterior"
            )
        return parquet

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _read_ids(url: str) -> npt.NDArray[np.int64]:
    with _open(url) as file:
        return _ids_of(url, file.read(columns=["id"], use_threads=False)["id"])


def _ids_of(url: str, column: pa.Array) -> npt.NDArray[np.int64]:
    if column.null_count:
        raise InputError(f"labels: {url} has rows without id; drop them")
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _rows(url: str) -> Iterator[tuple[I64, F32]]:
    with _open(url) as file:
        for batch in file.iter_batches(_ROWS, columns=_COLUMNS, use_threads=False):
            yield from _split(url, batch)


def _split(url: str, batch: pa.RecordBatch) -> list[tuple[I64, F32]]:
    """(labels, probabilities) of each row; a null list is an empty one."""
    labels, probs = batch.column("labels"), batch.column("label_probs")
    lengths = pc.fill_null(pc.list_value_length(labels), 0).to_numpy()
    same = pc.fill_null(pc.list_value_length(probs), 0).to_numpy()
    if (lengths != same).any():
        row = int(np.flatnonzero(lengths != same)[0])
        raise InputError(
            f"labels: {url}: id {batch.column('id')[row]} has {lengths[row]} labels but "
            f"{same[row]} probabilities; write the file again"
        )
    classes = labels.flatten().cast(pa.int64()).to_numpy(zero_copy_only=False)
    weights = probs.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    if not ((weights >= 0) & (weights <= 1)).all():  # NaN is in no range
        wrong = int(np.flatnonzero(~((weights >= 0) & (weights <= 1)))[0])
        row = int(np.searchsorted(np.cumsum(lengths), wrong, side="right"))
        raise InputError(
            f"labels: {url}: id {batch.column('id')[row]} has the probability {weights[wrong]}; "
            "probabilities are between 0 and 1"
        )
    ends = np.cumsum(lengths)
    return [
        (classes[end - n : end].copy(), weights[end - n : end].copy())
        for n, end in zip(lengths.tolist(), ends.tolist(), strict=True)
    ]
