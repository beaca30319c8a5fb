"""Votes that are held out to compare models by, and what they can tell."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.inputs import Inputs
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import I64, distinct, find
from coyo_labeler.hashing import splitmix64

TENTHS = 10
#: Step of the hash that says which tenth an image is in.
_TENTH = 50
#: Views of an image that a confusion takes to be told from others.
_VIEWS = 3


def tenth_of(sample: Inputs, number: int, held: bool) -> Inputs:
    """A tenth of a sample, by the hash of images' ids, or (not held) all others."""

    def chosen(image: I64) -> NDArray[np.bool_]:
        tenth = splitmix64(image, _TENTH) % np.uint64(TENTHS)
        return np.asarray((tenth == number) == held, dtype=np.bool_)

    return sample.where(chosen)


def has_believed_choices(part: Inputs) -> bool:
    """Whether any choice is about an image with a belief."""
    choices = part.votes.image[part.votes.response == Response.CHOICE]
    return bool(find(part.beliefs.image, choices)[1].any())


def blind_share(held: Sequence[Inputs], votes: int) -> float:
    """The share of votes that are choices with fewer than three views of an image without gold."""
    blind = 0
    for part in held:
        choices = part.votes.image[part.votes.response == Response.CHOICE]
        every = np.concatenate([part.votes.image, part.set_votes.image])
        images, index = np.unique(every, return_inverse=True)
        views = np.bincount(index, minlength=len(images))
        views += find(part.beliefs.image, images)[1]
        known = find(distinct(part.gold.image), images)[1]
        few = (views < _VIEWS) & ~known
        blind += int(few[np.searchsorted(images, choices)].sum())
    return blind / max(votes, 1)
