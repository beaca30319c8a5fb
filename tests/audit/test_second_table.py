"""A table that questions were not made from: they say much about which of its labels are right."""

from dataclasses import replace

import numpy as np
import pytest

from coyo_labeler.audit import Answer, Answers, Lists, Population, estimate
from coyo_labeler.audit.states import _offered
from tests.audit.crowds import Crowd, simulate

CROWD = Crowd(
    images=800, classes=30, accuracy=0.85, workers=5, skill=(0.65, 0.85), audit=200, candidates=10
)


def second_table(seed):
    """Labels of another origin about the same images, their probabilities far too low; answers
    about ten candidates of the first table; and the share that is right, about 60 %.
    """
    audit = simulate(CROWD, seed, merge=False)
    random = np.random.default_rng(seed)
    n, c = CROWD.images, CROWD.classes
    right = random.random(n) < 0.6
    wrong = (audit.truth + random.integers(1, c, n)) % c
    label = np.where(right, audit.truth, wrong).astype(np.int32)
    p = np.clip(0.12 + 0.05 * right + 0.03 * random.standard_normal(n), 0.05, 0.4)
    asked = audit.asked
    unasked = np.ones(n, dtype=bool)
    unasked[asked] = False
    judged = replace(
        audit.machine,
        label=label[asked],
        base=label[asked],
        probability=p[asked],
        believed=Lists(np.arange(len(asked) + 1), label[asked], p[asked]),
    )
    people = Population(n, len(asked), float(p[unasked].mean()))
    return judged, audit.answers, people, right.mean()


@pytest.mark.parametrize("seed", [0, 1])
def test_labels_that_say_little_are_not_taken_for_wrong(seed):
    judged, answers, people, accuracy = second_table(seed)
    found = estimate(judged, answers, people, CROWD.classes, CROWD.workers, draws=100)
    assert found.accuracy == pytest.approx(accuracy, abs=0.1)
    assert found.high - found.low < 0.25


def test_the_first_question_about_an_image_says_what_was_offered():
    """Image 0: a verification of its label; 1: of another class; 2: a choice with its label second,
    asked again with it first; 3: a choice among other classes; 4: a set with its label first; 5: a
    choice among all classes.
    """
    judged = replace(
        simulate(Crowd(images=6, audit=6, workers=2), 0, merge=False).machine,
        base=np.array([7, 7, 7, 7, 7, 7], np.int32),
    )
    answers = Answers(
        image=np.array([0, 1, 2, 2, 3, 4, 5]),
        worker=np.zeros(7, np.int32),
        answer=np.array([Answer.NO, Answer.YES, 0, 0, Answer.NONE, Answer.YES, 0], np.int8),
        label=np.array([7, 3, 7, 7, -1, -1, 7], np.int32),
        offered=Lists(
            np.array([0, 0, 0, 2, 4, 6, 8, 8]), np.array([1, 7, 7, 1, 1, 2, 7, 8], np.int32)
        ),
    )
    offered, first = _offered(judged, answers, 10)
    assert offered == pytest.approx([0.4, -0.6, 0.4, -0.6, 0.4, 0.0])  # without their mean, 0.6
    assert first == pytest.approx([0.75, -0.25, -0.25, -0.25, 0.0, 0.0])


def test_questions_say_nothing_more_of_the_table_that_they_were_made_from():
    audit = simulate(replace(CROWD, verify=0.5), 3, merge=False)
    for values in _offered(audit.machine, audit.answers, CROWD.classes):
        assert not values.any()
