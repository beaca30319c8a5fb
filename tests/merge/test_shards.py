"""Skills in shards are the skills that one machine would hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.merge.cell_shards import plan_shards, sample_cells, shared_classes
from tests.em.in_memory import build, never_falls, run_em, votes_of
from tests.em.test_dense import arrays, problems
from tests.merge.sharded import ShardedInMemory


def both_ways(images, workers, choices, iterations, partitions, shards, **more):
    whole = build(*arrays(images, workers, choices, **more), partitions)
    parts = ShardedInMemory(whole.partitions, whole.model, shards)
    calibration = Calibration(choices.a, choices.b)
    return [run_em(e_step, iterations, calibration=calibration) for e_step in (whole, parts)]


@settings(max_examples=80, deadline=None)
@given(problems(), st.integers(1, 3), st.integers(1, 5))
def test_sharded_and_broadcast_skills_give_the_same_numbers(problem, partitions, shards):
    images, workers, choices = problem
    if not images:
        return
    choices.worker_model = "confusion"
    (state, posterior), (sharded, sharded_posterior) = both_ways(
        images, workers, choices, 4, partitions, shards
    )
    for entry, other in zip(state.history, sharded.history, strict=False):
        assert other["objective"] == pytest.approx(entry["objective"], rel=1e-9, abs=1e-9)
    if len(state.history) == len(sharded.history):
        assert sharded_posterior == pytest.approx(posterior, rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 3), st.integers(1, 5))
def test_the_objective_never_falls_with_sharded_skills(problem, partitions, shards):
    images, workers, choices = problem
    if not images:
        return
    choices.worker_model, choices.beta = "confusion", None
    _, (sharded, _) = both_ways(images, workers, choices, 15, partitions, shards)
    assert never_falls(sharded.history)


def crowd(votes, workers=40, classes=200, images=4000, seed=0, favourite=None, busy=0.0):
    """Votes of which a share names one class, or comes from one worker."""
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, votes)
    worker = random.integers(0, workers, votes)
    if favourite is not None:
        label[random.random(votes) < 0.5] = favourite
    worker[random.random(votes) < busy] = 0
    rows = np.unique(np.stack([random.integers(0, images, votes), worker, label], 1), axis=0)
    return votes_of(rows.tolist())


@pytest.mark.parametrize(
    "skew", [{}, {"favourite": 7}, {"busy": 0.3}, {"favourite": 7, "busy": 0.3}]
)
def test_no_shard_has_three_times_the_cells_of_the_median_one(skew):
    """Neither a worker with 30 % of the votes nor a class that half of them name makes one."""
    model = Model(classes=200, workers=40)
    parts = build(crowd(20_000, **skew), model, partitions=4).partitions
    space = CellSpace(model)
    shards = plan_shards(
        [sample_cells(part.cells) for part in parts], [len(p.cells) for p in parts], space, 12
    )
    cells = np.unique(np.concatenate([part.cells for part in parts]))
    sizes = np.diff(shards.cut(cells))
    received = sum(np.diff(shards.cut(part.cells)) for part in parts)
    assert len(shards) == 12
    for load in (sizes, received):
        assert load.max() <= 3 * np.median(load)


def test_a_bound_cuts_no_row_of_a_worker_and_names_the_classes_that_it_cuts():
    model = Model(classes=200, workers=40)
    (part,) = build(crowd(5000, favourite=3), model).partitions
    space = CellSpace(model)
    shards = plan_shards([sample_cells(part.cells)], [len(part.cells)], space, 6)
    assert (shards.bounds[1:-1] % model.classes == 0).all()
    truth = part.cells[part.cells < space.choices] // (model.workers * model.classes)
    shard = np.searchsorted(shards.bounds, part.cells[: len(truth)], side="right") - 1
    shared = shared_classes(shards, space)
    for c in np.unique(truth):
        homes = np.unique(shard[truth == c])
        if len(homes) > 1:
            assert all(c in shared[home] for home in homes)
