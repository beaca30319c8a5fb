"""Counts of votes by worker that need no EM: how many, how they agree, how right on gold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.inputs import Beliefs, Gold, SetVotes, Votes
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import I64, distinct, find, segment_argmax, spread
from coyo_labeler.em.sets import set_questions
from coyo_labeler.errors import InputError
from coyo_labeler.hashing import splitmix64

#: Columns of a tally: choices; answers yes or no; answers unsure; votes that can be compared with
#: the machine's most probable class; those of them that agree with it.
COLUMNS = ("choices", "answers", "unsure", "compared", "agreeing")
CHOICES, ANSWERS, UNSURE, COMPARED, AGREEING = range(5)


@dataclass(frozen=True)
class Tallies:
    """What the votes of some images say of workers.

    tally: (J, 5) votes by worker, columns `COLUMNS`. gold: (2,) `count_on_gold`. sample: (n, 3)
    image, label and response of the votes on a random share of the images.
    """

    tally: NDArray[np.int64]
    gold: NDArray[np.int64]
    sample: I64


def gather_tallies(
    votes: Votes,
    set_votes: SetVotes,
    beliefs: Beliefs,
    gold: Gold,
    workers: int,
    share: float,
) -> Tallies:
    """The tallies of some images. workers: J. share: of the images that go into the sample."""
    return Tallies(
        _tally(votes, beliefs, workers) + _tally_sets(set_votes, beliefs, workers),
        count_on_gold(votes, gold) + count_sets_on_gold(set_votes, gold),
        np.concatenate([_sample(votes, share), _sample_sets(set_votes, share)]),
    )


def accuracy_on_gold(counts: NDArray[np.int64]) -> float:
    """The share of right votes, with one right and one wrong vote added.

    counts: (2,) `count_on_gold`. Raises: InputError where there is no vote on gold.
    """
    right, counted = counts
    if counted == 0:
        raise InputError(
            "prior_accuracy: gold needs votes on gold images, and there is none; give a number"
        )
    return float((right + 1) / (counted + 2))


def most_votes(tally: NDArray[np.int64]) -> int:
    """How many votes the busiest worker has; tally: (J, 3 or more), columns as `COLUMNS`."""
    return int(tally[:, : UNSURE + 1].sum(axis=1).max(initial=0))


def tally_votes(votes: Votes, workers: int) -> NDArray[np.int64]:
    """Votes of each worker by kind, (J, 3), the first three of `COLUMNS`."""
    kind = np.array([CHOICES, ANSWERS, ANSWERS, UNSURE])[votes.response]
    return np.bincount(votes.worker * 3 + kind, minlength=3 * workers).reshape(workers, 3)


def _machine_class(image: I64, beliefs: Beliefs) -> I64:
    """The machine's most probable class of each of some images (n,), −1 without a belief."""
    filled = np.diff(beliefs.offsets) > 0
    images = beliefs.image[filled]
    starts = np.concatenate([beliefs.offsets[:-1][filled], beliefs.offsets[-1:]])
    first = beliefs.label[segment_argmax(beliefs.probability, starts)]
    index, believed = find(images, image)
    return np.where(believed, first[index] if len(first) else -1, -1).astype(np.int64)


def _tally(votes: Votes, beliefs: Beliefs, workers: int) -> NDArray[np.int64]:
    machine = _machine_class(votes.image, beliefs)
    believed = machine >= 0
    named = machine == votes.label
    said_no = votes.response == Response.NO
    # A choice of another class contradicts the machine; so does "no" to its class.
    compared = believed & (
        (votes.response == Response.CHOICE) | (named & (votes.response != Response.UNSURE))
    )
    agreeing = compared & named & ~said_no
    columns = [np.bincount(votes.worker[mask], minlength=workers) for mask in (compared, agreeing)]
    return np.concatenate([tally_votes(votes, workers), np.stack(columns, axis=1)], axis=1)


def tally_set_votes(votes: SetVotes, workers: int) -> NDArray[np.int64]:
    """Answers about sets of each worker by kind, (J, 3), the first three of `COLUMNS`."""
    kind = np.where(votes.response == Response.UNSURE, UNSURE, ANSWERS)
    return np.bincount(votes.worker * 3 + kind, minlength=3 * workers).reshape(workers, 3)


def _contains(votes: SetVotes, label: I64) -> NDArray[np.bool_]:
    """Whether the set of each vote has a class, (votes,); label: (votes,)."""
    hit = votes.label == spread(label, votes.offsets)
    return np.add.reduceat(hit, votes.offsets[:-1]) > 0 if len(votes) else np.zeros(0, dtype=bool)


def _tally_sets(votes: SetVotes, beliefs: Beliefs, workers: int) -> NDArray[np.int64]:
    machine = _machine_class(votes.image, beliefs)
    compared = (machine >= 0) & (votes.response != Response.UNSURE)
    agreeing = compared & (_contains(votes, machine) == (votes.response == Response.YES))
    columns = [np.bincount(votes.worker[mask], minlength=workers) for mask in (compared, agreeing)]
    return np.concatenate([tally_set_votes(votes, workers), np.stack(columns, axis=1)], axis=1)


def count_sets_on_gold(votes: SetVotes, gold: Gold) -> NDArray[np.int64]:
    """As `count_on_gold`, of answers about sets: true where any gold class is in the set."""
    if len(votes) == 0:
        return np.zeros(2, dtype=np.int64)
    counted = find(distinct(gold.image), votes.image)[1] & (votes.response != Response.UNSURE)
    width = int(max(votes.label.max(), gold.label.max(initial=0))) + 1
    images = distinct(np.concatenate([votes.image, gold.image]))
    known = np.sort(find(images, gold.image)[0] * width + gold.label)
    key = spread(find(images, votes.image)[0], votes.offsets) * width + votes.label
    true = np.add.reduceat(find(distinct(known), key)[1], votes.offsets[:-1]) > 0
    right = true[counted] == (votes.response[counted] == Response.YES)
    return np.array([int(right.sum()), int(counted.sum())])


def _sample_sets(votes: SetVotes, share: float) -> I64:
    """As `_sample`; a set has a number below 0, by its hash, in place of a label."""
    chosen = splitmix64(votes.image, 100) < np.uint64(min(share, 1.0) * (2**64 - 1025))
    label = set_questions(votes.offsets, votes.label)
    columns = [votes.image, -label, votes.response.astype(np.int64)]
    return np.stack([column[chosen] for column in columns], axis=1).astype(np.int64)


def count_on_gold(votes: Votes, gold: Gold) -> NDArray[np.int64]:
    """Right votes and all votes on gold images, without unsure ones, (2,)."""
    counted = find(gold.image, votes.image)[1] & (votes.response != Response.UNSURE)
    true_pairs = set(zip(gold.image.tolist(), gold.label.tolist(), strict=True))
    voted_pairs = zip(votes.image[counted].tolist(), votes.label[counted].tolist(), strict=True)
    true = np.array([pair in true_pairs for pair in voted_pairs], dtype=bool)
    right = true != (votes.response[counted] == Response.NO)
    return np.array([int(right.sum()), int(counted.sum())])


def _sample(votes: Votes, share: float) -> I64:
    """The votes of images chosen by the hash of their id: the same however they are partitioned."""
    chosen = splitmix64(votes.image, 100) < np.uint64(min(share, 1.0) * (2**64 - 1025))
    return np.stack(
        [votes.image[chosen], votes.label[chosen], votes.response[chosen].astype(np.int64)], axis=1
    ).astype(np.int64)
