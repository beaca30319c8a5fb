"""Which images people were asked about: weights that make up for it, and where a curve has knots.

A map that is fitted on the images that people were asked about, mostly the hard ones, need not suit
the others. Where the probability p of being asked is known, an image stands for 1 / p of them
(Horvitz & Thompson, Journal of the American Statistical Association 47, 1952). Such weights are
capped, so that no image has more than about a hundredth of their sum, and scaled so that they sum
to as many images as would be worth the same without weights (Kish 1965: (Σ w)² / Σ w²).

A curve needs less: it is fitted given the confidence, and people were asked mostly because of that.
Its weights are stabilised (Robins, Hernán & Brumback, Epidemiology 11, 2000): 1 / p over its mean
among images of about the same confidence. They are all 1 where p depends on nothing else.
"""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.curve import confidence_of
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import Model
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, I64

#: The largest share of the sum of all weights that one image may have.
_LARGEST_SHARE = 0.01
#: Bins of weights: powers of two. Bins of confidence: steps of log-odds from −20.
_WEIGHTS, _BINS, _STEP, _LEAST = 64, 320, 0.125, -20.0
#: Bins of confidence that share a mean of 1 / p, and the largest weight relative to it.
_COARSE, _MOST_RELATIVE = 8, 20.0
#: Knots lie at these quantiles of the confidence of images with votes, at least so far apart.
_QUANTILES, _APART = (0.05, 0.5, 0.95), 0.5


@dataclass(frozen=True)
class Coverage:
    """known: images with a belief and votes whose probability is known. weights: (3, 64) by the
    power of two above 1 / p: images, Σ 1 / p, Σ 1 / p². confidence: (2, 320) by confidence: images,
    Σ 1 / p. Images whose p is not known count as p = 1.
    """

    known: int
    weights: ExactSum
    confidence: ExactSum

    def __add__(self, other: "Coverage") -> "Coverage":
        return Coverage(
            self.known + other.known,
            self.weights + other.weights,
            self.confidence + other.confidence,
        )


def gather_coverage(problems: Problems, model: Model) -> Coverage:
    """The coverage of one partition."""
    used = (problems.belief_size > 0) & problems.asked()
    weight = _inverse(problems)[used]
    power = np.clip(np.ceil(np.log2(weight)), 0, _WEIGHTS - 1).astype(np.int64)
    confidence = problem_confidence(problems, model)[used]
    step = _steps(confidence)
    moments = [
        ExactSum.of_bins(power, values, _WEIGHTS)
        for values in (np.ones(len(weight)), weight, weight * weight)
    ]
    known = int((~np.isnan(problems.inverse_inclusion[used])).sum())
    by_confidence = [ExactSum.of_bins(step, each, _BINS) for each in (np.ones(len(step)), weight)]
    return Coverage(known, ExactSum.stack(moments), ExactSum.stack(by_confidence))


def _steps(confidence: F64) -> I64:
    """The bin of each confidence, (n,)."""
    return np.clip(np.floor((confidence - _LEAST) / _STEP), 0, _BINS - 1).astype(np.int64)


def problem_confidence(problems: Problems, model: Model) -> F64:
    """The confidence of each problem's belief, (n,)."""
    logits = model.truth == "multi" or model.beliefs_are == "sigmoid"
    inside = ~np.isnan(problems.belief)
    return confidence_of(problems.belief, inside, problems.offsets, logits)


def weighting(coverage: Coverage) -> tuple[float, float] | None:
    """The largest weight, and what weights are multiplied by; None where no p is known."""
    if coverage.known == 0:
        return None
    images, first, second = coverage.weights.total()
    edges = 2.0 ** np.arange(_WEIGHTS)
    fitting = np.flatnonzero(edges >= _LARGEST_SHARE * first.sum())
    last = int(fitting[0]) if len(fitting) else _WEIGHTS - 1
    cap = float(edges[last])
    above = images[last + 1 :].sum()
    total = first[: last + 1].sum() + above * cap
    squares = second[: last + 1].sum() + above * cap * cap
    return cap, float(total / squares) if squares > 0 else 1.0


def _inverse(problems: Problems) -> F64:
    """1 / p of each problem's image, 1 where p is not known, (n,)."""
    return np.where(np.isnan(problems.inverse_inclusion), 1.0, problems.inverse_inclusion)


def problem_weights(problems: Problems, model: Model) -> F64:
    """The weight of each problem in the fit of a calibration on votes, (n,)."""
    if model.mean_inverse:
        confidence = _steps(problem_confidence(problems, model)) // _COARSE
        mean = np.array(model.mean_inverse)[confidence]
        return np.asarray(np.minimum(_inverse(problems) / mean, _MOST_RELATIVE))
    if model.weighting is None:
        return np.ones(len(problems))
    cap, scale = model.weighting
    return np.asarray(np.minimum(_inverse(problems), cap) * scale)


def mean_inverse(coverage: Coverage) -> tuple[float, ...]:
    """The mean of 1 / p by confidence, in coarse bins; empty where no p is known."""
    if coverage.known == 0:
        return ()
    images, inverse = coverage.confidence.total().reshape(2, -1, _COARSE).sum(axis=2)
    return tuple(float(each) for each in np.where(images > 0, inverse / np.maximum(images, 1), 1.0))


def choose_knots(coverage: Coverage) -> tuple[float, ...]:
    """Where a curve has knots: quantiles of the confidence of images with votes, in log-odds."""
    cumulated = np.cumsum(coverage.confidence.total()[1])
    if cumulated[-1] <= 0:
        return (0.0,)
    wanted = np.searchsorted(cumulated, np.array(_QUANTILES) * cumulated[-1])
    knots: list[float] = []
    for step in wanted:
        knot = _LEAST + _STEP * (min(int(step), _BINS - 1) + 0.5)
        if not knots or knot - knots[-1] >= _APART:
            knots.append(float(knot))
    return tuple(knots)
