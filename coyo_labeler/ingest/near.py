"""Pairs of pHashes within a few bits of each other, and who stands for whom among them.

Pigeonhole: cut the 64 bits into d + 1 blocks; two hashes that differ in at most d bits agree on
one block at least. So it is enough to compare within the buckets of equal block values, one table
of buckets per block. A bucket that is still large is searched in the same way by those of its bits
that vary within it: no bucket is ever dropped, however skewed, and none is compared pair by pair
unless it is small. A pair belongs to the first block on which it agrees, at every depth, so it is
found once.
"""

from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F = TypeVar("F")

#: Buckets up to this size are compared pair by pair.
SMALL_BUCKET = 64
#: Bits that a block must have for a split to pay: it makes 2 ** bits times smaller buckets, but as
#: many orders of them as there are blocks. A bucket with fewer varying bits has few rows.
BITS_WORTH_A_BLOCK = 3

_WORD = np.uint64(0xFFFFFFFFFFFFFFFF)
_DEPTH = 64 // BITS_WORTH_A_BLOCK + 1  # of buckets in buckets, at most
_FOUND, _COMPARED = 0, 1


def _compiled(function: F) -> F:
    """Compiled once a machine; once a process where there is no folder to keep the code in."""
    try:
        return cast(F, njit(cache=True, nogil=True)(cast(Any, function)))
    except RuntimeError:
        return cast(F, njit(nogil=True)(cast(Any, function)))


def block_masks(distance: int) -> U64:
    """The bits of each of the distance + 1 blocks; no bit is in two."""
    masks: U64 = _split(_WORD, distance + 1)
    return masks


def near_pairs(bits: I64, table: int, distance: int) -> tuple[I64, I64, I64, int]:
    """All pairs within `distance` bits whose first common block is `table`.

    bits: (n,) distinct hashes, all rows of the buckets that they fall into. Returns the indexes of
    the pairs' rows, their distances, and how many comparisons were made.
    """
    masks = block_masks(distance)
    differ = np.zeros((_DEPTH + 1) * len(masks), np.uint64)
    differ[:table] = masks[:table]
    counts = np.zeros(2, np.int64)
    rows, capacity = np.arange(len(bits)), np.empty((3, 1024), np.int64)
    pairs = _search(
        bits.view(np.uint64).copy(),
        rows,
        0,
        len(bits),
        masks,
        table,
        table + 1,
        differ,
        0,
        capacity,
        counts,
    )
    first, second, apart = pairs[:, : counts[_FOUND]]
    return first, second, apart, int(counts[_COMPARED])


def representatives(first: I64, second: I64, apart: I64) -> tuple[I64, I64, I64]:
    """Who is dropped for whom, given all pairs of near ids.

    first, second: (pairs,) ids; apart: (pairs,) distances. In the order of ids each row is kept
    unless a kept row with a lower id is near; then the nearest of those stands for it, the lowest
    id among equals. So a dropped row is always near its own representative: nothing is chained.
    Returns ids of dropped rows, of their representatives, and the distances.
    """
    ids, index = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = index[: len(first)], index[len(first) :]
    low, high = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((low, apart, high))
    low, high, apart = low[order], high[order], apart[order]
    offsets = np.searchsorted(high, np.arange(len(ids) + 1))
    chosen = _choose(offsets, low, len(ids))
    dropped = np.flatnonzero(chosen >= 0)
    edge = chosen[dropped]
    return ids[dropped], ids[low[edge]], apart[edge]


@_compiled
def _choose(offsets: I64, low: I64, n: int) -> I64:
    """For each node in order the first of its edges to a kept lower node, or −1: it is kept."""
    chosen = np.full(n, -1, np.int64)
    for node in range(n):
        for edge in range(offsets[node], offsets[node + 1]):
            if chosen[low[edge]] < 0:
                chosen[node] = edge
                break
    return chosen


@_compiled
def _ones(word: np.uint64) -> int:
    count = 0
    while word:
        word &= word - np.uint64(1)
        count += 1
    return count


@_compiled
def _split(word: np.uint64, blocks: int) -> U64:
    """The set bits of a word, dealt out to blocks one by one: neighbours are alike in images."""
    masks = np.zeros(blocks, np.uint64)
    seen = 0
    for bit in range(64):
        one = np.uint64(1) << np.uint64(bit)
        if word & one:
            masks[seen % blocks] |= one
            seen += 1
    return masks


@_compiled
def _sort(bits: U64, rows: I64, begin: int, end: int, mask: np.uint64) -> None:
    """Sort rows [begin, end) by some of their bits."""
    order = np.argsort(bits[begin:end] & mask)
    bits[begin:end] = bits[begin:end][order]
    rows[begin:end] = rows[begin:end][order]


@_compiled
def _end_of_bucket(bits: U64, begin: int, end: int, mask: np.uint64) -> int:
    """Where the sorted rows from `begin` on stop being equal in the mask's bits."""
    key, at = bits[begin] & mask, begin + 1
    while at < end and bits[at] & mask == key:
        at += 1
    return at


@_compiled
def _varying(bits: U64, begin: int, end: int) -> np.uint64:
    """The bits that are not the same in all rows [begin, end)."""
    varying = np.uint64(0)
    for row in range(begin + 1, end):
        varying |= bits[row] ^ bits[begin]
    return varying


@_compiled
def _differs(word: np.uint64, differ: U64, n_differ: int) -> bool:
    """Whether a word has a bit in each of the first `n_differ` masks."""
    for place in range(n_differ):  # noqa: SIM110 - numba knows no generators
        if not word & differ[place]:
            return False
    return True


@_compiled
def _compare(
    bits: U64,
    rows: I64,
    begin: int,
    end: int,
    distance: int,
    differ: U64,
    n_differ: int,
    pairs: I64,
    counts: I64,
) -> I64:
    """Compare rows [begin, end) pair by pair; returns `pairs`, or a larger copy of it."""
    for i in range(begin, end):
        for j in range(i + 1, end):
            differing = bits[i] ^ bits[j]
            left, ones = differing, 0
            while left and ones <= distance:
                left &= left - np.uint64(1)
                ones += 1
            if ones <= distance and _differs(differing, differ, n_differ):
                found = counts[_FOUND]
                if found == pairs.shape[1]:
                    larger = np.empty((3, 2 * found), np.int64)
                    larger[:, :found] = pairs
                    pairs = larger
                pairs[0, found], pairs[1, found], pairs[2, found] = rows[i], rows[j], ones
                counts[_FOUND] += 1
    counts[_COMPARED] += (end - begin) * (end - begin - 1) // 2
    return pairs


@_compiled
def _search(
    bits: U64,
    rows: I64,
    begin: int,
    end: int,
    masks: U64,
    block_from: int,
    block_to: int,
    differ: U64,
    n_differ: int,
    pairs: I64,
    counts: I64,
) -> I64:
    """Find the pairs of rows [begin, end) whose first common block is one of those named.

    masks: the blocks. differ: masks in each of which a pair must differ to belong here; those
    before `n_differ` hold for the bucket, and each block adds its own after it. Reorders bits and
    rows within [begin, end). Returns `pairs` (3, capacity), or a larger copy of it.
    """
    blocks = len(masks)
    for block in range(block_from, block_to):
        _sort(bits, rows, begin, end, masks[block])
        unequal = n_differ + block
        at = begin
        while at < end:
            low, at = at, _end_of_bucket(bits, at, end, masks[block])
            varying = _varying(bits, low, at)
            if at - low == 1 or not _differs(varying, differ, unequal):
                continue  # no two rows differ where they must
            if at - low <= SMALL_BUCKET or _ones(varying) < blocks * BITS_WORTH_A_BLOCK:
                pairs = _compare(bits, rows, low, at, blocks - 1, differ, unequal, pairs, counts)
            else:
                inner = _split(varying, blocks)
                pairs = _search(
                    bits, rows, low, at, inner, 0, blocks, differ, unequal, pairs, counts
                )
        differ[unequal] = masks[block]
    return pairs
