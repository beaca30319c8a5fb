"""Passes on Spark where skills are too many for one machine.

The cells are dealt out over shards; each shard sends every partition the skills that it needs, each
partition sends every shard its counts, and the driver sees a handful of sums.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.e_step import e_step
from coyo_labeler.em.exact_sum import ExactSum
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Model, Parameters, SkillCheckpoint
from coyo_labeler.em.partitions import Work
from coyo_labeler.em.segments import F64, I64, distinct
from coyo_labeler.em.sums import Sums
from coyo_labeler.merge.broadcast import Conclusion, class_prior_of, write_skills
from coyo_labeler.merge.cell_shards import (
    ClassCounts,
    Shards,
    add_class_counts,
    class_counts,
    gather_cells,
    shard_skill,
    shared_classes,
)
from coyo_labeler.merge.earlier import Earlier, earlier_counts, skills_table
from coyo_labeler.merge.executor import SparkTasks
from coyo_labeler.merge.state import Store
from coyo_labeler.merge.workers import confusions_table, count_pairs, right_votes

if TYPE_CHECKING:
    from pyspark import RDD

R = TypeVar("R")


@dataclass(frozen=True)
class _Slice:
    """Numbers of one partition's cells in one shard. origin: the shard or partition it is from."""

    origin: int
    values: Any
    classes: tuple[ClassCounts, ...] = ()


@dataclass(frozen=True)
class _Joint:
    """What the tasks of a joined pass need to know."""

    store: Store
    model: Model
    shards: Shards
    shared: list[I64]


class JoinedPasses:
    """Skills and counts are exchanged between shards and partitions; the driver holds neither."""

    def __init__(
        self, tasks: SparkTasks, store: Store, partitions: int, shards: Shards, model: Model
    ) -> None:
        self._tasks, self._partitions = tasks, partitions
        joint = _Joint(store, model, shards, shared_classes(shards, CellSpace(model)))
        self._store, self._shards, self._joint = store, shards, joint

    def prepare(self) -> None:
        """Bring every shard its cells, once."""
        work = partial(_send_cells, joint=self._joint)
        self._to_shards(self._numbers(self._partitions).flatMap(work), _gather)

    def run(self, parameters: Parameters, reliability: bool = False) -> Sums:
        """The sums over all problems, added in the order of the partitions."""
        version = 1 if parameters.checkpoint is None else parameters.checkpoint.version + 1
        work = partial(_e_step_and_send, parameters=parameters, joint=self._joint, last=reliability)
        sent = self._met(parameters).mapPartitionsWithIndex(work)
        receive = partial(_maximise, version=version, keep_counts=reliability)
        found = self._to_shards(sent, receive)
        sums = reduce(add, [item for item in found if isinstance(item, Sums)])
        log_prior = _total([item for item in found if isinstance(item, ExactSum)])
        return replace(sums, checkpoint=SkillCheckpoint(version, log_prior))

    def parameters_of(self, state: State) -> tuple[Parameters, float]:
        """The parameters of a state, and the log prior of its skills."""
        parameters = Parameters(
            None, state.calibration, state.log_class_prior, state.true_share, state.checkpoint
        )
        return parameters, 0.0 if state.checkpoint is None else state.checkpoint.log_prior

    def conclude(self, sums: Sums, names: Sequence[str]) -> Conclusion:
        """Write the confusions table; returns what else is known of the workers."""
        assert sums.checkpoint is not None
        version = sums.checkpoint.version
        with self._tasks.share(list(names)) as shared:
            work = partial(_conclude, names=shared, version=version, joint=self._joint)
            found = self._tasks.each(range(len(self._shards)), work)
        right: F64 = np.sum([one.right for one in found], axis=0)
        return Conclusion(right, pa.concat_tables([one.pairs for one in found]))

    def warm(self, earlier: Earlier, names: Sequence[str]) -> State:
        """The state to begin from where an earlier merge has found skills."""
        shards = range(len(self._shards))
        with self._tasks.share(list(names)) as shared:
            count = partial(_count_earlier, earlier=earlier, names=shared, joint=self._joint)
            pieces = [piece for found in self._tasks.each(shards, count) for piece in found]
        classes = add_class_counts(pieces, self._joint.model.classes)
        skills = partial(_warm_skill, classes=classes, joint=self._joint)
        log_prior = _total(self._tasks.each(shards, skills))
        return State(
            checkpoint=SkillCheckpoint(1, log_prior),
            true_share=earlier.true_share,
            log_class_prior=class_prior_of(earlier, self._joint.model),
        )

    def map(self, work: Work[R], state: State) -> list[R]:
        """`work(number, problems, own parameters)` on every partition, a task each."""
        parameters = self.parameters_of(state)[0]
        done = partial(_with_joined, parameters=parameters, work=work, joint=self._joint)
        return self._met(parameters).mapPartitionsWithIndex(done).collect()

    def _numbers(self, count: int) -> "RDD[int]":
        return self._tasks.spark.sparkContext.parallelize(range(count), count)

    def _met(self, parameters: Parameters) -> "RDD[Any]":
        """One partition of the RDD for each of the problems: the skills that it needs."""
        if parameters.checkpoint is None:
            return self._numbers(self._partitions).map(lambda number: (number, None))
        work = partial(_send_skill, version=parameters.checkpoint.version, joint=self._joint)
        sent = self._numbers(len(self._shards)).flatMap(work)
        return sent.partitionBy(self._partitions, _identity)

    def _to_shards(self, sent: "RDD[Any]", receive: Callable[..., Iterator[R]]) -> list[R]:
        """Send slices to their shards and let these work on them; a partition more is for sums."""
        together = sent.partitionBy(len(self._shards) + 1, _identity)
        return together.mapPartitionsWithIndex(partial(receive, joint=self._joint)).collect()


def _total(log_priors: Sequence[ExactSum]) -> float:
    """The log prior of all skills from those of the shards."""
    return float(reduce(add, log_priors).total())


def _identity(number: int) -> int:
    return number


def _send_cells(partition: int, joint: _Joint) -> Iterator[tuple[int, _Slice]]:
    cells = joint.store.map_problems(partition).cells
    cuts = joint.shards.cut(cells)
    for shard in range(len(joint.shards)):
        yield shard, _Slice(partition, np.array(cells[cuts[shard] : cuts[shard + 1]]))


def _gather(shard: int, items: Iterable[tuple[int, _Slice]], joint: _Joint) -> Iterator[None]:
    slices = _in_order(items)
    if shard < len(joint.shards):
        gathered = gather_cells([some.values for some in slices], CellSpace(joint.model))
        joint.store.write_shard(gathered, shard)
    return iter(())


def _in_order(items: Iterable[tuple[int, _Slice]]) -> list[_Slice]:
    return sorted((item for _, item in items), key=lambda some: some.origin)


def _send_skill(shard: int, version: int, joint: _Joint) -> Iterator[tuple[int, _Slice]]:
    log_theta = joint.store.read_array(f"skill-{version}.npy", shard)
    cells = joint.store.map_shard(shard)
    for partition in range(len(cells.offsets) - 1):
        yield partition, _Slice(shard, log_theta[cells.places_of(partition)])


def _own(items: Iterable[tuple[int, _Slice | None]], parameters: Parameters) -> Parameters:
    """The parameters of a partition, from what the shards sent it."""
    if parameters.checkpoint is None:
        return parameters
    slices = _in_order((number, item) for number, item in items if item is not None)
    return replace(parameters, log_theta=np.concatenate([some.values for some in slices]))


def _with_joined(
    partition: int,
    items: Iterable[tuple[int, _Slice | None]],
    parameters: Parameters,
    work: Work[R],
    joint: _Joint,
) -> Iterator[R]:
    yield work(partition, joint.store.map_problems(partition), _own(items, parameters))


def _e_step_and_send(
    partition: int,
    items: Iterable[tuple[int, _Slice | None]],
    parameters: Parameters,
    joint: _Joint,
    last: bool,
) -> Iterator[tuple[int, _Slice]]:
    problems = joint.store.map_problems(partition)
    sums = e_step(problems, _own(items, parameters), joint.model, last)
    cells, counts, space = problems.cells, sums.counts, CellSpace(joint.model)
    cuts = joint.shards.cut(cells)
    parts = {
        int(truth): class_counts(cells, counts, int(truth), space)
        for truth in distinct(np.sort(np.concatenate(joint.shared)))
    }
    for shard in range(len(joint.shards)):
        classes = tuple(parts[int(truth)] for truth in joint.shared[shard])
        yield shard, _Slice(partition, counts[cuts[shard] : cuts[shard + 1]], classes)
    yield len(joint.shards), _Slice(partition, sums.without_counts())


def _maximise(
    shard: int,
    items: Iterable[tuple[int, _Slice]],
    version: int,
    keep_counts: bool,
    joint: _Joint,
) -> Iterator[Sums | ExactSum]:
    slices = _in_order(items)
    if shard == len(joint.shards):
        yield from (some.values for some in slices)
        return
    cells = joint.store.map_shard(shard)
    counts = np.zeros(len(cells.cells))
    for some in slices:
        counts[cells.places_of(some.origin)] += some.values
    if keep_counts:
        joint.store.write_array(f"counts-{version}.npy", counts, shard)
    pieces = [piece for some in slices for piece in some.classes]
    shared = add_class_counts(pieces, joint.model.classes)
    skill = shard_skill(cells.table(CellSpace(joint.model)), counts, shared, joint.model)
    joint.store.write_array(f"skill-{version}.npy", skill.log_theta, shard)
    yield skill.log_prior


def _count_earlier(shard: int, earlier: Earlier, names: Any, joint: _Joint) -> list[ClassCounts]:
    space, cells = CellSpace(joint.model), joint.store.map_shard(shard).cells
    counts = earlier_counts(earlier, names.value, space, cells)
    joint.store.write_array("counts-0.npy", counts, shard)
    return [class_counts(cells, counts, int(truth), space) for truth in joint.shared[shard]]


def _warm_skill(shard: int, classes: Sequence[ClassCounts], joint: _Joint) -> ExactSum:
    table = joint.store.map_shard(shard).table(CellSpace(joint.model))
    counts = joint.store.read_array("counts-0.npy", shard)
    shared = [one for one in classes if one.truth in joint.shared[shard]]
    skill = shard_skill(table, counts, shared, joint.model)
    joint.store.write_array("skill-1.npy", skill.log_theta, shard)
    return skill.log_prior


def _conclude(shard: int, names: Any, version: int, joint: _Joint) -> Conclusion:
    table = joint.store.map_shard(shard).table(CellSpace(joint.model))
    counts = joint.store.read_array(f"counts-{version}.npy", shard)
    confusions = confusions_table(names.value, table, counts)
    url = storage.join(joint.store.output, "confusions", f"part-{shard:05d}.parquet")
    storage.write_parquet(url, confusions)
    skills = skills_table(names.value, CellSpace(joint.model), table.keys, counts)
    write_skills(joint.store, shard, skills)
    right = right_votes(table, counts, len(names.value))
    return Conclusion(right, count_pairs(table, counts, joint.shared[shard].tolist()))
