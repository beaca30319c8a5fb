"""The rows that stand for an image, from ids and hashes alone.

One key is sorted, not two: the lowest value of each run of equal keys takes a pass, which costs far
less than to sort by it.
"""

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


def one_hash_each(ids: I64, bits: I64) -> tuple[I64, I64, I64]:
    """The ids (n,) in any order, each once, with its lowest hash; and those with several hashes."""
    order = np.argsort(ids)
    ids, bits = ids[order], bits[order]
    starts = _starts(ids)
    lowest, highest = _lowest(bits, starts), np.maximum.reduceat(bits, starts)
    ids = ids[starts]
    return ids, lowest, ids[lowest != highest]


def first_of_each(places: I64, ids: I64) -> I64:
    """Indexes of the row with the lowest id of each place; places and ids: (n,) in any order.

    No id comes twice.
    """
    order = np.argsort(places)
    starts = _starts(places[order])
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
