"""Operations on segments of flat arrays.

Segments are given by offsets (n + 1,): segment i owns [offsets[i], offsets[i + 1]), never empty.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

#: Key spaces up to this size are counted in a table of flags instead of sorted.
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
    """Where each segment has its greatest value, (n,); the first of equals."""
    best = spread(segment_max(values, offsets), offsets)
    hits = np.flatnonzero(values == best)
    segment = np.searchsorted(offsets, hits, side="right") - 1
    first = np.ones(len(hits), dtype=bool)
    first[1:] = segment[1:] != segment[:-1]
    return hits[first]


def bin_sum(places: NDArray[Any], weights: NDArray[Any], bins: int) -> F64:
    """The sum of the weights that fall on each of `bins` places; in the order of the arrays."""
    return np.bincount(places, weights, bins).astype(np.float64, copy=False)


def distinct(values: I64) -> I64:
    """The distinct values in order; sorted already is found out, and saves the sort."""
    if len(values) == 0:
        return values
    ordered = values if (values[1:] >= values[:-1]).all() else np.sort(values)
    kept = np.ones(len(ordered), dtype=bool)
    kept[1:] = ordered[1:] != ordered[:-1]
    return ordered[kept]


def falling_order(segment: I64, values: NDArray[np.float32]) -> I64:
    """The order by segment, then value descending, equals as they come; both (n,).

    segment: sorted, below 2^32. values: not negative.
    """
    # The bits of floats that are not negative are ordered as the floats are.
    bits = ~np.ascontiguousarray(values).view(np.uint32)
    return np.argsort((segment.astype(np.uint64) << np.uint64(32)) | bits, kind="stable")


def unique_inverse(keys: I64, key_space: int) -> tuple[I64, I32]:
    """The distinct keys in order, and for each key its place among them.

    keys: (n,), each in [0, key_space).
    """
    if key_space <= min(_DENSE_KEYS, 16 * len(keys) + 1024):
        seen = np.zeros(key_space, dtype=bool)
        seen[keys] = True
        place = np.cumsum(seen, dtype=np.int32) - 1
        return np.flatnonzero(seen), place[keys].astype(np.int32)
    unique, inverse = np.unique(keys, return_inverse=True)
    return unique, inverse.astype(np.int32)


def find(keys: I64, wanted: NDArray[Any]) -> tuple[I64, Bool]:
    """For each wanted key its place among the sorted, distinct `keys`, and whether it is there."""
    if len(keys) == 0:
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted
