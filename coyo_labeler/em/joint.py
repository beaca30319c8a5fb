"""Inference with answers about sets of classes, where every class is a question (`truth: multi`).

A set's question is true where any of its classes is there. Given everything else, the classes are
independent, so only two numbers of a region matter: the probability that none of its classes is
there, and that any is. The states of a component are all combinations of that, and

    p(state) ∝ Π_regions (none or any) Π_answers φ_j(r | [the set has a region with any])
    p(class | …) = p(class) p(any | …) / p(any)

which is exact. With one set it is the noisy-or of its classes.
"""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.bayes import bayes_rule
from coyo_labeler.em.problems import Joints
from coyo_labeler.em.segments import F64, bin_sum, segment_sum

#: Keeps 0 out of logs and quotients.
_TINY = 1e-300


@dataclass(frozen=True)
class JointPosterior:
    """posterior: (2 n,) of questions, true and false. states: (states,). evidence: (components,)
    log probability of the answers about sets, given the other votes.
    """

    posterior: F64
    states: F64
    evidence: F64


def joint_posterior(joints: Joints, posterior: F64, log_answers: F64) -> JointPosterior:
    """posterior: (2 n,) of questions by their own votes. log_answers: (states,) of answers."""
    question, offsets = joints.question, joints.region_offsets
    true, false = posterior[2 * question], posterior[2 * question + 1]
    with np.errstate(divide="ignore"):
        log_none = segment_sum(np.log(false), offsets)
        log_any = np.log(-np.expm1(log_none))
    weight = np.where(joints.pair_on, log_any[joints.pair_region], log_none[joints.pair_region])
    log_states = bin_sum(joints.pair_state, weight, joints.state_offsets[-1])
    states, evidence = bayes_rule(log_states, log_answers, joints.state_offsets)

    by_pair = states[joints.pair_state]
    regions = len(offsets) - 1
    any_there = bin_sum(joints.pair_region, np.where(joints.pair_on, by_pair, 0.0), regions)
    none_there = bin_sum(joints.pair_region, np.where(joints.pair_on, 0.0, by_pair), regions)
    region = np.repeat(np.arange(regions), np.diff(offsets))
    none, any_before = np.exp(log_none)[region], -np.expm1(log_none)[region]
    scale = any_there[region] / np.maximum(any_before, _TINY)
    updated = posterior.copy()
    updated[2 * question] = true * scale
    # p(false) = p(none | …) + (p(false) − p(none)) · scale, of which each term is positive.
    updated[2 * question + 1] = none_there[region] + np.maximum(false - none, 0.0) * scale
    return JointPosterior(updated, states, evidence)
