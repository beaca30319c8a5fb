"""Rows with the same hash in a sorted stream: the first is kept, and the others refer to it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.formats import schemas
from coyo_labeler.ingest.reasons import Reason

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Settled:
    """Rows that are decided: kept or rejected.

    kept: the input's columns and fallback_urls list<string>. rejects: schemas.CATALOG_REJECTS.
    duplicates: schemas.DUPLICATES. group_sizes: number of rows of each finished group, kept or not.
    """

    kept: pa.Table
    rejects: pa.Table
    duplicates: pa.Table
    group_sizes: I64


class TwinGroups:
    """Decides on a stream of rows that is sorted so that the rows of one image are adjacent.

    Columns: position, bits and id int64, url string, sampled bool, near_of int64 (the row for
    which this one's whole group is dropped, or null), near_distance int32, and any others. Rows of
    equal position and bits are one group, sorted by id. Memory does not grow with a group: only its
    first row and the next `max_fallback_urls` rows are held.
    """

    def __init__(self, max_fallback_urls: int) -> None:
        self._limit = max_fallback_urls
        self._open: pa.Table | None = None  # of the last group: its first 1 + limit rows
        self._open_size = 0

    def add(self, rows: pa.Table) -> Settled:
        """Decide on all groups but the last, which may continue in the next rows."""
        return self._settle(rows, ended=False)

    def end(self, rows: pa.Table) -> Settled:
        """Decide on all groups. rows: the last ones; there may be none."""
        return self._settle(rows, ended=True)

    def _settle(self, rows: pa.Table, ended: bool) -> Settled:
        seen = self._open.num_rows if self._open is not None else 0
        table = (pa.concat_tables([self._open, rows]) if seen else rows).combine_chunks()
        n = table.num_rows
        if n == 0:
            return self._settled(table, *(np.empty(0, np.int64) for _ in range(4)))
        starts = np.flatnonzero(_begins(table))
        sizes = np.diff(starts, append=n)
        head = np.repeat(starts, sizes)
        sizes[0] += self._open_size - seen
        last = int(starts[-1])
        closed = starts if ended else starts[:-1]
        dropped = np.flatnonzero(head != np.arange(n))
        dropped = dropped[dropped >= seen]
        settled = self._settled(table, closed, dropped, head, sizes[: len(closed)])
        self._open = None if ended else table.slice(last, 1 + self._limit)
        self._open_size = 0 if ended else int(sizes[-1])
        return settled

    def _settled(
        self, table: pa.Table, closed: I64, dropped: I64, head: I64, sizes: I64
    ) -> Settled:
        near = pc.is_valid(table["near_of"]).to_numpy()[closed]
        sampled = table["sampled"].to_numpy()[closed].astype(bool)
        kept, near_heads = closed[~near & sampled], closed[near]
        ids = _numbers(table["id"])
        is_repeated = ids[dropped] == ids[dropped - 1] if len(dropped) else np.empty(0, bool)
        twins = dropped[~is_repeated]
        # A twin refers to the row that the first row of its group refers to.
        heads = table.take(np.concatenate([head[twins], near_heads]))
        referring = np.concatenate([twins, near_heads])
        kept_id = pc.coalesce(heads["near_of"], heads["id"])
        distance = pc.fill_null(heads["near_distance"], 0)
        duplicates = pa.table([pa.array(ids[referring]), kept_id, distance], schemas.DUPLICATES)
        details = pc.binary_join_element_wise("of", kept_id.cast(pa.string()), " ")
        rejects = [
            _rejects(table, twins, Reason.DUPLICATE_HASH, details.slice(0, len(twins))),
            _rejects(table, near_heads, Reason.NEAR_DUPLICATE, details.slice(len(twins))),
            _rejects(table, dropped[is_repeated], Reason.DUPLICATE_ID),
            _rejects(table, closed[~near & ~sampled], Reason.NOT_SAMPLED),
        ]
        fallbacks = self._fallbacks(table, kept, head)
        return Settled(
            table.take(kept).append_column("fallback_urls", fallbacks),
            pa.concat_tables(rejects),
            duplicates,
            sizes,
        )

    def _fallbacks(self, table: pa.Table, kept: I64, head: I64) -> pa.ListArray:
        """For each kept row, the distinct URLs of later rows in its group, without its own.

        kept: indexes of rows. head: for each row, the index of the first row of its group.
        """
        rank = np.arange(len(head)) - head
        rows = np.flatnonzero((rank > 0) & (rank <= self._limit))
        kept_index = np.searchsorted(kept, head[rows])
        is_kept = kept_index < len(kept)
        is_kept[is_kept] = kept[kept_index[is_kept]] == head[rows][is_kept]
        rows, kept_index = rows[is_kept], kept_index[is_kept]
        urls = table["url"].take(np.concatenate([rows, head[rows]])).combine_chunks()
        encoded = urls.dictionary_encode().indices.to_numpy().astype(np.int64)
        code, own = encoded[: len(rows)], encoded[len(rows) :]
        _, first = np.unique(kept_index * (len(encoded) + 1) + code, return_index=True)
        first = np.sort(first[code[first] != own[first]])
        offsets = np.zeros(len(kept) + 1, np.int32)
        np.cumsum(np.bincount(kept_index[first], minlength=len(kept)), out=offsets[1:])
        return pa.ListArray.from_arrays(offsets, urls.take(first).cast(pa.string()))


def _begins(table: pa.Table) -> Mask:
    """Whether each row is the first of its group."""
    begins = np.zeros(table.num_rows, bool)
    begins[0] = True
    for name in ("position", "bits"):
        numbers = _numbers(table[name])
        begins[1:] |= numbers[1:] != numbers[:-1]
    return begins


def _numbers(column: pa.ChunkedArray) -> I64:
    numbers: I64 = column.to_numpy()
    return numbers


def _rejects(
    table: pa.Table, rows: I64, reason: Reason, detail: pa.ChunkedArray | None = None
) -> pa.Table:
    rejects = table.select(["id", "url"]).take(rows)
    n = len(rows)
    columns = [
        rejects["id"],
        rejects["url"],
        pa.repeat(str(reason), n),
        pa.nulls(n, pa.string()) if detail is None else detail,
    ]
    return pa.table(columns, schemas.CATALOG_REJECTS)
