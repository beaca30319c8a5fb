"""Calibration of beliefs: a and b are fitted by Fisher scoring; how reliable beliefs are.

sigmoid       p → sigmoid(a · logit(p) + b)     Platt 1999
categorical   p → p^a, normalised               a = 1 / temperature, Guo et al., ICML 2017
"""

from dataclasses import replace

import numpy as np

from coyo_labeler.em.class_bias import log_prior_of_bias
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import Calibration, Curve
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
)

#: Bins of confidence, of equal width.
BINS = 15

#: One step multiplies or divides a by at most this factor, and moves b by at most this much.
_MOST_FACTOR, _MOST_SHIFT = 2.0, 2.0
#: a stays between the first two, b between ± the third.
_LEAST_A, _MOST_A, _MOST_B = 0.02, 50.0, 30.0
#: The prior of a curve: Student's t with these degrees of freedom on the mean over its knots,
#: around a = 1 and b = 0, and on the step from each knot to the next, around 0; scales for a, and
#: how much wider those for b are. Where few votes are, a knot stays near its neighbours. A curve
#: that fades must not go by its neighbours: each of its knots has the prior of the mean.
_FREEDOM, _LEVEL, _STEP, _B_TO_A = 2.0, 0.125, 0.06, 2.0


def calibration_evidence(problems: Problems) -> I64:
    """How much there is to fit a and b on, (2,): votes, and gold images, that have a belief.

    In `truth: multi` a vote counts where the class that it is about has a belief.
    """
    believed = problems.belief_size > 0
    gold_images = distinct(problems.image[believed & problems.gold])
    votes = problems.n_votes[believed].sum() + problems.n_set_votes[believed].sum()
    return np.array([votes, len(gold_images)], dtype=np.int64)


def calibration_sums(
    prior: Prior, posterior: F64, offsets: I64, weights: F64
) -> tuple[ExactSum, ExactSum]:
    """Gradient (2 k,) and Fisher information (2 k, 2 k) of Σ weights · E log prior by (a, b).

    With a curve of k knots, a at all knots comes before b at all knots; else k is 1.
    prior: with its slope. posterior: (nnz,), summing to 1 per problem. weights: (n,) of problems.
    At the posterior under the present parameters, the gradient is that of the log-likelihood.
    """
    if prior.slope is None:
        return ExactSum.zeros(2), ExactSum.zeros(2, 2)
    by_a, by_b = prior.slope[:, 0], prior.slope[:, 1]
    probability = np.exp(prior.log)
    aa, ab, bb, a, b = (
        segment_sum(values, offsets) * weights
        for values in (
            probability * by_a * by_a,
            probability * by_a * by_b,
            probability * by_b * by_b,
            posterior * by_a,
            posterior * by_b,
        )
    )
    knots = [np.ones(len(weights))] if prior.basis is None else list(prior.basis.T)
    gradient = [ExactSum.of(knot * values) for values in (a, b) for knot in knots]
    information = [
        ExactSum.stack([ExactSum.of(knot * other * values) for values in row for other in knots])
        for row in ((aa, ab), (ab, bb))
        for knot in knots
    ]
    return ExactSum.stack(gradient), ExactSum.stack(information)


def next_calibration(
    present: Calibration, gradient: F64, information: F64, has_prior: bool = False
) -> Calibration:
    """One step of Fisher scoring, (a, b) + I⁻¹ g, limited to a safe length.

    gradient: (2 k,) g, information: (2 k, 2 k) I, of `calibration_sums`. McCullagh & Nelder 1989,
    section 2.5. What has no information (b of categorical beliefs) is not moved. A curve has a
    prior, so that a step is the one that its log density allows too; has_prior: one a and b have
    that of a curve with one knot. A curve that is tied takes the same step at all knots.
    """
    curve = _curve_of(present)
    count = len(curve.knots)
    if has_prior or present.curve is not None:
        gradient, information = _with_prior(curve, gradient, information)
    if curve.tied:
        ties = np.kron(np.eye(2), np.ones((count, 1)))
        gradient, information = ties.T @ gradient, ties.T @ information @ ties
    step = np.linalg.pinv(information, rcond=1e-10, hermitian=True) @ gradient
    by_a, by_b = np.broadcast_to(step.reshape(2, -1), (2, count))
    moved = [_limited(curve.a[k], curve.b[k], by_a[k], by_b[k]) for k in range(count)]
    if present.curve is None:
        return replace(present, a=moved[0][0], b=moved[0][1])
    return of_curve(replace(curve, a=tuple(a for a, _ in moved), b=tuple(b for _, b in moved)))


def _curve_of(calibration: Calibration) -> Curve:
    """Its curve; one a and b are one with a single knot."""
    return calibration.curve or Curve((0.0,), (calibration.a,), (calibration.b,))


def of_curve(curve: Curve) -> Calibration:
    """The calibration with this curve."""
    middle = len(curve.knots) // 2
    return Calibration(curve.a[middle], curve.b[middle], curve)


def _limited(a: float, b: float, step_a: float, step_b: float) -> tuple[float, float]:
    moved_a = np.clip(a + step_a, a / _MOST_FACTOR, a * _MOST_FACTOR)
    moved_b = b + np.clip(step_b, -_MOST_SHIFT, _MOST_SHIFT)
    return float(np.clip(moved_a, _LEAST_A, _MOST_A)), float(np.clip(moved_b, -_MOST_B, _MOST_B))


def _with_prior(curve: Curve, gradient: F64, information: F64) -> tuple[F64, F64]:
    """Both with those of the log prior.

    Student's t is a mixture of normal distributions; the information is that of the normal one
    that touches it here (Lange, Little & Taylor, JASA 84, 1989), so that it is never negative.
    """
    contrast, away, scale = _away(curve)
    precision = (_FREEDOM + 1) / (_FREEDOM * scale**2 + away**2)
    gradient = gradient - contrast.T @ (precision * away)
    return gradient, information + contrast.T @ (precision[:, None] * contrast)


def _away(curve: Curve) -> tuple[F64, F64, F64]:
    """What the prior of a curve is of, how far that is from the identity, and the scales of it.

    The first is the matrix (2 k, 2 k) that makes it of a and b at all knots; the others are (2 k,).
    """
    count = len(curve.knots)
    contrast, scale = np.eye(count), np.full(count, _LEVEL, dtype=np.float64)
    if not curve.fades or curve.tied:
        contrast = np.diff(contrast, axis=0, prepend=0.0)
        contrast[0], scale[1:] = 1.0 / count, _STEP
    both = np.asarray(np.kron(np.eye(2), contrast), dtype=np.float64)
    from_identity = np.concatenate([np.array(curve.a) - 1.0, np.array(curve.b)])
    away = np.asarray(both @ from_identity, dtype=np.float64)
    scales = np.asarray(np.concatenate([scale, _B_TO_A * scale]), dtype=np.float64)
    return both, away, scales


def log_prior_of(calibration: Calibration, has_prior: bool = False) -> float:
    """The log density of the priors of a curve and of biases, but for a constant.

    has_prior: as of `next_calibration`.
    """
    log_density = log_prior_of_bias(calibration.bias)
    if calibration.curve is None and not has_prior:
        return log_density
    _, away, scale = _away(_curve_of(calibration))
    density = np.log1p((away / scale) ** 2 / _FREEDOM)
    return log_density - (_FREEDOM + 1) / 2 * float(density.sum())


def halfway(one: Calibration, other: Calibration) -> Calibration:
    """The calibration half-way between two of one kind."""
    if one.curve is not None and other.curve is not None:
        a = tuple((x + y) / 2 for x, y in zip(one.curve.a, other.curve.a, strict=True))
        b = tuple((x + y) / 2 for x, y in zip(one.curve.b, other.curve.b, strict=True))
        return of_curve(replace(one.curve, a=a, b=b))
    bias = tuple((x + y) / 2 for x, y in zip(one.bias, other.bias, strict=True))
    return Calibration((one.a + other.a) / 2, (one.b + other.b) / 2, bias=bias)


def reliability_of(log_prior: F64, posterior: F64, offsets: I64, used: Bool | F64) -> F64:
    """How often the machine's most probable class is right, by its confidence, (BINS, 3).

    Per bin of confidence: problems, sum of confidence, sum of the posterior of that class (1 or 0
    where gold is given). log_prior, posterior: (nnz,). used: (n,) which problems count, or how much
    each counts.
    """
    weight = np.asarray(used, dtype=np.float64)
    counted = np.flatnonzero(weight > 0)
    weight, top = weight[counted], segment_argmax(log_prior, offsets)[counted]
    confidence, right = np.exp(log_prior[top]), posterior[top]
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    values = (weight, weight * confidence, weight * right)
    return np.stack([bin_sum(bins, value, BINS) for value in values], axis=1)


def expected_calibration_error(reliability: F64) -> float | None:
    """Σ_b (n_b / n) |accuracy_b − confidence_b|; None where nothing was counted.

    reliability: (BINS, 3) `reliability_of`. Naeini et al., AAAI 2015; Guo et al., ICML 2017, eq. 3.
    """
    total = reliability[:, 0].sum()
    if total == 0:
        return None
    return float(np.abs(reliability[:, 2] - reliability[:, 1]).sum() / total)
