"""Sums are the same in any order, and right to the last digit."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coyo_labeler.em.exact_sum import ExactSum, count_unit

numbers = st.lists(st.floats(-1e6, 1e6), max_size=50)


@given(numbers, st.randoms())
def test_an_exact_sum_is_the_same_in_any_order(values, random):
    turned = list(values)
    random.shuffle(turned)
    cut = random.randint(0, len(turned))
    parts = ExactSum.of(np.array(turned[:cut])) + ExactSum.of(np.array(turned[cut:]))
    assert parts.total() == ExactSum.of(np.array(values)).total()


@given(numbers)
def test_an_exact_sum_is_right_to_the_last_digit(values):
    total = float(ExactSum.of(np.array(values)).total())
    assert total == pytest.approx(math.fsum(values), rel=2.0**-52, abs=1e-18)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), max_size=50), st.randoms())
def test_bins_are_the_same_in_any_order_and_partition(rows, random):
    def of_bins(rows):
        bins = np.array([bin_ for bin_, _ in rows], np.int64)
        return ExactSum.of_bins(bins, np.array([value for _, value in rows]), 5)

    turned = list(rows)
    random.shuffle(turned)
    cut = random.randint(0, len(turned))
    parts = of_bins(turned[:cut]) + of_bins(turned[cut:])
    assert parts.total().tolist() == of_bins(rows).total().tolist()
    expected = [math.fsum(value for bin_, value in rows if bin_ == k) for k in range(5)]
    assert parts.total().tolist() == pytest.approx(expected, rel=2.0**-52, abs=1e-18)


@given(st.floats(-1e9, 1e9))
def test_one_number_is_itself(value):
    assert ExactSum.of(np.array([value])).total() == value


def test_a_difference_is_that_of_the_sums_and_not_of_their_rounded_totals():
    """1e9 and 2^-24 do not fit into one float64 with all digits; their sum is not rounded yet."""
    large, small = ExactSum.of(np.array([1e9])), ExactSum.of(np.array([2.0**-24]))
    assert ((large + small) - large).total() == 2.0**-24
    assert (1e9 + 2.0**-24) - 1e9 != 2.0**-24


def test_sums_are_indexed_stacked_and_added_by_bin_as_arrays_are():
    sums = ExactSum.of(np.array([[1.5, 0.25, 3.0], [1.0, 1.0, 1.0]]))
    assert sums.total().tolist() == [2.5, 1.25, 4.0]
    assert sums[np.array([2, 0])].total().tolist() == [4.0, 2.5]
    assert ExactSum.stack([sums[0], sums[2]]).total().tolist() == [2.5, 4.0]
    both = ExactSum.concatenate([sums, ExactSum.zeros(1)])
    assert both.by_bin(np.array([0, 1, 0, 2]), 4).total().tolist() == [6.5, 1.25, 0.0, 0.0]
    assert (ExactSum.of(np.array([1.0])) - sums).total().tolist() == [-1.5, -0.25, -3.0]


def test_a_pickled_sum_takes_two_numbers_each():
    sums = ExactSum.zeros(10_000)
    assert len(pickle.dumps(sums)) < 2 * 8 * 10_000 + 500


@given(st.lists(st.floats(0, 1), min_size=1, max_size=2000))
def test_as_many_weights_as_a_unit_is_for_add_up_exactly(weights):
    unit = count_unit(len(weights))
    rounded = np.rint(np.array(weights) / unit) * unit
    assert np.abs(rounded - weights).max() <= unit / 2 < 1e-12
    assert sum(rounded) == sum(rounded[::-1]) == unit * sum(int(w / unit) for w in rounded)
