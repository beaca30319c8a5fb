"""Labels looked up by id, in files of any names and order.

The footer of a file says which ids each row group can hold. A shard reads only the row groups that
can hold its ids, and keeps only its own rows: some 4 MB for 10,000 images of 50 labels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from coyo_labeler.data.rows import (
    COLUMNS,
    REMEDY,
    ROWS,
    THREADS,
    ids_of,
    open_rows,
    read_ids,
    split_rows,
)
from coyo_labeler.data.targets import F32, I64
from coyo_labeler.data.tars import DamagedShardError, Shard
from coyo_labeler.data.tars import read_ids as ids_of_shard
from coyo_labeler.errors import InputError
from coyo_labeler.formats.columns import check_types
from coyo_labeler.formats.parquet_splits import bound_row_groups, read_footers

#: Rows that one shard may search at most. More means that its ids are scattered over the files, so
#: that every shard would read the whole table.
SCAN_LIMIT = 5_000_000


@dataclass(frozen=True)
class Index:
    """Which ids each row group of each file can hold. lowest, highest: inclusive; rows: counts."""

    files: tuple[str, ...]
    file: I64
    group: I64
    lowest: I64
    highest: I64
    rows: I64


def index_files(files: Sequence[str]) -> Index:
    """The index of Parquet files, from their footers.

    Raises: InputError naming a file that is not readable or lacks a column.
    """
    entries: list[tuple[int, int, int, int, int]] = []
    for number, metadata in enumerate(read_footers("labels", files)):
        check_types("labels", files[number], metadata.schema.to_arrow_schema(), COLUMNS, REMEDY)
        entries.extend(
            (number, group.number, group.lowest, group.highest, group.rows)
            for group in bound_row_groups(metadata, "id")
        )
    columns = np.array(entries, dtype=np.int64).reshape(-1, 5).T
    return Index(tuple(files), *columns)


@dataclass(frozen=True)
class ById:
    """Labels in files of any names and order."""

    url: str
    index: Index
    scan_limit: int = SCAN_LIMIT

    def open(self, shard: Shard) -> "RowsById":
        """See `Labels`."""
        wanted = np.unique(ids_of_shard(shard))
        labels = self.look_up(shard, wanted)
        if len(wanted) and not labels.rows:
            raise no_labels(shard, self.url, wanted)
        return labels

    def look_up(self, shard: Shard, wanted: I64) -> "RowsById":
        """The rows of some ids of a shard. wanted: ascending.

        Raises: InputError where too many rows would have to be searched, or an id occurs twice.
        """
        index = self.index
        # The first wanted id that is not below the group's lowest must not be above its highest.
        first = np.searchsorted(wanted, index.lowest)
        needed = first < len(wanted)
        needed[needed] = wanted[first[needed]] <= index.highest[needed]
        scanned = int(index.rows[needed].sum())
        if scanned > self.scan_limit:
            raise InputError(
                f"labels: shard {shard.name}: its ids are scattered over {scanned:,} rows of "
                f"{self.url}, and every shard would read them all; write one file of labels per "
                "tar, with the name of the tar and in its order"
            )
        rows: dict[int, tuple[I64, F32]] = {}
        for number in np.unique(index.file[needed]):
            groups = index.group[needed & (index.file == number)]
            self._collect(shard, index.files[number], groups.tolist(), wanted, rows)
        return RowsById(rows)

    def count(self, shards: Sequence[Shard], exclude: frozenset[int] = frozenset()) -> int:
        """See `Labels`. Holds 8 bytes for every row of labels."""
        with ThreadPoolExecutor(THREADS) as pool:
            ids = list(pool.map(read_ids, self.index.files))
            labelled = np.setdiff1d(np.concatenate(ids), np.array(sorted(exclude), dtype=np.int64))
            del ids

            def count(shard: Shard) -> int:
                if not len(labelled):
                    return 0
                try:
                    wanted = np.unique(ids_of_shard(shard))
                except DamagedShardError:
                    return 0  # reading it stops, or leaves it out
                index = np.searchsorted(labelled, wanted).clip(max=len(labelled) - 1)
                return int((labelled[index] == wanted).sum())

            return sum(pool.map(count, shards))

    def _collect(
        self,
        shard: Shard,
        url: str,
        groups: list[int],
        wanted: I64,
        rows: dict[int, tuple[I64, F32]],
    ) -> None:
        """Add the wanted rows of some row groups to `rows`."""
        with open_rows(url) as file:
            for batch in file.iter_batches(ROWS, groups, COLUMNS.names, use_threads=False):
                ids = ids_of(url, batch.column("id"))
                selected = np.flatnonzero(np.isin(ids, wanted))
                if not len(selected):
                    continue
                new_rows = split_rows(url, batch.take(pa.array(selected)))
                for image_id, row in zip(ids[selected].tolist(), new_rows, strict=True):
                    if image_id in rows:
                        raise InputError(
                            f"labels: shard {shard.name}: id {image_id} is in {self.url} twice; "
                            "keep one row per image"
                        )
                    rows[image_id] = row


def no_labels(shard: Shard, url: str, wanted: I64) -> InputError:
    """The error for a shard whose labels are those of other images. wanted: the shard's ids."""
    return InputError(
        f"labels: shard {shard.name}: {url} has labels for none of its {len(wanted):,} images (the "
        f"first id is {wanted[0]}); are these the labels of {shard.url}?"
    )


@dataclass(frozen=True)
class RowsById:
    """The rows of one shard, by id."""

    rows: dict[int, tuple[I64, F32]]

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        """See `ShardLabels`."""
        return self.rows.get(image_id)

    def finish(self) -> None:
        """Checks nothing: the same files hold the rows of other shards."""
