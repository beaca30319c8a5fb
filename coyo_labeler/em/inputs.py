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
class SetVotes:
    """Answers to "is the class of this image one of these?", in the order of `Votes`.

    image: (votes,) id. worker: (votes,) 0 to J − 1. response: (votes,) of `Response`, no choice.
    offsets: (votes + 1,), label: (nnz,): vote v is about the classes
    label[offsets[v]:offsets[v + 1]], at least one, sorted and distinct.
    """

    image: I64
    worker: I32
    response: NDArray[np.int8]
    offsets: I64
    label: I32

    @classmethod
    def none(cls) -> "SetVotes":
        """No such votes."""
        empty = np.zeros(0, dtype=np.int64)
        small = empty.astype(np.int32)
        return cls(empty, small, empty.astype(np.int8), np.zeros(1, dtype=np.int64), small)

    def __len__(self) -> int:
        return len(self.image)


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


@dataclass(frozen=True)
class Inclusion:
    """With what probability people were asked about images: image (n,) ids, sorted, probability."""

    image: I64
    probability: F64
