"""The flat kernels equal the model written out in dense loops."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.inputs import Gold
from coyo_labeler.em.model import Calibration, Model
from tests.em import dense
from tests.em.in_memory import beliefs_of, build, never_falls, run_em, votes_of

RESPONSES = ("", "yes", "no", "unsure")


@st.composite
def problems(draw, worker_models=("confusion", "one_coin")):
    """A handful of images, workers and classes, and every choice of the model."""
    classes = draw(st.integers(2, 5))
    workers = draw(st.integers(1, 4))
    probability = st.floats(0.01, 0.97)
    images = []
    for _ in range(draw(st.integers(1, 6))):
        belief = draw(
            st.none()
            | st.dictionaries(
                st.integers(0, classes - 1), probability, min_size=1, max_size=classes
            )
        )
        asked = draw(
            st.dictionaries(
                st.tuples(st.integers(0, workers - 1), st.booleans(), st.integers(0, classes - 1)),
                st.sampled_from(RESPONSES[1:]),
                min_size=1,
                max_size=6,
            )
        )
        votes, chosen = [], set()
        for (worker, choice, label), response in sorted(asked.items()):
            if choice and worker not in chosen:
                chosen.add(worker)
                votes.append((worker, label, ""))
            elif not choice:
                votes.append((worker, label, response))
        gold = draw(st.none() | st.integers(0, classes - 1))
        if votes:
            images.append(dense.Image(votes, belief, gold))
    choices = dense.Choices(
        classes=classes,
        worker_model=draw(st.sampled_from(worker_models)),
        beliefs_are=draw(st.sampled_from(["sigmoid", "categorical"])),
        alpha=draw(st.floats(0.1, 20)),
        beta=draw(st.none() | st.floats(0.1, 20)),
        accuracy=draw(st.floats(0.3, 0.95)),
        estimated=draw(st.booleans()),
        a=draw(st.floats(0.3, 3)),
    )
    if choices.worker_model == "one_coin":
        choices.shared_mistakes = draw(st.sampled_from([0.0, 0.5, 0.9]))
        choices.offered = draw(st.sampled_from([0, 2, 3, 50]))
    if choices.beliefs_are == "sigmoid":
        choices.b = draw(st.floats(-2, 2))
    else:  # a distribution: its probabilities sum to less than 1
        for image in images:
            if image.belief:
                total = sum(image.belief.values()) * 1.05
                image.belief = {c: p / total for c, p in image.belief.items()}
    return images, workers, choices


def arrays(images, workers, choices, **more):
    model = Model(
        classes=choices.classes,
        workers=workers,
        beliefs_are=choices.beliefs_are,
        worker_model=choices.worker_model,
        prior_strength=choices.alpha,
        pooling_strength=choices.beta,
        prior_accuracy=choices.accuracy,
        prior_floor=choices.floor,
        hard_counts=choices.hard,
        estimate_class_prior=choices.estimated,
        support_mass=1.0,
        shared_mistakes=choices.shared_mistakes,
        **more,
    )
    votes = votes_of(
        (i, worker, label, RESPONSES.index(response))
        for i, image in enumerate(images)
        for worker, label, response in image.votes
    )
    votes = replace(votes, offered=np.full(len(votes.image), choices.offered, np.int32))
    beliefs = beliefs_of({i: image.belief for i, image in enumerate(images) if image.belief})
    true = [(i, image.gold) for i, image in enumerate(images) if image.gold is not None]
    gold = Gold(
        np.array([i for i, _ in true], np.int64), np.array([label for _, label in true], np.int32)
    )
    return votes, model, beliefs, gold


def compare(images, workers, choices, iterations, partitions):
    slow = dense.expectation_maximisation(images, choices, iterations + 1)
    passes = build(*arrays(images, workers, choices), partitions)
    state, posterior = run_em(passes, iterations, calibration=Calibration(choices.a, choices.b))
    assert [entry["objective"] for entry in state.history] == pytest.approx(
        slow.objective[: len(state.history)], rel=1e-9, abs=1e-9
    )
    if len(state.history) < iterations:
        return  # it stood still to the last bit
    for i, probabilities in enumerate(slow.posterior):
        for label, expected in probabilities.items():
            assert posterior[i, label] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(1, 4), st.integers(1, 3))
def test_posterior_and_objective_equal_the_dense_loops(problem, iterations, partitions):
    images, workers, choices = problem
    if images:
        compare(images, workers, choices, iterations, partitions)


@settings(max_examples=60, deadline=None)
@given(problems(["confusion", "one_coin", "perfect"]), st.integers(1, 3), st.integers(1, 3))
def test_hard_counts_and_perfect_workers_equal_the_dense_loops(problem, iterations, partitions):
    images, workers, choices = problem
    if choices.worker_model == "perfect":  # (1e-100)^4 is no number
        images = [dense.Image(image.votes[:3], image.belief, image.gold) for image in images]
    else:
        choices.hard = True
    if not images:
        return
    try:
        compare(images, workers, choices, iterations, partitions)
    except dense.TieError:
        return


@settings(max_examples=50, deadline=None)
@given(problems())
def test_counts_equal_the_dense_loops(problem):
    images, workers, choices = problem
    if not images:
        return
    choices.estimated = False
    slow = dense.expectation_maximisation(images, choices, 2)
    passes = build(*arrays(images, workers, choices), 2)
    state, _ = run_em(passes, 2, calibration=Calibration(choices.a, choices.b))
    assert state.counts.sum() == pytest.approx(sum(slow.counts.values()), abs=1e-9)
    right = sum(
        n
        for key, n in slow.counts.items()
        if key[-1] == "right"
        or (key[0] == "choice" and len(key) == 4 and key[2] == key[3])
        or (key[0] == "answer" and len(key) == 4 and key[3] == ("yes" if key[2] else "no"))
    )
    assert state.counts[passes.table.decode().right].sum() == pytest.approx(right, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(1, 3))
def test_the_objective_never_falls_with_soft_counts_and_a_fixed_pool(problem, partitions):
    images, workers, choices = problem
    if not images:
        return
    choices.beta = None
    passes = build(*arrays(images, workers, choices), partitions)
    state, _ = run_em(passes, 15, calibration=Calibration(choices.a, choices.b))
    assert never_falls(state.history)


@settings(max_examples=40, deadline=None)
@given(problems())
def test_calibration_on_the_votes_never_lowers_the_objective(problem):
    images, workers, choices = problem
    if not images:
        return
    choices.beta = None
    passes = build(*arrays(images, workers, choices, fit_calibration="votes"), 2)
    state, _ = run_em(passes, 15)
    assert never_falls(state.history)


def test_hard_counts_count_the_top_class_and_the_lowest_of_equals():
    images = [
        dense.Image([(0, 1, ""), (1, 2, "")]),
        dense.Image([(0, 0, ""), (1, 0, ""), (2, 1, "")], {0: 0.6, 2: 0.3}),
        dense.Image([(2, 2, "")], {1: 0.9}),
    ]
    choices = dense.Choices(classes=4, hard=True)
    compare(images, 3, choices, 3, 1)


def test_a_belief_far_out_on_the_sigmoid_is_a_distribution_all_the_same():
    """All classes believed, and a calibration that leaves each of them next to nothing."""
    image = dense.Image([(0, 1, "")], {0: 0.2, 1: 0.1, 2: 0.1})
    for a, b in [(1.0, -60.0), (3.0, -500.0)]:
        compare([image], 1, dense.Choices(classes=3, a=a, b=b), 3, 1)
