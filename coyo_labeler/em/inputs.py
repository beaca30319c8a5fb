"""What problems are built from: votes, beliefs and gold of some images, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.model import Model
from coyo_labeler.em.segments import F64, I32, I64, Bool
from coyo_labeler.errors import InputError


@dataclass(frozen=True)
class Votes:
    """Votes as arrays, all (votes,), in the order of `votes.questions.order_votes`."""

    image: I64
    worker: I32
    label: I32
    response: NDArray[np.int8]


@dataclass(frozen=True)
class Beliefs:
    """Beliefs as arrays: image (n,) sorted; offsets (n + 1,); label, probability: flat."""

    image: I64
    offsets: I64
    label: I32
    probability: F64


@dataclass(frozen=True)
class Gold:
    """True classes: image, label (n,), sorted by both; one label an image in `truth: single`."""

    image: I64
    label: I32


def check_beliefs(beliefs: Beliefs, model: Model) -> None:
    """Raises: InputError naming the image whose belief cannot be read."""
    outside = (beliefs.label < 0) | (beliefs.label >= model.classes)
    _refuse(
        beliefs,
        outside,
        f"has a label outside 0..{model.classes - 1}; set label_space to the one that it was "
        "written with",
    )
    bad = ~((beliefs.probability >= 0) & (beliefs.probability <= 1))
    _refuse(beliefs, bad, "has a probability outside 0..1; label_probs must be probabilities")
    _refuse(beliefs, _named_again(beliefs), "has a class twice; drop one")


def _named_again(beliefs: Beliefs) -> Bool:
    """Which images name a class twice, marked at their first entry, (nnz,)."""
    again = np.zeros(len(beliefs.label), dtype=bool)
    lengths = np.diff(beliefs.offsets)
    # Length by length: rows of one length are sorted all at once, and most have the same.
    for length in np.unique(lengths[lengths > 1]):
        first = beliefs.offsets[:-1][lengths == length]
        if len(first) == len(lengths):
            rows = beliefs.label.reshape(-1, length)
        else:
            rows = beliefs.label[first[:, None] + np.arange(length)]
        rows = np.sort(rows, axis=1)
        again[first[(rows[:, 1:] == rows[:, :-1]).any(axis=1)]] = True
    return again


def _refuse(beliefs: Beliefs, wrong: Bool, message: str) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        image = beliefs.image[np.searchsorted(beliefs.offsets, first, side="right") - 1]
        raise InputError(f"beliefs: image {image} {message}")
