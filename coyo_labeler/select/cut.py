"""The exact cut in a long, scattered row of keys: radix selection by histograms.

No keys are sorted or moved. One pass counts the keys by their first bits; a second one those in the
bin of the cut by the next bits, and so on. Only counts are added up and reach the driver.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.segments import I64
from coyo_labeler.select.hashes import U64

#: Bits that each pass looks at, for keys of 33 and of 64 bits.
SCORE_DIGITS, HASH_DIGITS = (17, 16), (16, 16, 16, 16)


@dataclass(frozen=True)
class Digit:
    """What a pass counts: keys whose bits from `shift + width` on are `prefix`.

    They are counted by the `width` bits above `shift`.
    """

    prefix: int
    shift: int
    width: int


@dataclass(frozen=True)
class Bin:
    """Keys that agree in their first bits.

    low, high: the range of such keys, inclusive. below: how many keys are smaller. inside: how many
    lie in it. total: how many keys there are in all.
    """

    low: int
    high: int
    below: int
    inside: int
    total: int = 0


#: No key at all.
NOTHING = Bin(0, -1, 0, 0)


def count_digit(keys: U64, digit: Digit) -> I64:
    """How many keys (n,) fall into each of the 2^width bins of a digit."""
    shifted = keys >> np.uint64(digit.shift)
    above = digit.shift + digit.width
    if above < 64:
        shifted = shifted[keys >> np.uint64(above) == np.uint64(digit.prefix)]
    mask = np.uint64((1 << digit.width) - 1)
    counts = np.bincount((shifted & mask).astype(np.int64), minlength=1 << digit.width)
    return counts.astype(np.int64, copy=False)


def find_bin(
    count: Callable[[Digit], I64], nth: int, widths: Sequence[int], exact: bool = False
) -> Bin:
    """The bin of the nth smallest key, counted from 1; `NOTHING` for nth = 0.

    count: the sum of `count_digit` over all keys. widths: bits of each pass, together those of a
    key. exact: go on until the bin holds one value. Otherwise it is enough that the bin ends with
    the nth key, so that the keys up to `high` are the nth smallest.
    """
    if nth < 1:
        return NOTHING
    shift, prefix, below, total = sum(widths), 0, 0, 0
    for width in widths:
        shift -= width
        counts = count(Digit(prefix, shift, width))
        ends = np.cumsum(counts)
        total = total or int(ends[-1])
        number = int(np.searchsorted(ends, nth - below))
        if number == len(ends):
            raise ValueError(f"there are fewer than {nth} keys")
        inside = int(counts[number])
        below += int(ends[number]) - inside
        prefix = (prefix << width) | number
        if not exact and below + inside == nth:
            break
    low = prefix << shift
    return Bin(low, low + (1 << shift) - 1, below, inside, total)
