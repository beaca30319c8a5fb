"""The most probable parameters of a model, and the curvature there.

The states of the images are summed out. Newton's method with the observed information (Louis 1982);
where that is not positive, the information of the complete data, as EM would take it. The spread
of the workers' skills is estimated in between, by EM over their parameters (empirical Bayes).
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse
from scipy.special import expit, log_expit

from coyo_labeler.audit.states import Model
from coyo_labeler.audit.terms import PRIORS, SHARED
from coyo_labeler.em.segments import F64, bin_sum, segment_max, segment_sum, spread

#: Standard deviation of workers' skills in log-odds, as known beforehand, and how many workers
#: that is worth. That of their bias towards yes is not estimated.
_SPREAD, _SPREAD_WORKERS = 0.6, 3.0
_BIAS_SPREAD = 0.4
_MAX_STEPS = 40
_SPREAD_STEPS = 3
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Fit:
    """The mode (parameters,), the covariance around it, and the standard deviation of skills.

    mean, precision: (parameters,) of the prior, that of the skills with their estimated spread.
    """

    parameters: F64
    covariance: F64
    spread: float
    mean: F64
    precision: F64

    def log_prior(self, parameters: F64) -> F64:
        """Log density of parameters (parameters, draws) before the answers, up to a constant."""
        return np.asarray(-0.5 * self.precision @ (parameters - self.mean[:, None]) ** 2)


def fit(model: Model) -> Fit:
    """The mode of the parameters, and a normal approximation around it."""
    size = model.design.shape[1]
    mean = np.zeros(size)
    mean[: len(SHARED)] = [PRIORS[name][0] for name in SHARED]
    skill = np.unique(model.skill[model.skill >= 0])
    deviation = _SPREAD
    parameters = mean.copy()
    for step in range(_SPREAD_STEPS):
        precision = _precision(model, size, deviation)
        parameters, information = _climb(model, parameters, mean, precision)
        covariance = _inverse(information)
        if not len(skill):
            break
        if step == _SPREAD_STEPS - 1:
            break
        squares = parameters[skill] ** 2 + np.diag(covariance)[skill]
        known = _SPREAD_WORKERS * _SPREAD**2
        deviation = float(np.sqrt((squares.sum() + known) / (len(skill) + _SPREAD_WORKERS)))
    return Fit(parameters, covariance, deviation, mean, precision)


def _precision(model: Model, size: int, deviation: float) -> F64:
    precision = np.full(size, 1.0)
    precision[: len(SHARED)] = [PRIORS[name][1] ** -2.0 for name in SHARED]
    precision[model.skill[model.skill >= 0]] = deviation**-2.0
    precision[model.bias[model.bias >= 0]] = _BIAS_SPREAD**-2.0
    return precision


def _climb(model: Model, start: F64, mean: F64, precision: F64) -> tuple[F64, F64]:
    """The mode from a start, and the information there."""
    at = start
    value, gradient, observed, complete = _derivatives(model, at)
    value -= 0.5 * float(precision @ (at - mean) ** 2)
    for _ in range(_MAX_STEPS):
        gradient = gradient - precision * (at - mean)
        information = observed + np.diag(precision)
        if not _is_positive(information):
            information = _positive(complete, precision)
        step = linalg.solve(information, gradient, assume_a="pos")
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        expected = float(gradient @ step)
        for _ in range(12):
            trial = at + step
            after = _derivatives(model, trial)
            height = after[0] - 0.5 * float(precision @ (trial - mean) ** 2)
            if height >= value - 1e-9 * abs(value):
                break
            step = step / 2
        else:
            break
        at, value = trial, height
        _, gradient, observed, complete = after
        if expected < _TOLERANCE:
            break
    information = observed + np.diag(precision)
    return at, information if _is_positive(information) else _positive(complete, precision)


def _is_positive(matrix: F64) -> bool:
    try:
        linalg.cholesky(matrix, lower=True)
    except linalg.LinAlgError:
        return False
    return True


def _positive(complete: F64, precision: F64) -> F64:
    """The complete-data information; the prior alone where mixtures make it negative."""
    values, vectors = linalg.eigh(complete)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T + np.diag(precision))


def _inverse(information: F64) -> F64:
    values, vectors = linalg.eigh(information)
    return np.asarray((vectors / np.maximum(values, 1e-6)) @ vectors.T)


def log_likelihood(model: Model, parameters: F64) -> float:
    """The log-likelihood of all answers."""
    return _derivatives(model, parameters)[0]


def _derivatives(model: Model, parameters: F64) -> tuple[float, F64, F64, F64]:
    """Log-likelihood, its gradient, and the observed and the complete-data information."""
    design = model.design
    linear = (design @ parameters)[model.row] + model.offset
    log_factor = model.power * log_expit(model.sign * linear)
    states = len(model.label)
    score = model.constant + bin_sum(model.state, log_factor[model.kind], states)
    top = segment_max(score, model.offsets)
    weight = np.exp(score - spread(top, model.offsets))
    total = segment_sum(weight, model.offsets)
    posterior = weight / spread(total, model.offsets)
    value = float((top + np.log(total)).sum())

    slope = model.power * model.sign * expit(-model.sign * linear)  # of each kind
    rows = design.shape[0]
    shape = (states, rows)
    entries = (slope[model.kind], (model.state, model.row[model.kind]))
    gradients = (sparse.csr_matrix(entries, shape=shape) @ design).tocsr()
    gradient = np.asarray(gradients.T @ posterior).ravel()
    curvature = model.power * expit(linear) * expit(-linear)
    bends = bin_sum(model.row[model.kind], posterior[model.state] * curvature[model.kind], rows)
    complete = (design.T @ sparse.diags(bends) @ design).toarray()
    weighted = sparse.diags(posterior) @ gradients
    image = np.repeat(np.arange(model.images), np.diff(model.offsets))
    sums = sparse.csr_matrix(
        (np.ones(states), (image, np.arange(states))), shape=(model.images, states)
    )
    mean = sums @ weighted
    missing = (gradients.T @ weighted - mean.T @ mean).toarray()
    return value, gradient, complete - missing, complete
