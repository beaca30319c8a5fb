"""One belief of two: a teacher's and a learner's, multiplied with weights (a logarithmic pool).

    p_i(c) ∝ t_i(c)^a l_i(c)^b        0 ≤ a, b ≤ 1

The weights maximise the likelihood of images that the learner was not trained on. Half of the
images decide the other half's weights, and both halves together decide whether the learner helps
at all: where it does not, a = 1 and b = 0, the teacher alone. Genest & Zidek, Statistical Science
1986.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from coyo_labeler.learn.out_of_fold import folds_of
from coyo_labeler.learn.softmax import F32, F64, log_softmax

I64 = NDArray[np.int64]

#: Fewer images than this decide nothing: the teacher stays alone.
FEWEST = 50
#: Neither is sharpened: the posteriors were made with the help of one of them, and agree with it
#: more than the truth does.
_MOST = 1.0
#: A learner of less weight is left out.
_LEAST = 0.01


@dataclass(frozen=True)
class Pool:
    """teacher, learner: a and b. gain: mean log likelihood per held-out image above the teacher's.

    images: how many decided.
    """

    teacher: float = 1.0
    learner: float = 0.0
    gain: float = 0.0
    images: int = 0

    def apply(self, log_teacher: F32, log_learner: F32) -> F32:
        """Probabilities (n, C) from log probabilities (n, C)."""
        scores = np.float32(self.teacher) * log_teacher + np.float32(self.learner) * log_learner
        log_softmax(scores)
        return np.exp(scores, out=scores)


def fit_pool(log_teacher: F32, log_learner: F32, targets: F32, image: I64) -> Pool:
    """The weights, or the teacher alone where held-out images do not gain.

    log_teacher, log_learner: (n, C), the latter out of fold. targets: (n, C) posteriors. image:
    (n,) ids, whose hash makes the halves.
    """
    if len(image) < FEWEST:
        return Pool(images=len(image))
    half = folds_of(image, 2)
    gains = []
    for number in (0, 1):
        fitted_on, judged_on = half == number, half != number
        if not fitted_on.any() or not judged_on.any():
            return Pool(images=len(image))
        a, b = _weights(log_teacher[fitted_on], log_learner[fitted_on], targets[fitted_on])
        own = (log_teacher[judged_on], log_learner[judged_on], targets[judged_on])
        gains.append(_log_likelihood(a, b, *own) - _log_likelihood(1.0, 0.0, *own))
    gain = np.concatenate(gains)
    mean = float(gain.mean())
    # Not by chance: the gain is above its standard error.
    if mean <= float(gain.std()) / np.sqrt(len(gain)):
        return Pool(gain=mean, images=len(image))
    a, b = _weights(log_teacher, log_learner, targets)
    if b < _LEAST:
        return Pool(gain=mean, images=len(image))
    return Pool(a, b, mean, len(image))


def _log_likelihood(a: float, b: float, log_teacher: F32, log_learner: F32, targets: F32) -> F64:
    """Σ_c q(c) log p(c) of each image, (n,)."""
    scores = log_softmax(np.float32(a) * log_teacher + np.float32(b) * log_learner)
    return np.asarray(np.einsum("nc,nc->n", targets, scores, dtype=np.float64))


def _weights(log_teacher: F32, log_learner: F32, targets: F32) -> tuple[float, float]:
    n = len(targets)

    def loss(weights: F64) -> tuple[float, F64]:
        a, b = float(weights[0]), float(weights[1])
        scores = log_softmax(np.float32(a) * log_teacher + np.float32(b) * log_learner)
        value = -float(np.einsum("nc,nc->", targets, scores, dtype=np.float64)) / n
        rest = np.exp(scores) - targets
        gradient = [
            float(np.einsum("nc,nc->", rest, of, dtype=np.float64)) / n
            for of in (log_teacher, log_learner)
        ]
        return value, np.array(gradient)

    found = minimize(
        loss, np.array([1.0, 0.1]), jac=True, method="L-BFGS-B", bounds=[(0.0, _MOST)] * 2
    ).x
    return float(found[0]), float(found[1])
