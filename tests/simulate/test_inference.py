"""The dense EM is that of `em`."""

import numpy as np
import pytest

from coyo_labeler.em.build import build_problems
from coyo_labeler.em.inputs import Beliefs
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Model
from coyo_labeler.simulate.inference import (
    SkillPrior,
    Skills,
    VoteMatrix,
    estimate_skills,
    fit_skills,
)
from tests.em.in_memory import NO_GOLD, InMemoryEStep, votes_of

IMAGES, WORKERS, CLASSES = 60, 5, 4


def example():
    """Log priors (images, C) and votes (image, worker, voted)."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, CLASSES, IMAGES)
    prior = rng.dirichlet(np.ones(CLASSES), IMAGES) * 0.5
    prior[np.arange(IMAGES), truth] += 0.5
    rows = [
        (image, worker, truth[image] if rng.random() < 0.7 else rng.integers(0, CLASSES))
        for image in range(IMAGES)
        for worker in rng.permutation(WORKERS)[:2]
    ]
    return prior.astype(np.float32), np.array(rows)


@pytest.mark.parametrize("one_coin", [False, True])
def test_posteriors_are_those_of_em(one_coin):
    prior, rows = example()
    model = Model(
        classes=CLASSES,
        workers=WORKERS,
        beliefs_are="categorical",
        worker_model="one_coin" if one_coin else "confusion",
        prior_strength=10.0,
        pooling_strength=20.0,
        prior_accuracy=0.7,
        support_all=True,
        support_mass=1.0,
        start="skills",
    )
    flat = prior.ravel().astype(np.float64)
    beliefs = Beliefs(
        np.arange(IMAGES),
        np.arange(IMAGES + 1) * CLASSES,
        np.tile(np.arange(CLASSES, dtype=np.int32), IMAGES),
        flat,
    )
    problems = build_problems(
        votes_of([tuple(map(int, row)) for row in rows]), beliefs, NO_GOLD, model
    )
    e_step = InMemoryEStep([problems], model)
    state = fit(e_step, model, StoppingRule(200, 1e-14), State(), lambda _: None)
    theirs = e_step.posteriors(state)[0][problems.label >= 0].reshape(IMAGES, CLASSES)

    skill = SkillPrior(10.0, 20.0, 0.7, one_coin)
    votes = VoteMatrix.of(rows[:, 0], rows[:, 1], rows[:, 2], IMAGES, WORKERS, CLASSES)
    start = Skills.before_votes(WORKERS, CLASSES, skill)
    ours, skills = fit_skills(np.log(prior), votes, skill, start, 500, 1e-7)
    assert ours == pytest.approx(theirs, abs=2e-3)
    assert np.exp(skills.log_theta).sum(axis=1) == pytest.approx(1, abs=1e-4)


def test_without_votes_skills_are_their_prior():
    prior = SkillPrior(accuracy=0.8)
    nothing = np.zeros((2, 3, 3))
    theta = np.exp(estimate_skills(nothing, prior).log_theta)
    assert theta[0] == pytest.approx(np.full((3, 3), 0.1) + 0.7 * np.eye(3), abs=1e-6)


def test_one_class_has_one_answer():
    prior = SkillPrior()
    votes = VoteMatrix.of(np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), 1, 1, 1)
    start = Skills.before_votes(1, 1, prior)
    posterior, _ = fit_skills(np.zeros((1, 1), np.float32), votes, prior, start)
    assert posterior == pytest.approx(1)
