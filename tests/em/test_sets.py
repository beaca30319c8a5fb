"""Answers about sets of classes: the flat kernels equal the model written out in loops."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coyo_labeler.em import build_sets
from coyo_labeler.em.model import Calibration
from tests.em import dense, dense_multi
from tests.em.in_memory import (
    build,
    never_falls,
    run_em,
)
from tests.em.test_dense import RESPONSES, arrays, problems


@st.composite
def asked_about_sets(draw, worker_models=("confusion", "one_coin")):
    """Problems as for plain votes, with more classes and up to four answers about sets each."""
    images, workers, choices = draw(problems(worker_models))
    choices.classes += draw(st.integers(0, 3))
    classes = st.integers(0, choices.classes - 1)
    for image in images:
        image.sets = draw(
            st.lists(
                st.tuples(
                    st.integers(0, workers - 1),
                    st.frozensets(classes, min_size=1),
                    st.sampled_from(RESPONSES[1:]),
                ),
                max_size=4,
            )
        )
        if draw(st.booleans()) and image.sets:  # votes about sets alone
            image.votes = []
    return images, workers, choices


def rows_of(images):
    return [
        (i, worker, classes, RESPONSES.index(response))
        for i, image in enumerate(images)
        for worker, classes, response in image.sets
    ]


def fitted(images, workers, choices, iterations, partitions, **more):
    votes, model, beliefs, gold = arrays(images, workers, choices, **more)
    passes = build(votes, model, beliefs, gold, partitions, rows_of(images))
    return passes, *run_em(passes, iterations, calibration=Calibration(choices.a, choices.b))


def image_with(image, gold):
    """The image with a set of labels as gold."""
    labels = None if gold is None else {gold}
    return dense.Image(image.votes, image.belief, labels, image.sets)


def multi_arrays(images, workers, choices, **more):
    votes, model, beliefs, gold = arrays(images, workers, choices, truth="multi", **more)
    return votes, model, beliefs, gold


def compare(images, workers, choices, iterations, partitions):
    slow = dense.expectation_maximisation(images, choices, iterations + 1)
    _, state, posterior = fitted(images, workers, choices, iterations, partitions)
    assert [entry["objective"] for entry in state.history] == pytest.approx(
        slow.objective[: len(state.history)], rel=1e-9, abs=1e-9
    )
    if len(state.history) < iterations:
        return  # it stood still to the last bit
    for i, probabilities in enumerate(slow.posterior):
        for label, expected in probabilities.items():
            if label >= 0:
                assert posterior[i, label] == pytest.approx(expected, rel=1e-9, abs=1e-9)
        lumped = sum(p for (image, label), p in posterior.items() if image == i and label < 0)
        expected = sum(p for label, p in probabilities.items() if label < 0)
        assert lumped == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("listed", [0, 1, 32])
@settings(max_examples=50, deadline=None)
@given(problem=asked_about_sets(), iterations=st.integers(1, 3), partitions=st.integers(1, 3))
def test_posterior_and_objective_equal_the_dense_loops(listed, problem, iterations, partitions):
    """Whether the classes of a set are listed or lumped: over all classes it is the same model."""
    images, workers, choices = problem
    choices.listed_set = listed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_sets, "LISTED_SET", listed)
        if images:
            compare(images, workers, choices, iterations, partitions)


@settings(max_examples=30, deadline=None)
@given(problem=asked_about_sets(["perfect"]), partitions=st.integers(1, 3))
def test_perfect_workers_equal_the_dense_loops(problem, partitions):
    images, workers, choices = problem
    choices.listed_set = 0
    for image in images:  # (1e-100)^4 is no number
        image.votes, image.sets = image.votes[:1], image.sets[:2]
    images = [image for image in images if image.votes or image.sets]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_sets, "LISTED_SET", 0)
        if images:
            compare(images, workers, choices, 1, partitions)


@settings(max_examples=30, deadline=None)
@given(problem=asked_about_sets(), partitions=st.integers(1, 3), listed=st.sampled_from([0, 32]))
def test_the_objective_never_falls(problem, partitions, listed):
    images, workers, choices = problem
    choices.beta = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_sets, "LISTED_SET", listed)
        if images:
            _, state, _ = fitted(images, workers, choices, 12, partitions, fit_calibration="votes")
            assert never_falls(state.history)


@settings(max_examples=80, deadline=None)
@given(problem=asked_about_sets(), iterations=st.integers(1, 3), partitions=st.integers(1, 3))
def test_sets_of_labels_equal_the_dense_loops(problem, iterations, partitions):
    """`truth: multi`: over all combinations of what is there, it is the same model."""
    images, workers, choices = problem
    if not images:
        return
    slow_images = [image_with(image, image.gold) for image in images]
    slow = dense_multi.expectation_maximisation(slow_images, choices, iterations + 1)
    passes = build(*multi_arrays(images, workers, choices), partitions, rows_of(images))
    state, posterior = run_em(passes, iterations, calibration=Calibration(choices.a, choices.b))
    assert [entry["objective"] for entry in state.history] == pytest.approx(
        slow.objective[: len(state.history)], rel=1e-8, abs=1e-8
    )
    if len(state.history) < iterations:
        return
    assert state.true_share == pytest.approx(slow.share, rel=1e-8, abs=1e-8)
    assert {key for key in posterior if key[1] >= 0} == {key for key in slow.true if key[1] >= 0}
    for key, expected in slow.true.items():
        if key[1] >= 0:
            assert posterior[key] == pytest.approx(expected, rel=1e-8, abs=1e-8)
