"""Calibration: slopes against literal differences, reliability by hand, and what it does."""

import math

import numpy as np
import pytest

from coyo_labeler.em.calibration import (
    BINS,
    expected_calibration_error,
    next_calibration,
    reliability_of,
)
from coyo_labeler.em.model import Calibration, Model, Parameters
from tests.em import dense, dense_multi
from tests.em.in_memory import beliefs_of, build, run_em, votes_of
from tests.em.test_dense import arrays
from tests.em.test_dense_multi import given_arrays

STEP = 1e-5


def draw(seed, beliefs_are):
    """Twelve images of five classes: beliefs of one to all of them, votes and a little gold."""
    random = np.random.default_rng(seed)
    images = []
    for number in range(12):
        named = random.choice(5, random.integers(1, 6), replace=False)
        belief = {int(c): float(random.uniform(0.02, 0.6)) for c in named}
        if beliefs_are == "categorical":
            total = sum(belief.values()) * 1.1
            belief = {c: p / total for c, p in belief.items()}
        votes = [(w, int(random.integers(5)), "") for w in range(int(random.integers(1, 4)))]
        votes.append((3, int(random.integers(5)), str(random.choice(["yes", "no", "unsure"]))))
        images.append(dense.Image(votes, belief, int(random.integers(5)) if number < 3 else None))
    b = 0.3 if beliefs_are == "sigmoid" else 0.0
    return images, dense.Choices(5, beliefs_are=beliefs_are, beta=None, a=0.8, b=b)


def moved(choices, by_a, by_b):
    return dense.Choices(**(choices.__dict__ | {"a": choices.a + by_a, "b": choices.b + by_b}))


def differences(value, choices):
    """The slope by (a, b) of a function of the choices; b of categorical beliefs does nothing."""
    by_a = value(moved(choices, STEP, 0)) - value(moved(choices, -STEP, 0))
    if choices.beliefs_are == "categorical":
        return np.array([by_a, 0.0]) / (2 * STEP)
    return np.array([by_a, value(moved(choices, 0, STEP)) - value(moved(choices, 0, -STEP))]) / (
        2 * STEP
    )


@pytest.mark.parametrize("fitted", ["votes", "gold"])
@pytest.mark.parametrize("beliefs_are", ["sigmoid", "categorical"])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_and_information_are_those_of_the_dense_loops(seed, beliefs_are, fitted):
    images, choices = draw(seed, beliefs_are)
    used = [image for image in images if fitted == "votes" or image.gold is not None]
    skill = dense.Skill({}, choices)

    def evidence(choices):
        """Σ log p(votes), at skills as the prior has them."""
        total = 0.0
        for image in used:
            joint = dense.prior(image, choices, None)
            for vote in image.votes:
                for truth in joint:
                    joint[truth] *= skill.theta(dense.cell(truth, *vote, choices))
            possible = joint if image.gold is None else {image.gold: joint[image.gold]}
            total += math.log(sum(possible.values()))
        return total

    information = np.zeros((2, 2))
    for image in used:
        for truth, p in dense.prior(image, choices, None).items():
            if p > 0:
                slope = differences(
                    lambda c, i=image, t=truth: math.log(dense.prior(i, c, None)[t]), choices
                )
                information += p * np.outer(slope, slope)
    passes = build(*arrays(images, 4, choices, fit_calibration=fitted), 2)
    sums = passes.run(Parameters(at_prior(passes), Calibration(choices.a, choices.b)))
    assert sums.gradient.total() == pytest.approx(
        differences(evidence, choices), rel=1e-5, abs=1e-6
    )
    assert sums.information.total() == pytest.approx(information, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_and_information_of_questions_are_those_of_the_dense_loops(seed):
    images, choices = draw(seed, "sigmoid")
    for image in images:
        image.gold = None if image.gold is None else {image.gold}
    skill = dense.Skill({}, choices)
    asked = dense_multi.questions(images).values()
    used = [question for question in asked if question.belief is not None and question.answers]

    def evidence(choices):
        total = 0.0
        for question in used:
            yes = dense_multi.prior(question, 0.5, choices)
            no = 1 - yes
            for worker, response in question.answers:
                yes *= skill.theta(dense_multi.cell(worker, True, response, choices))
                no *= skill.theta(dense_multi.cell(worker, False, response, choices))
            total += math.log(yes + no if question.truth is None else yes if question.truth else no)
        return total

    information = np.zeros((2, 2))
    for question in used:
        p = dense_multi.prior(question, 0.5, choices)
        slope = differences(lambda c, q=question: dense_multi.prior(q, 0.5, c), choices)
        information += np.outer(slope, slope) * (1 / p + 1 / (1 - p))
    passes = build(*given_arrays(images, 4, choices, fit_calibration="votes"), 2)
    sums = passes.run(Parameters(at_prior(passes), Calibration(choices.a, choices.b)))
    assert sums.gradient.total() == pytest.approx(
        differences(evidence, choices), rel=1e-5, abs=1e-6
    )
    assert sums.information.total() == pytest.approx(information, rel=1e-5, abs=1e-6)


def at_prior(passes):
    """log θ of every cell where nothing has been counted."""
    table = passes.table
    estimated = np.arange(len(table.keys)) < table.estimated
    return (
        np.where(estimated, np.log(table.prior[table.pooled]), 0.0) + table.log_share[table.pooled]
    )


def test_a_step_is_information_into_gradient_held_to_a_safe_length():
    """Fisher scoring: I = [[4, 1], [1, 2]], g = (1, 0.5) gives (3/14, 1/7)."""
    information, gradient = np.array([[4.0, 1.0], [1.0, 2.0]]), np.array([1.0, 0.5])
    step = next_calibration(Calibration(1.0, 0.2), gradient, information)
    assert (step.a, step.b) == pytest.approx((1 + 3 / 14, 0.2 + 1 / 7))
    far = next_calibration(Calibration(1.0, 0.0), 1000 * gradient, information)
    assert (far.a, far.b) == (2.0, 2.0)
    flat = next_calibration(Calibration(1.5, 0.0), np.array([1.0, 0.0]), np.diag([4.0, 0.0]))
    assert (flat.a, flat.b) == pytest.approx((1.75, 0.0))


@pytest.mark.parametrize("truth", ["single", "multi"])
def test_votes_mend_beliefs_that_are_too_sure_of_themselves(truth):
    """The machine's logits are 2.5 times what they should be: a is found to be about 0.4."""
    random = np.random.default_rng(0)
    beliefs, rows = {}, []
    for image in range(1500):
        logit = random.normal(0.0, 1.5)
        right = random.random() < 1 / (1 + math.exp(-logit))
        top = int(random.integers(2))
        beliefs[image] = {top: 1 / (1 + math.exp(-2.5 * logit))}
        for worker in range(4):
            said_right = random.random() < 0.8
            if truth == "single":
                rows.append((image, worker, top if right == said_right else 1 - top))
            else:
                rows.append((image, worker, top, 1 if right == said_right else 2))
    model = Model(classes=2, workers=4, truth=truth, fit_calibration="votes")
    passes = build(votes_of(rows), model, beliefs_of(beliefs))
    state, _ = run_em(passes, 40, tolerance=1e-9)
    assert state.calibration.a == pytest.approx(0.4, abs=0.04)
    assert state.calibration.b == pytest.approx(0.0, abs=0.15)
    last = passes.run(passes.parameters_of(state)[0], reliability=True)
    before, after = map(expected_calibration_error, last.reliability)
    assert before > 0.08
    assert after < 0.03


def test_reliability_is_counted_by_confidence():
    """Confidences 0.5, 0.52 and 0.9 fall into the bins from 7/15, 7/15 and 13/15 on."""
    prior = np.log([0.5, 0.3, 0.2, 0.48, 0.52, 0.9, 0.1, 0.6, 0.4])
    posterior = np.array([0.4, 0.4, 0.2, 0.0, 1.0, 0.7, 0.3, 0.5, 0.5])
    offsets = np.array([0, 3, 5, 7, 9])
    used = np.array([True, True, True, False])
    bins = reliability_of(prior, posterior, offsets, used)
    expected = np.zeros((BINS, 3))
    expected[7] = [2, 1.02, 1.4]
    expected[13] = [1, 0.9, 0.7]
    assert bins == pytest.approx(expected)
    error = (2 * abs(1.4 / 2 - 1.02 / 2) + 1 * abs(0.7 - 0.9)) / 3
    assert expected_calibration_error(bins) == pytest.approx(error)
    assert expected_calibration_error(np.zeros((BINS, 3))) is None
