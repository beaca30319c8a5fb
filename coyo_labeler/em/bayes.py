"""Bayes' rule over the entries of flat problems."""

import numpy as np

from coyo_labeler.em.segments import F64, I64, segment_max, segment_sum, spread


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
