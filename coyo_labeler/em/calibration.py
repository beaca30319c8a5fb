"""Calibration of beliefs: a and b are fitted by Fisher scoring; how reliable beliefs are.

sigmoid       p → sigmoid(a · logit(p) + b)     Platt 1999
categorical   p → p^a, normalised               a = 1 / temperature, Guo et al., ICML 2017
"""

import numpy as np

from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import Calibration
from coyo_labeler.em.priors import Prior
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import (
    F64,
    I64,
    Bool,
    bin_sum,
    distinct,
    segment_argmax,
    segment_sum,
    spread,
)

#: Bins of confidence, of equal width.
BINS = 15

#: One step multiplies or divides a by at most this factor, and moves b by at most this much.
_MOST_FACTOR, _MOST_SHIFT = 2.0, 2.0
#: a stays between the first two, b between ± the third.
_LEAST_A, _MOST_A, _MOST_B = 0.02, 50.0, 30.0


def calibration_evidence(problems: Problems) -> I64:
    """How much there is to fit a and b on, (2,): votes, and gold images, that have a belief.

    In `truth: multi` a vote counts where the class that it is about has a belief.
    """
    believed = problems.belief_size > 0
    gold_images = distinct(problems.image[believed & problems.gold])
    votes = problems.n_votes[believed].sum() + problems.n_set_votes[believed].sum()
    return np.array([votes, len(gold_images)], dtype=np.int64)


def calibration_sums(
    prior: Prior, weights: F64, offsets: I64, used: Bool
) -> tuple[ExactSum, ExactSum]:
    """Gradient (2,) and Fisher information (2, 2) of Σ weights · log prior by (a, b).

    prior: with its slope. weights: (nnz,) the posterior, summing to 1 per problem. used: (n,)
    which problems are fitted on.
    At the posterior under the present parameters, the gradient is that of the log-likelihood.
    """
    if prior.slope is None:
        return ExactSum.zeros(2), ExactSum.zeros(2, 2)
    inside = spread(used, offsets)
    slope = np.where(inside[:, None], prior.slope, 0.0)
    by_a, by_b = slope[:, 0], slope[:, 1]
    probability = np.exp(prior.log)
    aa, ab, bb, a, b = (
        ExactSum.of(segment_sum(values, offsets))
        for values in (
            probability * by_a * by_a,
            probability * by_a * by_b,
            probability * by_b * by_b,
            weights * by_a,
            weights * by_b,
        )
    )
    information = ExactSum.stack([ExactSum.stack([aa, ab]), ExactSum.stack([ab, bb])])
    return ExactSum.stack([a, b]), information


def next_calibration(present: Calibration, gradient: F64, information: F64) -> Calibration:
    """One step of Fisher scoring, (a, b) + I⁻¹ g, limited to a safe length.

    gradient: (2,) g, information: (2, 2) I, of `calibration_sums`. McCullagh & Nelder 1989, section
    2.5. What has no information (b of categorical beliefs) is not moved.
    """
    step = np.linalg.pinv(information, rcond=1e-10, hermitian=True) @ gradient
    a = np.clip(present.a + step[0], present.a / _MOST_FACTOR, present.a * _MOST_FACTOR)
    b = present.b + np.clip(step[1], -_MOST_SHIFT, _MOST_SHIFT)
    return Calibration(float(np.clip(a, _LEAST_A, _MOST_A)), float(np.clip(b, -_MOST_B, _MOST_B)))


def halfway(one: Calibration, other: Calibration) -> Calibration:
    """The calibration half-way between two."""
    return Calibration((one.a + other.a) / 2, (one.b + other.b) / 2)


def reliability_of(log_prior: F64, posterior: F64, offsets: I64, used: Bool) -> F64:
    """How often the machine's most probable class is right, by its confidence, (BINS, 3).

    Per bin of confidence: problems, sum of confidence, sum of the posterior of that class (1 or 0
    where gold is given). log_prior, posterior: (nnz,). used: (n,) which problems count.
    """
    top = segment_argmax(log_prior, offsets)[used]
    confidence, right = np.exp(log_prior[top]), posterior[top]
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    values = (np.ones(len(top)), confidence, right)
    return np.stack([bin_sum(bins, value, BINS) for value in values], axis=1)


def expected_calibration_error(reliability: F64) -> float | None:
    """Σ_b (n_b / n) |accuracy_b − confidence_b|; None where nothing was counted.

    reliability: (BINS, 3) `reliability_of`. Naeini et al., AAAI 2015; Guo et al., ICML 2017, eq. 3.
    """
    total = reliability[:, 0].sum()
    if total == 0:
        return None
    return float(np.abs(reliability[:, 2] - reliability[:, 1]).sum() / total)
