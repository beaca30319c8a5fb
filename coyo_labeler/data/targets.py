"""Sparse training targets from rows of labels and probabilities."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from coyo_labeler.errors import InputError

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]

#: What to do with a sample that cannot be trained on as it is; what is skipped is counted.
Choice = Literal["skip", "error"]


class Target(Protocol):
    """Makes the target of one image from its labels (n,) int64 and probabilities (n,) float32."""

    def __call__(self, labels: I64, probs: F32) -> tuple[I64, F32]:
        """The classes of the target and their weights in [0, 1]; both empty without a target."""


@dataclass(frozen=True)
class MultiHot:
    """1 for every label of at least `threshold`: the target of coyo-vit, which has no threshold."""

    threshold: float = 0.0

    def __call__(self, labels: I64, probs: F32) -> tuple[I64, F32]:
        """See `Target`."""
        classes = labels[probs >= np.float32(self.threshold)]
        return classes, np.ones(len(classes), np.float32)


@dataclass(frozen=True)
class Soft:
    """The probability of every label of at least `threshold`."""

    threshold: float = 0.0

    def __call__(self, labels: I64, probs: F32) -> tuple[I64, F32]:
        """See `Target`."""
        chosen = probs >= np.float32(self.threshold)
        return labels[chosen], probs[chosen]


@dataclass(frozen=True)
class Top1Soft:
    """The probability of the most probable label, if that is at least `threshold`."""

    threshold: float = 0.0

    def __call__(self, labels: I64, probs: F32) -> tuple[I64, F32]:
        """See `Target`. Among labels of equal probability, the lowest is taken."""
        if not len(labels):
            return labels, probs
        top = np.lexsort((labels, -probs))[:1]
        if probs[top[0]] < np.float32(self.threshold):
            top = top[:0]
        return labels[top], probs[top]


@dataclass(frozen=True)
class Top1:
    """1 for the most probable label, if its probability is at least `threshold`."""

    threshold: float = 0.0

    def __call__(self, labels: I64, probs: F32) -> tuple[I64, F32]:
        """See `Target`."""
        top, _ = Top1Soft(self.threshold)(labels, probs)
        return top, np.ones(len(top), np.float32)


@dataclass(frozen=True)
class Checked:
    """A target whose classes are all in 0 … num_classes − 1, and which is not empty."""

    target: Target
    num_classes: int
    out_of_range: Choice = "error"
    empty: Choice = "skip"

    def __call__(
        self, labels: I64, probs: F32, where: str, counts: "Counter[str]"
    ) -> tuple[I64, F32] | None:
        """The target, or None where it is empty and `empty` is skip.

        where: names shard and image, for messages. counts: `out_of_range` grows by the number of
        labels left out, `empty` by the number of images.

        Raises: InputError where the choice is error.
        """
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            if self.out_of_range == "error":
                raise InputError(
                    f"{where}: label {labels[outside][0]} is outside 0..{self.num_classes - 1}; "
                    "give the num_classes of the labels' own label space, or out_of_range=skip"
                )
            counts["out_of_range"] += int(outside.sum())
            labels, probs = labels[~outside], probs[~outside]
        classes, weights = self.target(labels, probs)
        if not len(classes):
            if self.empty == "error":
                raise InputError(
                    f"{where}: none of its labels is left as a target; lower the threshold, or "
                    "empty=skip"
                )
            counts["empty"] += 1
            return None
        return classes, weights
