"""One pass over the problems of one partition: E-step, and the sums that the M-step needs."""

from collections.abc import Sequence

import numpy as np

from coyo_labeler.em import kernel
from coyo_labeler.em.calibration import BINS, calibration_sums, reliability_of
from coyo_labeler.em.class_prior import class_sums
from coyo_labeler.em.model import Calibration, Model, Parameters, PartialSums, Sums
from coyo_labeler.em.priors import log_prior, rule_out
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, Bool, segment_argmax, segment_sum, split_sum, spread


def run_pass(
    problems: Problems, parameters: Parameters, model: Model, last: bool = False
) -> PartialSums:
    """The sums of one partition under `parameters`, whose log_theta is of these problems' cells.

    Before the first M-step (log_theta None) the posterior is the prior where there is a belief,
    else the votes' shares. last: the reliability of the beliefs is counted too.
    """
    fitted = calibrated_on(problems, model)
    prior = log_prior(problems, parameters, model, slopes=bool(fitted.any()))
    posterior, evidence = infer(problems, parameters, rule_out(prior.log, problems))
    # A label that only gold names is no draw from the questions that were asked (`true_share`).
    asked = (problems.n_votes > 0) | (problems.belief_size > 0)
    weights = kernel.harden(posterior, problems.offsets) if model.hard_counts else posterior
    if parameters.log_theta is None and model.start == "skills":
        weights = np.zeros_like(weights)  # no counts: the skills are their prior
    weights = np.rint(weights / model.count_unit) * model.count_unit
    class_counts, class_ratios = _class_sums(problems, posterior, parameters, model)
    gradient, information = calibration_sums(prior, posterior, problems.offsets, fitted)
    return PartialSums(
        counts=kernel.expected_counts(problems, weights),
        log_likelihood=split_sum(evidence[asked]),
        gradient=gradient,
        information=information,
        class_counts=class_counts,
        class_ratios=class_ratios,
        true_counts=_true_counts(problems, posterior, model),
        decisions=_checksum(problems, posterior),
        reliability=_reliability(problems, parameters, prior.log, posterior, model, last),
    )


def infer(problems: Problems, parameters: Parameters, prior: F64) -> tuple[F64, F64]:
    """Posterior (nnz,) and log evidence (n,) under the parameters; prior: (nnz,) log,
    gold minded."""
    if parameters.log_theta is None:
        named = ~np.isnan(problems.start) & problems.allowed
        # A gold image whose votes all miss its class starts at its class all the same.
        hit = segment_sum(np.where(named, problems.start, 0.0), problems.offsets) > 0
        usable = spread(hit, problems.offsets) & ~np.isnan(problems.start)
        with np.errstate(divide="ignore"):
            start = np.log(np.where(named, problems.start, 0.0))
        return kernel.posterior(
            np.where(usable, start, prior), np.zeros(len(prior)), problems.offsets
        )
    likelihood = kernel.log_likelihood(problems, parameters.log_theta)
    return kernel.posterior(prior, likelihood, problems.offsets)


def calibrated_on(problems: Problems, model: Model) -> Bool:
    """Which problems a and b are fitted on, (n,)."""
    believed = problems.belief_size > 0
    if model.fit_calibration == "gold":
        return believed & problems.gold
    if model.fit_calibration == "votes":
        return believed & (problems.n_votes > 0)
    return np.zeros(len(problems), dtype=bool)


def _class_sums(
    problems: Problems, posterior: F64, parameters: Parameters, model: Model
) -> tuple[F64, F64]:
    if not model.estimate_class_prior or model.truth == "multi":
        return np.zeros((2, 0)), np.zeros((2, 0))
    return class_sums(problems, posterior, parameters.log_class_prior, model.classes)


def _true_counts(problems: Problems, posterior: F64, model: Model) -> F64:
    if model.truth == "single":
        return np.zeros((2, 2))
    asked = (problems.belief_size == 0) & (problems.n_votes > 0)
    return split_sum(np.stack([posterior[::2][asked], np.ones(asked.sum())], axis=1))


def _checksum(problems: Problems, posterior: F64) -> int:
    """A sum over problems, so that it is the same however they are partitioned."""
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
    problems: Problems,
    parameters: Parameters,
    after: F64,
    posterior: F64,
    model: Model,
    wanted: bool,
) -> F64:
    if not wanted:
        return np.zeros((2, BINS, 3))
    believed = problems.belief_size > 0
    used = believed & (problems.gold if model.fit_calibration == "gold" else True)
    raw = log_prior(
        problems, Parameters(None, Calibration(), parameters.log_class_prior), model
    ).log
    return np.stack(
        [reliability_of(prior, posterior, problems.offsets, used) for prior in (raw, after)]
    )


def add_sums(parts: Sequence[PartialSums], places: Sequence[np.ndarray] | None, cells: int) -> Sums:
    """The sums of all partitions, the same in whatever order they are given.

    places: for each part, the place of its cells among all (`cells` of them); None: the parts have
    no counts with them.
    """
    counts = np.zeros(cells)
    if places is not None:
        for part, place in zip(parts, places, strict=True):
            counts[place] += part.counts
    return Sums(
        counts=counts,
        log_likelihood=float(_whole([part.log_likelihood for part in parts])),
        gradient=_whole([part.gradient for part in parts]),
        information=_whole([part.information for part in parts]),
        class_counts=_whole([part.class_counts for part in parts]),
        class_ratios=_whole([part.class_ratios for part in parts]),
        true_counts=_whole([part.true_counts for part in parts]),
        decisions=sum(part.decisions for part in parts) % 2**64,
        reliability=np.sum([part.reliability for part in parts], axis=0),
    )


def _whole(parts: Sequence[F64]) -> F64:
    """The sum of sums that are in two parts (2, ...), put together, (...)."""
    return np.asarray(np.sum(parts, axis=0).sum(axis=0))
