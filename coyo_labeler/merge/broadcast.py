"""The stage's passes: the skills of all workers go to every task, counts come back.

Where that is too much for one machine, see `joined`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.em.cells import CellSpace, describe_cells
from coyo_labeler.em.e_step import add_sums, run_pass
from coyo_labeler.em.local import local_parameters
from coyo_labeler.em.loop import Passes, State, parameters_of
from coyo_labeler.em.model import Model, Parameters, PartialSums, Sums
from coyo_labeler.em.segments import F64, I64, distinct
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


class StagePasses(Passes, Protocol):
    """Passes whose last one can be asked for the tables of the workers."""

    def conclude(self, sums: Sums, names: Sequence[str]) -> Conclusion:
        """Write the confusions table; returns what else is known of the workers."""

    def with_skills(self, state: State, work: Callable[[int, Parameters], R]) -> list[R]:
        """`work(partition, its own parameters)` on every partition, a task each."""

    def warm(self, earlier: Earlier, names: Sequence[str]) -> State:
        """The state to begin from where an earlier merge has found skills."""


class BroadcastPasses:
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
        self._tasks, self._store, self._model = tasks, store, model
        found = tasks.each(range(partitions), partial(_cells_of, store=store))
        space = CellSpace(model)
        before = [] if base is None else [earlier_cells(*base, space)]
        self.cells = distinct(np.concatenate([*found, *before]))
        self._base = None if base is None else _base(*base, space, self.cells)
        self._places = [np.searchsorted(self.cells, some) for some in found]
        self.table = describe_cells(CellSpace(model), self.cells)

    def run(self, parameters: Parameters, last: bool = False) -> Sums:
        """The sums over all problems, added in the order of the partitions."""
        work = partial(_run_pass, store=self._store, model=self._model, last=last)
        sums = add_sums(self._send(parameters, work), self._places, len(self.cells))
        if self._base is None:
            return sums
        classes = sums.class_counts + self._base.classes if len(sums.class_counts) else np.zeros(0)
        return replace(sums, counts=sums.counts + self._base.cells, class_counts=classes)

    def skilled(self, state: State) -> tuple[Parameters, float]:
        """The parameters that a state stands for, and the log prior of its skills.

        Votes and images that an earlier merge has counted are part of that prior.
        """
        parameters, log_prior = parameters_of(state, self.table, self._model)
        if self._base is not None and parameters.log_theta is not None:
            counted = self._base.cells > 0
            log_prior += float(self._base.cells[counted] @ parameters.log_theta[counted])
        if self._base is not None and parameters.log_class_prior is not None:
            counted = self._base.classes > 0
            log_prior += float(self._base.classes[counted] @ parameters.log_class_prior[counted])
        return parameters, log_prior

    def conclude(self, sums: Sums, names: Sequence[str]) -> Conclusion:
        """Write the confusions table; returns what else is known of the workers."""
        table = confusions_table(names, self.table, sums.counts)
        url = storage.join(self._store.output, "confusions", "part-00000.parquet")
        storage.write_parquet(url, table)
        space = CellSpace(self._model)
        write_skills(self._store, 0, skills_table(names, space, self.cells, sums.counts))
        right = right_votes(self.table, sums.counts, len(names))
        return Conclusion(right, count_pairs(self.table, sums.counts))

    def warm(self, earlier: Earlier, names: Sequence[str]) -> State:
        """The state to begin from where an earlier merge has found skills."""
        counts = earlier_counts(earlier, names, CellSpace(self._model), self.cells)
        return State(
            counts=counts,
            true_share=earlier.true_share,
            log_class_prior=class_prior_of(earlier, self._model),
        )

    def with_skills(self, state: State, work: Callable[[int, Parameters], R]) -> list[R]:
        """`work(partition, its own parameters)` on every partition, a task each."""
        return self._send(self.skilled(state)[0], work)

    def _send(self, parameters: Parameters, work: Callable[[int, Parameters], R]) -> list[R]:
        with self._tasks.share((parameters, self.cells)) as shared:
            send = partial(_with_broadcast, shared=shared, store=self._store, work=work)
            return self._tasks.each(range(len(self._places)), send)


@dataclass(frozen=True)
class _Base:
    """What an earlier merge counted: cells (cells,), and images by class (C,)."""

    cells: F64
    classes: F64


def _base(earlier: Earlier, names: Sequence[str], space: CellSpace, cells: I64) -> _Base:
    counts = earlier_counts(earlier, names, space, cells)
    return _Base(counts, earlier.class_counts(space.model.classes))


def class_prior_of(earlier: Earlier, model: Model) -> F64 | None:
    """The class prior to begin from, where it is estimated."""
    return earlier.log_class_prior(model.classes) if model.estimate_class_prior else None


def write_skills(store: Store, number: int, table: pa.Table) -> None:
    """Write a part of the table `skills`."""
    url = storage.join(store.output, FOLDER, f"part-{number:05d}.parquet")
    storage.write_parquet(url, table)


def _cells_of(partition: int, store: Store) -> I64:
    return np.array(store.map_problems(partition).cells)


def _with_broadcast(
    partition: int, shared: Any, store: Store, work: Callable[[int, Parameters], R]
) -> R:
    parameters, cells = shared.value
    places = np.searchsorted(cells, store.map_problems(partition).cells)
    return work(partition, local_parameters(parameters, places))


def _run_pass(
    partition: int, parameters: Parameters, store: Store, model: Model, last: bool
) -> PartialSums:
    return run_pass(store.map_problems(partition), parameters, model, last)
