"""An image with very many votes keeps the classes that matter, and costs no more than others."""

import numpy as np
import pytest

from coyo_labeler.em import candidates
from coyo_labeler.em.inputs import Gold
from coyo_labeler.em.model import Model
from tests.em.in_memory import NO_GOLD, beliefs_of, build, run_em, votes_of


def hall(gold=NO_GOLD):
    """60 workers on one image: 40 say 3, one each 4 to 13, ten 2; and three workers on another."""
    labels = [3] * 40 + list(range(4, 14)) + [2] * 10
    rows = [(1, worker, label) for worker, label in enumerate(labels)]
    votes = votes_of([*rows, (2, 0, 3), (2, 1, 3), (2, 50, 2)])
    model = Model(classes=20, workers=60)
    beliefs = beliefs_of({1: {5: 0.3, 6: 0.2, 3: 0.2}})
    return build(votes, model, beliefs, gold)


def test_a_crowded_image_keeps_the_classes_that_most_votes_name(monkeypatch):
    _, whole = run_em(hall(), 10)
    monkeypatch.setattr(candidates, "_PAIRS_PER_IMAGE", 60 * 4)
    e_step = hall()
    (part,) = e_step.partitions
    # The most named; of those named once the most believed; the votes on the others are lumped.
    assert part.label[: part.offsets[1]].tolist() == [2, 3, 5, 6, -1]
    assert part.others.tolist() == [16, 18]
    assert part.n_votes.tolist() == [60, 3]
    assert len(part.pair_cell) <= 60 * 5 + 3 * 3
    _, posterior = run_em(e_step, 10)
    for image, label in ((1, 3), (2, 3)):
        assert posterior[image, label] == pytest.approx(whole[image, label], abs=1e-3)
    assert sum(p for (image, _), p in posterior.items() if image == 1) == pytest.approx(1)


def test_gold_of_a_crowded_image_is_kept_whoever_named_it(monkeypatch):
    monkeypatch.setattr(candidates, "_PAIRS_PER_IMAGE", 60 * 2)
    gold = Gold(np.array([1]), np.array([13], np.int32))
    e_step = hall(gold)
    assert e_step.partitions[0].label[:3].tolist() == [3, 13, -1]
    _, posterior = run_em(e_step, 3)
    assert posterior[1, 13] == 1


def test_without_beliefs_the_lumped_votes_of_a_crowded_image_start_lumped(monkeypatch):
    monkeypatch.setattr(candidates, "_PAIRS_PER_IMAGE", 60 * 2)
    labels = [3] * 40 + list(range(4, 14)) + [2] * 10
    votes = votes_of([(1, worker, label) for worker, label in enumerate(labels)])
    (part,) = build(votes, Model(classes=20, workers=60)).partitions
    assert part.label.tolist() == [2, 3, -1]
    assert part.start.tolist() == pytest.approx([10 / 60, 40 / 60, 10 / 60])
