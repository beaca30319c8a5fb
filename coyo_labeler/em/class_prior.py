"""The M-step of the class prior: how frequent the classes are among images without a belief.

    π_k ← (1/n) (Σ_{i lists k} p_i(k) + Σ_{i does not list k} r_i π_k / s_i)

p_i: posterior of image i. r_i: posterior of its lumped state. s_i: Σ π over the classes that i does
not list. These all have the same likelihood, so given the lumped state the class is k with
probability π_k / s_i. This is the M-step of Dawid & Skene (1979, eq. 2.4) over all C classes. The
second sum is computed as

    π_k (Σ_i r_i / s_i − Σ_{i lists k} r_i / s_i)

so that no array is as long as images times C. Where questions about sets of classes make several
lumped states (`problems.Groups`), r_i and s_i are those of the state that k is in.
"""

import numpy as np

from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.priors import entry_share, listed_in_groups
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

    share = entry_share(problems, log_class_prior, classes)
    ratio = np.zeros(len(share))
    lumped = np.flatnonzero((problems.label < 0) & (share > 0))
    ratio[lumped] = posterior[lumped] / share[lumped]
    last = problems.offsets[1:] - 1
    outside = np.where((problems.others > 0) & unbelieved, ratio[last], 0.0)
    # Exact sums are subtracted: the difference of totals can be less than their rounding.
    in_listed = ExactSum.of_bins(label, spread(outside, problems.offsets)[listed], classes)
    ratios = ExactSum.of(outside) - in_listed
    if len(problems.groups.entry):
        ratios = ratios + _group_ratios(problems, ratio, outside, classes)
    return counts, ratios


def _group_ratios(problems: Problems, ratio: F64, outside: F64, classes: int) -> ExactSum:
    """What classes in groups have more than those in the state outside, (C,).

    ratio: (nnz,) r / s of each lumped entry. outside: (n,) that of the state outside.
    """
    groups = problems.groups
    problem = np.searchsorted(problems.offsets, groups.entry, side="right") - 1
    more = np.where(groups.region >= 0, ratio[groups.entry] - outside[problem], 0.0)
    needed = groups.region >= 0
    regions = len(groups.region_offsets) - 1
    by_region = ExactSum.of_bins(groups.region[needed], more[needed], regions)
    region = np.repeat(np.arange(regions), np.diff(groups.region_offsets))
    listed = listed_in_groups(problems)
    in_listed = ExactSum.of_bins(problems.label[listed.entry], more[listed.group], classes)
    return by_region[region].by_bin(groups.label, classes) - in_listed


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
