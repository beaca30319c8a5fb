"""Rows with the same hash, in a sorted stream: the first is kept, the others point at it."""

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
    """Rows whose fate is known.

    kept: the input's columns and fallback_urls list<string>. rejects: schemas.CATALOG_REJECTS.
    duplicates: schemas.DUPLICATES. group_sizes: rows of each finished group, kept or not.
    """

    kept: pa.Table
    rejects: pa.Table
    duplicates: pa.Table
    group_sizes: I64


class TwinGroups:
    """Settles a stream of rows that is sorted so that the rows of one image follow each other.

    The columns: place, bits and id int64, url string, sampled bool, near_of int64 (the row that
    stands for this one's whole group, or null), near_distance int32, and any others. Rows of equal
    place and bits are one group, sorted by id. What is held in memory does not grow with a group:
    its first row and the next `max_fallback_urls` rows.
    """

    def __init__(self, max_fallback_urls: int) -> None:
        self._limit = max_fallback_urls
        self._open: pa.Table | None = None  # of the last group: its first 1 + limit rows
        self._open_size = 0

    def add(self, rows: pa.Table) -> Settled:
        """Settle all groups but the last, which may go on in the next rows."""
        return self._settle(rows, ended=False)

    def end(self, rows: pa.Table) -> Settled:
        """Settle the last rows (there may be none) and all groups."""
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
        again = ids[dropped] == ids[dropped - 1] if len(dropped) else np.empty(0, bool)
        twins = dropped[~again]
        # A twin goes where the first row of its group goes.
        stands = table.take(np.concatenate([head[twins], near_heads]))
        pointing = np.concatenate([twins, near_heads])
        kept_id = pc.coalesce(stands["near_of"], stands["id"])
        distance = pc.fill_null(stands["near_distance"], 0)
        duplicates = pa.table([pa.array(ids[pointing]), kept_id, distance], schemas.DUPLICATES)
        of = pc.binary_join_element_wise("of", kept_id.cast(pa.string()), " ")
        rejects = [
            _rejects(table, twins, Reason.DUPLICATE_HASH, of.slice(0, len(twins))),
            _rejects(table, near_heads, Reason.NEAR_DUPLICATE, of.slice(len(twins))),
            _rejects(table, dropped[again], Reason.DUPLICATE_ID),
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
        """The URLs of the rows next to each kept one in its group, none twice, not its own."""
        behind = np.arange(len(head)) - head
        rows = np.flatnonzero((behind > 0) & (behind <= self._limit))
        place = np.searchsorted(kept, head[rows])
        mine = place < len(kept)
        mine[mine] = kept[place[mine]] == head[rows][mine]
        rows, place = rows[mine], place[mine]
        urls = table["url"].take(np.concatenate([rows, head[rows]])).combine_chunks()
        encoded = urls.dictionary_encode().indices.to_numpy().astype(np.int64)
        code, own = encoded[: len(rows)], encoded[len(rows) :]
        _, first = np.unique(place * (len(encoded) + 1) + code, return_index=True)
        first = np.sort(first[code[first] != own[first]])
        offsets = np.zeros(len(kept) + 1, np.int32)
        np.cumsum(np.bincount(place[first], minlength=len(kept)), out=offsets[1:])
        return pa.ListArray.from_arrays(offsets, urls.take(first).cast(pa.string()))


def _begins(table: pa.Table) -> Mask:
    """Whether each row is the first of its group."""
    begins = np.zeros(table.num_rows, bool)
    begins[0] = True
    for name in ("place", "bits"):
        numbers = _numbers(table[name])
        begins[1:] |= numbers[1:] != numbers[:-1]
    return begins


def _numbers(column: pa.ChunkedArray) -> I64:
    numbers: I64 = column.to_numpy()
    return numbers


def _rejects(
    table: pa.Table, rows: I64, reason: Reason, detail: pa.ChunkedArray | None = None
) -> pa.Table:
    some = table.select(["id", "url"]).take(rows)
    n = len(rows)
    columns = [
        some["id"],
        some["url"],
        pa.repeat(str(reason), n),
        pa.nulls(n, pa.string()) if detail is None else detail,
    ]
    return pa.table(columns, schemas.CATALOG_REJECTS)
