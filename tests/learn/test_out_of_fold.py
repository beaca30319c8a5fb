"""No image is predicted by what learned from it, and a bad learner leaves the teacher alone."""

import numpy as np
import pytest

from coyo_labeler.learn.out_of_fold import (
    CrossFitted,
    Recipe,
    folds_of,
    probabilities,
    sample_by_class,
    shrunk_sharpness,
)
from coyo_labeler.learn.pool import ByPosteriors, Pool, fit_pool
from tests.learn.blobs import blobs, one_hot

IMAGES = np.arange(300, dtype=np.int64) * 17 + 5


def accuracy_on_noise(rounds):
    """Of a cross-fitted learner on labels that have nothing to do with the features."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 200)).astype(np.float32)
    labels = rng.integers(0, 2, 300)
    learner = CrossFitted(Recipe(ridge=1e-3))
    for _ in range(rounds):
        logits = learner.fit(features, IMAGES, np.arange(300), one_hot(labels, 2))
    return (logits.argmax(axis=1) == labels).mean()


@pytest.mark.parametrize("rounds", [1, 3])
def test_memory_does_not_leak_however_often_it_is_fitted(rounds):
    assert accuracy_on_noise(rounds) < 0.6


def test_images_that_were_not_trained_on_are_predicted_by_all():
    features, truth = blobs(300, 3, 8)
    rows = np.arange(150)
    learner = CrossFitted(Recipe())
    logits = learner.fit(features, IMAGES, rows, one_hot(truth[:150], 3))
    assert logits[150:] == pytest.approx(learner.whole.logits(features[150:]), abs=1e-5)
    assert (logits[150:].argmax(axis=1) == truth[150:]).mean() > 0.9


def test_one_training_image_teaches_others_only():
    features, truth = blobs(300, 3, 8)
    learner = CrossFitted(Recipe())
    logits = learner.fit(features, IMAGES, np.array([7]), one_hot(truth[[7]], 3))
    assert (logits[7] == 0).all()
    assert np.isfinite(logits).all()


def test_folds_go_by_id_alone():
    fold = folds_of(IMAGES, 5)
    assert (folds_of(IMAGES[::-1], 5) == fold[::-1]).all()
    assert set(fold.tolist()) == set(range(5))


def test_samples_have_so_many_of_each_class_whatever_the_order():
    labels = np.array([0] * 200 + [1] * 100)
    kept = sample_by_class(IMAGES, labels, 30)
    assert np.bincount(labels[kept]).tolist() == [30, 30]
    shuffled = np.random.default_rng(0).permutation(300)
    again = sample_by_class(IMAGES[shuffled], labels[shuffled], 30)
    assert set(IMAGES[shuffled][again].tolist()) == set(IMAGES[kept].tolist())


def test_sharpness_stays_near_one_without_evidence():
    empty = np.zeros((0, 3), np.float32)
    assert shrunk_sharpness(empty, empty) == pytest.approx(1.0, abs=0.02)


def test_an_overconfident_learner_is_made_less_sharp():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(2_000, 3)).astype(np.float32)
    drawn = one_hot(rng.integers(0, 3, 2_000), 3)
    assert shrunk_sharpness(logits, drawn) < 0.6


def beliefs_of(truth, right, rng):
    """Log beliefs whose first class is right so often."""
    named = np.where(rng.random(len(truth)) < right, truth, rng.integers(0, 4, len(truth)))
    return np.log(0.1 + 0.6 * one_hot(named, 4))


def test_a_good_learner_joins_the_teacher():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    teacher, learner = beliefs_of(truth, 0.6, rng), beliefs_of(truth, 0.8, rng)
    pool = fit_pool(teacher, learner, ByPosteriors(one_hot(truth, 4)), IMAGES)
    assert pool.learner > pool.teacher > 0
    assert pool.gain > 0
    both = pool.apply(teacher, learner).argmax(axis=1)
    assert (both == truth).mean() > (teacher.argmax(axis=1) == truth).mean()


def test_a_learner_of_noise_leaves_the_teacher_alone():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    teacher, noise = beliefs_of(truth, 0.9, rng), beliefs_of(rng.permutation(truth), 0.9, rng)
    # The teacher's own probabilities are the targets: nothing can be better.
    pool = fit_pool(teacher, noise, ByPosteriors(probabilities(teacher)), IMAGES)
    assert (pool.teacher, pool.learner) == (1.0, 0.0)
    assert pool.apply(teacher, noise) == pytest.approx(probabilities(teacher), abs=1e-6)


def test_few_images_decide_nothing():
    few = np.zeros((10, 4), np.float32)
    pool = fit_pool(few, few, ByPosteriors(np.full((10, 4), 0.25, np.float32)), IMAGES[:10])
    assert pool == Pool(images=10)
