"""The largest values of many long rows."""

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.learn.softmax import F32

I64 = NDArray[np.int64]

#: Rows shorter than this many times k are sorted whole.
_SHORT = 8
#: Blocks of a row per value that is wanted.
_BLOCKS = 4


def top_k(values: F32, k: int) -> tuple[I64, F32]:
    """Columns and values of the k largest of each row, falling; of equals the lower column first.

    values: (n, C). Both are (n, min(k, C)). Of long rows only those values are sorted that are no
    less than the k-th largest of the maxima of blocks: at least k are not.
    """
    n, columns = values.shape
    k = min(k, columns)
    if columns <= _SHORT * k or columns < 64:
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(values, order, axis=1)
    width = columns // (_BLOCKS * k)
    whole = columns // width * width
    # A block is every so many-th column: so the maxima of all blocks are taken side by side.
    maxima = values[:, :whole].reshape(n, width, -1).max(axis=1)
    bound = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, maxima.shape[1] - k]
    row, column = np.nonzero(values >= bound[:, np.newaxis])
    rank = np.arange(len(row)) - np.searchsorted(row, np.arange(n))[row]
    candidate = np.full((n, int(rank.max(initial=0)) + 1), -np.inf, values.dtype)
    candidate[row, rank] = values[row, column]
    columns_of = np.zeros(candidate.shape, np.int64)
    columns_of[row, rank] = column
    order = np.argsort(-candidate, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(columns_of, order, axis=1), np.take_along_axis(
        candidate, order, axis=1
    )
