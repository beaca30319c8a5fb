"""The classes of an image that become states of their own (its support)."""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.em.inputs import Beliefs, Gold, Votes
from coyo_labeler.em.model import Model
from coyo_labeler.em.priors import belief_value
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import (
    F64,
    I64,
    Bool,
    bin_sum,
    distinct,
    falling_order,
    find,
    spread,
)
from coyo_labeler.errors import InputError

#: The mass of a belief is added up in integer units of 2^-40: finer than float32 can tell.
_UNITS = 2.0**40

#: Most votes times states of one image: one task computes them all.
_PAIRS_PER_IMAGE = 250_000


@dataclass(frozen=True)
class Candidates:
    """The classes that become states of their own.

    key: (n,) index of the image · C + class, sorted. belief: (n,) `belief_value`, NaN where the
    belief does not have the class. left_out: (m,) such keys of classes of the belief that do not
    become states. left_out_belief: (m,) their value.
    """

    key: I64
    belief: F64
    left_out: I64
    left_out_belief: F64

    def where(self, kept: Bool) -> "Candidates":
        """Some of them; the others are left out."""
        dropped = ~kept & ~np.isnan(self.belief)
        return Candidates(
            self.key[kept],
            self.belief[kept],
            np.concatenate([self.left_out, self.key[dropped]]),
            np.concatenate([self.left_out_belief, self.belief[dropped]]),
        )


def candidates_of(
    images: I64,
    votes: Votes,
    set_keys: I64,
    beliefs: Beliefs,
    gold: Gold,
    model: Model,
    mass: float,
) -> Candidates:
    """The classes of votes and gold, set_keys, and those that hold `mass` of a belief."""
    c = model.classes
    vote_key = find(images, votes.image)[0] * c + votes.label
    named = distinct(np.concatenate([vote_key, gold_keys(images, gold, c), set_keys]))

    index, known = find(images, beliefs.image)
    inside = spread(known, beliefs.offsets)
    belief_key = (spread(index, beliefs.offsets) * c + beliefs.label)[inside]
    probability = beliefs.probability[inside]
    order = np.argsort(belief_key)
    belief_key, probability = belief_key[order], probability[order]
    twice = np.flatnonzero(belief_key[1:] == belief_key[:-1])
    if len(twice):
        raise InputError(
            f"beliefs: image {images[belief_key[twice[0]] // c]} has class "
            f"{belief_key[twice[0]] % c} twice; drop one"
        )
    kept = _within_mass(belief_key // c, probability, mass) | find(named, belief_key)[1]
    value = belief_value(probability, model)
    keys = distinct(np.concatenate([named, belief_key[kept]]))
    if model.support_all:
        keys = np.arange(len(images) * c, dtype=np.int64)
    belief = np.full(len(keys), np.nan)
    belief[find(keys, belief_key[kept])[0]] = value[kept]
    return Candidates(keys, belief, belief_key[~kept], value[~kept])


def gold_keys(images: I64, gold: Gold, classes: int) -> I64:
    """The keys of the gold classes of `images`, as in `Candidates`, sorted."""
    index, known = find(images, gold.image)
    return np.asarray(index[known] * classes + gold.label[known])


def _within_mass(image: I64, probability: F64, mass: float) -> Bool:
    """The most probable classes of each image that together hold `mass` of its belief, (nnz,)."""
    if mass >= 1 or len(image) == 0:
        return np.ones(len(image), dtype=bool)
    first = np.flatnonzero(np.concatenate([[True], image[1:] != image[:-1]]))
    offsets = np.append(first, len(image))
    order = falling_order(image, probability.astype(np.float32))
    # In integers: a running sum of floats would depend on the images that come before.
    units = np.rint(probability[order] * _UNITS).astype(np.int64)
    total = np.add.reduceat(units, offsets[:-1])
    before = np.cumsum(units) - units
    before -= spread(before[offsets[:-1]], offsets)
    kept = np.empty(len(image), dtype=bool)
    kept[order] = before < mass * spread(total, offsets)
    return kept


def limit_pairs(
    candidates: Candidates,
    n_votes: I64,
    vote_image: I64,
    votes: Votes,
    gold_key: I64,
    model: Model,
) -> Candidates:
    """Drops the least named classes of images with very many votes, but keeps gold.

    Dropped classes join a lumped state, so that no image has more than `_PAIRS_PER_IMAGE` pairs of
    a vote and a state. n_votes: (n,) of all kinds. vote_image: (votes,) index of each vote's image.
    """
    c, key = model.classes, candidates.key
    image = key // c
    crowded = (n_votes * np.bincount(image, minlength=len(n_votes)) > _PAIRS_PER_IMAGE)[image]
    if model.support_all or not crowded.any():
        return candidates
    naming = bin_sum(find(key, vote_image * c + votes.label)[0], names_label(votes), len(key))
    naming[find(key, gold_key)[0]] = np.inf
    belief = np.where(np.isnan(candidates.belief), -np.inf, candidates.belief)
    rows = np.flatnonzero(crowded)
    order = rows[np.lexsort((key[rows], -belief[rows], -naming[rows], image[rows]))]
    new_image = np.concatenate([[True], image[order][1:] != image[order][:-1]])
    first = np.maximum.accumulate(np.where(new_image, np.arange(len(order)), 0))
    kept = np.ones(len(key), dtype=bool)
    kept[order] = np.arange(len(order)) - first < np.maximum(
        _PAIRS_PER_IMAGE // np.maximum(n_votes[image[order]], 1), 2
    )
    return candidates.where(kept)


def names_label(votes: Votes) -> Bool:
    """Which votes say that the image has their label, (votes,)."""
    return np.asarray((votes.response == Response.CHOICE) | (votes.response == Response.YES))
