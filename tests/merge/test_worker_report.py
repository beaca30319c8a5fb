"""Who guesses, who misleads, and how far workers agree."""

import krippendorff
import numpy as np
import pyarrow as pa
import pytest

from coyo_labeler.em.inputs import Gold, SetVotes
from coyo_labeler.em.model import Model
from coyo_labeler.em.responses import Response
from coyo_labeler.em.tallies import gather_tallies
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.merge.worker_report import (
    agreement_alpha,
    confused_pairs,
    judge_workers,
    nominal_alpha,
    worker_report,
)
from tests.em.in_memory import NO_BELIEFS, NO_GOLD, beliefs_of, votes_of

YES, NO, UNSURE = int(Response.YES), int(Response.NO), int(Response.UNSURE)


def tally(choices, answers=0):
    return np.array([[choices, answers, 0, 0, 0]])


@pytest.mark.parametrize(
    ("classes", "choices", "answers", "right", "kind"),
    [
        (10, 100, 0, 80, "worker"),
        (10, 100, 0, 11, "spammer"),  # no better than guessing
        (2, 200, 0, 104, "spammer"),
        (2, 100, 0, 20, "adversary"),  # surely worse than guessing
        (21_841, 50, 0, 0, "spammer"),
        (21_841, 0, 100, 15, "adversary"),  # answers: guessing is right in half of them
        (10, 9, 0, 0, "new"),
    ],
)
def test_workers_are_judged_by_their_own_votes(classes, choices, answers, right, kind):
    model = Model(classes=classes, workers=1)
    (judged,) = judge_workers(["ann"], tally(choices, answers), np.array([float(right)]), model)
    assert judged["kind"] == kind


def test_workers_taken_to_be_perfect_are_not_judged():
    """There are no expected right votes of theirs to judge them by."""
    model = Model(classes=21_841, workers=1, worker_model="perfect")
    (judged,) = judge_workers(["ann"], tally(100), np.array([0.0]), model)
    assert (judged["kind"], judged["skill_at_most"], judged["n_votes"]) == ("unjudged", None, 100)
    report = worker_report([judged], [], np.zeros((0, 3), np.int64))
    assert report["spammers"] == report["adversaries"] == []


def test_agreement_with_the_machine_counts_what_can_agree_or_not():
    votes = votes_of(
        [
            (1, 0, 2),  # agrees with the machine's first class
            (1, 0, 2, NO),  # does not
            (1, 0, 4, NO),  # says nothing of it
            (2, 0, 0),  # does not agree
            (2, 0, 1, UNSURE),
            (3, 0, 1),  # no belief
        ]
    )
    beliefs = beliefs_of({1: {2: 0.7, 4: 0.2}, 2: {1: 0.6}, 5: {0: 0.9}})
    evidence = gather_tallies(votes, SetVotes.none(), beliefs, NO_GOLD, 1, 1.0)
    assert evidence.tally.tolist() == [[3, 2, 1, 3, 1]]


def test_votes_on_gold_are_right_where_they_name_or_deny_rightly():
    votes = votes_of([(1, 0, 2), (1, 1, 3), (1, 0, 2, NO), (1, 0, 3, NO), (9, 0, 2)])
    gold = Gold(np.array([1]), np.array([2], np.int32))
    assert gather_tallies(votes, SetVotes.none(), NO_BELIEFS, gold, 2, 1.0).gold.tolist() == [2, 4]


@pytest.mark.parametrize("values", [3, 60])
def test_alpha_is_the_librarys_whatever_the_number_of_values(values):
    random = np.random.default_rng(0)
    unit = np.repeat(np.arange(40), 4)
    value = np.where(random.random(160) < 0.6, unit % values, random.integers(0, values, 160))
    counts = np.zeros((40, values), np.int64)
    np.add.at(counts, (unit, value), 1)
    expected = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    assert nominal_alpha(unit, value) == pytest.approx(expected, abs=1e-12)


def test_alpha_of_the_librarys_own_example():
    """Krippendorff, Computing Krippendorff's Alpha-Reliability: 0.691 for nominal data."""
    ratings = [
        "..... 34121133.3".replace(" ", ""),
        "1.21334 3......".replace(" ", ""),
        "..213 44.21133.4".replace(" ", ""),
    ]
    rows = [(u, int(v)) for line in ratings for u, v in enumerate(line) if v != "."]
    unit, value = np.array(rows).T
    assert nominal_alpha(unit, value) == pytest.approx(0.691358, abs=1e-6)


def test_alpha_of_questions_and_of_choices_are_told_apart():
    rows = [(1, 5, 0), (1, 5, 0), (2, 6, 0), (2, 6, 0), (1, 5, YES), (1, 5, NO), (1, 6, YES)]
    alpha = agreement_alpha(np.array(rows, dtype=np.int64))
    assert alpha["choices"] == 1.0
    assert alpha["verifications"] < 0.5
    assert agreement_alpha(np.zeros((0, 3), np.int64))["choices"] is None


def test_confused_pairs_are_named_and_the_most_frequent_come_first():
    table = pa.table(
        {
            "true_label": pa.array([0, 0, 1, 0], pa.int32()),
            "voted_label": pa.array([1, 0, 2, 1], pa.int32()),
            "count": [1.5, 9.0, 2.0, 1.0],
        }
    )
    pairs = confused_pairs(table, LabelSpace("x", 3, ("cat", "dog", "owl")))
    named = [(pair["true_name"], pair["voted_name"], pair["votes"]) for pair in pairs]
    assert named == [("cat", "dog", 2.5), ("dog", "owl", 2.0)]
