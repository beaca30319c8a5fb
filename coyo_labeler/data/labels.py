"""The labels of a shard's images, read without holding their whole table in memory.

File names tell three kinds of folders apart. *Co-indexed*: `{shard}.parquet` per tar, rows in
the tar's order (beliefs, as label writes them); tar and rows are streamed side by side. *By id*:
Parquet files of any other names (the published files). *Mixed*: merge's posterior, where images
without votes stay in the file of their shard, and images with votes are in files of their own.
"""

import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coyo_labeler import storage
from coyo_labeler.data.by_id import SCAN_LIMIT, ById, RowsById, index_files, no_labels
from coyo_labeler.data.rows import THREADS, read_ids, read_rows
from coyo_labeler.data.targets import F32, I64
from coyo_labeler.data.tars import Shard
from coyo_labeler.data.tars import read_ids as ids_of_shard
from coyo_labeler.errors import InputError


class ShardLabels(Protocol):
    """The labels of one shard, requested in the order of its tar."""

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        """Labels and probabilities of the next image of the tar; None where it has none.

        Raises: InputError naming the shard where the labels cannot belong to this tar.
        """

    def finish(self) -> None:
        """Call at the end of the tar. Raises: InputError where labels are left over."""


class Labels(Protocol):
    """A labels folder."""

    def open(self, shard: Shard) -> ShardLabels:
        """The labels of one shard."""

    def count(self, shards: Sequence[Shard], exclude: frozenset[int] = frozenset()) -> int:
        """How many images of the shards, without the excluded ids, have a row of labels."""


def open_labels(labels: str, scan_limit: int = SCAN_LIMIT) -> Labels:
    """The labels in a Parquet file, a folder, a glob or `posterior/` of a merge output.

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
    by_shard = CoIndexed(url, {k: file for k, file in by_name.items() if k.isdecimal()})
    others = [file for file in files if file not in by_shard.files.values()]
    if not others:
        return by_shard
    by_id = ById(url, index_files(others), scan_limit)
    return Mixed(by_shard, by_id) if by_shard.files else by_id


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
        """See `Labels`. Reads the ids alone, 8 bytes per image."""
        names = {shard.name for shard in shards}
        files = [file for name, file in self.files.items() if name in names]
        excluded = np.array(sorted(exclude), dtype=np.int64)
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(int((~np.isin(ids, excluded)).sum()) for ids in pool.map(read_ids, files))


class _Streamed:
    """The rows of one labels file, beside a tar in the same order."""

    def __init__(self, shard: Shard, url: str) -> None:
        self._shard, self._url = shard, url
        self.ids = read_ids(url)  # 8 bytes per row; they distinguish a gap from a mismatch
        self._rows = read_rows(url)
        self._next = 0

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        left = self.ids[self._next :]
        if len(left) and left[0] == image_id:
            self._next += 1
            return next(self._rows)
        if (self.ids == image_id).any():
            raise InputError(
                f"labels: shard {self._shard.name}: id {image_id} is in another position in "
                f"{self._url} than in {self._shard.url}; label the shard again, or give the file a "
                "name that is no number, to look labels up by id"
            )
        return None

    def finish(self) -> None:
        if self._next < len(self.ids):
            raise InputError(
                f"labels: shard {self._shard.name}: {self._url} holds labels of id "
                f"{self.ids[self._next]}, which is not in {self._shard.url}; they are of another "
                "fetch: label the shard again"
            )


# -- mixed ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mixed:
    """Some rows are in the file of their shard; others are looked up by id."""

    by_shard: CoIndexed
    by_id: ById

    def open(self, shard: Shard) -> ShardLabels:
        """See `Labels`. Ids that are not in the shard's own file are looked up."""
        file = self.by_shard.files.get(shard.name)
        streamed = _Streamed(shard, file) if file is not None else None
        ids = ids_of_shard(shard)
        wanted = np.setdiff1d(ids, streamed.ids) if streamed else np.unique(ids)
        by_id = self.by_id.look_up(shard, wanted)
        if streamed is None and len(wanted) and not by_id.rows:
            raise no_labels(shard, self.by_id.url, wanted)
        return _StreamedAndById(streamed, by_id) if streamed else by_id

    def count(self, shards: Sequence[Shard], exclude: frozenset[int] = frozenset()) -> int:
        """See `Labels`."""
        return self.by_shard.count(shards, exclude) + self.by_id.count(shards, exclude)


@dataclass(frozen=True)
class _StreamedAndById:
    streamed: _Streamed
    by_id: RowsById

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        row = self.streamed.find(image_id)
        return row if row is not None else self.by_id.find(image_id)

    def finish(self) -> None:
        self.streamed.finish()
