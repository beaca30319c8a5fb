"""Sums that are the same, to the last bit, in whatever order they are added up.

Sums of floats depend on the order of their terms in the last digit. How images are partitioned
would show in it, and where EM stands between two answers that digit decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, bin_sum

#: Values are split into a multiple of this and a remainder.
UNIT = 2.0**-20


@dataclass(frozen=True)
class ExactSum:
    """A sum, or an array of sums of any shape. `+` and `-` broadcast as NumPy's do.

    Each value is split into a multiple of 2^-20 and a remainder. Both are added up apart. Sums of
    multiples are exact up to 2^33. Sums of remainders are small: their rounding error, which
    depends on the order, is far below the last digit of the total.
    """

    _multiples: F64
    _remainders: F64

    @classmethod
    def of(cls, values: F64) -> "ExactSum":
        """The sum of values (n, ...) over their first axis, (...)."""
        multiples, remainders = _split(values)
        return cls(multiples.sum(axis=0), remainders.sum(axis=0))

    @classmethod
    def of_bins(cls, bins: NDArray[Any], weights: F64, size: int) -> "ExactSum":
        """The sums of the weights (n,) in each of `size` bins, (size,); bins: (n,) of each."""
        multiples, remainders = _split(weights)
        return cls(bin_sum(bins, multiples, size), bin_sum(bins, remainders, size))

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[float, float]]) -> "ExactSum":
        """The sum of numbers that are given as multiples of `UNIT` and remainders."""
        multiples, remainders = np.array(parts, dtype=np.float64).reshape(-1, 2).sum(axis=0)
        return cls(np.asarray(multiples), np.asarray(remainders))

    @classmethod
    def zeros(cls, *shape: int) -> "ExactSum":
        """Sums of nothing."""
        return cls(np.zeros(shape), np.zeros(shape))

    @classmethod
    def stack(cls, sums: Sequence["ExactSum"]) -> "ExactSum":
        """Sums of equal shape (...) as one array of sums, (n, ...)."""
        return cls(
            np.stack([item._multiples for item in sums]),
            np.stack([item._remainders for item in sums]),
        )

    @classmethod
    def concatenate(cls, sums: Sequence["ExactSum"]) -> "ExactSum":
        """One-dimensional sums, one after the other."""
        return cls(
            np.concatenate([item._multiples for item in sums]),
            np.concatenate([item._remainders for item in sums]),
        )

    def __add__(self, other: "ExactSum") -> "ExactSum":
        return ExactSum(self._multiples + other._multiples, self._remainders + other._remainders)

    def __sub__(self, other: "ExactSum") -> "ExactSum":
        return ExactSum(self._multiples - other._multiples, self._remainders - other._remainders)

    def __getitem__(self, index: Any) -> "ExactSum":
        return ExactSum(self._multiples[index], self._remainders[index])

    def by_bin(self, bins: NDArray[Any], size: int) -> "ExactSum":
        """These sums (n,) added up in each of `size` bins, (size,); bins: (n,) of each."""
        return ExactSum(bin_sum(bins, self._multiples, size), bin_sum(bins, self._remainders, size))

    def total(self) -> F64:
        """The sums as numbers, (...)."""
        return np.asarray(self._multiples + self._remainders)


def _split(values: F64) -> tuple[F64, F64]:
    """The nearest multiples of `UNIT`, and the remainders; both have the shape of `values`."""
    multiples = np.rint(values / UNIT) * UNIT
    return multiples, values - multiples


def count_unit(most_votes: int) -> float:
    """A unit: plain sums of `most_votes` multiples of it, each at most 1, are exact.

    It is 2^-39 for 8,000 votes.
    """
    return float(2.0 ** (int(most_votes).bit_length() - 52))
