"""Operations on segments of flat arrays.

Segments are given by offsets (n + 1,): segment i owns [offsets[i], offsets[i + 1]), never empty.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]
Bool = NDArray[np.bool_]

#: Keys from spaces up to this size are marked in a table of flags instead of sorted.
_DENSE_KEYS = 1 << 26


def offsets_of(lengths: NDArray[Any]) -> I64:
    """Offsets (n + 1,) of segments of the given lengths (n,)."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def spread(values: NDArray[Any], offsets: I64) -> NDArray[Any]:
    """One value per segment (n,), repeated for each element of its segment."""
    return np.repeat(values, np.diff(offsets))


def segment_sum(values: F64, offsets: I64) -> F64:
    """The sum of each segment, (n,)."""
    if len(offsets) == 1:
        return np.zeros(0)
    return np.add.reduceat(values, offsets[:-1])


def segment_max(values: F64, offsets: I64) -> F64:
    """The greatest value of each segment, (n,)."""
    if len(offsets) == 1:
        return np.zeros(0)
    return np.maximum.reduceat(values, offsets[:-1])


def segment_argmax(values: F64, offsets: I64) -> I64:
    """The index of the greatest value of each segment, (n,); the first of equals."""
    best = spread(segment_max(values, offsets), offsets)
    hits = np.flatnonzero(values == best)
    segment = np.searchsorted(offsets, hits, side="right") - 1
    first = np.ones(len(hits), dtype=bool)
    first[1:] = segment[1:] != segment[:-1]
    return hits[first]


def bin_sum(bins: NDArray[Any], weights: NDArray[Any], size: int) -> F64:
    """The sum of the weights (n,) in each of `size` bins, in their order; bins: (n,) of each."""
    return np.bincount(bins, weights, size).astype(np.float64, copy=False)


def distinct(values: I64) -> I64:
    """The distinct values in order; faster than `np.unique` where they are sorted already."""
    if len(values) == 0:
        return values
    ordered = values if (values[1:] >= values[:-1]).all() else np.sort(values)
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def falling_order(segment: I64, values: NDArray[np.float32]) -> I64:
    """Indices that sort by segment, then by value descending, stably, (n,).

    segment: (n,) below 2^32. values: (n,) not negative.
    """
    # The bits of floats that are not negative have the order of the floats.
    bits = ~np.ascontiguousarray(values).view(np.uint32)
    return np.argsort((segment.astype(np.uint64) << np.uint64(32)) | bits, kind="stable")


def unique_inverse(keys: I64, key_space: int) -> tuple[I64, I32]:
    """The distinct keys in order, and the index of each key among them, (n,).

    keys: (n,), each in [0, key_space).
    """
    if key_space <= min(_DENSE_KEYS, 16 * len(keys) + 1024):
        seen = np.zeros(key_space, dtype=bool)
        seen[keys] = True
        index = np.cumsum(seen, dtype=np.int32) - 1
        return np.flatnonzero(seen), index[keys].astype(np.int32)
    unique, inverse = np.unique(keys, return_inverse=True)
    return unique, inverse.astype(np.int32)


def find(keys: I64, wanted: NDArray[Any]) -> tuple[I64, Bool]:
    """The index of each wanted key among the sorted, distinct `keys`, and whether it is there.

    Both are (wanted,); the index of a key that is not there is any valid one.
    """
    if len(keys) == 0:
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return index, keys[index] == wanted
