"""The prior of each problem: calibrated belief, or what is known of all classes; with its slope."""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, Bool, segment_sum, spread

#: Probabilities are kept this far from 0 and 1: what float16 can tell from them.
_LEAST = 1e-8
_MOST = 1 - 1e-7
#: A posterior of 0, of what gold has ruled out, is taken for this: no votes weigh against it.
LEAST_POSTERIOR = 1e-300
#: Logs of probabilities go no farther: e^−700 can still be divided by.
_FARTHEST = -700.0


def belief_value(probability: F64, model: Model) -> F64:
    """What calibration works on: the logit of a sigmoid, the log of a categorical probability.

    In `truth: multi` each class is a question of its own, and its probability has a logit however
    it was made.
    """
    if model.beliefs_are == "posterior":
        return np.log(np.maximum(probability, LEAST_POSTERIOR))
    p = np.clip(probability, _LEAST, _MOST)
    odds = model.beliefs_are == "sigmoid" or model.truth == "multi"
    return np.log(p) - np.log1p(-p) if odds else np.log(p)


def sigmoid(x: F64) -> F64:
    """1 / (1 + e^−x), exact to the last digits however small; never 0."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(x, _FARTHEST))))


@dataclass(frozen=True)
class BeliefPrior:
    """Beliefs as distributions, flat; segments are images that have a belief.

    probability: (nnz,) of the classes of the belief, less than 1 in sum. rest: (n,) ρ, what is left
    for all other classes. slope: (nnz, 2) and rest_slope: (n, 2): of the logs by (a, b), None where
    they were not wanted.
    """

    probability: F64
    rest: F64
    slope: F64 | None = None
    rest_slope: F64 | None = None


def belief_prior(
    value: F64,
    inside: Bool,
    offsets: np.ndarray,
    full: Bool,
    calibration: Calibration,
    model: Model,
    slopes: bool = False,
) -> BeliefPrior:
    """One distribution over the classes from each belief (`truth: single`).

    sigmoid: q = sigmoid(a · logit p + b), ρ = max(floor, 1 − Σ q), probability q (1 − ρ) / Σ q.
    categorical: q = p^a, ρ = max(floor, 1 − Σ p), probability q (1 − ρ) / Σ q.

    value: (nnz,) `belief_value`; any where not inside. inside: (nnz,) whether the entry
    belongs to the belief. full: (n,) whether the belief has all classes: then ρ = 0.
    """
    value = np.where(inside, value, 0.0)
    if model.beliefs_are == "sigmoid":
        q = np.where(inside, sigmoid(calibration.a * value + calibration.b), 0.0)
        total = segment_sum(q, offsets)
        left_over = 1.0 - total
        loose = (left_over > model.prior_floor) & ~full
    else:
        q = np.where(inside, np.exp(np.maximum(calibration.a * value, _FARTHEST)), 0.0)
        total = segment_sum(q, offsets)
        left_over = 1.0 - segment_sum(np.where(inside, np.exp(value), 0.0), offsets)
        loose = np.zeros(len(full), dtype=bool)  # ρ does not depend on the temperature
    rest = np.where(full, 0.0, np.maximum(model.prior_floor, left_over))
    total = np.maximum(total, np.finfo(float).tiny)  # no belief
    probability = q * spread((1.0 - rest) / total, offsets)
    if not slopes:
        return BeliefPrior(probability, rest)
    if model.beliefs_are == "sigmoid":
        log_slope = (1.0 - q)[:, None] * np.stack([value, np.ones_like(value)], axis=1)
    else:
        log_slope = np.stack([value, np.zeros_like(value)], axis=1)
    mean = np.stack([segment_sum(q * log_slope[:, k], offsets) / total for k in range(2)], axis=1)
    # Where the q are the probabilities themselves, what moves is ρ; else their sum is held.
    slope = log_slope - np.where(spread(loose, offsets)[:, None], 0.0, spread_rows(mean, offsets))
    moved = np.where(loose, total / np.where(loose, rest, 1.0), 0.0)
    rest_slope = -mean * moved[:, None]
    return BeliefPrior(probability, rest, np.where(inside[:, None], slope, 0.0), rest_slope)


def spread_rows(values: F64, offsets: np.ndarray) -> F64:
    """Rows (n, k), repeated for each element of their segment."""
    return np.repeat(values, np.diff(offsets), axis=0)


@dataclass(frozen=True)
class Prior:
    """log: (nnz,) natural log, gold left aside. slope: (nnz, 2) of it by (a, b), or None."""

    log: F64
    slope: F64 | None = None


def log_prior(
    problems: Problems, parameters: Parameters, model: Model, slopes: bool = False
) -> Prior:
    """The prior of every entry of every problem. slopes: with its slope by (a, b)."""
    if model.truth == "multi":
        return _question_prior(problems, parameters, slopes)
    return _image_prior(problems, parameters, model, slopes)


def _image_prior(problems: Problems, parameters: Parameters, model: Model, slopes: bool) -> Prior:
    """Single truth: what the belief leaves over is spread evenly over all classes outside it.

    No belief: uniform over C, or the class prior.
    """
    offsets, c = problems.offsets, model.classes
    lumped = problems.label < 0
    multiplicity = np.where(lumped, spread(problems.others, offsets), 1)
    if parameters.log_class_prior is None:
        unbelieved = multiplicity / c
    else:
        known = np.exp(parameters.log_class_prior)[np.maximum(problems.label, 0)]
        share = lumped_share(problems, parameters.log_class_prior, c)
        unbelieved = np.where(lumped, spread(share, offsets), known)
    believed = problems.belief_size > 0
    if not believed.any():
        with np.errstate(divide="ignore"):
            return Prior(np.log(unbelieved), np.zeros((len(unbelieved), 2)) if slopes else None)
    inside = ~np.isnan(problems.belief)
    full = problems.belief_size >= c
    prior = belief_prior(
        problems.belief, inside, offsets, full, parameters.calibration, model, slopes
    )
    outside_classes = spread(np.maximum(c - problems.belief_size, 1), offsets)
    share = spread(prior.rest, offsets) * multiplicity / outside_classes
    with np.errstate(divide="ignore"):
        log = np.log(
            np.where(
                spread(believed, offsets), np.where(inside, prior.probability, share), unbelieved
            )
        )
    if prior.slope is None or prior.rest_slope is None:
        return Prior(log)
    slope = np.where(inside[:, None], prior.slope, spread_rows(prior.rest_slope, offsets))
    slope = np.where(spread(believed, offsets)[:, None], slope, 0.0)
    return Prior(log, slope)


def lumped_share(problems: Problems, log_class_prior: F64 | None, classes: int) -> F64:
    """What all classes that a problem does not list have of the class prior, (n,)."""
    if log_class_prior is None:
        return problems.others / classes
    known = np.exp(log_class_prior)[np.maximum(problems.label, 0)]
    named = segment_sum(np.where(problems.label < 0, 0.0, known), problems.offsets)
    return np.where(problems.others > 0, np.maximum(1.0 - named, 0.0), 0.0)


def _question_prior(problems: Problems, parameters: Parameters, slopes: bool) -> Prior:
    """Multi truth: the calibrated probability that the class is there, or the share of all."""
    a, b = parameters.calibration.a, parameters.calibration.b
    value = problems.belief[::2]
    known = ~np.isnan(value)
    value = np.where(known, value, 0.0)
    share = parameters.true_share
    q = np.where(known, sigmoid(a * value + b), share)
    not_q = np.where(known, sigmoid(-a * value - b), 1.0 - share)
    log = np.empty(2 * len(q))
    with np.errstate(divide="ignore"):
        log[::2], log[1::2] = np.log(q), np.log(not_q)
    if not slopes:
        return Prior(log)
    slope = np.zeros((2 * len(q), 2))
    direction = np.stack([value, np.ones_like(value)], axis=1) * known[:, None]
    slope[::2], slope[1::2] = not_q[:, None] * direction, -q[:, None] * direction
    return Prior(log, slope)


def rule_out(log: F64, problems: Problems) -> F64:
    """The log prior (nnz,) where gold is given: −inf for what it rules out."""
    return np.where(problems.allowed, log, -np.inf)
