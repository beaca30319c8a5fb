import numpy as np
import pytest

from coyo_labeler.em.responses import Response
from coyo_labeler.votes.questions import as_answers, order_votes, superseded


def arrange(rows, keep):
    """Which rows (image, worker, label, response, moment) are set aside, in the order given."""
    image, worker, label, response, moment = np.array(rows, dtype=np.int64).T
    response = response.astype(np.int8)
    row = np.arange(len(image))
    order = order_votes(image, worker, label, response, moment, np.zeros_like(row), row)
    out = superseded(image[order], worker[order], label[order], response[order], keep)
    return sorted(order[out].tolist())


@pytest.mark.parametrize(("keep", "dropped"), [("last", [0]), ("first", [1])])
def test_a_workers_last_or_first_choice_on_an_image_counts(keep, dropped):
    assert arrange([(1, 0, 5, 0, 0), (1, 0, 6, 0, 0), (1, 1, 5, 0, 0)], keep) == dropped


def test_time_decides_which_is_last_before_the_row_does():
    assert arrange([(1, 0, 5, 0, 90), (1, 0, 6, 0, 10)], "last") == [1]


def test_answers_about_different_classes_are_different_questions():
    rows = [(1, 0, 5, 1, 0), (1, 0, 6, 2, 0), (1, 0, 5, 0, 0), (1, 0, 5, 3, 1)]
    assert arrange(rows, "last") == [0]


def test_where_an_image_may_have_many_labels_a_choice_is_a_yes_to_its_own():
    response = np.array([Response.CHOICE, Response.YES, Response.NO, Response.UNSURE], np.int8)
    assert as_answers(response, "single").tolist() == response.tolist()
    assert as_answers(response, "multi").tolist() == [1, 1, 2, 3]
