"""The largest values of many long rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.learn.softmax import F32

I64 = NDArray[np.int64]

#: Rows shorter than this many times k are sorted whole.
_SHORT = 4


def top_k(values: F32, k: int) -> tuple[I64, F32]:
    """Columns and values of the k largest of each row, falling; of equals the lower column first.

    values: (n, C), finite. Both are (n, min(k, C)). Of long rows only those values are sorted that
    are no less than the k-th largest, which a partition finds.
    """
    n, columns = values.shape
    k = min(k, columns)
    if columns <= _SHORT * k:
        return _sorted(values, np.arange(columns), k)
    bound = np.partition(values, columns - k, axis=1)[:, columns - k]
    flat = np.flatnonzero(values >= bound[:, np.newaxis])
    if len(flat) == n * k:
        column = (flat % columns).reshape(n, k)
        return _sorted(values.ravel()[flat].reshape(n, k), column, k)
    row, column = np.divmod(flat, columns)  # equals of a k-th value: some rows have more
    rank = np.arange(len(row)) - np.searchsorted(row, np.arange(n))[row]
    width = int(rank.max(initial=0)) + 1
    candidate = np.full((n, width), -np.inf, np.float32)
    candidate[row, rank] = values[row, column]
    column_of = np.full((n, width), columns, np.int64)
    column_of[row, rank] = column
    return _sorted(candidate, column_of, k)


def _sorted(candidate: F32, column: I64, k: int) -> tuple[I64, F32]:
    """The first k of candidates (n, m), whose columns are (m,) or (n, m).

    Value and column become one integer, so that one sort of integers does it.
    """
    order = _ordered_bits(np.float32(0) - candidate).astype(np.int64)
    order <<= 32
    order |= column
    order.sort(axis=1)
    best = order[:, :k]
    value = _ordered_bits((best >> 32).astype(np.int32)).view(np.float32)
    return best & 0xFFFFFFFF, np.float32(0) - value


def _ordered_bits(values: NDArray[Any]) -> NDArray[np.int32]:
    """Floats as integers in the same order, and such integers as the bits of their floats."""
    bits = values.view(np.int32)
    below_sign = bits >> 31
    below_sign &= 0x7FFFFFFF
    return np.asarray(bits ^ below_sign)
