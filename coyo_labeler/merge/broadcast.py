"""The stage's passes: the skills of all workers go to every task, counts come back.

Where that is too much for one machine, see `joined`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.loop import EStep, State
from coyo_labeler.em.model import Model, Parameters
from coyo_labeler.em.partitions import EarlierCounts, PartitionedEStep, Work
from coyo_labeler.em.segments import F64, I64
from coyo_labeler.em.sums import Sums
from coyo_labeler.merge.earlier import FOLDER, Earlier, earlier_cells, earlier_counts, skills_table
from coyo_labeler.merge.executor import Tasks
from coyo_labeler.merge.state import Store
from coyo_labeler.merge.workers import confusions_table, count_pairs, right_votes

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Conclusion:
    """right: (J,) expected right votes of each worker. pairs: see `count_pairs`."""

    right: F64
    pairs: pa.Table


class StagePasses(EStep, Protocol):
    """The E-step of the stage; the last one can be asked for the tables of the workers."""

    def conclude(self, sums: Sums, names: Sequence[str]) -> Conclusion:
        """Write the confusions table; returns what else is known of the workers."""

    def map(self, work: Work[R], state: State) -> list[R]:
        """`work(number, problems, own parameters)` on every partition, a task each."""

    def warm(self, earlier: Earlier, names: Sequence[str]) -> State:
        """The state to begin from where an earlier merge has found skills."""


@dataclass(frozen=True)
class StoredPartitions:
    """Partitions that lie in the store; parameters go to the tasks by broadcast."""

    tasks: Tasks
    store: Store
    count: int

    def cells(self) -> list[I64]:
        """See em.partitions.Partitions."""
        return self.tasks.each(range(self.count), partial(_cells_of, store=self.store))

    def map(self, work: Work[R], parameters: Parameters, cells: I64) -> list[R]:
        """See em.partitions.Partitions."""
        with self.tasks.share((parameters, cells)) as shared:
            send = partial(_with_broadcast, shared=shared, store=self.store, work=work)
            return self.tasks.each(range(self.count), send)


class BroadcastPasses(PartitionedEStep):
    """Skills go out by broadcast, counts come back summed per partition."""

    def __init__(
        self,
        tasks: Tasks,
        store: Store,
        partitions: int,
        model: Model,
        base: tuple[Earlier, Sequence[str]] | None = None,
    ) -> None:
        """base: a merge and all workers; what it counted is added to what is counted here."""
        counted = None if base is None else _earlier_counts(*base, CellSpace(model))
        super().__init__(StoredPartitions(tasks, store, partitions), model, counted)
        self._store = store

    def conclude(self, sums: Sums, names: Sequence[str]) -> Conclusion:
        """Write the confusions table; returns what else is known of the workers."""
        table = confusions_table(names, self.table, sums.counts)
        url = storage.join(self._store.output, "confusions", "part-00000.parquet")
        storage.write_parquet(url, table)
        space = CellSpace(self.model)
        write_skills(self._store, 0, skills_table(names, space, self.cells, sums.counts))
        right = right_votes(self.table, sums.counts, len(names))
        return Conclusion(right, count_pairs(self.table, sums.counts))

    def warm(self, earlier: Earlier, names: Sequence[str]) -> State:
        """The state to begin from where an earlier merge has found skills."""
        counts = earlier_counts(earlier, names, CellSpace(self.model), self.cells)
        return State(
            counts=counts,
            true_share=earlier.true_share,
            log_class_prior=class_prior_of(earlier, self.model),
        )


def _earlier_counts(earlier: Earlier, names: Sequence[str], space: CellSpace) -> EarlierCounts:
    cells = earlier_cells(earlier, names, space)
    counts = earlier_counts(earlier, names, space, cells)
    return EarlierCounts(cells, counts, earlier.class_counts(space.model.classes))


def class_prior_of(earlier: Earlier, model: Model) -> F64 | None:
    """The class prior to begin from, where it is estimated."""
    return earlier.log_class_prior(model.classes) if model.estimate_class_prior else None


def write_skills(store: Store, number: int, table: pa.Table) -> None:
    """Write a part of the table `skills`."""
    url = storage.join(store.output, FOLDER, f"part-{number:05d}.parquet")
    storage.write_parquet(url, table)


def _cells_of(partition: int, store: Store) -> I64:
    return np.array(store.map_problems(partition).cells)


def _with_broadcast(partition: int, shared: Any, store: Store, work: Work[R]) -> R:
    parameters, cells = shared.value
    problems = store.map_problems(partition)
    return work(partition, problems, parameters.of_cells(np.searchsorted(cells, problems.cells)))
