"""The rows that stand for an image, from ids and hashes alone."""

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


def one_hash_each(ids: I64, bits: I64) -> tuple[I64, I64, I64]:
    """The ids (n,) in any order, each once, with its lowest hash; and those with several hashes."""
    order = np.lexsort((bits, ids))
    ids, bits = ids[order], bits[order]
    first = np.ones(len(ids), bool)
    first[1:] = ids[1:] != ids[:-1]
    differs = ~first
    differs[1:] &= bits[1:] != bits[:-1]
    return ids[first], bits[first], np.unique(ids[differs])


def first_of_each(places: I64, ids: I64) -> I64:
    """Indexes of the row with the lowest id of each place; places and ids: (n,) in any order."""
    order = np.lexsort((ids, places))
    first = np.ones(len(order), bool)
    first[1:] = places[order[1:]] != places[order[:-1]]
    return order[first]
