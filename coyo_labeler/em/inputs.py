"""Votes, beliefs and gold of some images, as arrays: what problems are built from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import F64, I32, I64, Bool
from coyo_labeler.errors import InputError


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


def check_beliefs(beliefs: Beliefs, model: Model) -> None:
    """Check labels and probabilities.

    Raises: InputError naming the image whose belief cannot be used.
    """
    outside = (beliefs.label < 0) | (beliefs.label >= model.classes)
    _refuse(
        beliefs,
        outside,
        f"has a label outside 0..{model.classes - 1}; set label_space to the one that it was "
        "written with",
    )
    bad = ~((beliefs.probability >= 0) & (beliefs.probability <= 1))
    _refuse(beliefs, bad, "has a probability outside 0..1; label_probs must be probabilities")
    _refuse(beliefs, _repeats_a_class(beliefs), "has a class twice; drop one")


def _repeats_a_class(beliefs: Beliefs) -> Bool:
    """True at the first entry of each image that has a class twice, (nnz,)."""
    repeats = np.zeros(len(beliefs.label), dtype=bool)
    lengths = np.diff(beliefs.offsets)
    # Beliefs of one length are sorted together as rows of a table. Most have the same length.
    for length in np.unique(lengths[lengths > 1]):
        first = beliefs.offsets[:-1][lengths == length]
        if len(first) == len(lengths):
            rows = beliefs.label.reshape(-1, length)
        else:
            rows = beliefs.label[first[:, None] + np.arange(length)]
        rows = np.sort(rows, axis=1)
        repeats[first[(rows[:, 1:] == rows[:, :-1]).any(axis=1)]] = True
    return repeats


def _refuse(beliefs: Beliefs, wrong: Bool, message: str) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        image = beliefs.image[np.searchsorted(beliefs.offsets, first, side="right") - 1]
        raise InputError(f"beliefs: image {image} {message}")
