"""`truth: multi`: the flat kernels equal the model written out in loops over questions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.inputs import Gold
from coyo_labeler.em.model import Calibration
from tests.em import dense, dense_multi
from tests.em.in_memory import build, never_falls, run_em
from tests.em.test_dense import arrays, problems
from tests.merge.sharded import ShardedInMemory


@st.composite
def label_sets(draw):
    """Problems as for one class an image, but gold is a set of labels, and more worker models."""
    images, workers, choices = draw(problems())
    for image in images:
        if image.gold is not None:
            more = st.integers(0, choices.classes - 1)
            image.gold = {image.gold} | draw(st.sets(more, max_size=2))
    choices.worker_model = draw(st.sampled_from(["confusion", "one_coin", "perfect"]))
    choices.hard = draw(st.booleans())
    return images, workers, choices


def given_arrays(images, workers, choices, **more):
    without = [dense.Image(image.votes, image.belief) for image in images]
    votes, model, beliefs, _ = arrays(without, workers, choices, truth="multi", **more)
    true = [(i, c) for i, image in enumerate(images) for c in sorted(image.gold or ())]
    table = np.array(true, np.int64).reshape(-1, 2)
    return votes, model, beliefs, Gold(table[:, 0], table[:, 1].astype(np.int32))


@settings(max_examples=200, deadline=None)
@given(label_sets(), st.integers(1, 4), st.integers(1, 3))
def test_posterior_objective_and_share_equal_the_dense_loops(problem, iterations, partitions):
    images, workers, choices = problem
    if not images:
        return
    try:
        slow = dense_multi.expectation_maximisation(images, choices, iterations + 1)
    except dense.TieError:
        return
    passes = build(*given_arrays(images, workers, choices), partitions)
    state, posterior = run_em(passes, iterations, calibration=Calibration(choices.a, choices.b))
    assert [entry["objective"] for entry in state.history] == pytest.approx(
        slow.objective[:iterations], rel=1e-9, abs=1e-9
    )
    assert state.true_share == pytest.approx(slow.share, rel=1e-9, abs=1e-9)
    assert {key for key in posterior if key[1] >= 0} == slow.true.keys()
    for key, expected in slow.true.items():
        assert posterior[key] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(label_sets(), st.integers(1, 3), st.integers(1, 4))
def test_the_objective_never_falls_in_either_way(problem, partitions, shards):
    """Soft counts and a fixed pool; the share of true questions is fitted all the while."""
    images, workers, choices = problem
    if not images:
        return
    choices.beta, choices.hard = None, False
    passes = build(*given_arrays(images, workers, choices), partitions)
    ways = [passes]
    if choices.worker_model == "confusion":
        ways.append(ShardedInMemory(passes.partitions, passes.model, shards))
    for way in ways:
        state, _ = run_em(way, 15, calibration=Calibration(choices.a, choices.b))
        assert never_falls(state.history)


@settings(max_examples=40, deadline=None)
@given(label_sets())
def test_calibration_on_the_votes_never_lowers_the_objective(problem):
    images, workers, choices = problem
    if not images:
        return
    choices.beta, choices.hard = None, False
    passes = build(*given_arrays(images, workers, choices, fit_calibration="votes"), 2)
    state, _ = run_em(passes, 15)
    assert never_falls(state.history)
