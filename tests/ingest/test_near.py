"""Pairs of near hashes, and the representatives of those that are dropped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.ingest.near import block_masks, near_pairs, representatives

Pairs = set[tuple[int, int, int]]


def clustered(rng: np.random.Generator, n: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Hashes a few bits away from 20 centres: crowded buckets at every depth."""
    flips = rng.integers(0, 2**63 - 1, (5, n))
    centres = rng.integers(-(2**63), 2**63 - 1, 20)
    return np.unique(centres[rng.integers(0, 20, n)] ^ np.bitwise_and.reduce(flips))


def by_buckets(
    bits: "np.ndarray[tuple[int], np.dtype[np.int64]]", distance: int
) -> list[tuple[int, int, int]]:
    pairs: list[tuple[int, int, int]] = []
    for table in range(distance + 1):
        first, second, apart, _ = near_pairs(bits, table, distance)
        pairs += zip(
            np.minimum(first, second).tolist(),
            np.maximum(first, second).tolist(),
            apart.tolist(),
            strict=True,
        )
    return pairs


def by_brute_force(bits: "np.ndarray[tuple[int], np.dtype[np.int64]]", distance: int) -> Pairs:
    pairs = set()
    for i, first in enumerate(bits.tolist()):
        for j, other in enumerate(bits.tolist()[i + 1 :], i + 1):
            apart = ((first ^ other) & (2**64 - 1)).bit_count()
            if apart <= distance:
                pairs.add((i, j, apart))
    return pairs


def test_the_blocks_share_no_bit_and_leave_none_out() -> None:
    for distance in (2, 4):
        masks = [int(mask) for mask in block_masks(distance)]
        assert len(masks) == distance + 1
        assert sum(masks) == 2**64 - 1


@pytest.mark.parametrize("distance", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_every_near_pair_is_found_once_in_crowded_buckets(distance: int, seed: int) -> None:
    bits = clustered(np.random.default_rng(seed), 900)
    pairs = by_buckets(bits, distance)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == by_brute_force(bits, distance)
    assert pairs


def test_comparisons_stay_far_below_all_pairs_when_all_hashes_share_a_bucket() -> None:
    """40 of 64 bits are the same in all rows, so one table's bucket holds every row."""
    rng = np.random.default_rng(0)
    free = int(block_masks(4)[1] | block_masks(4)[2])
    bits = np.unique(rng.integers(-(2**63), 2**63 - 1, 20_000) & np.int64(free))
    compared = sum(near_pairs(bits, table, 4)[3] for table in range(5))
    assert compared < len(bits) * (len(bits) - 1) / 2 / 10


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from([2, 4]))))
def test_representatives_equal_the_rule_read_aloud(pairs: list[tuple[int, int, int]]) -> None:
    edges = {(min(a, b), max(a, b)): apart for a, b, apart in pairs if a != b}
    if not edges:
        return
    expected: dict[int, tuple[int, int]] = {}
    nodes = sorted({node for edge in edges for node in edge})
    for node in nodes:
        lower = [(apart, a) for (a, b), apart in edges.items() if b == node and a not in expected]
        if lower:
            apart, chosen = min(lower)
            expected[node] = (chosen, apart)
    low, high = np.array(list(edges)).T
    ids, near_of, apart_found = representatives(low, high, np.array(list(edges.values())))
    rows = zip(ids.tolist(), near_of.tolist(), apart_found.tolist(), strict=True)
    assert {a: (b, c) for a, b, c in rows} == expected


def test_a_chain_does_not_drag_its_far_end_along() -> None:
    """1 and 3 are each near 2, but not near each other: 3 stays."""
    ids, near_of, _ = representatives(np.array([1, 2]), np.array([2, 3]), np.array([4, 4]))
    assert (ids.tolist(), near_of.tolist()) == ([2], [1])
