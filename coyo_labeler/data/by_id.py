"""Labels looked up by id, in files of any names and order.

Of each row group the footer says which ids it can hold; a shard reads only the row groups that can
hold its own ids, and keeps only its own rows: some 4 MB for 10,000 images of 50 labels.
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
from coyo_labeler.data.tars import Shard
from coyo_labeler.data.tars import read_ids as ids_of_shard
from coyo_labeler.errors import InputError
from coyo_labeler.formats.columns import check_types
from coyo_labeler.formats.parquet_splits import bound_row_groups, read_footers

#: Rows that one shard may have to look through by id. More means that ids lie scattered over the
#: files, so that every shard would read the whole table.
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
    """The index of Parquet files, out of their footers.

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

    def open(self, shard: Shard) -> "Found":
        """See `Labels`."""
        wanted = np.unique(ids_of_shard(shard))
        found = self.look_up(shard, wanted)
        if len(wanted) and not found.rows:
            raise none_of(shard, self.url, wanted)
        return found

    def look_up(self, shard: Shard, wanted: I64) -> "Found":
        """The rows of some ids (ascending) of a shard.

        Raises: InputError where too many rows would have to be looked through, or an id is there
        twice.
        """
        index = self.index
        # The first wanted id that is not below the group's lowest must not be above its highest.
        first = np.searchsorted(wanted, index.lowest)
        hit = first < len(wanted)
        hit[hit] = wanted[first[hit]] <= index.highest[hit]
        scanned = int(index.rows[hit].sum())
        if scanned > self.scan_limit:
            raise InputError(
                f"labels: shard {shard.name}: its ids lie scattered over {scanned:,} rows of "
                f"{self.url}, and every shard would read them all; write one file of labels per "
                "tar, called as the tar and in its order"
            )
        found: dict[int, tuple[I64, F32]] = {}
        for number in np.unique(index.file[hit]):
            groups = index.group[hit & (index.file == number)]
            self._collect(shard, index.files[number], groups.tolist(), wanted, found)
        return Found(found)

    def count(self, shards: Sequence[Shard], exclude: frozenset[int] = frozenset()) -> int:
        """See `Labels`. Holds 8 bytes for every row of labels."""
        with ThreadPoolExecutor(THREADS) as pool:
            ids = list(pool.map(read_ids, self.index.files))
            held = np.setdiff1d(np.concatenate(ids), np.array(sorted(exclude), dtype=np.int64))
            del ids

            def count(shard: Shard) -> int:
                wanted = np.unique(ids_of_shard(shard))
                place = np.searchsorted(held, wanted).clip(max=max(0, len(held) - 1))
                return int((held[place] == wanted).sum()) if len(held) else 0

            return sum(pool.map(count, shards))

    def _collect(
        self,
        shard: Shard,
        url: str,
        groups: list[int],
        wanted: I64,
        found: dict[int, tuple[I64, F32]],
    ) -> None:
        with open_rows(url) as file:
            for batch in file.iter_batches(ROWS, groups, COLUMNS.names, use_threads=False):
                ids = ids_of(url, batch.column("id"))
                kept = np.flatnonzero(np.isin(ids, wanted))
                if not len(kept):
                    continue
                rows = split_rows(url, batch.take(pa.array(kept)))
                for image_id, row in zip(ids[kept].tolist(), rows, strict=True):
                    if image_id in found:
                        raise InputError(
                            f"labels: shard {shard.name}: id {image_id} is in {self.url} twice; "
                            "keep one row per image"
                        )
                    found[image_id] = row


def none_of(shard: Shard, url: str, wanted: I64) -> InputError:
    """What to say of labels that are of other images. wanted: the shard's ids."""
    return InputError(
        f"labels: shard {shard.name}: {url} has labels for none of its {len(wanted):,} images (the "
        f"first id is {wanted[0]}); are these the labels of {shard.url}?"
    )


@dataclass(frozen=True)
class Found:
    """The rows of one shard, by id."""

    rows: dict[int, tuple[I64, F32]]

    def find(self, image_id: int) -> tuple[I64, F32] | None:
        """See `ShardLabels`."""
        return self.rows.get(image_id)

    def finish(self) -> None:
        """Rows of other shards lie in the same files: none is left over."""
