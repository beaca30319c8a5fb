"""What votes say about workers before any EM: tallies that a partition adds up once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.inputs import Beliefs, Gold, Votes
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import I64, find, segment_argmax
from coyo_labeler.errors import InputError
from coyo_labeler.hashing import splitmix64

#: Columns of a tally: choices, answers yes or no, answers unsure; votes that the machine's first
#: class can be held against, and those that agree with it.
COLUMNS = ("choices", "answers", "unsure", "compared", "agreeing")
CHOICES, ANSWERS, UNSURE, COMPARED, AGREEING = range(5)


@dataclass(frozen=True)
class Tallies:
    """tally: (J, 5) votes by worker, see `CHOICES …`. gold: right and all votes on gold images.

    sample: (image, label, response) of the votes on a share of the images, (n, 3).
    """

    tally: NDArray[np.int64]
    gold: NDArray[np.int64]
    sample: I64


def gather_tallies(
    votes: Votes, beliefs: Beliefs, gold: Gold, workers: int, share: float
) -> Tallies:
    """The tallies of some images. share: of all images, how many go into the sample (by hash)."""
    return Tallies(
        _tally(votes, beliefs, workers), count_on_gold(votes, gold), _sample(votes, share)
    )


def accuracy_on_gold(counts: NDArray[np.int64]) -> float:
    """The share of right votes, one right and one wrong added; counts: (2,) `count_on_gold`.

    Raises: InputError where there is no such vote.
    """
    right, told = counts
    if told == 0:
        raise InputError(
            "prior_accuracy: gold needs votes on gold images, and there is none; give a number"
        )
    return float((right + 1) / (told + 2))


def most_votes(tally: NDArray[np.int64]) -> int:
    """How many votes the busiest worker has; tally: (J, 3) or more columns, `CHOICES …`."""
    return int(tally[:, : UNSURE + 1].sum(axis=1).max(initial=0))


def tally_votes(votes: Votes, workers: int) -> NDArray[np.int64]:
    """Votes of each worker by kind, (J, 3): `CHOICES, ANSWERS, UNSURE`."""
    kind = np.array([CHOICES, ANSWERS, ANSWERS, UNSURE])[votes.response]
    return np.bincount(votes.worker * 3 + kind, minlength=3 * workers).reshape(workers, 3)


def _tally(votes: Votes, beliefs: Beliefs, workers: int) -> NDArray[np.int64]:
    filled = np.diff(beliefs.offsets) > 0
    images = beliefs.image[filled]
    starts = np.concatenate([beliefs.offsets[:-1][filled], beliefs.offsets[-1:]])
    first = beliefs.label[segment_argmax(beliefs.probability, starts)]
    place, believed = find(images, votes.image)
    machine = np.where(believed, first[place] if len(first) else -1, -1)
    named = machine == votes.label
    said_no = votes.response == Response.NO
    # A choice of another class contradicts the machine; so does "no" to its class.
    compared = believed & (
        (votes.response == Response.CHOICE) | (named & (votes.response != Response.UNSURE))
    )
    agreeing = compared & named & ~said_no
    columns = [np.bincount(votes.worker[some], minlength=workers) for some in (compared, agreeing)]
    return np.concatenate([tally_votes(votes, workers), np.stack(columns, axis=1)], axis=1)


def count_on_gold(votes: Votes, gold: Gold) -> NDArray[np.int64]:
    """Right votes on gold images and all that tell (unsure ones do not), (2,)."""
    told = find(gold.image, votes.image)[1] & (votes.response != Response.UNSURE)
    pairs = set(zip(gold.image.tolist(), gold.label.tolist(), strict=True))
    asked = zip(votes.image[told].tolist(), votes.label[told].tolist(), strict=True)
    true = np.array([pair in pairs for pair in asked], dtype=bool)
    right = true != (votes.response[told] == Response.NO)
    return np.array([int(right.sum()), int(told.sum())])


def _sample(votes: Votes, share: float) -> I64:
    chosen = splitmix64(votes.image, 100) < np.uint64(min(share, 1.0) * (2**64 - 1025))
    return np.stack(
        [votes.image[chosen], votes.label[chosen], votes.response[chosen].astype(np.int64)], axis=1
    ).astype(np.int64)
