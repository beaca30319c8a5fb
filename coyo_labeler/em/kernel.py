"""The E-step: the posterior of each problem over its entries, and the expected counts."""

import numpy as np

from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import (
    F64,
    I64,
    bin_sum,
    segment_argmax,
    segment_max,
    segment_sum,
    spread,
)


def log_likelihood(problems: Problems, log_theta: F64) -> F64:
    """Σ over the votes of each problem of log θ_j(z | y), for each entry y, (nnz,).

    log_theta: (cells of these problems,).
    """
    weights = log_theta[problems.pair_cell]
    return bin_sum(problems.pair_entry, weights, len(problems.label))


def posterior(log_prior: F64, log_likelihood: F64, offsets: I64) -> tuple[F64, F64]:
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


def harden(probabilities: F64, offsets: I64) -> F64:
    """w(y) = 1 for the most probable entry of each problem, else 0, (nnz,).

    Of equals it is the one with the lowest class. probabilities: (nnz,); offsets: (n + 1,). The
    labels that Liao et al. 2021 take for true between two updates of the workers.
    """
    hard = np.zeros(len(probabilities))
    hard[segment_argmax(probabilities, offsets)] = 1.0
    return hard
