"""Calibration on gold maximises the likelihood of gold."""

import numpy as np
import pytest
from scipy.optimize import minimize

from coyo_labeler.em.inputs import Gold
from coyo_labeler.em.model import Model
from tests.em.in_memory import beliefs_of, build, run_em, votes_of

CLASSES = 3


def doubtful(images, seed=0):
    """Beliefs {image: {class: probability}} in two classes each, too sure, and the true classes.

    The first class has a probability of 0.5 to 0.9, and is true half as often as that says.
    """
    random = np.random.default_rng(seed)
    beliefs, true = {}, []
    for image in range(images):
        first, second = random.permutation(CLASSES)[:2]
        sure = float(random.uniform(0.5, 0.9))
        beliefs[image] = {int(first): sure, int(second): 0.3 * (1 - sure)}
        true.append(int(first) if random.random() < sure / 2 else int(random.integers(CLASSES)))
    return beliefs, np.array(true)


def log_likelihood_of_gold(a, b, beliefs, true, floor=1e-4):
    """The model's calibration of sigmoid beliefs, image by image."""
    total = 0.0
    for image, label in enumerate(true):
        p = np.array(list(beliefs[image].values()))
        q = 1 / (1 + np.exp(-(a * np.log(p / (1 - p)) + b)))
        rest = max(floor, 1 - q.sum())
        shares = dict(zip(beliefs[image], q * (1 - rest) / q.sum(), strict=True))
        total += np.log(shares.get(label, rest / (CLASSES - len(p))))
    return total


def test_calibration_on_gold_ends_where_gold_is_most_probable():
    beliefs, true = doubtful(400)
    gold = Gold(np.arange(400), true.astype(np.int32))
    model = Model(classes=CLASSES, workers=1, fit_calibration="gold")
    e_step = build(votes_of([(0, 0, 1)]), model, beliefs_of(beliefs), gold)
    state, _ = run_em(e_step, 1)
    best = minimize(
        lambda x: -log_likelihood_of_gold(*x, beliefs, true), (1.0, 0.0), method="Nelder-Mead"
    )
    fitted = np.array([state.calibration.a, state.calibration.b])
    assert fitted == pytest.approx(best.x, abs=2e-3)
    assert abs(fitted - [1.0, 0.0]).max() > 0.1
