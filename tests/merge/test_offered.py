"""Choices among some classes, through the stage: a wrong one is even over what was offered."""

import pytest

from tests.merge.tables import assert_same_tables, posterior
from tests.merge.test_stage import merge, write_beliefs

#: Workers of accuracy 0.8, whatever they answer.
GIVEN = {"worker_model": "one_coin", "pooling": "none", "prior_strength": 1e6}
GIVEN |= {"calibration": "none", "class_prior": "uniform", "beliefs_are": "categorical"}


@pytest.fixture
def given(tmp_path):
    """Three images of one belief; classes were offered for the first two, in lists as text."""
    votes = tmp_path / "votes.csv"
    votes.write_text(
        "image_id,worker_id,label,candidates\n"
        '1,ann,1,"0 1 2 3"\n'
        '2,ann,1,"[7, 1]"\n'
        "3,ann,1,\n"
    )  # fmt: skip
    beliefs = write_beliefs(tmp_path / "beliefs", {i: {0: 0.6, 1: 0.3} for i in (1, 2, 3)})
    labels = tmp_path / "hundred.txt"
    labels.write_text("".join(f"class {c}\n" for c in range(100)))
    return {"votes": str(votes), "beliefs": beliefs, "label_space": str(labels), **GIVEN}


def test_a_wrong_choice_is_one_of_those_offered_or_none_of_them(tmp_path, given):
    merge(None, tmp_path, **given)
    rows = posterior(tmp_path / "out")
    for image, others in ((1, 4), (2, 2), (3, 99)):
        wrong = 0.2 / others
        first = 0.3 * 0.8 / (0.3 * 0.8 + 0.7 * wrong)
        probabilities = dict(zip(rows[image]["labels"], rows[image]["label_probs"], strict=True))
        assert probabilities[1] == pytest.approx(first, rel=1e-4)
        assert probabilities[0] == pytest.approx((1 - first) * 0.6 / 0.7, rel=1e-3)


def test_both_engines_give_the_same_tables(spark, tmp_path, given):
    merge(None, tmp_path, "threads", partitions=1, **given)
    merge(spark, tmp_path, "spark", partitions=3, engine="spark", max_broadcast_mb=0, **given)
    assert_same_tables(tmp_path / "threads", tmp_path / "spark")
