"""Progress on standard error: a bar on a terminal, elsewhere a log line every few seconds."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Seconds between two lines where standard error is not a terminal.
LINE_SECONDS = 10.0


class Progress:
    """Shows `done` of `total` units with the rate, the time left and further facts.

    total: None if unknown. A context manager; `update` may be called from any thread.
    """

    def __init__(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._initial, self._done = done, done
        self._facts = ""
        self._start = self._last_line = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=done, desc=label, unit=f" {unit}", smoothing=0.1)
            if sys.stderr.isatty()
            else None
        )

    def update(self, done: int, **facts: Any) -> None:
        """Set the units done so far; facts are shown after the rate, as `name value`."""
        step, self._done = done - self._done, done
        self._facts = ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in facts.items()
        )
        if self._bar is not None:
            self._bar.set_postfix_str(self._facts, refresh=False)
            self._bar.update(step)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._log()

    def _log(self) -> None:
        self._last_line = time.monotonic()
        meter = tqdm.format_meter(
            self._done,
            self._total,  # type: ignore[arg-type]  # tqdm takes None; its stubs do not
            self._last_line - self._start,
            initial=self._initial,
            unit=f" {self._unit}",
            postfix=self._facts or None,
            bar_format="{n_fmt}/{total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left{postfix}"
            if self._total is not None
            else "{n_fmt}{unit} in {elapsed}{postfix}",
        )
        extra = {"label": self._label, "done": self._done, "total": self._total}
        logger.info("%s: %s", self._label, " ".join(meter.split()), extra=extra)

    def close(self) -> None:
        """Finish the bar; or write a last line, if lines were written before."""
        if self._bar is not None:
            self._bar.close()
        elif self._last_line != self._start:
            self._log()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Call `look` every so many seconds, in a thread, while the `with` block runs."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(seconds):
            look()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def watch_spark(spark: "SparkSession", label: str, interval_seconds: float = 0.5) -> Iterator[None]:
    """Show the number of tasks that Spark has finished inside the `with` block."""
    tracker = spark.sparkContext.statusTracker()
    finished: dict[int, int] = {}
    group = f"{label}-{time.monotonic_ns()}"
    spark.sparkContext.setJobGroup(group, label)

    def look(progress: Progress) -> None:
        running = 0
        for job_id in tracker.getJobIdsForGroup(group):
            job = tracker.getJobInfo(job_id)
            for stage_id in job.stageIds if job else ():
                stage = tracker.getStageInfo(stage_id)
                if stage:
                    finished[stage_id] = stage.numCompletedTasks
                    running += stage.numActiveTasks
        progress.update(sum(finished.values()), running=running)

    with Progress(label, None, "tasks") as progress:
        try:
            with every(interval_seconds, lambda: look(progress)):
                yield
        finally:
            spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)  # type: ignore[arg-type]
