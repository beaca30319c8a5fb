"""The table of workers: accuracy, its interval, log-odds against guessing."""

import numpy as np
import pytest
from scipy.stats import beta

from coyo_labeler.em.model import Model
from coyo_labeler.merge.workers import workers_table

#: choices, answers, unsure, compared, agreeing.
TALLY = np.array([[40, 0, 3, 0, 0], [10, 30, 0, 0, 0], [0, 0, 2, 0, 0]])
RIGHT = np.array([30.0, 22.0, 0.0])


def table(model):
    return workers_table(["ann", "bob", "cid"], TALLY, RIGHT, model).to_pylist()


def test_the_interval_is_that_of_the_posterior_beta():
    """Without a pool: a prior of 10 votes, 8 of them right; 5 % and 95 % points by SciPy."""
    rows = table(Model(classes=4, workers=3, pooling_strength=None))
    for row, (plus, minus) in zip(rows, [(38, 12), (30, 20), (8, 2)], strict=True):
        assert row["accuracy"] == pytest.approx(plus / (plus + minus))
        assert row["accuracy_low"] == pytest.approx(beta.ppf(0.05, plus, minus))
        assert row["accuracy_high"] == pytest.approx(beta.ppf(0.95, plus, minus))
    assert [row["n_votes"] for row in rows] == [43, 40, 2]


def test_log_odds_are_held_against_guessing():
    """A guess is right once in four choices, and in half of the answers; bob has both."""
    rows = table(Model(classes=4, workers=3, pooling_strength=None))
    guesses = [1 / 4, (10 / 4 + 30 / 2) / 40, 1 / 2]
    for row, guess, odds in zip(rows, guesses, [38 / 12, 30 / 20, 8 / 2], strict=True):
        expected = np.log(odds) - np.log(guess / (1 - guess))
        assert row["log_odds_vs_random"] == pytest.approx(expected)


def test_the_prior_is_what_the_pool_does():
    """52 of 80 votes that tell are right, with a prior of 10 votes of which 8: (8 + 52) / 90."""
    rows = table(Model(classes=4, workers=3))
    assert rows[2]["accuracy"] == pytest.approx(60 / 90)
    assert rows[0]["accuracy"] == pytest.approx((10 * 60 / 90 + 30) / 50)


def test_perfect_workers_have_no_accuracy():
    rows = table(Model(classes=4, workers=3, worker_model="perfect"))
    assert (
        {row["accuracy"] for row in rows} == {row["log_odds_vs_random"] for row in rows} == {None}
    )
