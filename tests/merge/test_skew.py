"""Crowds are uneven; the work of tasks is not: none has three times that of the median one."""

import numpy as np
import pytest

from coyo_labeler.em.build import build_problems
from coyo_labeler.em.inputs import Votes
from coyo_labeler.em.model import Model
from coyo_labeler.hashing import splitmix64
from tests.em.in_memory import NO_BELIEFS, NO_GOLD
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
