"""Mistakes that people share with the machine (`worker_model: shared_mistakes`).

A wrong choice of a one-coin worker is even over the other C − 1 classes. Here a share λ of mistakes
goes to these classes in proportion to what the machine believes of them:

    P(z | y, wrong) = (1 − λ) / (C − 1) + λ q(z) / (1 − q(y))

So an answer that the machine finds likely is less evidence. λ is given, and q is the belief before
it is calibrated. Then the votes of an image add one number to the log prior of each of its states,
which does not change from iteration to iteration.
"""

import numpy as np

from coyo_labeler.em.inputs import Votes
from coyo_labeler.em.model import Model, Parameters
from coyo_labeler.em.priors import log_prior
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import F64, I32, I64, bin_sum, find, offsets_of, spread

#: λ. Held-out votes decide between it and 0.
SHARED_MISTAKES = 0.5


def log_share_of_mistakes(problems: Problems, votes: Votes, model: Model) -> F64:
    """What choices say of each entry, compared with even mistakes, (nnz,), natural log.

        Σ_{choices z ≠ y} log((1 − λ) + λ (C − 1) q(z) / (1 − q(y)))

    It is 0 where the image has no belief. problems: of all images with votes (`truth: single`).
    """
    believed = problems.belief_size > 0
    index = find(problems.image, votes.image)[0]
    counted = (votes.response == Response.CHOICE) & believed[index]
    problem, label = index[counted], votes.label[counted]
    lengths = np.diff(problems.offsets)[problem]
    pair_offsets = offsets_of(lengths)
    first = problems.offsets[problem] - pair_offsets[:-1]
    entry = np.arange(pair_offsets[-1]) + np.repeat(first, lengths)
    voted = np.repeat(_voted_entries(problems, problem, label), lengths)
    q = np.exp(log_prior(problems, Parameters(), model).log) / problems.multiplicity()
    # A belief that is as good as certain leaves nothing to the others, but for rounding.
    others = np.maximum(1.0 - q[entry], np.maximum(q[voted], np.finfo(float).tiny))
    share, size = model.shared_mistakes, model.classes - 1
    log_share = np.log1p(share * (size * q[voted] / others - 1.0))
    right = (entry == voted) & (problems.label[entry] >= 0)
    return bin_sum(entry, np.where(right, 0.0, log_share), len(problems.label))


def _voted_entries(problems: Problems, problem: I64, label: I32) -> I64:
    """The entry of each voted class, (votes,): OUTSIDE, the last, where it is not listed."""
    width = np.int64(max(int(problems.label.max(initial=0)), int(label.max(initial=0))) + 1)
    listed = np.flatnonzero(problems.label >= 0)
    owner = spread(np.arange(len(problems)), problems.offsets)[listed]
    key = owner * width + problems.label[listed]
    index, known = find(key, problem * width + label)
    return np.where(known, listed[index], problems.offsets[problem + 1] - 1)
