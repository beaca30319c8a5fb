"""Biases of classes in the calibration: their gradient, and what they do for unvoted images."""

from dataclasses import replace

import numpy as np
import pytest

from coyo_labeler.em import model_choice
from coyo_labeler.em.build import build_problems, problems_of
from coyo_labeler.em.class_bias import bias_sums, next_bias, shift_of
from coyo_labeler.em.coverage import gather_coverage
from coyo_labeler.em.e_step import e_step, evidence_of
from coyo_labeler.em.inputs import Inclusion, Inputs, SetVotes
from coyo_labeler.em.loop import State, StoppingRule, fit
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.model_choice import (
    Wanted,
    choose_model,
    first_calibration,
    with_calibration,
)
from coyo_labeler.em.partitions import InMemory, PartitionedEStep
from coyo_labeler.em.priors import belief_prior, belief_value, log_prior
from tests.em.in_memory import NO_GOLD, beliefs_of, votes_of
from tests.em.test_calibration import at_prior

BIAS = (0.4, -0.3, 0.0, 0.8, -0.6)


def drawn(beliefs_are, truncated, classes=5):
    """Problems with votes in and outside of beliefs that list some classes or all."""
    random = np.random.default_rng(1)
    beliefs, rows = {}, []
    for image in range(40):
        p = random.dirichlet(np.full(classes, 0.7)) * random.uniform(0.6, 1.4) + 0.004
        p = np.minimum(p, 0.99) if beliefs_are == "sigmoid" else p / p.sum()
        listed = random.permutation(classes)[: 3 + image % 3]
        beliefs[image] = {int(c): float(p[c]) for c in listed}
        rows += [(image, w, int(random.integers(classes))) for w in range(1 + image % 2)]
    known = Inclusion(np.arange(40), random.uniform(0.1, 1.0, 40))
    mass = 0.8 if truncated else 0.9999
    model = Model(
        classes=classes,
        workers=2,
        worker_model="one_coin",
        beliefs_are=beliefs_are,
        fit_calibration="votes",
        class_bias=True,
        support_mass=mass,
    )
    problems = build_problems(votes_of(rows), beliefs_of(beliefs), NO_GOLD, model, None, known)
    return problems, with_calibration(model, gather_coverage(problems, model), curved=False)


def moved(bias, label, by):
    return tuple(np.array(bias) + by * (np.arange(len(bias)) == label))


@pytest.mark.parametrize(
    ("beliefs_are", "truncated"),
    [("sigmoid", False), ("categorical", False), ("categorical", True)],
)
def test_the_gradient_is_that_of_the_likelihood_and_the_information_bounds_it(
    beliefs_are, truncated
):
    problems, model = drawn(beliefs_are, truncated)
    assert not truncated or problems.tails.count.sum() > 20
    step = PartitionedEStep(InMemory([problems]), model)
    theta = at_prior(step)
    cap, scale = model.weighting
    weights = np.minimum(problems.inverse_inclusion, cap) * scale

    def likelihood(bias):
        calibration = Calibration(0.8, 0.1 * (beliefs_are == "sigmoid"), bias=bias)
        return float(weights @ evidence_of(problems, Parameters(theta, calibration), model))

    calibration = Calibration(0.8, 0.1 * (beliefs_are == "sigmoid"), bias=BIAS)
    parameters = Parameters(theta, calibration)
    sums = e_step(problems, parameters, model)
    expected = [
        (likelihood(moved(BIAS, c, 1e-5)) - likelihood(moved(BIAS, c, -1e-5))) / 2e-5
        for c in range(5)
    ]
    assert sums.bias_gradient.total() == pytest.approx(expected, rel=1e-4, abs=1e-5)

    # Fisher information: the sum of p s sᵀ over entries, s the slopes of their log prior.
    def prior_at(bias):
        return log_prior(problems, Parameters(theta, replace(calibration, bias=bias)), model).log

    slopes = [
        (prior_at(moved(BIAS, c, 1e-5)) - prior_at(moved(BIAS, c, -1e-5))) / 2e-5 for c in range(5)
    ]
    slopes = np.nan_to_num(np.stack(slopes))
    weight = np.exp(prior_at(BIAS)) * np.repeat(weights, np.diff(problems.offsets))
    information = (slopes * weight) @ slopes.T
    bound = np.diag(sums.bias_information.total()) - information
    assert np.linalg.eigvalsh(bound).min() > -1e-6


@pytest.mark.parametrize("beliefs_are", ["sigmoid", "categorical"])
def test_the_prior_is_that_of_a_dense_twin(beliefs_are):
    random = np.random.default_rng(2)
    p = random.dirichlet(np.ones(5), 30)
    model = Model(classes=5, workers=1, beliefs_are=beliefs_are)
    label = np.tile(np.arange(5), 30)
    value = belief_value(p.ravel(), model)
    prior = belief_prior(
        value,
        np.ones(150, bool),
        5 * np.arange(31),
        np.ones(30, bool),
        Calibration(1.3, 0.0, bias=BIAS),
        model,
        shift=shift_of(BIAS, label),
    )
    if beliefs_are == "categorical":
        dense = p**1.3 * np.exp(BIAS)
    else:
        dense = 1 / (1 + np.exp(-(1.3 * np.log(p / (1 - p)) + np.array(BIAS))))
    dense /= dense.sum(axis=1, keepdims=True)
    assert prior.probability.reshape(30, 5) == pytest.approx(dense, rel=1e-9)


def test_classes_without_evidence_stay_and_lumped_states_have_no_bias():
    gradient, information = np.array([2.0, 0.0, 0.0, 0.0]), np.array([4.0, 9.0, 0.0, 0.0])
    step = next_bias((0.0, 0.0, 0.0, 0.5), gradient, information)
    assert 0 < step[0] < 0.5
    assert step[1] == pytest.approx(-step[0])  # together they change nothing
    assert step[2] == 0.0
    assert abs(step[3]) < 0.5  # towards 0
    assert shift_of(BIAS, np.array([3, -1, -2])).tolist() == [0.8, 0.0, 0.0]
    assert shift_of((), np.array([3])) is None


def world(shift, votes=1_500, images=6_000, classes=6, seed=0):
    """A machine whose classes are shifted; votes by risk, a fifth of them by chance."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), truth] += 1.5
    logits = 1.5 * logits + shift * random.normal(size=classes)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    even = votes / 5 / images
    inclusion = np.full(images, even)
    inclusion[np.argsort(p.max(1))[: votes * 4 // 5]] = 1.0
    asked = np.flatnonzero(random.random(images) < inclusion)
    right = random.random(len(asked)) < 0.85
    label = np.where(right, truth[asked], random.integers(0, classes, len(asked)))
    worker = random.integers(0, 10, len(asked))
    inputs = Inputs(
        votes_of(zip(asked, worker, label, strict=True)),
        SetVotes.none(),
        beliefs_of({i: dict(enumerate(p[i])) for i in asked}),
        NO_GOLD,
        Inclusion(asked, inclusion[asked]),
    )
    model = Model(
        classes=classes,
        workers=10,
        worker_model="one_coin",
        beliefs_are="categorical",
        fit_calibration="votes",
    )
    rest = np.setdiff1d(np.arange(images), asked)
    return inputs, model, p[rest], truth[rest]


def fitted(inputs, model, parts=1):
    problems = [
        problems_of(inputs.where(lambda image, n=n: image % parts == n), model)
        for n in range(parts)
    ]
    begin = State(calibration=first_calibration(model, Calibration()))
    step = PartitionedEStep(InMemory(problems), model)
    return fit(step, model, StoppingRule(40), begin, lambda _: None)


def test_images_without_votes_are_labelled_better_where_the_machine_has_a_bias():
    inputs, model, p, truth = world(shift=1.0)
    choice = choose_model(inputs, model, Wanted(calibration=True), Calibration(), 200)
    assert choice.document["calibration"]["chosen"] == "class_bias"
    calibration = fitted(inputs, choice.model).calibration
    q = p**calibration.a * np.exp(calibration.bias)
    q /= q.sum(1, keepdims=True)
    before, after = ((each.argmax(1) == truth).mean() for each in (p, q))
    print(f"accuracy of images without votes: {before:.3f}, with biases {after:.3f}")
    assert after > before + 0.03
    rows = np.arange(len(p))
    assert np.log(q[rows, truth]).mean() > np.log(p[rows, truth]).mean() + 0.1


def test_biases_are_the_same_however_images_are_partitioned_and_the_objective_rises():
    inputs, model, _, _ = world(shift=1.0, votes=600, images=2_000)
    problems = problems_of(inputs, model)
    model = with_calibration(model, gather_coverage(problems, model), curved=False)
    model = replace(model, class_bias=True, count_unit=2.0**-40)
    one, several = (fitted(inputs, model, parts) for parts in (1, 3))
    assert one.calibration == several.calibration
    assert one.calibration.bias != (0.0,) * model.classes


def test_a_machine_without_a_bias_gets_none():
    inputs, model, _, _ = world(shift=0.0)
    choice = choose_model(inputs, model, Wanted(calibration=True), Calibration(), 200)
    assert choice.document["calibration"]["chosen"] != "class_bias"


def test_a_bias_of_the_machine_is_not_taken_for_a_confusion_of_workers(monkeypatch):
    """Confusions that all workers share explain votes against a biased machine, but less well."""
    monkeypatch.setattr(model_choice, "_MARGIN", 0.1)
    monkeypatch.setattr(model_choice, "_HELD_OUT", 180)  # three tenths: faster
    inputs, model, _, _ = world(shift=1.5, votes=600, images=2_000)
    choice = choose_model(inputs, model, Wanted(True, False, True), Calibration(), 200)
    document = choice.document["worker_model"]
    enough = document["margin"] + 2 * document["standard_error"]["pooled"]
    assert document["gain"]["class_bias"] > document["gain"]["pooled"] > enough
    assert document["chosen"] == "one_coin"


def test_gold_images_and_images_without_beliefs_say_nothing_of_biases():
    problems, model = drawn("categorical", False)
    step = PartitionedEStep(InMemory([problems]), model)
    parameters = Parameters(at_prior(step), Calibration(bias=BIAS))
    prior = log_prior(problems, parameters, model, slopes=True)
    nothing = np.zeros(len(problems))
    sums = bias_sums(problems, np.exp(prior.log), prior.bias, np.exp(prior.log), nothing, 5)
    assert [each.total().tolist() for each in sums] == [[0.0] * 5] * 2
