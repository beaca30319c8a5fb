"""Where merge's tasks run: on Spark, or in threads of this process, without Spark and Java.

The tasks are the same. Threads are enough for them: NumPy and Arrow work outside the interpreter's
lock, and nothing has to be copied from process to process.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from coyo_labeler.machine import cores_of_machine
from coyo_labeler.progress import Progress, every, watch_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")
R = TypeVar("R")


class Tasks(Protocol):
    """Runs tasks. cores: how many run at once."""

    cores: int

    def each(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """`work` on every item, a task each; results in the order of the items."""

    def share(self, value: Any) -> AbstractContextManager[Any]:
        """An object whose `.value` all tasks can read, for the `with` block."""

    def watch(self, label: str) -> AbstractContextManager[None]:
        """Show the tasks done of all that run inside the `with` block."""


class SparkTasks:
    """Tasks of a Spark session."""

    def __init__(self, spark: "SparkSession") -> None:
        self.spark = spark
        self.cores: int = spark.sparkContext.defaultParallelism

    def each(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """See Tasks."""
        if not items:
            return []
        return self.spark.sparkContext.parallelize(items, len(items)).map(work).collect()

    @contextmanager
    def share(self, value: Any) -> Iterator[Any]:
        """See Tasks."""
        shared = self.spark.sparkContext.broadcast(value)
        try:
            yield shared
        finally:
            shared.destroy()

    def watch(self, label: str) -> AbstractContextManager[None]:
        """See Tasks."""
        return watch_spark(self.spark, label)


@dataclass(frozen=True)
class _Here:
    value: Any


class ThreadTasks:
    """Tasks in threads of this process."""

    def __init__(self) -> None:
        self.cores = cores_of_machine()
        self._done = 0

    def each(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """See Tasks. After a failure no further task is begun."""
        results = []
        with ThreadPoolExecutor(self.cores, "task") as threads:
            try:
                for result in threads.map(work, items):
                    results.append(result)
                    self._done += 1
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        return results

    @contextmanager
    def share(self, value: Any) -> Iterator[Any]:
        """See Tasks."""
        yield _Here(value)

    @contextmanager
    def watch(self, label: str) -> Iterator[None]:
        """See Tasks."""
        before = self._done
        with (
            Progress(label, None, "tasks") as progress,
            every(0.5, lambda: progress.update(self._done - before)),
        ):
            yield


def tasks_of(spark: "SparkSession | None") -> Tasks:
    """Tasks of a session, or without one in this process."""
    return ThreadTasks() if spark is None else SparkTasks(spark)
