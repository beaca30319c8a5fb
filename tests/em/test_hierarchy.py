"""`truth: multi` where a class implies those above it: kernels equal the model in loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em.hierarchy import Hierarchy
from coyo_labeler.em.model import Calibration, Model
from coyo_labeler.em.responses import Response
from tests.em import dense, dense_multi
from tests.em.in_memory import NO_GOLD, beliefs_of, build, never_falls, run_em, votes_of
from tests.em.test_dense_multi import given_arrays, label_sets

#: Class 0 is the dog, 1 the beagle, 2 the poodle, 3 a beagle too, 4 a cat.
DOGS = {0: [], 1: [0], 2: [0], 3: [1, 0], 4: []}


def hierarchy_of(above):
    """above: {class: those above it, the nearest first}."""
    rows = [[c, *above[c]] for c in sorted(above)]
    ends = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Hierarchy(ends, np.concatenate(rows).astype(np.int32))


@st.composite
def trees(draw, classes):
    """A forest: {class: the classes above it, the nearest first}."""
    above = {}
    for c in range(classes):
        parent = draw(st.integers(-1, c - 1))
        above[c] = [] if parent < 0 else [parent, *above[parent]]
    return above


@st.composite
def forests(draw):
    images, workers, choices = draw(label_sets())
    if choices.worker_model == "perfect":  # (1e-100)^4 is no number
        choices.worker_model = "confusion"
    return images, workers, choices, draw(trees(choices.classes))


@settings(max_examples=60, deadline=None)
@given(forests(), st.integers(1, 3), st.integers(1, 3))
def test_posterior_objective_and_share_equal_the_dense_loops(problem, iterations, partitions):
    images, workers, choices, above = problem
    if not images:
        return
    try:
        slow = dense_multi.expectation_maximisation(
            images, choices, iterations + 1, {c: set(a) for c, a in above.items()}
        )
    except dense.TieError:
        return
    arrays = given_arrays(images, workers, choices)
    passes = build(*arrays, partitions, hierarchy=hierarchy_of(above))
    state, posterior = run_em(passes, iterations, calibration=Calibration(choices.a, choices.b))
    assert [entry["objective"] for entry in state.history] == pytest.approx(
        slow.objective[:iterations], rel=1e-9, abs=1e-9
    )
    assert state.true_share == pytest.approx(slow.share, rel=1e-9, abs=1e-9)
    for key, expected in slow.true.items():
        assert posterior[key] == pytest.approx(expected, rel=1e-8, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(forests(), st.booleans())
def test_calibration_on_the_votes_never_lowers_the_objective(problem, calibrate):
    images, workers, choices, above = problem
    if not images:
        return
    choices.beta, choices.hard = None, False
    fit_on = "votes" if calibrate else "none"
    arrays = given_arrays(images, workers, choices, fit_calibration=fit_on)
    passes = build(*arrays, 2, hierarchy=hierarchy_of(above))
    state, _ = run_em(passes, 15)
    assert never_falls(state.history)


def fit_dogs(rows, beliefs=None, above=DOGS, sets=()):
    model = Model(classes=5, workers=2, truth="multi", prior_accuracy=0.95)
    given = beliefs_of({} if beliefs is None else {7: beliefs})
    votes = votes_of((7, worker, label, response) for worker, label, response in rows)
    return run_em(build(votes, model, given, NO_GOLD, 1, sets, hierarchy_of(above)), 1)[1]


def test_a_yes_speaks_for_those_above_and_a_no_for_those_below():
    beliefs = {0: 0.3, 1: 0.2, 3: 0.1, 2: 0.2, 4: 0.2}
    before = fit_dogs([(0, 4, Response.YES)], beliefs)
    yes = fit_dogs([(0, 4, Response.YES), (0, 3, Response.YES), (1, 3, Response.YES)], beliefs)
    no = fit_dogs([(0, 4, Response.YES), (0, 0, Response.NO), (1, 0, Response.NO)], beliefs)
    assert yes[7, 3] <= yes[7, 1] <= yes[7, 0]
    assert yes[7, 3] > 0.6
    assert no[7, 0] < 0.05
    assert max(no[7, c] for c in (1, 2, 3)) <= no[7, 0]
    # A beagle says nothing of a poodle.
    assert yes[7, 2] == pytest.approx(before[7, 2], abs=0.02)


def test_without_votes_of_its_own_a_class_has_its_cause_or_one_below():
    found = fit_dogs([(0, 4, Response.NO)], {0: 0.1, 1: 0.6, 2: 0.2, 4: 0.5})
    assert found[7, 1] == pytest.approx(0.6)
    assert found[7, 0] == pytest.approx(1 - 0.9 * 0.4 * 0.8)


def test_with_several_parents_no_class_is_above_any_of_them():
    above = {0: [], 1: [], 2: [0, 1], 3: [], 4: []}
    found = fit_dogs(
        [(0, 2, Response.YES), (1, 2, Response.YES)], dict.fromkeys(range(3), 0.2), above
    )
    assert min(found[7, 0], found[7, 1]) >= found[7, 2] > 0.7


def test_an_answer_about_a_set_is_heard_beside_the_tree():
    beliefs = {0: 0.2, 1: 0.2, 2: 0.2, 4: 0.2}
    found = fit_dogs([(0, 4, Response.NO)], beliefs, sets=[(7, 1, {1, 2}, Response.YES)])
    before = fit_dogs([(0, 4, Response.NO)], beliefs)
    assert found[7, 0] > max(found[7, 1], before[7, 0] + 0.1)
    assert found[7, 1] > before[7, 1] + 0.1


def test_gold_implies_the_classes_above():
    images = [dense.Image([(0, 0, "no"), (0, 1, "yes")], None, {1}), dense.Image([(0, 0, "yes")])]
    arrays = given_arrays(images, 1, dense.Choices(classes=5))
    _, found = run_em(build(*arrays, hierarchy=hierarchy_of(DOGS)), 3)
    assert (found[0, 0], found[0, 1]) == (1.0, 1.0)
