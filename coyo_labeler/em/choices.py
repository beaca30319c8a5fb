"""How probable a wrong choice is, by what was offered and by what the machine believes.

A wrong choice of a one-coin worker is even over the m other answers. Where the classes that were
offered are known, these are the other ones of them and "none of these": m is the number of classes
offered. Else they are all other classes, m = C − 1. A question offers what the machine believes, so
without that a wrong choice of a likely class would pass for nearly impossible: a mistake of the
machine.

With `worker_model: shared_mistakes` a share λ of mistakes goes to classes in proportion to what the
machine believes of them, as people err on the images that are hard for the machine too:

    P(z | y, wrong) = (1 − λ) / m + λ q(z) / (1 − q(y))

λ is given, and q is the belief before it is calibrated. So the votes of an image add one number to
the log prior of each of its states, which does not change from iteration to iteration.
"""

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.inputs import Votes
from coyo_labeler.em.model import Model, Parameters
from coyo_labeler.em.priors import log_prior
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import F64, I32, I64, Bool, bin_sum, find, offsets_of, spread

#: λ. Held-out votes decide between it and 0.
SHARED_MISTAKES = 0.5


def other_answers(offered: I32, classes: int) -> NDArray[np.int64]:
    """How many wrong answers each choice could have been, (votes,), at least 1.

    offered: as of `Votes`. classes: of the label space.
    """
    all_others = max(classes - 1, 1)
    return np.where(offered > 0, np.minimum(offered, all_others), all_others).astype(np.int64)


def is_uneven(votes: Votes, model: Model) -> bool:
    """Whether wrong choices are not even over all other classes; `truth: single`."""
    offered = bool((votes.offered[votes.response == Response.CHOICE] > 0).any())
    return model.worker_model == "one_coin" and (model.shared_mistakes > 0 or offered)


def log_uneven(problems: Problems, votes: Votes, model: Model) -> F64:
    """What choices say of each entry, compared with even mistakes, (nnz,), natural log.

        Σ_{choices z ≠ y} log((1 − λ) (C − 1) / m + λ (C − 1) q(z) / (1 − q(y)))

    λ is 0 where the image has no belief. problems: of all images with votes (`truth: single`).
    """
    choice = votes.response == Response.CHOICE
    problem, label = find(problems.image, votes.image)[0][choice], votes.label[choice]
    size = max(model.classes - 1, 1)
    even = size / other_answers(votes.offered[choice], model.classes)
    lengths = np.diff(problems.offsets)[problem]
    pair_offsets = offsets_of(lengths)
    first = problems.offsets[problem] - pair_offsets[:-1]
    entry = np.arange(pair_offsets[-1]) + np.repeat(first, lengths)
    voted = np.repeat(_voted_entries(problems, problem, label), lengths)
    share = np.repeat(even, lengths)
    if model.shared_mistakes > 0:
        believed = np.repeat(problems.belief_size[problem] > 0, lengths)
        of_machine = size * _of_machine(problems, entry, voted, model)
        mixed = share + model.shared_mistakes * (of_machine - share)
        share = np.where(believed, mixed, share)
    is_right: Bool = (entry == voted) & (problems.label[entry] >= 0)
    return bin_sum(entry, np.where(is_right, 0.0, np.log(share)), len(problems.label))


def _of_machine(problems: Problems, entry: I64, voted: I64, model: Model) -> F64:
    """q(z) / (1 − q(y)) of pairs of a state y and a voted class z, (pairs,)."""
    q = np.exp(log_prior(problems, Parameters(), model).log) / problems.multiplicity()
    # A belief that is as good as certain leaves nothing to the others, but for rounding.
    others = np.maximum(1.0 - q[entry], np.maximum(q[voted], np.finfo(float).tiny))
    return np.asarray(q[voted] / others)


def _voted_entries(problems: Problems, problem: I64, label: I32) -> I64:
    """The entry of each voted class, (votes,): OUTSIDE, the last, where it is not listed."""
    width = np.int64(max(int(problems.label.max(initial=0)), int(label.max(initial=0))) + 1)
    listed = np.flatnonzero(problems.label >= 0)
    owner = spread(np.arange(len(problems)), problems.offsets)[listed]
    key = owner * width + problems.label[listed]
    index, known = find(key, problem * width + label)
    return np.where(known, listed[index], problems.offsets[problem + 1] - 1)
