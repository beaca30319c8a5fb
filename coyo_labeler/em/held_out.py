"""Votes that are held out to compare models by, and what they can tell."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.inputs import Inputs
from coyo_labeler.em.model import Model
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import F64, I64, Bool, distinct, find
from coyo_labeler.hashing import splitmix64

TENTHS = 10
#: Standard errors that a gain takes, unless said otherwise.
TWO_ERRORS = 2.0
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


def tells_mistakes(problems: Problems, model: Model) -> Bool:
    """Which problems tell a machine that is right from workers who err as it does, (n,).

    These are images with a belief and two votes, or gold and one.
    """
    if model.truth == "multi":
        return np.zeros(len(problems), dtype=bool)
    enough = np.where(problems.gold, 1, _VIEWS - 1)
    votes = problems.n_votes + problems.n_set_votes
    return np.asarray((problems.belief_size > 0) & (votes >= enough))


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


@dataclass(frozen=True)
class Gain:
    """Of one model over another, per vote held out: mean and standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, better: F64, worse: F64, votes: int) -> "Gain":
        """better, worse: log evidence of each image held out, (images,). votes: held out."""
        difference = better - worse
        count = max(len(difference), 1)
        error = float(difference.std()) * np.sqrt(count) if count > 1 else np.inf
        return cls(float(difference.sum()) / votes, float(error) / votes)

    def above(self, margin: float, errors: float = TWO_ERRORS) -> bool:
        """Whether it is evidence of the better model; errors: standard errors that it takes."""
        return self.mean > margin + errors * self.error
