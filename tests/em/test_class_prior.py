"""How frequent the classes are: the exact M-step, in every way that EM runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.class_prior import estimate_class_prior, expected_classes
from coyo_labeler.em.model import Calibration, Model, Parameters
from tests.em import dense
from tests.em.in_memory import build, never_falls, run_em, votes_of
from tests.em.test_dense import arrays, problems
from tests.merge.sharded import ShardedInMemory


def sparse_crowd(seed):
    """Votes of six workers over so many classes that most are left out by most images."""
    random = np.random.default_rng(seed)
    classes, images = int(random.integers(4, 40)), int(random.integers(5, 60))
    rows = [
        (image, worker, image * 7 % classes if random.random() < 0.6 else random.integers(classes))
        for image in range(images)
        for worker in random.choice(6, random.integers(1, 4), replace=False)
    ]
    return votes_of(rows), classes


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("worker_model", ["confusion", "one_coin", "perfect"])
def test_the_objective_never_falls_while_the_class_prior_is_estimated(seed, worker_model):
    votes, classes = sparse_crowd(seed)
    model = Model(
        classes=classes,
        workers=6,
        worker_model=worker_model,
        pooling_strength=None,
        estimate_class_prior=True,
    )
    passes = build(votes, model, partitions=2)
    ways = [passes]
    if worker_model == "confusion":
        ways.append(ShardedInMemory(passes.partitions, model, 3))
    for way in ways:
        assert never_falls(run_em(way, 60)[0].history)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(1, 4))
def test_shares_equal_the_dense_loops(problem, iterations):
    """Every class has the share that it has where the lumped state is taken apart."""
    images, workers, choices = problem
    if not images:
        return
    choices.estimated = True
    slow = dense.expectation_maximisation(images, choices, iterations + 1)
    passes = build(*arrays(images, workers, choices), 2)
    state, _ = run_em(passes, iterations, calibration=Calibration(choices.a, choices.b))
    if slow.class_prior is None:
        assert state.log_class_prior is None
    else:
        assert np.exp(state.log_class_prior) == pytest.approx(slow.class_prior, abs=1e-9)


def test_one_step_by_hand():
    """Two images, three classes. Image 0 lists class 0, image 1 classes 0 and 1; π = 1/2, 1/4, 1/4.

    A worker who is right in 6 of 10 says 0, 0 and, another one, 1 of image 1.
    """
    model = Model(
        classes=3,
        workers=2,
        worker_model="one_coin",
        prior_strength=1e12,
        pooling_strength=None,
        prior_accuracy=0.6,
        estimate_class_prior=True,
    )
    passes = build(votes_of([(0, 0, 0), (1, 0, 0), (1, 1, 1)]), model)
    log_prior = np.log([0.5, 0.25, 0.25])
    theta = Parameters(log_theta=np.log([0.2, 0.6, 0.2, 0.6]), log_class_prior=log_prior)
    first = np.array([0.5 * 0.6, 0.25 * 0.2, 0.25 * 0.2])
    second = np.array([0.5 * 0.6 * 0.2, 0.25 * 0.2 * 0.6, 0.25 * 0.2 * 0.2])
    counts = expected_classes(passes.run(theta), log_prior)
    assert counts == pytest.approx(first / first.sum() + second / second.sum(), rel=1e-12)
    assert np.exp(estimate_class_prior(counts)) == pytest.approx(counts / 2, rel=1e-12)
