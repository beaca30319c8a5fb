"""The posterior of every problem of a partition, and the expected counts of its cells.

The pass over the votes is compiled (`passes.e_step_pass`). Answers about sets of classes stay apart
from it: what they say of an entry is added to its log prior.
"""

from dataclasses import dataclass, replace

import numpy as np

from coyo_labeler.em.hierarchy import implied_posterior
from coyo_labeler.em.joint import JointPosterior, joint_posterior
from coyo_labeler.em.model import Model, Parameters
from coyo_labeler.em.passes import e_step_pass
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


@dataclass(frozen=True)
class Inferred:
    """posterior: (nnz,). evidence: (n,) natural log. top: (n,) the most probable entry of each
    problem. counts: (cells,), empty unless asked for. joint_evidence: (components,) natural log,
    what answers about sets add to the evidence in `truth: multi`. cause: (nnz,) of what the prior
    is of: the posterior, but for classes that others imply (`hierarchy`). implied_evidence: (n,)
    what that adds to the evidence.
    """

    posterior: F64
    evidence: F64
    top: I64
    counts: F64
    joint_evidence: F64
    cause: F64
    implied_evidence: F64


def infer(
    problems: Problems, parameters: Parameters, prior: F64, model: Model, count: bool
) -> Inferred:
    """prior: (nnz,) log, −inf for what gold rules out. count: the cells too.

    Before the first M-step (log_theta None) the posterior is the prior where there is a belief,
    else the votes' shares, and answers about sets say nothing yet.
    """
    first = parameters.log_theta is None
    if first:
        prior = _first_prior(problems, prior)
    elif len(problems.mistakes):
        prior = prior + problems.mistakes
    if len(problems.set_cell) == 0:
        return _imply(problems, parameters, prior, model, count)
    answers = np.zeros(len(problems.set_cell))
    if parameters.log_theta is not None:
        answers = parameters.log_theta[problems.set_cell]
    if len(problems.joints.question) == 0:
        prior = _with_answers(problems, prior, answers)
        inferred = _imply(problems, parameters, prior, model, count)
        states, offsets = inferred.posterior, problems.offsets
    else:
        inferred, joint = _tied(problems, parameters, prior, answers, model, count)
        states, offsets = joint.states, problems.joints.state_offsets
    if count and not _silent(parameters, model):
        weights = _weights(states, offsets, model)[problems.set_entry]
        counts = inferred.counts + bin_sum(problems.set_cell, weights, len(problems.cells))
        inferred = replace(inferred, counts=counts)
    return inferred


def _imply(
    problems: Problems, parameters: Parameters, prior: F64, model: Model, count: bool
) -> Inferred:
    """`_walk`, where classes may imply those above them: that changes the priors of the questions.

    The first pass finds the posterior of each question by itself, which that depends on.
    """
    if len(problems.ancestry.question) == 0:
        return _walk(problems, parameters, prior, model, count)
    alone = _walk(problems, parameters, prior, model, count=False)
    implied = implied_posterior(problems.ancestry, prior, alone.posterior)
    together = _walk(problems, parameters, implied.prior, model, count)
    return replace(
        together,
        evidence=alone.evidence,
        cause=implied.cause,
        implied_evidence=implied.evidence,
    )


def _walk(
    problems: Problems, parameters: Parameters, prior: F64, model: Model, count: bool
) -> Inferred:
    """One pass over all votes but those about sets."""
    log_theta = np.zeros(0) if parameters.log_theta is None else parameters.log_theta
    posterior = np.empty(len(problems.label))
    walked = Inferred(
        posterior=posterior,
        evidence=np.empty(len(problems)),
        top=np.empty(len(problems), dtype=np.int64),
        counts=np.zeros(len(problems.cells) if count else 0),
        joint_evidence=np.zeros(0),
        cause=posterior,
        implied_evidence=np.zeros(len(problems)),
    )
    e_step_pass(
        problems.offsets,
        problems.n_votes,
        problems.pair_cell.view(np.uint32),
        log_theta,
        prior,
        model.hard_counts,
        model.count_unit,
        walked.posterior,
        walked.evidence,
        walked.top,
        np.zeros(0) if _silent(parameters, model) else walked.counts,
    )
    return walked


def _silent(parameters: Parameters, model: Model) -> bool:
    """Skills that are their prior at first have no counts."""
    return parameters.log_theta is None and model.start == "skills"


def _first_prior(problems: Problems, prior: F64) -> F64:
    """Log of the shares of the votes where nothing else is known, else the prior, (nnz,)."""
    named = ~np.isnan(problems.start) & problems.allowed
    # A gold image whose votes all miss its class starts at its class all the same.
    hit = segment_sum(np.where(named, problems.start, 0.0), problems.offsets) > 0
    usable = spread(hit, problems.offsets) & ~np.isnan(problems.start)
    with np.errstate(divide="ignore"):
        shares = np.log(np.where(named, problems.start, 0.0))
    return np.where(usable, shares, prior)


def _with_answers(problems: Problems, prior: F64, answers: F64) -> F64:
    """The log prior and what answers about sets say, (nnz,); answers: (set pairs,).

    Answers that are impossible in every state that the prior allows are left out.
    """
    joint = prior + bin_sum(problems.set_entry, answers, len(prior))
    impossible = np.isneginf(segment_max(joint, problems.offsets))
    return np.where(spread(impossible, problems.offsets), prior, joint)


def _tied(
    problems: Problems,
    parameters: Parameters,
    prior: F64,
    answers: F64,
    model: Model,
    count: bool,
) -> tuple[Inferred, JointPosterior]:
    """`truth: multi`: what answers about sets say is a further factor of each question's prior.

    The first pass finds the questions' posterior by their own votes, which the factor depends on.
    """
    alone = _walk(problems, parameters, prior, model, count=False)
    log_answers = bin_sum(problems.set_entry, answers, problems.joints.state_offsets[-1])
    joint = joint_posterior(problems.joints, alone.posterior, log_answers)
    possible = alone.posterior > 0
    factor = np.where(possible, joint.posterior, 1.0) / np.where(possible, alone.posterior, 1.0)
    with np.errstate(divide="ignore"):
        together = _imply(problems, parameters, prior + np.log(factor), model, count)
    return replace(together, evidence=alone.evidence, joint_evidence=joint.evidence), joint


def _weights(posterior: F64, offsets: I64, model: Model) -> F64:
    """How much each state counts, (states,), in multiples of `count_unit`."""
    if model.hard_counts:
        hard = np.zeros(len(posterior))
        hard[segment_argmax(posterior, offsets)] = 1.0
        return hard
    return np.asarray(np.rint(posterior / model.count_unit) * model.count_unit)
