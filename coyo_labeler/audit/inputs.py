"""What the estimate is made from: the images that were asked about, and the answers."""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from coyo_labeler.em.segments import F64, I32, I64
from coyo_labeler.errors import InputError

#: No class: of an image without a label, of an answer that names none, of a truth nobody knows.
NO_CLASS = -1


class Answer(IntEnum):
    """What a worker said. NONE: the image is of none of the offered classes."""

    CHOICE = 0
    YES = 1
    NO = 2
    UNSURE = 3
    NONE = 4


@dataclass(frozen=True)
class Lists:
    """A list of classes for each of n rows: row i has [offsets[i], offsets[i + 1]) of `label`.

    offsets: (n + 1,). label: (nnz,). value: (nnz,) probabilities; empty if the lists have none.
    """

    offsets: I64
    label: I32
    value: F64 = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def empty(cls, rows: int) -> "Lists":
        """Empty lists."""
        return cls(np.zeros(rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int32))


@dataclass(frozen=True)
class Judged:
    """Images of a labels table that were asked about; arrays are (n,).

    label: the label that is judged, `NO_CLASS` if the image has none. base: the label that the
    image would have without its own answers; the same as `label` where the labels were made without
    them. probability: that the table gives to `base`. believed: its classes and probabilities
    without the image's own answers. inclusion: the probability with which the image was drawn in
    its round, NaN if nobody recorded it. round: number of the round, from 0. truth: the true class,
    or `NO_CLASS`.
    """

    label: I32
    base: I32
    probability: F64
    believed: Lists
    inclusion: F64
    round: I32
    truth: I32

    def __len__(self) -> int:
        return len(self.label)

    def check(self, classes: int) -> None:
        """Refuse what cannot be.

        Raises: InputError naming the value.
        """
        known = self.inclusion[~np.isnan(self.inclusion)]
        wrong = known[(known <= 0) | (known > 1)]
        if len(wrong):
            raise InputError(
                f"votes: inclusion_probability {wrong[0]:g} is not in (0, 1]; it is the "
                "probability that the image was asked about"
            )
        for name in ("label", "base", "truth"):
            labels = getattr(self, name)
            outside = labels[(labels < NO_CLASS) | (labels >= classes)]
            if len(outside):
                raise InputError(
                    f"{name} {outside[0]} is outside label_space (0..{classes - 1}); set "
                    "label_space to the one that these labels index"
                )


@dataclass(frozen=True)
class Answers:
    """What the workers said about judged images; arrays are (answers,).

    image: index among the judged images. worker: index of the worker. answer: of `Answer`.
    label: the class that was chosen or asked about, else `NO_CLASS`. offered: the classes of the
    question, a list per answer; empty: all classes of the label space.
    """

    image: I64
    worker: I32
    answer: np.ndarray[tuple[int], np.dtype[np.int8]]
    label: I32
    offered: Lists

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Population:
    """All images of the labels table.

    images: how many. asked: how many of them were asked about. confidence: mean of
    `Judged.probability` over those that were not; None if unknown.
    """

    images: int
    asked: int
    confidence: float | None = None
