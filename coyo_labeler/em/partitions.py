"""The E-step over problems in partitions: parameters go out to all of them, sums come back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from coyo_labeler.em.cells import CellSpace, describe_cells
from coyo_labeler.em.e_step import e_step
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.loop import State, estimate_parameters
from coyo_labeler.em.model import Model, Parameters
from coyo_labeler.em.problems import Problems
from coyo_labeler.em.segments import F64, I32, I64, distinct, find
from coyo_labeler.em.sums import Sums, add_partitions

R = TypeVar("R")

#: What is done with a partition: work(its number, its problems, the parameters of its own cells).
Work = Callable[[int, Problems, Parameters], R]


@dataclass(frozen=True)
class CellIndex:
    """The cells of all partitions, and where those of each are among them.

    cells: (cells,) keys, sorted. of_partition: for each partition the indices of its own cells,
    which rise.
    """

    cells: I64
    of_partition: Sequence[I32]


class Partitions(Protocol):
    """Problems in partitions, wherever they lie."""

    @property
    def threads(self) -> int:
        """How many threads may compute in this process."""

    def cells(self) -> list[I64]:
        """The cells of each partition."""

    def map(self, work: Work[R], parameters: Parameters, index: CellIndex) -> list[R]:
        """`work` on every partition, in their order; parameters: of all cells."""


class InMemory:
    """Partitions that lie in this process's memory."""

    threads = 1

    def __init__(self, problems: Sequence[Problems]) -> None:
        self.problems = problems

    def cells(self) -> list[I64]:
        """See Partitions."""
        return [problems.cells for problems in self.problems]

    def map(self, work: Work[R], parameters: Parameters, index: CellIndex) -> list[R]:
        """See Partitions."""
        return [
            work(number, problems, parameters.of_cells(index.of_partition[number]))
            for number, problems in enumerate(self.problems)
        ]


@dataclass(frozen=True)
class EarlierCounts:
    """What an earlier fit has counted, to which an increment adds the counts of new votes.

    The E-step runs over the problems with new votes alone. Incremental EM allows it: Neal & Hinton,
    A view of the EM algorithm that justifies incremental, sparse, and other variants, 1998.

    cells: (n,) keys, sorted. counts: (n,) of each. class_counts: (C,) expected images per class.
    """

    cells: I64
    counts: F64
    class_counts: F64


class PartitionedEStep:
    """The E-step over all partitions, where the skills of all workers fit in one place.

    cells: (cells,) keys of all partitions, sorted. table: their description.
    """

    def __init__(
        self, partitions: Partitions, model: Model, earlier: EarlierCounts | None = None
    ) -> None:
        self.model = model
        self._partitions = partitions
        own = partitions.cells()
        known = [] if earlier is None else [earlier.cells]
        self.cells = distinct(np.concatenate([*own, *known]))
        self.table = describe_cells(CellSpace(model), self.cells)
        self._index = CellIndex(
            self.cells, [np.searchsorted(self.cells, cells).astype(np.int32) for cells in own]
        )
        self._earlier = None if earlier is None else self._of_all_cells(earlier)

    def run(self, parameters: Parameters, reliability: bool = False) -> Sums:
        """See `loop.EStep`."""
        work = partial(_run_partition, model=self.model, reliability=reliability)
        parts = self._partitions.map(work, parameters, self._index)
        sums = add_partitions(
            parts, self._index.of_partition, len(self.cells), self._partitions.threads
        )
        return sums if self._earlier is None else _with_earlier(sums, self._earlier)

    def parameters_of(self, state: State) -> tuple[Parameters, float]:
        """See `loop.EStep`. What an earlier fit has counted is part of the log prior."""
        threads = self._partitions.threads
        parameters, log_prior = estimate_parameters(state, self.table, self.model, threads)
        earlier = self._earlier
        if earlier is not None and parameters.log_theta is not None:
            counted = earlier.counts > 0
            log_prior += float(earlier.counts[counted] @ parameters.log_theta[counted])
        if earlier is not None and parameters.log_class_prior is not None:
            counted = earlier.class_counts > 0
            log_prior += float(earlier.class_counts[counted] @ parameters.log_class_prior[counted])
        return parameters, log_prior

    def map(self, work: Work[R], state: State) -> list[R]:
        """`work` on every partition, with the parameters of `state`."""
        return self._partitions.map(work, self.parameters_of(state)[0], self._index)

    def _of_all_cells(self, earlier: EarlierCounts) -> EarlierCounts:
        counts = np.zeros(len(self.cells))
        counts[find(self.cells, earlier.cells)[0]] = earlier.counts
        return EarlierCounts(self.cells, counts, earlier.class_counts)


def _run_partition(
    _: int, problems: Problems, parameters: Parameters, model: Model, reliability: bool
) -> Sums:
    return e_step(problems, parameters, model, reliability)


def _with_earlier(sums: Sums, earlier: EarlierCounts) -> Sums:
    classes = sums.class_counts.total()
    if len(classes):
        classes = classes + earlier.class_counts
    return replace(
        sums,
        counts=sums.counts + earlier.counts,
        class_counts=ExactSum.of(classes[np.newaxis]),
    )
