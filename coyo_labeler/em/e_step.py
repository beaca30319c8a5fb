"""The E-step over the problems of one partition: posteriors, and the sums that the M-step needs.

The inference itself is in `infer`.
"""

import numpy as np

from coyo_labeler.em.calibration import BINS, calibration_sums, reliability_of
from coyo_labeler.em.class_bias import bias_sums
from coyo_labeler.em.class_prior import class_sums
from coyo_labeler.em.coverage import problem_weights
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.hierarchy import raise_others
from coyo_labeler.em.infer import infer
from coyo_labeler.em.model import Calibration, Model, Parameters
from coyo_labeler.em.priors import log_prior, rule_out
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, I64, Bool
from coyo_labeler.em.sums import GROUPS, Sums


def e_step(
    problems: Problems, parameters: Parameters, model: Model, reliability: bool = False
) -> Sums:
    """The sums of one partition; parameters.log_theta is of the cells of these problems.

    Before the first M-step (log_theta None) the posterior is the prior where there is a belief,
    else the votes' shares. reliability: that of the beliefs is counted too.
    """
    fitted = _calibrated_on(problems, model)
    prior = log_prior(problems, parameters, model, slopes=model.fits_bias or bool(fitted.any()))
    inferred = infer(problems, parameters, rule_out(prior.log, problems), model, count=True)
    # What the prior is of is what calibration and the share of true questions are fitted to.
    posterior = inferred.cause
    # A label that only gold names is no draw from the questions that were asked (`true_share`).
    asked = problems.asked() | (problems.belief_size > 0)
    class_counts, class_ratios = _class_sums(problems, posterior, parameters, model)
    weights = np.where(fitted, _fit_weights(problems, model), 0.0)
    gradient, information = calibration_sums(prior, posterior, problems.offsets, weights)
    bias_gradient, bias_information = ExactSum.zeros(0), ExactSum.zeros(0)
    if prior.bias is not None:
        bias_gradient, bias_information = bias_sums(
            problems, np.exp(prior.log), prior.bias, posterior, weights, model.classes
        )
    more = ExactSum.zeros()
    if model.fit_calibration == "votes" and (model.weighting or model.mean_inverse):
        evidence = inferred.evidence + inferred.implied_evidence
        more = ExactSum.of(np.where(fitted, (weights - 1.0) * evidence, 0.0))
    bins = np.zeros((GROUPS, 2, BINS, 3))
    if reliability:
        bins = _reliability(problems, parameters, prior.log, posterior, model)
    return Sums(
        counts=inferred.counts,
        log_likelihood=ExactSum.of(
            np.concatenate(
                [inferred.evidence[asked], inferred.joint_evidence, inferred.implied_evidence]
            )
        ),
        weighted_more=more,
        gradient=gradient,
        information=information,
        class_counts=class_counts,
        class_ratios=class_ratios,
        true_counts=_true_counts(problems, posterior, model),
        bias_gradient=bias_gradient,
        bias_information=bias_information,
        argmax_checksum=_argmax_checksum(problems, inferred.top),
        reliability=bins[0],
        reliability_unvoted=bins[1:],
    )


def posterior_of(problems: Problems, parameters: Parameters, model: Model) -> F64:
    """The posterior of every entry, (nnz,); parameters: as of `e_step`."""
    prior = rule_out(log_prior(problems, parameters, model).log, problems)
    posterior = infer(problems, parameters, prior, model, count=False).posterior
    return raise_others(problems.ancestry, posterior)


def evidence_of(problems: Problems, parameters: Parameters, model: Model) -> F64:
    """The log probability of what is known of each problem, (n,); parameters: as of `e_step`.

    What answers about sets add in `truth: multi` counts for one question of each component.
    """
    prior = rule_out(log_prior(problems, parameters, model).log, problems)
    inferred = infer(problems, parameters, prior, model, count=False)
    evidence, joints = inferred.evidence + inferred.implied_evidence, problems.joints
    if len(joints.question):
        first = joints.pair_region[np.searchsorted(joints.pair_state, joints.state_offsets[:-1])]
        np.add.at(evidence, joints.question[joints.region_offsets[first]], inferred.joint_evidence)
    return evidence


def _calibrated_on(problems: Problems, model: Model) -> Bool:
    """Which problems a and b are fitted on, (n,)."""
    believed = problems.belief_size > 0
    if model.fit_calibration == "gold":
        return believed & problems.gold
    if model.fit_calibration == "votes":
        return believed & problems.asked()
    return np.zeros(len(problems), dtype=bool)


def _fit_weights(problems: Problems, model: Model) -> F64:
    """Images whose class is given are no sample of others: they have no weights."""
    if model.fit_calibration != "votes":
        return np.ones(len(problems))
    return problem_weights(problems, model)


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
    """Reliability before and after calibration, (GROUPS, 2, BINS, 3).

    Groups: the images that the calibration can be fitted on; images without votes, by those that
    people were asked about with probability p < 1, each of which stands for 1 / p − 1 others; gold
    images without votes. calibrated: (nnz,) log prior.
    """
    believed = problems.belief_size > 0
    used = believed & (problems.gold if model.fit_calibration == "gold" else True)
    asked = problems.asked()
    inverse = np.where(np.isnan(problems.inverse_inclusion), 1.0, problems.inverse_inclusion)
    groups = (
        used.astype(np.float64),
        np.where(believed & asked, inverse - 1.0, 0.0),
        (believed & problems.gold & ~asked).astype(np.float64),
    )
    uncalibrated = Parameters(None, Calibration(), parameters.log_class_prior)
    raw = log_prior(problems, uncalibrated, model).log
    return np.stack(
        [
            np.stack(
                [
                    reliability_of(prior, posterior, problems.offsets, group)
                    for prior in (raw, calibrated)
                ]
            )
            for group in groups
        ]
    )
