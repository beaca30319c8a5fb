"""Crowds are uneven; the work of tasks is not: none has three times that of the median one."""

import numpy as np
import pytest

from coyo_labeler.em import build as support
from coyo_labeler.em.build import build_problems
from coyo_labeler.em.inputs import Gold, Votes
from coyo_labeler.em.model import Model
from coyo_labeler.hashing import splitmix64
from tests.em.in_memory import NO_BELIEFS, NO_GOLD, beliefs_of, build, run_em, votes_of
from tests.merge.test_shards import crowd

#: A busy worker has 30 % of all votes, half of all votes name one class, an image has 10,000 votes.
SKEWS = {
    "none": {},
    "busy worker": {"busy": 0.3},
    "favourite class": {"favourite": 7},
    "crowded image": {"crowded": 10_000},
    "all of them": {"busy": 0.3, "favourite": 7, "crowded": 10_000},
}


def partitioned(votes, model, partitions):
    """Problems of each partition, partitioned as the stage does it."""
    part = (splitmix64(votes.image) % np.uint64(partitions)).astype(np.int64)
    columns = [votes.image, votes.worker, votes.label, votes.response]
    return [
        build_problems(Votes(*(c[part == p] for c in columns)), NO_BELIEFS, NO_GOLD, model)
        for p in range(partitions)
    ]


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("skew", SKEWS.values(), ids=SKEWS)
def test_no_partition_has_three_times_the_work_of_the_median_one(skew, classes):
    """What a pass costs is votes times the classes in play, and what it sends is cells."""
    given = dict(skew)
    crowded = given.pop("crowded", 0)
    model = Model(classes=classes, workers=12_000)
    votes = crowd(300_000, workers=12_000, classes=classes, images=60_000, **given)
    if crowded:
        more = np.random.default_rng(1).integers(0, classes, crowded).astype(np.int32)
        votes = Votes(
            np.concatenate([votes.image, np.full(crowded, 60_001)]),
            np.concatenate([votes.worker, np.arange(crowded, dtype=np.int32)]),
            np.concatenate([votes.label, more]),
            np.concatenate([votes.response, np.zeros(crowded, np.int8)]),
        )
    parts = partitioned(votes, model, 4)
    assert sum(part.n_votes.sum() for part in parts) == len(votes.image)
    for work in (
        [part.n_votes.sum() for part in parts],
        [len(part.pair_cell) for part in parts],
        [len(part.cells) for part in parts],
    ):
        assert max(work) <= 3 * np.median(work)


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
    monkeypatch.setattr(support, "_PAIRS_PER_IMAGE", 60 * 4)
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
    monkeypatch.setattr(support, "_PAIRS_PER_IMAGE", 60 * 2)
    gold = Gold(np.array([1]), np.array([13], np.int32))
    e_step = hall(gold)
    assert e_step.partitions[0].label[:3].tolist() == [3, 13, -1]
    _, posterior = run_em(e_step, 3)
    assert posterior[1, 13] == 1


def test_without_beliefs_the_lumped_votes_of_a_crowded_image_start_lumped(monkeypatch):
    monkeypatch.setattr(support, "_PAIRS_PER_IMAGE", 60 * 2)
    labels = [3] * 40 + list(range(4, 14)) + [2] * 10
    votes = votes_of([(1, worker, label) for worker, label in enumerate(labels)])
    (part,) = build(votes, Model(classes=20, workers=60)).partitions
    assert part.label.tolist() == [2, 3, -1]
    assert part.start.tolist() == pytest.approx([10 / 60, 40 / 60, 10 / 60])
