"""The Bloom filter of voted images: it never misses one, and its size follows the images alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coyo_labeler.merge.voted_filter import VotedFilter


@given(hnp.arrays(np.int64, st.integers(0, 50)), st.integers(0, 100))
def test_an_image_that_was_added_passes(images: np.ndarray, expected: int) -> None:
    voted = VotedFilter.empty(expected)
    voted.add(images)

    assert voted.may_have(images).all()


def test_an_image_in_a_thousand_is_a_false_positive() -> None:
    voted = VotedFilter.empty(100_000)
    voted.add(np.arange(100_000))

    assert voted.may_have(np.arange(100_000, 1_100_000)).mean() < 0.005


def test_it_stays_small_however_many_images() -> None:
    assert VotedFilter.empty(10**9).bits.nbytes == 2**27
