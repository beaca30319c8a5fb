"""The M-step of the class prior: how frequent the classes are among images without a belief.

    π_k ← (1/n) (Σ_{i lists k} p_i(k) + Σ_{i does not list k} r_i π_k / s_i)

p_i: posterior of image i. r_i: posterior of its lumped state. s_i: Σ π over the classes that i does
not list. These all have the same likelihood, so given the lumped state the class is k with
probability π_k / s_i. This is the M-step of Dawid & Skene (1979, eq. 2.4) over all C classes. The
second sum is computed as

    π_k (Σ_i r_i / s_i − Σ_{i lists k} r_i / s_i)

so that no array is as long as images times C.
"""

import numpy as np

from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.priors import lumped_share
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, spread
from coyo_labeler.em.sums import Sums


def class_sums(
    problems: Problems, posterior: F64, log_class_prior: F64 | None, classes: int
) -> tuple[ExactSum, ExactSum]:
    """Over images without a belief: Σ p_i(k) where k is listed, Σ r_i / s_i where it is not.

    posterior: (nnz,) under log_class_prior, (C,) or None for uniform. Both sums are (C,).
    """
    unbelieved = problems.belief_size == 0
    listed = (problems.label >= 0) & spread(unbelieved, problems.offsets)
    label = problems.label[listed]
    counts = ExactSum.of_bins(label, posterior[listed], classes)

    share = lumped_share(problems, log_class_prior, classes)
    ratio = np.zeros(len(problems))
    problem = np.repeat(np.arange(len(problems)), np.diff(problems.offsets))
    lumped = np.flatnonzero((problems.label < 0) & (share[problem] > 0) & unbelieved[problem])
    ratio[problem[lumped]] = posterior[lumped] / share[problem[lumped]]
    # Exact sums are subtracted: the difference of totals can be less than their rounding.
    in_listed = ExactSum.of_bins(label, ratio[problem[listed]], classes)
    return counts, ExactSum.of(ratio) - in_listed


def expected_classes(sums: Sums, log_class_prior: F64 | None) -> F64:
    """The expected number of images of each class, (C,), or (0,) where these were not counted.

    log_class_prior: (C,) that the E-step computed with, None for uniform.
    """
    counts = sums.class_counts.total()
    if len(counts) == 0:
        return counts
    ratios = np.maximum(sums.class_ratios.total(), 0.0)
    if log_class_prior is None:
        return np.asarray(counts + ratios / len(ratios))
    return np.asarray(counts + ratios * np.exp(log_class_prior))


def estimate_class_prior(counts: F64) -> F64:
    """Log share of each class, (C,), −inf for none. counts: (C,) `expected_classes`."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(counts / counts.sum()))
