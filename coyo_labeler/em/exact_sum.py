"""Sums that come out the same, to the last bit, in whatever order they are added up.

Images are partitioned differently from run to run. Sums of floats depend on the order of their
terms in the last digit, and where EM stands between two answers that digit decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, bin_sum

#: Values are cut into a multiple of this and a remainder.
_UNIT = 2.0**-20


@dataclass(frozen=True)
class ExactSum:
    """A sum, or an array of sums, of any shape. `+` and `-` broadcast as NumPy's do.

    Each value is cut in two, a multiple of 2^-20 and a remainder, and these are added up apart.
    Sums of multiples are exact up to 2^33. Sums of remainders are so small that their rounding is
    far below the last digit of the total. The order of remainders therefore does not show.
    """

    _multiples: F64
    _remainders: F64

    @classmethod
    def of(cls, values: F64) -> "ExactSum":
        """The sum of values (n, ...) over their first axis, (...)."""
        multiples, remainders = _cut(values)
        return cls(multiples.sum(axis=0), remainders.sum(axis=0))

    @classmethod
    def of_bins(cls, bins: NDArray[Any], weights: F64, size: int) -> "ExactSum":
        """The sums of the weights (n,) in each of `size` bins, (size,); bins: (n,) of each."""
        multiples, remainders = _cut(weights)
        return cls(bin_sum(bins, multiples, size), bin_sum(bins, remainders, size))

    @classmethod
    def zeros(cls, *shape: int) -> "ExactSum":
        """Sums of nothing."""
        return cls(np.zeros(shape), np.zeros(shape))

    @classmethod
    def stack(cls, sums: Sequence["ExactSum"]) -> "ExactSum":
        """Sums of equal shape (...) as one array of sums, (n, ...)."""
        return cls(
            np.stack([one._multiples for one in sums]), np.stack([one._remainders for one in sums])
        )

    @classmethod
    def concatenate(cls, sums: Sequence["ExactSum"]) -> "ExactSum":
        """One-dimensional sums, one after the other."""
        return cls(
            np.concatenate([one._multiples for one in sums]),
            np.concatenate([one._remainders for one in sums]),
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


def _cut(values: F64) -> tuple[F64, F64]:
    """Multiples of `_UNIT`, and what is left; both as `values`."""
    multiples = np.rint(values / _UNIT) * _UNIT
    return multiples, values - multiples


def count_unit(most_votes: int) -> float:
    """The unit of which weights of votes are made multiples, so that plain sums of them are exact.

    `most_votes` weights of at most 1 add up exactly in any order: the unit is 2^-39 for 8,000.
    """
    return float(2.0 ** (int(most_votes).bit_length() - 52))
