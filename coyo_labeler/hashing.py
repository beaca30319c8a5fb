"""A hash of numbers that is the same on every machine and in every version of NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt

#: 2^64 divided by the golden ratio, made odd: the step from one state to the next.
_GAMMA = 0x9E3779B97F4A7C15


def splitmix64(seeds: npt.NDArray[np.integer[Any]], steps: int = 1) -> npt.NDArray[np.uint64]:
    """The last number that the generator of each seed yields, in the shape of `seeds`.

    seeds: integers of 64 bits, any shape. steps: how many numbers each generator yields, 1 or more;
    different steps are different hashes.

    Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014; the constants
    are those of Java's SplittableRandom (Stafford's variant 13).
    """
    z = seeds.astype(np.uint64) + np.uint64(_GAMMA * steps % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
