"""Several simulations at once, each in a process of its own with one thread.

Nothing is added up across processes, so their number changes no result.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler.errors import WorkError
from coyo_labeler.learn.softmax import one_thread_blas
from coyo_labeler.machine import cores_of_machine
from coyo_labeler.progress import Progress, every

#: Share of the machine's memory that simulations may take together.
_MEMORY_SHARE = 0.7
#: Dense arrays of images times classes that one simulation holds at its peak.
_DENSE_ARRAYS = 8

#: What a simulation is: called with arrays, a policy, a seed and what to call after each round.
Work = Callable[[Mapping[str, NDArray[Any]], str, int, Callable[[int], None]], tuple[pa.Table, str]]


@dataclass(frozen=True)
class Task:
    """One policy with one seed."""

    policy: str
    seed: int


def processes_for(wanted: int | None, tasks: int, images: int, classes: int) -> int:
    """How many processes to use: as many as cores, if their memory allows it."""
    each = _DENSE_ARRAYS * images * classes * 4 + 300 * 2**20
    room = int(_memory() * _MEMORY_SHARE // each)
    return max(1, min(wanted or cores_of_machine(), tasks, max(room, 1)))


def _memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")


def run_all(
    work: Work,
    arrays: Mapping[str, NDArray[Any]],
    tasks: Sequence[Task],
    rounds: int,
    processes: int,
) -> list[tuple[pa.Table, str]]:
    """The curve of every task, and why it ended, in the order of the tasks.

    work: a function of a module, with what it needs besides bound to it. arrays: shared by files.

    Raises: WorkError where a process was killed.
    """
    total = rounds * len(tasks)
    context = multiprocessing.get_context("forkserver")
    done = context.Value("q", 0)
    with (
        tempfile.TemporaryDirectory(prefix="simulate-") as folder,
        Progress("simulate", total, "rounds") as progress,
        every(1.0, lambda: progress.update(done.value)),
    ):
        for name, array in arrays.items():
            np.save(Path(folder) / f"{name}.npy", array)
        with ProcessPoolExecutor(
            processes, mp_context=context, initializer=_share, initargs=(done,)
        ) as pool:
            running = {
                pool.submit(_run, work, folder, sorted(arrays), task): n
                for n, task in enumerate(tasks)
            }
            results: dict[int, tuple[pa.Table, str]] = {}
            try:
                for future in as_completed(running):
                    results[running[future]] = future.result()
            except BrokenProcessPool:
                raise WorkError(
                    "simulate: a process was killed, most likely for lack of memory; run it again "
                    "with fewer processes (processes=1), images or classes"
                ) from None
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        progress.update(total)
    return [results[n] for n in range(len(tasks))]


_done: Any = None


def _share(done: Any) -> None:
    """Give a process the counter of rounds; it cannot be sent with a task."""
    global _done  # noqa: PLW0603
    _done = done


def _run(work: Work, folder: str, names: Sequence[str], task: Task) -> tuple[pa.Table, str]:
    arrays = {name: np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in names}
    before = 0

    def count(round_: int) -> None:
        nonlocal before
        with _done.get_lock():
            _done.value += round_ - before
        before = round_

    with one_thread_blas():
        return work(arrays, task.policy, task.seed, count)
