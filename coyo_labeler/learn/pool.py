"""One belief of two: a teacher's and a learner's, multiplied with weights (a logarithmic pool).

    p_i(c) ∝ t_i(c)^a l_i(c)^b        0 ≤ a, b ≤ 1

The weights maximise the likelihood of images that the learner was not trained on: of their
posteriors, or of their votes. Half of the images decide the other half's weights, and both halves
together decide whether the learner helps at all: where it does not, a = 1 and b = 0, the teacher
alone. Genest & Zidek, Statistical Science 1986.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from coyo_labeler.learn.out_of_fold import folds_of
from coyo_labeler.learn.softmax import F32, F64, log_softmax

I64 = NDArray[np.int64]

#: Fewer images than this decide nothing: the teacher stays alone.
FEWEST = 50
#: Neither is sharpened: posteriors were made with the help of one of them, and agree with it more
#: than the truth does. Workers and learner make the same mistakes, for it learned from workers.
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


class Judge(Protocol):
    """What decides between beliefs of some images."""

    @property
    def starts(self) -> Sequence[tuple[float, float]]:
        """Weights (a, b) that the search begins from."""

    def of(self, rows: NDArray[np.bool_]) -> "Judge":
        """The same of some of the images."""

    def judge(self, log_probability: F32) -> tuple[F64, F32]:
        """The log likelihood of each image, (n,), and what is believed after it, (n, C).

        The gradient of the first by a logit is the second minus the probability.
        """


@dataclass(frozen=True)
class ByPosteriors:
    """Σ_c q(c) log p(c). targets: (n, C) posteriors q."""

    targets: F32

    @property
    def starts(self) -> Sequence[tuple[float, float]]:
        """See Judge."""
        return ((1.0, 0.1),)

    def of(self, rows: NDArray[np.bool_]) -> "ByPosteriors":
        """See Judge."""
        return ByPosteriors(self.targets[rows])

    def judge(self, log_probability: F32) -> tuple[F64, F32]:
        """See Judge."""
        value = np.einsum("nc,nc->n", self.targets, log_probability, dtype=np.float64)
        return np.asarray(value), self.targets


@dataclass(frozen=True)
class ByVotes:
    """log Σ_c p(c) P(votes | c). log_likelihood: (n, C) log P(votes | c), see `evidence`."""

    log_likelihood: F32

    @property
    def starts(self) -> Sequence[tuple[float, float]]:
        """See Judge. It is not concave in the weights."""
        return ((1.0, 0.1), (0.1, 1.0))

    def of(self, rows: NDArray[np.bool_]) -> "ByVotes":
        """See Judge."""
        return ByVotes(self.log_likelihood[rows])

    def judge(self, log_probability: F32) -> tuple[F64, F32]:
        """See Judge."""
        joint = log_probability + self.log_likelihood
        peak = joint.max(axis=1, keepdims=True)
        after = np.exp(joint - peak)
        total = after.sum(axis=1, dtype=np.float64)
        value = np.log(total) + peak[:, 0]
        return value, after / total[:, np.newaxis].astype(np.float32)


def fit_pool(log_teacher: F32, log_learner: F32, judge: Judge, image: I64) -> Pool:
    """The weights, or the teacher alone where held-out images do not gain.

    log_teacher, log_learner: (n, C), the latter out of fold. judge: of these images. image: (n,)
    ids, whose hash makes the halves.
    """
    if len(image) < FEWEST:
        return Pool(images=len(image))
    half = folds_of(image, 2)
    gains = []
    for number in (0, 1):
        fitted_on, judged_on = half == number, half != number
        if not fitted_on.any() or not judged_on.any():
            return Pool(images=len(image))
        a, b = _weights(log_teacher[fitted_on], log_learner[fitted_on], judge.of(fitted_on))
        own = (log_teacher[judged_on], log_learner[judged_on], judge.of(judged_on))
        gains.append(_log_likelihood(a, b, *own) - _log_likelihood(1.0, 0.0, *own))
    gain = np.concatenate(gains)
    mean = float(gain.mean())
    # Not by chance: the gain is above its standard error.
    if mean <= float(gain.std()) / np.sqrt(len(gain)):
        return Pool(gain=mean, images=len(image))
    a, b = _weights(log_teacher, log_learner, judge)
    if b < _LEAST:
        return Pool(gain=mean, images=len(image))
    return Pool(a, b, mean, len(image))


def _log_likelihood(a: float, b: float, log_teacher: F32, log_learner: F32, judge: Judge) -> F64:
    """Of each image, (n,)."""
    return judge.judge(_log_pool(a, b, log_teacher, log_learner))[0]


def _log_pool(a: float, b: float, log_teacher: F32, log_learner: F32) -> F32:
    return log_softmax(np.float32(a) * log_teacher + np.float32(b) * log_learner)


def _weights(log_teacher: F32, log_learner: F32, judge: Judge) -> tuple[float, float]:
    n = len(log_teacher)

    def loss(weights: F64) -> tuple[float, F64]:
        scores = _log_pool(float(weights[0]), float(weights[1]), log_teacher, log_learner)
        value, after = judge.judge(scores)
        rest = np.exp(scores) - after
        gradient = [
            float(np.einsum("nc,nc->", rest, of, dtype=np.float64)) / n
            for of in (log_teacher, log_learner)
        ]
        return -float(value.sum()) / n, np.array(gradient)

    bounds = [(0.0, _MOST)] * 2
    found = [
        minimize(loss, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in judge.starts
    ]
    best = min(found, key=lambda result: float(result.fun))
    return float(best.x[0]), float(best.x[1])
