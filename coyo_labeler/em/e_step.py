"""The E-step over the problems of one partition: posteriors, and the sums that the M-step needs.

The inference itself is in `infer`.
"""

import numpy as np

from coyo_labeler.em.calibration import BINS, calibration_sums, reliability_of
from coyo_labeler.em.class_prior import class_sums
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.infer import infer
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.priors import log_prior, rule_out
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, I64, Bool
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
    inferred = infer(problems, parameters, rule_out(prior.log, problems), model, count=True)
    posterior = inferred.posterior
    # A label that only gold names is no draw from the questions that were asked (`true_share`).
    asked = problems.asked() | (problems.belief_size > 0)
    class_counts, class_ratios = _class_sums(problems, posterior, parameters, model)
    gradient, information = calibration_sums(prior, posterior, problems.offsets, fitted)
    return Sums(
        counts=inferred.counts,
        log_likelihood=ExactSum.of(
            np.concatenate([inferred.evidence[asked], inferred.joint_evidence])
        ),
        gradient=gradient,
        information=information,
        class_counts=class_counts,
        class_ratios=class_ratios,
        true_counts=_true_counts(problems, posterior, model),
        argmax_checksum=_argmax_checksum(problems, inferred.top),
        reliability=_reliability(problems, parameters, prior.log, posterior, model)
        if reliability
        else np.zeros((2, BINS, 3)),
    )


def posterior_of(problems: Problems, parameters: Parameters, model: Model) -> F64:
    """The posterior of every entry, (nnz,); parameters: as of `e_step`."""
    prior = rule_out(log_prior(problems, parameters, model).log, problems)
    return infer(problems, parameters, prior, model, count=False).posterior


def _calibrated_on(problems: Problems, model: Model) -> Bool:
    """Which problems a and b are fitted on, (n,)."""
    believed = problems.belief_size > 0
    if model.fit_calibration == "gold":
        return believed & problems.gold
    if model.fit_calibration == "votes":
        return believed & problems.asked()
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
    asked = (problems.belief_size == 0) & problems.asked()
    return ExactSum.of(np.stack([posterior[::2][asked], np.ones(asked.sum())], axis=1))


def _argmax_checksum(problems: Problems, entry: I64) -> int:
    """A sum over problems modulo 2^64, so that it is the same however they are partitioned.

    entry: (n,) the most probable one of each.
    """
    top = problems.label[entry].astype(np.uint64)
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
