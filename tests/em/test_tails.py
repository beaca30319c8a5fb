"""What a truncated support leaves out of a categorical belief counts at every temperature."""

import numpy as np
import pytest

from coyo_labeler.em.build import build_problems
from coyo_labeler.em.e_step import evidence_of
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.partitions import InMemory, PartitionedEStep
from coyo_labeler.em.tails import Tails
from tests.em.in_memory import NO_GOLD, beliefs_of, votes_of
from tests.em.test_calibration import at_prior

CLASSES = 12


def crowd(images=700, power=2.5, seed=0):
    """Votes of workers who are right in 85 %, and beliefs that are too sure: p to a power."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, CLASSES, images)
    clear = random.gamma(2.0, 1.5, images)
    logits = random.normal(size=(images, CLASSES))
    logits[np.arange(images), truth] += clear
    logits *= power * clear[:, None]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    wrong = (truth + random.integers(1, CLASSES, images)) % CLASSES
    label = np.where(random.random(images) < 0.85, truth, wrong)
    rows = zip(range(images), random.integers(0, 5, images), label, strict=True)
    listed = {i: {int(c): float(p[i, c]) for c in np.argsort(-p[i])[:10]} for i in range(images)}
    return votes_of(list(rows)), beliefs_of(listed)


def model_of(mass):
    return Model(
        classes=CLASSES,
        workers=5,
        worker_model="one_coin",
        beliefs_are="categorical",
        fit_calibration="votes",
        support_mass=mass,
    )


def test_the_mass_of_a_tail_is_exact_at_three_powers_and_close_between():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.full(20, 0.3), 6) * 1e-3 + 1e-8
    tails = Tails.of(7, np.repeat(np.arange(6), 20), np.log(p).ravel())
    for power in (0.0, 0.5, 1.0):
        mass, _ = tails.mass(np.full(7, power))
        assert mass == pytest.approx([*(p**power).sum(axis=1), 0.0])
    for power in (0.2, 0.7, 1.3):
        mass, slope = tails.mass(np.full(7, power))
        assert mass[:6] == pytest.approx((p**power).sum(axis=1), rel=0.35)
        higher, lower = (np.log(tails.mass(np.full(7, power + d))[0][:6]) for d in (1e-6, -1e-6))
        assert slope[:6] == pytest.approx((higher - lower) / 2e-6, rel=1e-4)
        assert slope[6] == 0


def test_the_gradient_knows_the_tails():
    votes, beliefs = crowd(images=60)
    problems = build_problems(votes, beliefs, NO_GOLD, model_of(0.8))
    assert (problems.tails.count > 0).sum() > 20
    step = PartitionedEStep(InMemory([problems]), model_of(0.8))
    theta = at_prior(step)
    for a in (0.3, 0.9, 1.4):

        def likelihood(a):
            parameters = Parameters(theta, Calibration(a))
            return float(evidence_of(problems, parameters, model_of(0.8)).sum())

        sums = step.run(Parameters(theta, Calibration(a)))
        slope = (likelihood(a + 1e-5) - likelihood(a - 1e-5)) / 2e-5
        assert sums.gradient.total()[0] == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_calibration_does_not_run_away_where_the_support_is_one_class():
    """The machine is 2.5 times too sure. Without tails, a fell to its bound of 0.02."""
    votes, beliefs = crowd()

    def fitted(mass):
        model = model_of(mass)
        step = PartitionedEStep(InMemory([build_problems(votes, beliefs, NO_GOLD, model)]), model)
        return fit(step, model, StoppingRule(40), State(), lambda _: None).calibration.a

    whole, truncated = fitted(1.0), fitted(0.99)
    assert truncated == pytest.approx(whole, abs=0.03)
    assert truncated == pytest.approx(0.4, abs=0.12)
