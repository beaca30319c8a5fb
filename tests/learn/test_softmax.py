"""The learner's kernel: its optimum, its independence of threads and its parts."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from coyo_labeler.learn.features import normalise, principal_components
from coyo_labeler.learn.softmax import (
    class_weights,
    fit_sharpness,
    fit_softmax,
    log_softmax,
    one_thread_blas,
)
from coyo_labeler.learn.top_k import top_k
from tests.learn.blobs import blobs, one_hot


def test_it_is_logistic_regression():
    features, truth = blobs(400, 4, 6)
    ridge = 0.01
    model = fit_softmax(
        features, one_hot(truth, 4), np.ones(400, np.float32), ridge, tolerance=1e-10
    )
    other = LogisticRegression(C=1 / (ridge * 400), tol=1e-8, max_iter=1000).fit(features, truth)
    ours = np.exp(log_softmax(model.logits(features)))
    assert np.abs(ours - other.predict_proba(features)).max() < 2e-3


def test_soft_targets_are_rows_of_each_class_with_weights():
    features, truth = blobs(200, 3, 5)
    other = (truth + 1) % 3
    soft = 0.7 * one_hot(truth, 3) + 0.3 * one_hot(other, 3)
    one = fit_softmax(features, soft, np.ones(200, np.float32), 0.01, tolerance=1e-10)
    two = fit_softmax(
        np.concatenate([features, features]),
        np.concatenate([one_hot(truth, 3), one_hot(other, 3)]),
        np.repeat(np.array([0.7, 0.3], np.float32), 200),
        0.01,
        tolerance=1e-10,
    )
    assert np.abs(one.logits(features) - two.logits(features)).max() < 1e-2


def test_sparse_targets_are_dense_ones():
    features, truth = blobs(300, 3, 5)
    targets = one_hot(truth, 3)
    dense = fit_softmax(features, targets, np.ones(300, np.float32), 0.01)
    sparse = fit_softmax(features, csr_matrix(targets), np.ones(300, np.float32), 0.01)
    assert (dense.coefficients == sparse.coefficients).all()


def test_threads_change_no_bit():
    features, truth = blobs(9_000, 5, 40)
    targets, weights = one_hot(truth, 5), np.ones(9_000, np.float32)
    with one_thread_blas(), ThreadPoolExecutor(3) as threads:
        alone = fit_softmax(features, targets, weights, 0.01)
        together = fit_softmax(features, targets, weights, 0.01, run=threads.map)
        axes = principal_components(features, 8).axes
        axes_together = principal_components(features, 8, threads.map).axes
    assert (alone.coefficients == together.coefficients).all()
    assert (alone.intercept == together.intercept).all()
    assert (axes == axes_together).all()


def test_balanced_classes_have_equal_weight():
    targets = one_hot(np.array([0] * 90 + [1] * 10), 3)
    weights = class_weights(targets)
    assert weights @ targets == pytest.approx([1, 1, 0])
    assert class_weights(csr_matrix(targets)) == pytest.approx(weights)


@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_sharpness_is_found(sharpness):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)).astype(np.float32)
    chance = np.exp(log_softmax(logits * np.float32(sharpness)))
    drawn = (rng.random(20_000)[:, None] > chance.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    assert fit_sharpness(logits, one_hot(drawn, 4)) == pytest.approx(sharpness, rel=0.06)


def test_no_row_says_nothing_of_sharpness():
    empty = np.zeros((0, 3), np.float32)
    assert fit_sharpness(empty, empty) == 1.0


def test_components_keep_lengths_and_have_unit_mean_square():
    features, _ = blobs(500, 3, 12)
    whole = principal_components(features, 12).apply(features)
    centred = features - features.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=1).mean())
    assert (whole**2).sum(axis=1) == pytest.approx((centred**2).sum(axis=1) / scale**2, rel=1e-3)
    assert principal_components(features, 3).apply(features).shape == (500, 3)


def test_a_row_of_zeros_stays():
    rows = normalise(np.array([[3, 4], [0, 0]], np.float32))
    assert rows == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


@given(
    st.integers(1, 4), st.integers(1, 400), st.integers(1, 12), st.integers(0, 1000), st.booleans()
)
def test_the_largest_values_are_those_of_a_sort(rows, columns, k, seed, ties):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)).astype(np.float32)
    if ties:
        values = np.round(values)
    column, value = top_k(values, k)
    order = np.argsort(-values, axis=1, kind="stable")[:, : min(k, columns)]
    assert (column == order).all()
    assert (value == np.take_along_axis(values, order, 1)).all()
