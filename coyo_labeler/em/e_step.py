"""The E-step over the problems of one partition: posteriors, and the sums that the M-step needs.

p(y) ∝ π(y) Π_votes θ_j(z | y)                 posterior of a problem over its entries y
n(cell) = Σ_votes Σ_y p(y) [cell of (vote, y)]  expected counts
"""

import numpy as np

from coyo_labeler.em.calibration import BINS, calibration_sums, reliability_of
from coyo_labeler.em.class_prior import class_sums
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.priors import log_prior, rule_out
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import (
    F64,
    I64,
    Bool,
    bin_sum,
    segment_argmax,
    segment_max,
    segment_sum,
    spread,
)
from coyo_labeler.em.sums import Sums


def e_step(
    problems: Problems, parameters: Parameters, model: Model, reliability: bool = False
) -> Sums:
    """The sums of one partition; parameters.log_theta is of the cells of these problems.

    Before the first M-step (log_theta None) the posterior is the prior where there is a belief,
    else the votes' shares. reliability: that of the beliefs is counted too.
    """
    fitted = _calibrated_on(problems, model)
    prior = log_prior(problems, parameters, model, slopes=bool(fitted.any()))
    posterior, evidence = _posterior(problems, parameters, rule_out(prior.log, problems))
    # A label that only gold names is no draw from the questions that were asked (`true_share`).
    asked = (problems.n_votes > 0) | (problems.belief_size > 0)
    class_counts, class_ratios = _class_sums(problems, posterior, parameters, model)
    gradient, information = calibration_sums(prior, posterior, problems.offsets, fitted)
    return Sums(
        counts=expected_counts(problems, _weights(problems, posterior, parameters, model)),
        log_likelihood=ExactSum.of(evidence[asked]),
        gradient=gradient,
        information=information,
        class_counts=class_counts,
        class_ratios=class_ratios,
        true_counts=_true_counts(problems, posterior, model),
        argmax_checksum=_argmax_checksum(problems, posterior),
        reliability=_reliability(problems, parameters, prior.log, posterior, model)
        if reliability
        else np.zeros((2, BINS, 3)),
    )


def posterior_of(problems: Problems, parameters: Parameters, model: Model) -> F64:
    """The posterior of every entry, (nnz,); parameters: as of `e_step`."""
    prior = rule_out(log_prior(problems, parameters, model).log, problems)
    return _posterior(problems, parameters, prior)[0]


def log_likelihood(problems: Problems, log_theta: F64) -> F64:
    """Σ over the votes of each problem of log θ_j(z | y), for each entry y, (nnz,).

    log_theta: (cells of these problems,).
    """
    weights = log_theta[problems.pair_cell]
    return bin_sum(problems.pair_entry, weights, len(problems.label))


def bayes_rule(log_prior: F64, log_likelihood: F64, offsets: I64) -> tuple[F64, F64]:
    """Posterior of each problem over its entries, and the log evidence.

    log_prior, log_likelihood: (nnz,), natural log, −inf for what cannot be. Returns probabilities
    (nnz,), summing to 1 per problem, and log evidence (n,). Liao et al. 2021, eq. 2. Where the
    votes are impossible in every state that the prior allows (only with `prior_strength: 0`), they
    are left out of that problem.
    """
    joint = log_prior + log_likelihood
    peak = segment_max(joint, offsets)
    impossible = np.isneginf(peak)
    if impossible.any():
        joint = np.where(spread(impossible, offsets), log_prior, joint)
        peak = segment_max(joint, offsets)
    weights = np.exp(joint - spread(peak, offsets))
    total = segment_sum(weights, offsets)
    return weights / spread(total, offsets), peak + np.log(total)


def expected_counts(problems: Problems, weights: F64) -> F64:
    """Expected counts of the cells, (cells,).

    n(cell) = Σ over votes v, over entries y of its problem, of w(y) where v falls into the cell if
    the truth is y. weights: (nnz,) w, the posterior or its argmax. The sums of Dawid & Skene 1979,
    eq. 2.3.
    """
    return bin_sum(problems.pair_cell, weights[problems.pair_entry], len(problems.cells))


def hard_weights(posterior: F64, offsets: I64) -> F64:
    """w(y) = 1 for the most probable entry of each problem, else 0, (nnz,).

    Of equals it is the one with the lowest class. posterior: (nnz,); offsets: (n + 1,). The labels
    that Liao et al. 2021 take for true between two updates of the workers.
    """
    hard = np.zeros(len(posterior))
    hard[segment_argmax(posterior, offsets)] = 1.0
    return hard


def _posterior(problems: Problems, parameters: Parameters, prior: F64) -> tuple[F64, F64]:
    """Posterior (nnz,) and log evidence (n,); prior: (nnz,) log, −inf for what gold rules out."""
    if parameters.log_theta is None:
        return _first_posterior(problems, prior)
    likelihood = log_likelihood(problems, parameters.log_theta)
    return bayes_rule(prior, likelihood, problems.offsets)


def _first_posterior(problems: Problems, prior: F64) -> tuple[F64, F64]:
    """The shares of the votes where nothing else is known, else the prior."""
    named = ~np.isnan(problems.start) & problems.allowed
    # A gold image whose votes all miss its class starts at its class all the same.
    hit = segment_sum(np.where(named, problems.start, 0.0), problems.offsets) > 0
    usable = spread(hit, problems.offsets) & ~np.isnan(problems.start)
    with np.errstate(divide="ignore"):
        shares = np.log(np.where(named, problems.start, 0.0))
    first = np.where(usable, shares, prior)
    return bayes_rule(first, np.zeros(len(prior)), problems.offsets)


def _weights(problems: Problems, posterior: F64, parameters: Parameters, model: Model) -> F64:
    """How much each entry counts, (nnz,), in multiples of `count_unit`."""
    if parameters.log_theta is None and model.start == "skills":
        return np.zeros_like(posterior)  # no counts: the skills are their prior
    weights = hard_weights(posterior, problems.offsets) if model.hard_counts else posterior
    return np.asarray(np.rint(weights / model.count_unit) * model.count_unit)


def _calibrated_on(problems: Problems, model: Model) -> Bool:
    """Which problems a and b are fitted on, (n,)."""
    believed = problems.belief_size > 0
    if model.fit_calibration == "gold":
        return believed & problems.gold
    if model.fit_calibration == "votes":
        return believed & (problems.n_votes > 0)
    return np.zeros(len(problems), dtype=bool)


def _class_sums(
    problems: Problems, posterior: F64, parameters: Parameters, model: Model
) -> tuple[ExactSum, ExactSum]:
    if not model.estimate_class_prior or model.truth == "multi":
        return ExactSum.zeros(0), ExactSum.zeros(0)
    return class_sums(problems, posterior, parameters.log_class_prior, model.classes)


def _true_counts(problems: Problems, posterior: F64, model: Model) -> ExactSum:
    if model.truth == "single":
        return ExactSum.zeros(2)
    asked = (problems.belief_size == 0) & (problems.n_votes > 0)
    return ExactSum.of(np.stack([posterior[::2][asked], np.ones(asked.sum())], axis=1))


def _argmax_checksum(problems: Problems, posterior: F64) -> int:
    """A sum over problems modulo 2^64, so that it is the same however they are partitioned."""
    top = problems.label[segment_argmax(posterior, problems.offsets)].astype(np.uint64)
    if len(top) == 0:
        return 0
    # In `truth: multi` an image has many problems: the class that is asked about tells them apart.
    first = problems.label[problems.offsets[:-1]].astype(np.uint64)
    mixed = (problems.image.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ (
        (top + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9) + first * np.uint64(0x94D049BB133111EB)
    )
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    return int(mixed.sum(dtype=np.uint64))


def _reliability(
    problems: Problems, parameters: Parameters, calibrated: F64, posterior: F64, model: Model
) -> F64:
    """Reliability before and after calibration, (2, BINS, 3); calibrated: (nnz,) log prior."""
    believed = problems.belief_size > 0
    used = believed & (problems.gold if model.fit_calibration == "gold" else True)
    uncalibrated = Parameters(None, Calibration(), parameters.log_class_prior)
    raw = log_prior(problems, uncalibrated, model).log
    return np.stack(
        [reliability_of(prior, posterior, problems.offsets, used) for prior in (raw, calibrated)]
    )
