"""Where the tasks of merge and select run: on Spark, or in threads of this process, without Java.

This is the one seam between the engines: the tasks are the same, and no other module asks which
engine runs them. Threads are enough for them: NumPy and Arrow work outside the interpreter's lock,
and nothing has to be copied from process to process.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from coyo_labeler.machine import cores_of_machine, keep_freed_memory
from coyo_labeler.progress import Progress, every, watch_spark
from coyo_labeler.spark_versions import require_rdds

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Round:
    """One round of an exchange: what its partitions do with the batches that have arrived.

    work: called as work(partition, batches), once for each of the `partitions`, a task each. What
    it yields goes into the next round as (partition, batch), or is a result of the last round.
    """

    partitions: int
    work: Callable[[int, list[Any]], Iterable[Any]]


class Executor(Protocol):
    """Runs tasks.

    cores: how many run at once. shares_memory: whether a shared value costs no copy.
    """

    cores: int
    shares_memory: bool

    def map(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """`work` on every item, a task each; results in the order of the items."""

    def share(self, value: Any) -> AbstractContextManager[Any]:
        """An object whose `.value` all tasks can read, for the `with` block."""

    def exchange(
        self,
        items: Sequence[T],
        send: Callable[[T], Iterable[tuple[int, Any]]],
        *rounds: Round,
    ) -> list[Any]:
        """`send` on every item, a task each; the (partition, batch) that it yields go to rounds.

        Each batch is brought to its partition of the first round, and so on from round to round.
        Returns what the partitions of the last round yield, in their order. The order in which
        batches arrive is not defined.
        """

    def watch(self, label: str) -> AbstractContextManager[None]:
        """Show how many tasks have finished inside the `with` block."""


#: Items are grouped where there are more: so that tasks end at about the same time on executors
#: that are there, and on as many that may register later.
_TASKS_PER_CORE, _MOST_TASKS = 16, 1024


class SparkExecutor:
    """Tasks of a Spark session."""

    shares_memory = False

    def __init__(self, spark: "SparkSession") -> None:
        require_rdds(spark, "merge")
        self._spark = spark
        self.cores: int = spark.sparkContext.defaultParallelism

    def map(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """See Executor."""
        if not items:
            return []
        tasks = self._parallelize(items).mapPartitions(partial(_map, work))
        results: list[R] = tasks.collect()
        return results

    def _parallelize(self, items: Sequence[T]) -> Any:
        """Some items to a task where they are many: a task costs more than a small file."""
        tasks = min(len(items), max(_TASKS_PER_CORE * self.cores, _MOST_TASKS))
        return self._spark.sparkContext.parallelize(items, max(tasks, 1))

    @contextmanager
    def share(self, value: Any) -> Iterator[Any]:
        """See Executor."""
        shared = self._spark.sparkContext.broadcast(value)
        try:
            yield shared
        finally:
            shared.destroy()

    def exchange(
        self,
        items: Sequence[T],
        send: Callable[[T], Iterable[tuple[int, Any]]],
        *rounds: Round,
    ) -> list[Any]:
        """See Executor: one job, and one shuffle per round."""
        batches = self._parallelize(items).mapPartitions(partial(_flat_map, send))
        for each in rounds:
            arrived = batches.partitionBy(each.partitions, _partition_itself)
            batches = arrived.mapPartitionsWithIndex(partial(_receive, work=each.work))
        results: list[Any] = batches.collect()
        return results

    def watch(self, label: str) -> AbstractContextManager[None]:
        """See Executor."""
        return watch_spark(self._spark, label)


def _begin() -> None:
    """Call this at the beginning of a task.

    PySpark ends every task with a garbage collection, which takes 0.1 s where NumPy, Arrow and
    numba are imported. What earlier ones have left need not be looked at again.
    """
    gc.freeze()


def _map(work: Callable[[T], R], items: Iterable[T]) -> Iterable[R]:
    _begin()
    return map(work, items)


def _flat_map(work: Callable[[T], Iterable[R]], items: Iterable[T]) -> Iterable[R]:
    _begin()
    return chain.from_iterable(map(work, items))


def _partition_itself(partition: int) -> int:
    return partition


def _receive(
    partition: int,
    arrived: Iterable[tuple[int, Any]],
    work: Callable[[int, list[Any]], Iterable[Any]],
) -> Iterable[Any]:
    _begin()
    return work(partition, [batch for _, batch in arrived])


@dataclass(frozen=True)
class _InMemory:
    value: Any


class ThreadExecutor:
    """Tasks in threads of this process."""

    shares_memory = True

    def __init__(self) -> None:
        self.cores = cores_of_machine()
        self._finished = 0
        # Every iteration needs arrays of the sizes that the last one freed.
        keep_freed_memory(all_of_it=True)

    def map(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """See Executor. After a failure no further task is begun."""
        results = []
        with ThreadPoolExecutor(self.cores, "task") as threads:
            try:
                for result in threads.map(work, items):
                    results.append(result)
                    self._finished += 1
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        return results

    @contextmanager
    def share(self, value: Any) -> Iterator[Any]:
        """See Executor."""
        yield _InMemory(value)

    def exchange(
        self,
        items: Sequence[T],
        send: Callable[[T], Iterable[tuple[int, Any]]],
        *rounds: Round,
    ) -> list[Any]:
        """See Executor. Batches wait in lists for their partition."""
        yielded = self.map(items, lambda item: list(send(item)))
        for each in rounds:
            arrived: list[list[Any]] = [[] for _ in range(each.partitions)]
            for partition, batch in chain.from_iterable(yielded):
                arrived[partition].append(batch)
            del yielded
            yielded = self.map(range(each.partitions), partial(_work_in_memory, each, arrived))
        return list(chain.from_iterable(yielded))

    @contextmanager
    def watch(self, label: str) -> Iterator[None]:
        """See Executor."""
        before = self._finished
        with (
            Progress(label, None, "tasks") as progress,
            every(0.5, lambda: progress.update(self._finished - before)),
        ):
            yield


def _work_in_memory(each: Round, arrived: list[list[Any]], partition: int) -> list[Any]:
    batches, arrived[partition] = arrived[partition], []  # let go of them as the work goes on
    return list(each.work(partition, batches))


def executor_of(spark: "SparkSession | None") -> Executor:
    """The executor of a session, or without one that of this process."""
    return ThreadExecutor() if spark is None else SparkExecutor(spark)
