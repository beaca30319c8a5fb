"""What the E-step adds up over all problems, and the M-step needs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np

from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.model import SkillCheckpoint
from coyo_labeler.em.passes import add_pass
from coyo_labeler.em.segments import F64, I32
from coyo_labeler.em.threads import in_threads

#: Groups of images whose reliability is reported apart: fitted on or voted, unvoted by those that
#: were drawn by chance, unvoted with gold.
GROUPS = 3


@dataclass(frozen=True)
class Sums:
    """What one E-step adds up, over one partition of the problems or over all of them.

    counts: (cells,) expected counts, of the partition's own cells or of all; they are multiples of
    `Model.count_unit`, so plain sums of them are exact. Empty where they lie in a checkpoint.
    log_likelihood: () natural log. weighted_more: () what the log-likelihood gains where images
    have the weights that calibration is fitted with. gradient: (2 k,), information: (2 k, 2 k) of
    the expected log prior by (a, b), `calibration.calibration_sums`. class_counts, class_ratios:
    (C,) `class_prior.class_sums`; empty unless the class prior is estimated. true_counts: (2,)
    questions without a belief, those that are true and all. bias_gradient, bias_information: (C,)
    `class_bias.bias_sums`; empty unless biases are estimated. argmax_checksum: changes when the
    most probable class of any problem does. reliability: (2, bins, 3) `calibration.reliability_of`
    before and after calibration, reliability_unvoted: (GROUPS − 1, 2, bins, 3); zeros unless asked
    for.
    checkpoint: where the counts are, and the skills made of them, if not here.
    """

    counts: F64
    log_likelihood: ExactSum
    weighted_more: ExactSum
    gradient: ExactSum
    information: ExactSum
    class_counts: ExactSum
    class_ratios: ExactSum
    true_counts: ExactSum
    bias_gradient: ExactSum
    bias_information: ExactSum
    argmax_checksum: int
    reliability: F64
    reliability_unvoted: F64
    checkpoint: SkillCheckpoint | None = None

    def __add__(self, other: "Sums") -> "Sums":
        """The sums of both. Their counts must be of the same cells (or empty)."""
        return Sums(
            counts=self.counts + other.counts,
            log_likelihood=self.log_likelihood + other.log_likelihood,
            weighted_more=self.weighted_more + other.weighted_more,
            gradient=self.gradient + other.gradient,
            information=self.information + other.information,
            class_counts=self.class_counts + other.class_counts,
            class_ratios=self.class_ratios + other.class_ratios,
            true_counts=self.true_counts + other.true_counts,
            bias_gradient=self.bias_gradient + other.bias_gradient,
            bias_information=self.bias_information + other.bias_information,
            argmax_checksum=(self.argmax_checksum + other.argmax_checksum) % 2**64,
            reliability=self.reliability + other.reliability,
            reliability_unvoted=self.reliability_unvoted + other.reliability_unvoted,
        )

    def without_counts(self) -> "Sums":
        """These sums with no counts: they go elsewhere."""
        return replace(self, counts=np.zeros(0))


def add_partitions(
    parts: Sequence[Sums], indices: Sequence[I32], cells: int, threads: int = 1
) -> Sums:
    """The sums over all partitions, in whatever order these are.

    indices: for each partition, the index of each of its cells among all; they rise. cells: how
    many there are in all. threads: how many ranges of cells are added up side by side.
    """
    counts = np.zeros(cells)
    cuts = [cells * number // threads for number in range(threads + 1)]

    def add_range(begin: int, end: int) -> None:
        for part, index in zip(parts, indices, strict=True):
            first, stop = np.searchsorted(index, [begin, end])
            add_pass(index.view(np.uint32), part.counts, first, stop, counts)

    in_threads(add_range, list(pairwise(cuts)))
    return replace(reduce(add, [part.without_counts() for part in parts]), counts=counts)
