"""A calibration that bends with the machine's confidence, and weights by inclusion probability."""

from dataclasses import replace

import numpy as np
import pytest

from coyo_labeler.em.build import build_problems
from coyo_labeler.em.calibration import log_prior_of, next_calibration, of_curve
from coyo_labeler.em.coverage import (
    choose_knots,
    gather_coverage,
    mean_inverse,
    problem_weights,
    weighting,
)
from coyo_labeler.em.curve import FADE, basis, local_map, straight
from coyo_labeler.em.e_step import e_step, evidence_of
from coyo_labeler.em.inputs import Inclusion
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Calibration, Curve, Model, Parameters
from coyo_labeler.em.partitions import InMemory, PartitionedEStep
from coyo_labeler.em.priors import belief_prior, belief_value
from tests.em.in_memory import NO_GOLD, beliefs_of, votes_of
from tests.em.test_calibration import at_prior

KNOTS = (-1.0, 0.5, 2.0)


def test_a_curve_is_linear_between_its_knots_and_the_identity_far_from_them():
    curve = Curve(KNOTS, (0.5, 0.8, 2.0), (0.3, 0.0, -0.4), fades=True)
    at = np.array([-1.0, -0.25, 2.0, 2.0 + FADE / 2, 2.0 + FADE, -5.0])
    a, b = local_map(Calibration(curve=curve), at)
    assert a == pytest.approx([0.5, 0.65, 2.0, 1.5, 1.0, 1.0])
    assert b == pytest.approx([0.3, 0.15, -0.4, -0.2, 0.0, 0.0])
    assert basis(np.array([9.0]), replace(curve, fades=False))[0] == pytest.approx([0, 0, 1])


def drawn(beliefs_are, seed=0):
    random = np.random.default_rng(seed)
    beliefs, rows = {}, []
    for image in range(40):
        p = random.dirichlet(np.full(4, random.uniform(0.2, 2))) * 0.97 + 0.005
        beliefs[image] = dict(enumerate(p))
        rows += [(image, worker, int(random.integers(4))) for worker in range(1 + image % 2)]
    known = Inclusion(np.arange(0, 40, 3), random.uniform(0.1, 1.0, 14))
    model = Model(classes=4, workers=2, beliefs_are=beliefs_are, fit_calibration="votes")
    votes, given = votes_of(rows), beliefs_of(beliefs)
    return build_problems(votes, given, NO_GOLD, model, None, known), model


@pytest.mark.parametrize("truth", ["single", "multi"])
@pytest.mark.parametrize("beliefs_are", ["sigmoid", "categorical"])
def test_the_gradient_is_that_of_the_weighted_likelihood(beliefs_are, truth):
    problems, model = drawn(beliefs_are)
    if truth == "multi":
        beliefs = {i: {1: 0.3 + 0.01 * i} for i in range(40)}
        model = replace(model, truth="multi")
        votes = votes_of([(i, 0, 1, 1 + i % 2) for i in range(40)])
        known = Inclusion(np.arange(40), np.linspace(0.1, 1, 40))
        problems = build_problems(votes, beliefs_of(beliefs), NO_GOLD, model, None, known)
    model = replace(model, mean_inverse=mean_inverse(gather_coverage(problems, model)))
    weights = problem_weights(problems, model)
    assert weights.std() > 0.1
    step = PartitionedEStep(InMemory([problems]), model)
    theta = at_prior(step)

    def likelihood(a, b):
        calibration = of_curve(Curve(KNOTS, tuple(a), tuple(b)))
        return float(weights @ evidence_of(problems, Parameters(theta, calibration), model))

    a, b = np.array([0.7, 1.2, 0.9]), np.array([0.2, -0.1, 0.1])
    sums = e_step(problems, Parameters(theta, of_curve(Curve(KNOTS, tuple(a), tuple(b)))), model)
    h = 1e-5 * np.eye(3)
    expected = [(likelihood(a + d, b) - likelihood(a - d, b)) / 2e-5 for d in h]
    expected += [(likelihood(a, b + d) - likelihood(a, b - d)) / 2e-5 for d in h]
    assert sums.gradient.total() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_step_without_votes_goes_back_to_the_identity():
    curve = straight(KNOTS, True, Calibration(1.2, 0.3))
    step = next_calibration(curve, np.zeros(6), np.zeros((6, 6)))
    assert step.curve.a == pytest.approx([1.0] * 3)
    assert step.curve.b == pytest.approx([0.0] * 3)
    assert log_prior_of(step) == pytest.approx(0.0)
    assert log_prior_of(curve) < -1


def test_knots_stay_near_one_another_and_each_near_the_identity_where_the_curve_fades():
    """Votes at the first knot alone: the others follow, unless nothing is known of their images."""
    gradient, information = np.zeros(6), np.zeros((6, 6))
    gradient[0], information[0, 0] = 200.0, 400.0
    for fades in (False, True):
        calibration = straight(KNOTS, fades, Calibration())
        for _ in range(3):
            away = calibration.curve.a[0] - 1.0
            gradient[0] = 400.0 * (0.5 - away)
            calibration = next_calibration(calibration, gradient, information)
        a = calibration.curve.a
        assert a[0] > 1.25
        assert a[2] == pytest.approx(1.0) if fades else a[2] > 1.1
        assert log_prior_of(calibration) < 0


@pytest.mark.parametrize("fades", [None, False, True], ids=["no curve", "constant", "fades"])
def test_one_a_and_b_and_a_curve_that_is_tied_end_at_their_mode(fades):
    random = np.random.default_rng(4)
    p = random.dirichlet(np.full(4, 0.7), 200) * 0.97 + 0.005
    votes = votes_of(
        [(i, i % 2, int(random.choice(4, p=own / own.sum()))) for i, own in enumerate(p)]
    )
    beliefs = beliefs_of({i: dict(enumerate(own)) for i, own in enumerate(p)})
    model = Model(classes=4, workers=2, fit_calibration="votes")
    problems = build_problems(votes, beliefs, NO_GOLD, model)
    step = PartitionedEStep(InMemory([problems]), model)
    parameters = Parameters(at_prior(step))

    def at(a, b):
        one = Calibration(a, b)
        return one if fades is None else straight(KNOTS, fades, one, tied=True)

    def density(a, b):
        now = replace(parameters, calibration=at(a, b))
        return evidence_of(problems, now, model).sum() + log_prior_of(at(a, b), has_prior=True)

    calibration = at(1.1, 0.2)
    for _ in range(60):
        sums = e_step(problems, replace(parameters, calibration=calibration), model)
        gradient, information = sums.gradient.total(), sums.information.total()
        calibration = next_calibration(calibration, gradient, information, has_prior=True)
    a, b = calibration.a, calibration.b
    assert calibration == at(a, b)
    assert abs(a - 1) > 0.01
    h = 1e-4
    assert (density(a + h, b) - density(a - h, b)) / (2 * h) == pytest.approx(0, abs=1e-4)
    assert (density(a, b + h) - density(a, b - h)) / (2 * h) == pytest.approx(0, abs=1e-4)


def test_one_a_and_b_with_weights_is_shrunk_by_em():
    """With weights of 1 nothing but the prior is different."""
    problems, model = drawn("categorical")
    fitted = {}
    for weights in (None, (1.0, 1.0)):
        own = replace(model, weighting=weights, pooling_strength=None)
        step = PartitionedEStep(InMemory([problems]), own)
        fitted[weights] = fit(step, own, StoppingRule(60), State(), lambda _: None)
        objective = [entry["objective"] for entry in fitted[weights].history]
        assert (np.diff(objective) > -1e-6).all()
    free, shrunk = (abs(state.calibration.a - 1) for state in fitted.values())
    assert 0 < shrunk < 0.7 * free


def test_weights_are_capped_and_stabilised():
    problems, model = drawn("sigmoid")
    inverse = np.where(np.arange(40) % 4 == 0, 1.0, 10.0)
    inverse[1] = 1e6
    problems = replace(problems, inverse_inclusion=inverse)
    coverage = gather_coverage(problems, model)
    cap, scale = weighting(coverage)
    assert 1e4 <= cap <= 2e4  # a power of two above a hundredth of the sum
    weights = problem_weights(problems, replace(model, weighting=(cap, scale)))
    capped = np.minimum(inverse, cap)
    assert weights.sum() == pytest.approx(capped.sum() ** 2 / (capped**2).sum())
    even = replace(problems, inverse_inclusion=np.full(40, 7.0))
    stabilised = replace(model, mean_inverse=mean_inverse(gather_coverage(even, model)))
    assert problem_weights(even, stabilised) == pytest.approx(np.ones(40))
    unknown = replace(problems, inverse_inclusion=np.full(40, np.nan))
    assert weighting(gather_coverage(unknown, model)) is None
    knots = choose_knots(coverage)
    assert list(knots) == sorted(knots)


def calibration_error(confidence, right):
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(confidence[bins == k].sum() - right[bins == k].sum()) for k in range(15)]
    return sum(gaps) / len(confidence)


@pytest.mark.parametrize("known", [True, False])
def test_images_without_votes_are_no_worse_calibrated_than_the_machine(known):
    """The machine is twice too sure where it is unsure, and right elsewhere. docs/merge.md."""
    random = np.random.default_rng(3)
    images, classes = 6_000, 10
    truth = random.integers(0, classes, images)
    clear = random.gamma(2.0, 2.0, images)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), truth] += clear
    logits *= clear[:, None]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    sure = np.log(p.max(1) / (1 - p.max(1) + 1e-12))
    p **= np.interp(sure, [0, 2], [2.0, 1.0])[:, None]
    p /= p.sum(1, keepdims=True)
    drawn = random.random(images) < 0.03
    hard = np.argsort(p.max(1))[:1_200]
    inclusion = np.full(images, 0.03)
    inclusion[hard] = 1.0
    voted = drawn.copy()
    voted[hard] = True
    asked = np.flatnonzero(voted)
    right = random.random(len(asked)) < 0.8
    label = np.where(right, truth[asked], random.integers(0, classes, len(asked)))
    votes = votes_of(zip(asked, random.integers(0, 10, len(asked)), label, strict=True))
    beliefs = beliefs_of({i: dict(enumerate(p[i])) for i in asked})
    model = Model(
        classes=classes,
        workers=10,
        worker_model="one_coin",
        beliefs_are="categorical",
        fit_calibration="votes",
    )
    given = Inclusion(asked, inclusion[asked]) if known else None
    problems = build_problems(votes, beliefs, NO_GOLD, model, None, given)

    def error(model, begin):
        step = PartitionedEStep(InMemory([problems]), model)
        state = fit(step, model, StoppingRule(60), State(calibration=begin), lambda _: None)
        rest = p[~voted]
        value = belief_value(rest.ravel(), model)
        offsets = np.arange(0, rest.size + 1, classes)
        full = np.ones(len(rest), bool)
        inside = np.ones(rest.size, bool)
        map_ = state.calibration
        prior = belief_prior(value, inside, offsets, full, map_, model).probability
        prior = prior.reshape(rest.shape)
        return calibration_error(prior.max(1), prior.argmax(1) == truth[~voted])

    coverage = gather_coverage(problems, model)
    knots = choose_knots(coverage)
    curved = replace(model, knots=knots, fades=not known, mean_inverse=mean_inverse(coverage))
    machine = error(replace(model, fit_calibration="none"), Calibration())
    constant = error(model, Calibration())
    curve = error(curved, straight(knots, not known, Calibration()))
    print(f"machine {machine:.4f}, one temperature {constant:.4f}, curve {curve:.4f}")
    assert curve < machine
    assert curve < constant
