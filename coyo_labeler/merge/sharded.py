"""The E-step where the skills of all workers are too many for one task: they stay in shards.

The cells are divided into shards, each a range of keys. In every iteration each shard sends each
partition the skills that it needs, each partition sends each shard its counts, and the shards do
the M-step of their own skills. The driver sees a handful of sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.e_step import e_step
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Model, Parameters, SkillCheckpoint
from coyo_labeler.em.partitions import Work
from coyo_labeler.em.segments import I64, distinct
from coyo_labeler.em.sums import Sums
from coyo_labeler.executor import Executor, Round
from coyo_labeler.merge.cell_shards import (
    ClassCounts,
    Shards,
    add_class_counts,
    class_counts,
    gather_cells,
    shard_skill,
    shared_classes,
)
from coyo_labeler.merge.earlier import Earlier
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.merge.worker_counts import WorkerCounts, write_counts

R = TypeVar("R")


@dataclass(frozen=True)
class _Slice:
    """What one shard or partition (`origin`) sends: numbers of some of its cells.

    classes: counts of the classes that lie in more than one shard.
    """

    origin: int
    values: Any
    classes: tuple[ClassCounts, ...] = ()


@dataclass(frozen=True)
class _Sharding:
    """What tasks need to know. shared: for each shard the classes that others have a part of."""

    state: StateFolder
    model: Model
    shards: Shards
    shared: list[I64]

    @property
    def space(self) -> CellSpace:
        return CellSpace(self.model)


def _sharding(state: StateFolder, model: Model, shards: Shards) -> _Sharding:
    return _Sharding(state, model, shards, shared_classes(shards, CellSpace(model)))


def gather_shards(
    executor: Executor, state: StateFolder, partitions: int, shards: Shards, model: Model
) -> None:
    """Bring the cells of all partitions to their shards, once; the state then holds the shards."""
    sharding = _sharding(state, model, shards)
    send = partial(_send_cells, sharding=sharding)
    work = partial(_write_shard, sharding=sharding)
    executor.exchange(range(partitions), send, Round(len(shards), work))


def _send_cells(partition: int, sharding: _Sharding) -> Iterator[tuple[int, _Slice]]:
    cells = sharding.state.map_problems(partition).cells
    cuts = sharding.shards.cut(cells)
    for shard in range(len(sharding.shards)):
        yield shard, _Slice(partition, np.array(cells[cuts[shard] : cuts[shard + 1]]))


def _write_shard(shard: int, arrived: list[_Slice], sharding: _Sharding) -> Iterator[None]:
    slices = [each.values for each in _in_order(arrived)]
    sharding.state.write_shard(gather_cells(slices, sharding.space), shard)
    return iter(())


class ShardedEStep:
    """Skills and counts are exchanged between shards and partitions (`em.loop.EStep`).

    workers: all, sorted.
    """

    def __init__(
        self,
        executor: Executor,
        state: StateFolder,
        partitions: int,
        shards: Shards,
        model: Model,
        workers: Sequence[str],
    ) -> None:
        self._executor, self._state, self._partitions = executor, state, partitions
        self._shards, self._model, self._workers = shards, model, workers
        self._sharding = _sharding(state, model, shards)

    def run(self, parameters: Parameters, reliability: bool = False) -> Sums:
        """See `em.loop.EStep`. The M-step of the skills is done too, by the shards."""
        checkpoint, sharding = parameters.checkpoint, self._sharding
        version = 1 if checkpoint is None else checkpoint.version + 1
        results = self._executor.exchange(
            range(len(self._shards)),
            partial(_send_skills, checkpoint=checkpoint, sharding=sharding),
            Round(
                self._partitions,
                partial(
                    _e_step_and_send,
                    parameters=parameters,
                    reliability=reliability,
                    sharding=sharding,
                ),
            ),
            Round(
                len(self._shards) + 1,
                partial(_m_step, version=version, keep_counts=reliability, sharding=sharding),
            ),
        )
        sums = reduce(add, [item for item in results if isinstance(item, Sums)])
        log_prior = _total([item for item in results if isinstance(item, ExactSum)])
        return replace(sums, checkpoint=SkillCheckpoint(version, log_prior))

    def parameters_of(self, state: State) -> tuple[Parameters, float]:
        """See `em.loop.EStep`."""
        checkpoint = state.checkpoint
        parameters = Parameters(
            None, state.calibration, state.log_class_prior, state.true_share, checkpoint
        )
        return parameters, 0.0 if checkpoint is None else checkpoint.log_prior

    def map(self, work: Work[R], state: State) -> list[R]:
        """`work(number, problems, own parameters)` on every partition, a task each."""
        parameters = self.parameters_of(state)[0]
        send = partial(_send_skills, checkpoint=parameters.checkpoint, sharding=self._sharding)
        done = partial(_work_on, parameters=parameters, work=work, sharding=self._sharding)
        results: list[R] = self._executor.exchange(
            range(len(self._shards)), send, Round(self._partitions, done)
        )
        return results

    def warm_start(self, earlier: Earlier) -> State:
        """The state to begin from, with the skills that an earlier merge found."""
        shards = range(len(self._shards))
        with self._executor.share(self._workers) as workers:
            count = partial(
                _count_earlier, earlier=earlier, workers=workers, sharding=self._sharding
            )
            parts = [part for parts in self._executor.map(shards, count) for part in parts]
        classes = add_class_counts(parts, self._model.classes)
        estimate = partial(_estimate_earlier, classes=classes, sharding=self._sharding)
        return State(
            checkpoint=SkillCheckpoint(1, _total(self._executor.map(shards, estimate))),
            true_share=earlier.true_share,
            log_class_prior=earlier.first_class_prior(self._model),
        )

    def write_counts(self, sums: Sums) -> WorkerCounts:
        """Write the counts of the last E-step as tables; returns what they say of the workers."""
        assert sums.checkpoint is not None
        with self._executor.share(self._workers) as workers:
            write = partial(
                _write_counts,
                workers=workers,
                version=sums.checkpoint.version,
                sharding=self._sharding,
            )
            parts = self._executor.map(range(len(self._shards)), write)
        right = np.sum([part.right for part in parts], axis=0)
        return WorkerCounts(right, pa.concat_tables([part.pairs for part in parts]))


def _total(log_priors: Sequence[ExactSum]) -> float:
    """The log prior of all skills from those of the shards."""
    return float(reduce(add, log_priors).total())


def _in_order(arrived: Sequence[_Slice]) -> list[_Slice]:
    return sorted(arrived, key=lambda each: each.origin)


def _send_skills(
    shard: int, checkpoint: SkillCheckpoint | None, sharding: _Sharding
) -> Iterator[tuple[int, _Slice]]:
    """The skills of a checkpoint; before the first M-step there are none to send."""
    if checkpoint is None:
        return
    log_theta = sharding.state.read_array(f"skill-{checkpoint.version}.npy", shard)
    cells = sharding.state.map_shard(shard)
    for partition in range(len(cells.offsets) - 1):
        yield partition, _Slice(shard, log_theta[cells.index_of(partition)])


def _own(parameters: Parameters, arrived: Sequence[_Slice]) -> Parameters:
    """The parameters of a partition's own cells, with the skills that shards sent it."""
    if parameters.checkpoint is None:
        return parameters
    log_theta = np.concatenate([each.values for each in _in_order(arrived)])
    return replace(parameters, log_theta=log_theta)


def _work_on(
    partition: int,
    arrived: list[_Slice],
    parameters: Parameters,
    work: Work[R],
    sharding: _Sharding,
) -> Iterator[R]:
    problems = sharding.state.map_problems(partition)
    yield work(partition, problems, _own(parameters, arrived))


def _e_step_and_send(
    partition: int,
    arrived: list[_Slice],
    parameters: Parameters,
    reliability: bool,
    sharding: _Sharding,
) -> Iterator[tuple[int, _Slice]]:
    """Sends the counts of a partition to their shards, and its other sums to one more partition."""
    problems = sharding.state.map_problems(partition)
    sums = e_step(problems, _own(parameters, arrived), sharding.model, reliability)
    cells, counts = problems.cells, sums.counts
    cuts = sharding.shards.cut(cells)
    by_class = {
        int(truth): class_counts(cells, counts, int(truth), sharding.space)
        for truth in distinct(np.sort(np.concatenate(sharding.shared)))
    }
    for shard in range(len(sharding.shards)):
        classes = tuple(by_class[int(truth)] for truth in sharding.shared[shard])
        yield shard, _Slice(partition, counts[cuts[shard] : cuts[shard + 1]], classes)
    yield len(sharding.shards), _Slice(partition, sums.without_counts())


def _m_step(
    shard: int, arrived: list[_Slice], version: int, keep_counts: bool, sharding: _Sharding
) -> Iterator[Sums | ExactSum]:
    """The skills of a shard, written under their version; yields the log of their prior."""
    slices = _in_order(arrived)
    if shard == len(sharding.shards):
        yield from (each.values for each in slices)
        return
    cells = sharding.state.map_shard(shard)
    counts = np.zeros(len(cells.cells))
    for each in slices:
        counts[cells.index_of(each.origin)] += each.values
    if keep_counts:
        sharding.state.write_array(f"counts-{version}.npy", counts, shard)
    parts = [part for each in slices for part in each.classes]
    shared = add_class_counts(parts, sharding.model.classes)
    skill = shard_skill(cells.table(sharding.space), counts, shared, sharding.model)
    sharding.state.write_array(f"skill-{version}.npy", skill.log_theta, shard)
    yield skill.log_prior


def _count_earlier(
    shard: int, earlier: Earlier, workers: Any, sharding: _Sharding
) -> list[ClassCounts]:
    space, cells = sharding.space, sharding.state.map_shard(shard).cells
    counts = earlier.counts_of(workers.value, space, cells)
    sharding.state.write_array("counts-0.npy", counts, shard)
    return [class_counts(cells, counts, int(truth), space) for truth in sharding.shared[shard]]


def _estimate_earlier(shard: int, classes: Sequence[ClassCounts], sharding: _Sharding) -> ExactSum:
    table = sharding.state.map_shard(shard).table(sharding.space)
    counts = sharding.state.read_array("counts-0.npy", shard)
    shared = [part for part in classes if part.truth in sharding.shared[shard]]
    skill = shard_skill(table, counts, shared, sharding.model)
    sharding.state.write_array("skill-1.npy", skill.log_theta, shard)
    return skill.log_prior


def _write_counts(shard: int, workers: Any, version: int, sharding: _Sharding) -> WorkerCounts:
    state, shared = sharding.state, sharding.shared[shard].tolist()
    table = state.map_shard(shard).table(sharding.space)
    counts = state.read_array(f"counts-{version}.npy", shard)
    return write_counts(state.output, shard, workers.value, sharding.space, table, counts, shared)
