"""The E-step where the skills of all workers fit in one task: they are sent to every one of them.

Where they are too many for that, see `sharded`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Model, Parameters
from coyo_labeler.em.partitions import CellIndex, PartitionedEStep, Work
from coyo_labeler.em.segments import I64
from coyo_labeler.em.sums import Sums
from coyo_labeler.executor import Executor
from coyo_labeler.machine import cores_of_machine
from coyo_labeler.merge.earlier import Earlier
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.merge.worker_counts import WorkerCounts, write_counts

R = TypeVar("R")


class BroadcastEStep(PartitionedEStep):
    """Skills go out by broadcast; counts come back, summed per partition.

    workers: all, sorted. add_to: an earlier merge, whose counts are added to those found here.
    """

    def __init__(
        self,
        executor: Executor,
        state: StateFolder,
        partitions: int,
        model: Model,
        workers: Sequence[str],
        add_to: Earlier | None = None,
    ) -> None:
        self._state, self._workers, self._space = state, workers, CellSpace(model)
        counts = None if add_to is None else add_to.counts(workers, self._space)
        super().__init__(StoredPartitions(executor, state, partitions), model, counts)

    def warm_start(self, earlier: Earlier) -> State:
        """The state to begin from, with the skills that an earlier merge found."""
        return State(
            counts=earlier.counts_of(self._workers, self._space, self.cells),
            true_share=earlier.true_share,
            log_class_prior=earlier.first_class_prior(self.model),
        )

    def write_counts(self, sums: Sums) -> WorkerCounts:
        """Write the counts of the last E-step as tables; returns what they say of the workers."""
        return write_counts(
            self._state.output, 0, self._workers, self._space, self.table, sums.counts
        )


@dataclass(frozen=True)
class StoredPartitions:
    """Partitions whose problems the state holds (`em.partitions.Partitions`)."""

    executor: Executor
    state: StateFolder
    count: int

    @property
    def threads(self) -> int:
        """The driver computes on all of its cores."""
        return cores_of_machine()

    def cells(self) -> list[I64]:
        """The cells of each partition."""
        return self.executor.map(range(self.count), partial(_cells_of, state=self.state))

    def map(self, work: Work[R], parameters: Parameters, index: CellIndex) -> list[R]:
        """`work` on every partition, a task each; parameters: of all cells.

        The indices of a partition's cells go to its task only where that costs nothing; elsewhere
        they are found anew.
        """
        indices = index.of_partition if self.executor.shares_memory else None
        with self.executor.share((parameters, index.cells, indices)) as shared:
            send = partial(_with_own_parameters, shared=shared, state=self.state, work=work)
            return self.executor.map(range(self.count), send)


def _cells_of(partition: int, state: StateFolder) -> I64:
    return np.array(state.map_problems(partition).cells)


def _with_own_parameters(partition: int, shared: Any, state: StateFolder, work: Work[R]) -> R:
    parameters, cells, indices = shared.value
    problems = state.map_problems(partition)
    index = indices[partition] if indices else np.searchsorted(cells, problems.cells)
    return work(partition, problems, parameters.of_cells(index))
