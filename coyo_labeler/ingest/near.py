"""Pairs of pHashes within a few bits of each other, and the representative of each dropped hash.

The search uses the pigeonhole principle. The 64 bits are cut into d + 1 blocks; two hashes that
differ in at most d bits agree on at least one block. So it is enough to compare within buckets of
equal block values, with one table of buckets per block. A large bucket is searched in the same way,
by the bits that vary within it. No bucket is dropped, however skewed, and only small ones are
compared pair by pair. At every depth a pair belongs to the first block on which it agrees, so it is
found once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from coyo_labeler.compiled import compiled

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

#: Buckets up to this size are compared pair by pair.
SMALL_BUCKET = 64
#: Bits that a block needs for another level to be worth its cost: the level makes buckets 2 ** bits
#: times smaller, but sorts the rows once per block. A bucket with fewer varying bits has few rows.
BITS_WORTH_A_BLOCK = 3

_WORD = np.uint64(0xFFFFFFFFFFFFFFFF)
_PAIRS, _COMPARED = 0, 1


def block_masks(distance: int) -> U64:
    """The disjoint bit masks of the distance + 1 blocks."""
    masks: U64 = _split(_WORD, distance + 1)
    return masks


def near_pairs(bits: I64, table: int, distance: int) -> tuple[I64, I64, I64, int]:
    """All pairs within `distance` bits whose first common block is `table`.

    bits: (n,) distinct hashes: all rows of some buckets of the table. Returns the row indexes of
    both ends of the pairs, their distances, and the number of comparisons.
    """
    masks = block_masks(distance)[np.newaxis]
    everything = Buckets(
        bits.view(np.uint64).copy(),
        np.arange(len(bits)),
        np.array([0, len(bits)]),
        masks,
        np.empty((1, 0), np.uint64),
    )
    pairs: list[I64] = []
    compared = _search(everything, table, pairs)
    first, second, apart = np.concatenate(pairs, axis=1)
    return first, second, apart, compared


@dataclass(frozen=True)
class Buckets:
    """Rows in m buckets, and how to search each of them.

    bits, rows: (n,) hashes and their rows, which a search may reorder within buckets. starts:
    (m + 1,). masks: (m, blocks) the blocks to search by. differ: (m, k) masks; a pair must differ
    in each of them, else it belongs to an earlier block of an enclosing bucket.
    """

    bits: U64
    rows: I64
    starts: I64
    masks: U64
    differ: U64


def _search(buckets: Buckets, block: int, pairs: list[I64]) -> int:
    """Append the pairs whose first common block is `block`; returns the number of comparisons."""
    new_pairs, compared, bits, rows, starts, masks, differ = _search_block(
        buckets.bits, buckets.rows, buckets.starts, buckets.masks, buckets.differ, block
    )
    pairs.append(new_pairs)
    inner = Buckets(bits, rows, starts, masks, differ)
    if len(inner.bits):
        compared += sum(_search(inner, later, pairs) for later in range(inner.masks.shape[1]))
    return int(compared)


def lowest_of_component(low: I64, high: I64) -> tuple[I64, I64]:
    """Connected components: each node that is not the lowest of its component, and the lowest.

    low, high: (edges,) ids of the two ends.
    """
    ids, index = np.unique(np.concatenate([low, high]), return_inverse=True)
    ends = index.reshape(2, -1)
    graph = coo_array((np.ones(len(low), bool), (ends[0], ends[1])), (len(ids), len(ids)))
    _, label = connected_components(graph, directed=False)
    _, lowest = np.unique(label, return_index=True)
    root = ids[lowest[label]]
    is_other = ids != root
    return ids[is_other], root[is_other]


def representatives(first: I64, second: I64, apart: I64) -> tuple[I64, I64, I64]:
    """The dropped ids and their representatives, given all pairs of near ids.

    first, second: (pairs,) ids; apart: (pairs,) distances. In the order of ids, each row is kept
    unless a kept row with a lower id is near. Then the nearest of these represents it, or the one
    with the lowest id among equally near ones. So a dropped row is always near its representative:
    there are no chains. Returns ids of dropped rows, ids of their representatives, and distances.
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


@compiled
def _choose(offsets: I64, low: I64, n: int) -> I64:
    """The first edge of each node to a kept lower node, or −1 where the node itself is kept."""
    chosen = np.full(n, -1, np.int64)
    for node in range(n):
        for edge in range(offsets[node], offsets[node + 1]):
            if chosen[low[edge]] < 0:
                chosen[node] = edge
                break
    return chosen


@compiled
def _count_bits(word: np.uint64) -> int:
    count = 0
    while word:
        word &= word - np.uint64(1)
        count += 1
    return count


@compiled
def _split(word: np.uint64, blocks: int) -> U64:
    """Masks of the blocks, which take the set bits of a word in turns.

    Neighbouring bits of an image's hash are correlated, so they go to different blocks.
    """
    masks = np.zeros(blocks, np.uint64)
    seen = 0
    for bit in range(64):
        mask = np.uint64(1) << np.uint64(bit)
        if word & mask:
            masks[seen % blocks] |= mask
            seen += 1
    return masks


@compiled
def _sort(bits: U64, rows: I64, begin: int, end: int, mask: np.uint64) -> None:
    """Sort rows [begin, end) by some of their bits."""
    order = np.argsort(bits[begin:end] & mask)
    bits[begin:end] = bits[begin:end][order]
    rows[begin:end] = rows[begin:end][order]


@compiled
def _end_of_bucket(bits: U64, begin: int, end: int, mask: np.uint64) -> int:
    """The end of the run of rows, sorted by the mask's bits, that begins at `begin`."""
    key, row = bits[begin] & mask, begin + 1
    while row < end and bits[row] & mask == key:
        row += 1
    return row


@compiled
def _varying(bits: U64, begin: int, end: int) -> np.uint64:
    """The bits that are not the same in all rows [begin, end)."""
    varying = np.uint64(0)
    for row in range(begin + 1, end):
        varying |= bits[row] ^ bits[begin]
    return varying


@compiled
def _differs(word: np.uint64, differ: U64) -> bool:
    """Whether a word has a set bit in every mask."""
    for mask in differ:  # noqa: SIM110 - numba knows no generators
        if not word & mask:
            return False
    return True


@compiled
def _compare(
    bits: U64,
    rows: I64,
    begin: int,
    end: int,
    distance: int,
    differ: U64,
    pairs: I64,
    counts: I64,
) -> I64:
    """Compare rows [begin, end) pair by pair; returns `pairs`, or a larger copy of it."""
    for i in range(begin, end):
        for j in range(i + 1, end):
            differing = bits[i] ^ bits[j]
            left, apart = differing, 0
            while left and apart <= distance:
                left &= left - np.uint64(1)
                apart += 1
            if apart <= distance and _differs(differing, differ):
                n = counts[_PAIRS]
                if n == pairs.shape[1]:
                    larger = np.empty((3, 2 * n), np.int64)
                    larger[:, :n] = pairs
                    pairs = larger
                pairs[0, n], pairs[1, n], pairs[2, n] = rows[i], rows[j], apart
                counts[_PAIRS] += 1
    counts[_COMPARED] += (end - begin) * (end - begin - 1) // 2
    return pairs


@compiled
def _search_block(
    bits: U64, rows: I64, starts: I64, masks: U64, differ: U64, block: int
) -> tuple[I64, int, U64, I64, I64, U64, U64]:
    """Sort every bucket by one of its blocks, and compare the rows that are equal in it.

    The arguments are the fields of `Buckets`. Returns pairs (3, n) of rows with their
    distance, the number of comparisons, and the fields of the buckets of equal rows that are too
    large to compare.
    """
    blocks, larger = masks.shape[1], 0
    most = len(bits) // SMALL_BUCKET + 1
    large_bits, large_rows = np.empty_like(bits), np.empty_like(rows)
    large_starts = np.zeros(most + 1, np.int64)
    large_masks = np.empty((most, blocks), np.uint64)
    large_differ = np.empty((most, differ.shape[1] + block), np.uint64)
    pairs, counts = np.empty((3, 1024), np.int64), np.zeros(2, np.int64)
    for bucket in range(len(starts) - 1):
        high, end, mask = starts[bucket], starts[bucket + 1], masks[bucket, block]
        must = np.concatenate((differ[bucket], masks[bucket, :block]))
        _sort(bits, rows, high, end, mask)
        while high < end:
            low, high = high, _end_of_bucket(bits, high, end, mask)
            varying = _varying(bits, low, high)
            if high - low == 1 or not _differs(varying, must):
                continue  # no two rows differ in all masks where they must
            if high - low <= SMALL_BUCKET or _count_bits(varying) < blocks * BITS_WORTH_A_BLOCK:
                pairs = _compare(bits, rows, low, high, blocks - 1, must, pairs, counts)
                continue
            begin = large_starts[larger]
            large_starts[larger + 1] = begin + high - low
            large_bits[begin : begin + high - low] = bits[low:high]
            large_rows[begin : begin + high - low] = rows[low:high]
            large_masks[larger] = _split(varying, blocks)
            large_differ[larger] = must
            larger += 1
    used = large_starts[larger]
    return (
        pairs[:, : counts[_PAIRS]],
        counts[_COMPARED],
        large_bits[:used],
        large_rows[:used],
        large_starts[: larger + 1],
        large_masks[:larger],
        large_differ[:larger],
    )
