"""Inference where a class implies the classes above it (`truth: multi`): a beagle is a dog.

Every class has a cause of its own, and is there where that cause is or a class below it is:

    t(c) = x(c) or t(d) for any d right below c,    x(c) independent, p(x(c)) the prior of c

So a yes to a class is a yes to those above it, a no to a class is a no to those below it, and the
probability of a class is at least that of each class below. Only the classes that an image lists
take part, each below the nearest of those that are above it. On such a forest the posterior is
exact, from the leaves to the roots and back (Pearl 1988, belief propagation on trees). With R the
sum of log(1 + odds) over the classes right below c, the odds of c by all votes at or below it are

    odds(c) = ratio of its own votes · (p e^R / (1 - p) + e^R - 1)

A class with several parents hangs from the nearest one. Its other parents are raised to its
probability when all is inferred (`raise_others`).
"""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.problems import Ancestry
from coyo_labeler.em.segments import F64, I32, I64, find, offsets_of

#: The least log of a probability: e^-700 is above 0.
_LEAST_LOG = -700.0


@dataclass(frozen=True)
class Hierarchy:
    """The classes above each class.

    Class c owns above[offsets[c]:offsets[c + 1]]: itself, then those above it, the nearest first.
    """

    offsets: I64
    above: I32


def make_ancestry(key: I64, question: I64, hierarchy: Hierarchy | None, classes: int) -> Ancestry:
    """How listed classes lie below one another; nothing where there is no hierarchy.

    key: (n,) index of the image · C + class, sorted. question: (n,) the number of each.
    """
    if hierarchy is None:
        return Ancestry()
    below, above_key = _climb(key, hierarchy, classes)
    above, listed = find(key, above_key)
    below, above = below[listed], above[listed]
    parent = np.full(len(key), -1, dtype=np.int64)
    nearest = np.ones(len(below), dtype=bool)
    nearest[1:] = below[1:] != below[:-1]
    parent[below[nearest]] = above[nearest]

    # What is above the parent too is implied by it.
    further = np.flatnonzero(~nearest)
    by_parent = parent[below[further]] * len(key) + above[further]
    other = further[~np.isin(by_parent, below * len(key) + above)]

    depth = np.zeros(len(key), dtype=np.int64)
    at = parent
    while (at >= 0).any():
        depth += at >= 0
        at = np.where(at >= 0, parent[at], -1)
    related = parent >= 0
    related[parent[related]] = True
    rows = np.flatnonzero(related)
    rows = rows[np.argsort(depth[rows], kind="stable")]
    position = np.full(len(key) + 1, -1, dtype=np.int64)  # the last one: of no parent
    position[rows] = np.arange(len(rows))
    return Ancestry(
        question=question[rows],
        parent=position[parent[rows]],
        level_offsets=offsets_of(np.bincount(depth[rows])),
        below=question[below[other]],
        above=question[above[other]],
    )


def with_ancestors(key: I64, hierarchy: Hierarchy | None, classes: int) -> I64:
    """The keys (n,) of `make_ancestry`, and those of all classes above; not sorted."""
    if hierarchy is None:
        return key
    return np.concatenate([key, _climb(key, hierarchy, classes)[1]])


def _climb(key: I64, hierarchy: Hierarchy, classes: int) -> tuple[I64, I64]:
    """Every key with those of the classes above it: index of the key, and key; (pairs,)."""
    label = key % classes
    begin, end = hierarchy.offsets[label] + 1, hierarchy.offsets[label + 1]  # without itself
    pair_offsets = offsets_of(end - begin)
    below = np.repeat(np.arange(len(key)), end - begin)
    index = np.arange(pair_offsets[-1]) + np.repeat(begin - pair_offsets[:-1], end - begin)
    return below, (key - label)[below] + hierarchy.above[index]


@dataclass(frozen=True)
class ImpliedPosterior:
    """prior: (2 n,) log; under it the votes of each question alone give it its posterior.

    cause: (2 n,) posterior of the questions' own causes, true and false. evidence: (n,) log, what
    ties among classes add to the evidence; of each tree at its classes.
    """

    prior: F64
    cause: F64
    evidence: F64


def implied_posterior(ancestry: Ancestry, log_prior: F64, alone: F64) -> ImpliedPosterior:
    """log_prior: (2 n,) of causes. alone: (2 n,) posterior of each question by itself under it."""
    question, parent = ancestry.question, ancestry.parent
    prior_odds = _log_odds(log_prior, question)
    with np.errstate(divide="ignore"):
        own = _log_odds(np.log(alone), question)
    ratio = own - prior_odds

    levels = [slice(*ends) for ends in zip(*_ends(ancestry.level_offsets), strict=True)]
    below = np.zeros(len(question))  # R
    odds = np.zeros(len(question))  # log
    for rows in reversed(levels):
        odds[rows] = ratio[rows] + _log_either(prior_odds[rows], below[rows])
        inner = parent[rows] >= 0
        np.add.at(below, parent[rows][inner], np.logaddexp(0.0, odds[rows][inner]))

    true, false = -np.logaddexp(0.0, -odds), -np.logaddexp(0.0, odds)  # right for roots
    for rows in levels[1:]:
        up = parent[rows]
        whole = _log_either(prior_odds[up], below[up])
        others = np.maximum(below[up] - np.logaddexp(0.0, odds[rows]), 0.0)
        if_true = true[rows] + below[up] + np.logaddexp(0.0, prior_odds[up]) - whole
        if_false = _log_either(prior_odds[up], others) - whole
        false[rows] = np.logaddexp(false[up], true[up] + if_false)
        true[rows] = true[up] + if_true

    prior, cause = log_prior.copy(), alone.copy()
    prior[2 * question], prior[2 * question + 1] = true - ratio, false
    by_cause = np.exp(prior_odds + below - _log_either(prior_odds, below))
    cause[2 * question] = np.exp(true) * by_cause
    cause[2 * question + 1] = np.exp(false) + np.exp(true) * (1.0 - by_cause)
    evidence = np.zeros(len(alone) // 2)
    together = np.where(parent < 0, np.logaddexp(0.0, odds), 0.0)
    evidence[question] = together - np.logaddexp(0.0, own)
    return ImpliedPosterior(prior, cause, evidence)


def raise_others(ancestry: Ancestry, posterior: F64) -> F64:
    """The posterior (2 n,), where no class is less probable than one below it by another parent."""
    raised = posterior.copy()
    np.maximum.at(raised, 2 * ancestry.above, posterior[2 * ancestry.below])
    np.minimum.at(raised, 2 * ancestry.above + 1, posterior[2 * ancestry.below + 1])
    return raised


def _log_odds(log: F64, question: I64) -> F64:
    """The log odds of questions, of logs of true and false."""
    true, false = log[2 * question], log[2 * question + 1]
    return np.maximum(true, _LEAST_LOG) - np.maximum(false, _LEAST_LOG)


def _log_either(prior_odds: F64, below: F64) -> F64:
    """log(odds e^R + e^R - 1): the class is there by its cause, or by one right below it."""
    with np.errstate(divide="ignore"):
        by_others = np.where(below > 30.0, below, np.log(np.expm1(np.minimum(below, 30.0))))
    return np.logaddexp(prior_odds + below, by_others)


def _ends(offsets: I64) -> tuple[list[int], list[int]]:
    return offsets[:-1].tolist(), offsets[1:].tolist()
