"""The row that represents each image, from ids and hashes alone.

Only one key is sorted: finding the lowest value of each run of equal keys takes one pass, which
costs far less than sorting by a second key.
"""

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


def one_hash_each(ids: I64, bits: I64) -> tuple[I64, I64, I64]:
    """Distinct ids, the lowest hash of each, and the ids with several hashes.

    ids, bits: (n,) in any order.
    """
    order = np.argsort(ids)
    ids, bits = ids[order], bits[order]
    starts = _starts(ids)
    lowest, highest = _lowest(bits, starts), np.maximum.reduceat(bits, starts)
    ids = ids[starts]
    return ids, lowest, ids[lowest != highest]


def first_of_each(positions: I64, ids: I64) -> I64:
    """The index of the row with the lowest id at each position.

    positions, ids: (n,) in any order; ids are distinct.
    """
    order = np.argsort(positions)
    starts = _starts(positions[order])
    ids = ids[order]
    sizes = np.diff(starts, append=len(ids))
    first: I64 = order[ids == np.repeat(_lowest(ids, starts), sizes)]
    return first


def _starts(ordered: I64) -> I64:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))


def _lowest(values: I64, starts: I64) -> I64:
    lowest: I64 = np.minimum.reduceat(values, starts)
    return lowest
