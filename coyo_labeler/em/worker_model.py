"""Which worker model the votes can support: `worker_model: auto`."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.model import Truth, WorkerModel
from coyo_labeler.em.responses import Response
from coyo_labeler.em.segments import I64
from coyo_labeler.hashing import splitmix64

logger = logging.getLogger(__name__)

#: With less than either, one accuracy per worker gave better labels than confusion matrices, on
#: simulated and on real votes (docs/benchmarks.md). The only vote on an image cannot tell a worker
#: who mistakes y for z from an image whose class is z, and EM takes it as evidence of the mistake.
_CHOICES_PER_IMAGE = 2
_CHOICES_PER_CLASS = 2_000

#: How many hashes of images are kept to estimate the number of images.
_HASHES = 4_096


@dataclass(frozen=True)
class ChoiceSummary:
    """How many choices there are, on how many images and classes. Summaries add up.

    choices: their number. classes: those chosen, sorted. hashes: the `_HASHES` smallest hashes of
    the images, sorted; the number of images is estimated from them.
    """

    choices: int = 0
    classes: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    @classmethod
    def of(
        cls, image: I64, label: NDArray[np.int32], response: NDArray[np.int8]
    ) -> "ChoiceSummary":
        """The summary of the choices among some votes; all arrays are (votes,)."""
        choice = response == Response.CHOICE
        hashes = splitmix64(np.unique(image[choice]))
        classes = np.unique(label[choice]).astype(np.int64)
        return cls(int(choice.sum()), classes, np.sort(hashes)[:_HASHES])

    def __add__(self, other: "ChoiceSummary") -> "ChoiceSummary":
        return ChoiceSummary(
            self.choices + other.choices,
            np.union1d(self.classes, other.classes),
            np.union1d(self.hashes, other.hashes)[:_HASHES],
        )

    @property
    def images(self) -> float:
        """The number of images: exact below `_HASHES`, above with a standard error of 1.6 %.

        The unbiased estimator of Beyer et al., On Synopses for Distinct-Value Estimation Under
        Multiset Operations, SIGMOD 2007, section 4.
        """
        if len(self.hashes) < _HASHES:
            return len(self.hashes)
        return (_HASHES - 1) / (float(self.hashes[-1]) / 2.0**64)


def resolve_worker_model(
    wanted: WorkerModel | Literal["auto"], truth: Truth, summaries: Iterable[ChoiceSummary]
) -> WorkerModel:
    """The worker model wanted; for `auto` the one that the votes support, which is logged.

    Without choices of a class (`truth: multi`, or verifications alone) it is always confusion:
    that of yes and no is small.
    """
    if wanted != "auto":
        return wanted
    summary = reduce(add, summaries, ChoiceSummary())
    if truth == "multi" or summary.choices == 0:
        return "confusion"
    per_image = summary.choices / summary.images
    per_class = summary.choices / len(summary.classes)
    chosen: WorkerModel = (
        "confusion"
        if per_image >= _CHOICES_PER_IMAGE and per_class >= _CHOICES_PER_CLASS
        else "one_coin"
    )
    logger.info(
        "merge: worker_model=%s: %.2f choices per image, %.0f per class (confusion needs %d and "
        "%d)",
        chosen,
        per_image,
        per_class,
        _CHOICES_PER_IMAGE,
        _CHOICES_PER_CLASS,
    )
    return chosen
