"""How much votes can tell of workers, and the worker model to choose by that."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.model import Truth, WorkerModel
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import I64
from coyo_labeler.hashing import splitmix64

logger = logging.getLogger(__name__)

#: Below either, one accuracy a worker was right more often than confusion matrices, on simulated
#: and on real votes (docs/merge.md has the table): an image's only vote cannot tell a worker who
#: mistakes y for z from an image that is no y, and EM takes it for proof of the mistake.
_CHOICES_PER_IMAGE = 2
_CHOICES_PER_CLASS = 2_000

_SKETCH = 4_096


@dataclass(frozen=True)
class ChoiceSummary:
    """What is known of many choices of a class, in little space; crowds add up.

    choices: how many. classes: those named, sorted. hashes: the smallest of the images' hashes,
    `_SKETCH` at most, sorted: from them follows how many images there are.
    """

    choices: int = 0
    classes: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    @classmethod
    def of(
        cls, image: I64, label: NDArray[np.int32], response: NDArray[np.int8]
    ) -> "ChoiceSummary":
        """Of the choices among votes, one an entry."""
        choice = response == Response.CHOICE
        hashes = splitmix64(np.unique(image[choice]))
        classes = np.unique(label[choice]).astype(np.int64)
        return cls(int(choice.sum()), classes, np.sort(hashes)[:_SKETCH])

    def __add__(self, other: "ChoiceSummary") -> "ChoiceSummary":
        return ChoiceSummary(
            self.choices + other.choices,
            np.union1d(self.classes, other.classes),
            np.union1d(self.hashes, other.hashes)[:_SKETCH],
        )

    @property
    def images(self) -> float:
        """How many images: exact up to `_SKETCH`, then with a standard error of 1.6 in 100.

        Beyer et al.: On Synopses for Distinct-Value Estimation Under Multiset Operations, SIGMOD
        2007, the unbiased estimator of section 4.
        """
        if len(self.hashes) < _SKETCH:
            return len(self.hashes)
        return (_SKETCH - 1) / (float(self.hashes[-1]) / 2.0**64)


def resolve_worker_model(
    wanted: WorkerModel | Literal["auto"], truth: Truth, crowds: Iterable[ChoiceSummary]
) -> WorkerModel:
    """The worker model wanted; of `auto` what the votes can tell, and says so.

    Where there are questions alone (`truth: multi`, or no choices) that is the confusion of yes and
    no, which is small.
    """
    if wanted != "auto":
        return wanted
    crowd = reduce(ChoiceSummary.__add__, crowds, ChoiceSummary())
    if truth == "multi" or crowd.choices == 0:
        return "confusion"
    by_image, by_class = crowd.choices / crowd.images, crowd.choices / len(crowd.classes)
    chosen: WorkerModel = (
        "confusion"
        if by_image >= _CHOICES_PER_IMAGE and by_class >= _CHOICES_PER_CLASS
        else "one_coin"
    )
    logger.info(
        "merge: worker_model=%s: %.2f choices an image, %.0f a class named (confusion from %d and "
        "%d on)",
        chosen,
        by_image,
        by_class,
        _CHOICES_PER_IMAGE,
        _CHOICES_PER_CLASS,
    )
    return chosen
