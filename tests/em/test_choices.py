"""Mistakes that people share with the machine: the distribution of a wrong choice, and its choice.

The dense twin of the whole model has them too: `test_dense`.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.inputs import Gold, Inputs, SetVotes
from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.em.model_choice import CANDIDATES, Wanted, choose_model, name_of, named_model
from tests.em.in_memory import NO_BELIEFS, NO_GOLD, beliefs_of, build, never_falls, run_em, votes_of
from tests.em.test_model_choice import NO_PROBABILITY

CLASSES, WORKERS = 6, 8
MODEL = Model(CLASSES, WORKERS, beliefs_are="categorical", worker_model="one_coin")
SHARED = named_model(MODEL, "shared_mistakes")


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.integers(0, 5), st.floats(1e-7, 1.0), min_size=1, max_size=6),
    st.sampled_from(["sigmoid", "categorical", "posterior"]),
    st.floats(0.0, 0.99, exclude_min=True),
)
def test_wrong_choices_have_a_distribution(belief, beliefs_are, share):
    """One vote for each class: what they say of class y adds up, without that for y, to one."""
    total = 1.0 if beliefs_are == "sigmoid" else max(sum(belief.values()), 1.0)
    belief = {c: p / total for c, p in belief.items()}
    model = replace(MODEL, beliefs_are=beliefs_are, shared_mistakes=share, support_mass=1.0)
    beliefs = beliefs_of(dict.fromkeys(range(CLASSES), belief))
    # All classes are listed, by one vote and an answer to each question.
    rows = [(z, 0, z) for z in range(CLASSES)]
    rows += [(z, 1, c, 1) for z in range(CLASSES) for c in range(CLASSES)]
    problems = build(votes_of(rows), model, beliefs).partitions[0]
    factor = np.exp(problems.mistakes.reshape(CLASSES, CLASSES))  # by voted class and by truth
    assert np.diagonal(factor) == pytest.approx(1.0)
    of_wrong = (factor.sum(axis=0) - 1.0) / (CLASSES - 1)
    assert (factor >= 1 - share - 1e-9).all()
    assert of_wrong == pytest.approx(1.0, abs=1e-6)


def test_without_a_belief_or_a_choice_workers_are_one_coin():
    rows = [(i, w, (i + w // 2) % CLASSES, w % 2) for i in range(30) for w in range(4)]
    votes = votes_of(rows)
    for beliefs, wanted in ((NO_BELIEFS, votes), (some_beliefs(), votes_of(answers(rows)))):
        _, expected = run_em(build(wanted, MODEL, beliefs), 5)
        _, posterior = run_em(build(wanted, SHARED, beliefs), 5)
        assert posterior == expected
    assert len(build(votes, MODEL, some_beliefs()).partitions[0].mistakes) == 0


def some_beliefs():
    return beliefs_of({i: {i % CLASSES: 0.6, (i + 1) % CLASSES: 0.3} for i in range(30)})


def answers(rows):
    return [(image, worker, label, 1 + response) for image, worker, label, response in rows]


def test_agreeing_with_the_machine_says_less():
    """By hand: λ = 1/2, C = 6; the worker agrees with a machine that says 0.6 and 0.3."""
    beliefs = beliefs_of({0: {0: 0.6, 1: 0.3}})
    votes = votes_of([(0, 0, 0)])
    certain = replace(SHARED, prior_strength=1e12, pooling_strength=None)
    posterior = run_em(build(votes, certain, beliefs), 1)[1]
    wrong = 0.2 * np.array([0.0, 0.5 / 5 + 0.5 * 0.6 / 0.7, 0.5 / 5 + 0.5 * 0.6 / 0.975])
    joint = np.array([0.6 * 0.8, 0.3 * wrong[1], 0.1 * wrong[2]])
    assert posterior[0, 0] == pytest.approx(joint[0] / joint.sum(), rel=1e-9)


@pytest.mark.parametrize("partitions", [1, 3])
def test_the_objective_never_falls(partitions):
    sample = crowd(shared=0.6, per_image=2, images=200)
    model = replace(SHARED, fit_calibration="votes", pooling_strength=None)
    state, _ = run_em(build(sample.votes, model, sample.beliefs, partitions=partitions), 30)
    assert never_falls(state.history)


def crowd(shared, per_image, images):
    """Votes, and a machine that is right. shared: of mistakes, its likeliest wrong class."""
    return crowd_and_truth(shared, per_image, images)[0]


def gold_of(images):
    """The class of each image of a crowd."""
    truth = np.array(crowd_and_truth(0.8, 1, images)[1], np.int32)
    return np.arange(images), truth


def crowd_and_truth(shared, per_image, images):
    random = np.random.default_rng(3)
    beliefs, rows, truth = {}, [], []
    for image in range(images):
        p = random.dirichlet(np.full(CLASSES, 0.4)) * 0.99 + 0.01 / CLASSES
        beliefs[image] = dict(enumerate(p))
        true = random.choice(CLASSES, p=p)
        truth.append(true)
        others = [c for c in np.argsort(-p) if c != true]
        for worker in random.permutation(WORKERS)[:per_image]:
            label = true
            if random.random() >= 0.7:
                label = others[0] if random.random() < shared else random.choice(others)
            rows.append((image, int(worker), int(label)))
    beliefs = beliefs_of(beliefs)
    return Inputs(votes_of(rows), SetVotes.none(), beliefs, NO_GOLD, NO_PROBABILITY), truth


def choose(sample, **model):
    wanted = Wanted(worker_model=True)
    return choose_model(sample, replace(MODEL, **model), wanted, Calibration(), 200)


@pytest.mark.parametrize(("shared", "expected"), [(0.8, "shared_mistakes"), (0.0, "one_coin")])
def test_second_votes_tell_whether_mistakes_are_shared(shared, expected):
    choice = choose(crowd(shared, 2, images=400))
    assert name_of(choice.model) == expected
    document = choice.document["worker_model"]
    assert (document["gain"]["shared_mistakes"] > 0) == (expected == "shared_mistakes")
    assert document["telling_images"] == 400


def test_gold_tells_it_too_but_single_votes_do_not():
    sample = crowd(0.8, 1, images=500)
    unknown = choose(sample).document["worker_model"]
    assert "shared_mistakes" not in unknown["gain"]
    known = choose(replace(sample, gold=Gold(*gold_of(500))))
    assert name_of(known.model) == "shared_mistakes"
    assert known.document["worker_model"]["telling_images"] == 500


def test_questions_have_no_shared_mistakes():
    document = choose(crowd(0.8, 2, images=100), truth="multi").document["worker_model"]
    assert "shared_mistakes" not in document["gain"]


def test_every_worker_model_has_one_name():
    for name in (*CANDIDATES, "perfect"):
        for before in CANDIDATES:
            assert name_of(named_model(named_model(MODEL, before), name)) == name
