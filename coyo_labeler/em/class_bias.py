"""A bias of each class in the calibration of beliefs (`truth: single`).

A machine that saw more images of some classes than of others believes in these too often. So the
calibrated log-odds or log of a class has an addend s of its own (vector scaling: Guo et al., ICML
2017, section 4.2). Without it no calibration changes which class is the most probable.

    log π_e = s_c own_e + …        own     1 (categorical), 1 − q_e (sigmoid), by s of its own class
    ∂ log π_e / ∂ s_c = own_e [c is the class of e] − falls_e pull_c

All sums here are by class, over the entries that are classes of a belief.
"""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, segment_sum, spread

#: The prior of each bias, around 0: Student's t with these degrees of freedom and this scale.
_FREEDOM, _SCALE = 2.0, 0.25
#: Most that one step moves a bias, and most that it is.
_MOST_STEP, _MOST = 1.0, 10.0


@dataclass(frozen=True)
class BiasSlope:
    """How the log prior depends on the biases of classes; all (nnz,).

    own: of entries that are classes of the belief, by the bias of their own class; 0 of others.
    pull: how much the bias of such an entry's class lowers others; falls: how much of it each does.
    """

    own: F64
    pull: F64
    falls: F64


def shift_of(bias: tuple[float, ...], label: np.ndarray) -> F64 | None:
    """The bias of each entry's class, (nnz,), 0 where it lumps classes; None without biases."""
    if not bias:
        return None
    return np.where(label >= 0, np.array(bias)[np.maximum(label, 0)], 0.0)


def bias_sums(
    problems: Problems, prior: F64, slope: BiasSlope, posterior: F64, weights: F64, classes: int
) -> tuple[ExactSum, ExactSum]:
    """Gradient of Σ weights · E log prior by the biases, and no less than their information, (C,).

    prior, posterior: (nnz,), summing to 1 per problem. weights: (n,). The information matrix is
    below the diagonal one of these numbers, so that a step with it does not overshoot (Böhning &
    Lindsay, Annals of the Institute of Statistical Mathematics 40, 1988).
    """
    offsets = problems.offsets
    used = np.flatnonzero(slope.own > 0)
    label = problems.label[used]
    weight = spread(weights, offsets)[used]
    fallen = spread(segment_sum(posterior * slope.falls, offsets), offsets)
    gradient = (posterior * slope.own - slope.pull * fallen)[used] * weight
    # Where the classes do not pull at one another, they pull at the rest together.
    rest_only = np.where(slope.own > 0, 1.0 - slope.falls, 0.0)
    together = spread(segment_sum(rest_only * slope.pull, offsets), offsets)
    information = (prior * slope.own * (slope.own + rest_only * together))[used] * weight
    return (
        ExactSum.of_bins(label, gradient, classes),
        ExactSum.of_bins(label, information, classes),
    )


def next_bias(present: tuple[float, ...], gradient: F64, information: F64) -> tuple[float, ...]:
    """One step towards the mode of the biases, (C,) each; classes without evidence go to 0.

    The biases of classes with evidence keep the sum 0 (by a Lagrange multiplier): together they
    would do the work of a and b, or take from the classes that a belief does not list.
    """
    bias = np.array(present)
    precision = (_FREEDOM + 1) / (_FREEDOM * _SCALE**2 + bias**2)
    slack = 1.0 / (information + precision)
    seen = information > 0
    step = (gradient - precision * bias) * slack
    if seen.any():
        multiplier = float((bias + step)[seen].sum() / slack[seen].sum())
        step -= np.where(seen, multiplier * slack, 0.0)
    moved = bias + np.clip(step, -_MOST_STEP, _MOST_STEP)
    return tuple(np.clip(moved, -_MOST, _MOST).tolist())


def log_prior_of_bias(bias: tuple[float, ...]) -> float:
    """The log density of their prior, but for a constant."""
    away = np.array(bias) / _SCALE
    return -(_FREEDOM + 1) / 2 * float(np.log1p(away**2 / _FREEDOM).sum())
