"""Batches of images, compared in worker processes; their results come back in order."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from coyo_labeler.compare.image_pair import (
    CLASS_PAIRS,
    OBJECTS,
    PAIRS,
    Columns,
    Comparison,
    Entry,
    Objects,
    compare_image,
    read_objects,
)
from coyo_labeler.compare.records import Canvas, read_keys
from coyo_labeler.compare.rejects import Named, Rejects
from coyo_labeler.errors import WorkError

#: Images per batch, whatever the number of processes, so that sums come out the same.
IMAGES = 250
#: Fewer images are compared in this process: others take a second to start.
_FEW_IMAGES = 2_000
#: Batches on their way per process.
_AHEAD = 3

#: Per image: how many objects of each set, and its disagreement.
IMAGE_COLUMNS: Mapping[str, Any] = {
    "objects_a": np.int32,
    "objects_b": np.int32,
    "disagreement": np.float64,
}

#: The class of each category id, per file of a set.
Categories = Sequence[Mapping[int | str, int]]


class Job(NamedTuple):
    """What holds for all images: the categories and names of the files of each set, and the least
    IoU of a match.
    """

    a: Categories
    b: Categories
    files_a: Sequence[str]
    files_b: Sequence[str]
    min_iou: float


class Task(NamedTuple):
    """One image. name: of its file. compared: see `compare_image`."""

    name: str
    canvas_a: Canvas
    canvas_b: Canvas
    compared: bool
    a: list[Entry]
    b: list[Entry]


@dataclass
class Result:
    """The columns of a batch, and the annotations of each set that were left out."""

    a: Columns
    b: Columns
    pairs: Columns
    class_pairs: Columns
    images: Columns
    weak: int = 0
    rejects_a: Rejects = field(default_factory=Rejects)
    rejects_b: Rejects = field(default_factory=Rejects)


def compare_batch(job: Job, tasks: Sequence[Task]) -> Result:
    """Read and match the objects of some images."""
    found: list[Comparison] = []
    result = Result({}, {}, {}, {}, {})
    for task in tasks:
        a = read_objects(task.a, job.a, task.canvas_a)
        b = read_objects(task.b, job.b, task.canvas_b)
        _note(result.rejects_a, a, task.name, job.files_a)
        _note(result.rejects_b, b, task.name, job.files_b)
        found.append(compare_image(a, b, task.compared, job.min_iou))
    result.a = concatenate([one.a for one in found], OBJECTS)
    result.b = concatenate([one.b for one in found], OBJECTS)
    result.pairs = concatenate([one.pairs for one in found], PAIRS)
    result.class_pairs = concatenate([one.class_pairs for one in found], CLASS_PAIRS)
    result.images = {
        "objects_a": np.array([len(one.a["klass"]) for one in found], dtype=np.int32),
        "objects_b": np.array([len(one.b["klass"]) for one in found], dtype=np.int32),
        "disagreement": np.array([one.disagreement for one in found]),
    }
    result.weak = sum(one.weak for one in found)
    return result


def _note(rejects: Rejects, objects: Objects, image: str, files: Sequence[str]) -> None:
    for entry, error in objects.rejected:
        record = Named(files[entry.file], error.what, id=read_keys(entry.raw).id, image=image)
        rejects.add("annotations", error, record)


def concatenate(parts: Sequence[Columns], columns: Mapping[str, Any]) -> Columns:
    """The columns of several parts, one behind the other."""
    return {
        name: np.concatenate([np.zeros(0, dtype), *(part[name] for part in parts)]).astype(dtype)
        for name, dtype in columns.items()
    }


def compare_all(
    job: Job, tasks: Sequence[Task], processes: int, advance: Callable[[int], None]
) -> Iterator[Result]:
    """The results of all batches, in order. advance: called with the number of images done.

    Raises: WorkError where a process was killed.
    """
    batches = [tasks[start : start + IMAGES] for start in range(0, len(tasks), IMAGES)]
    done = 0
    results = (
        (compare_batch(job, batch) for batch in batches)
        if processes == 1 or len(tasks) < _FEW_IMAGES
        else _in_processes(job, batches, processes)
    )
    for batch, result in zip(batches, results, strict=True):
        done += len(batch)
        advance(done)
        yield result


def _in_processes(job: Job, batches: Iterable[Sequence[Task]], processes: int) -> Iterator[Result]:
    # A forked process would inherit locks of threads, such as those of Spark's gateway.
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(processes, context, _start, (job,)) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(_compare, _sendable(batch)))
                if len(waiting) >= processes * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise WorkError(
                "compare: a process was killed, perhaps for want of memory; run the same command "
                "again with fewer processes, such as processes=1"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_JOB: list[Job] = []


def _start(job: Job) -> None:
    _JOB[:] = [job]


def _compare(tasks: Sequence[Task]) -> Result:
    return compare_batch(_JOB[0], tasks)


def _sendable(tasks: Sequence[Task]) -> list[Task]:
    """Tasks with the bytes of their entries, which until now lie in a mapped file."""
    return [
        task._replace(
            a=[Entry(entry.file, bytes(entry.raw)) for entry in task.a],
            b=[Entry(entry.file, bytes(entry.raw)) for entry in task.b],
        )
        for task in tasks
    ]
