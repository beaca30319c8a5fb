"""Votes, beliefs and gold of some images, as arrays: what problems are built from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, I32, I64


@dataclass(frozen=True)
class Votes:
    """Votes, all arrays (votes,), in the order of `votes.questions.order_votes`.

    image: id. worker: 0 to J − 1. label: class. response: of `Response`.
    """

    image: I64
    worker: I32
    label: I32
    response: NDArray[np.int8]


@dataclass(frozen=True)
class Beliefs:
    """The machine's beliefs.

    image: (n,) ids, sorted. Image i has the classes label[offsets[i]:offsets[i + 1]] with as many
    probabilities.
    """

    image: I64
    offsets: I64
    label: I32
    probability: F64


@dataclass(frozen=True)
class Gold:
    """True classes. image, label: (n,), sorted by both; one per image in `truth: single`."""

    image: I64
    label: I32
