"""Which worker answers which question: by chance or by expected accuracy, up to a quota each."""

import numpy as np
from numpy.typing import NDArray

from coyo_labeler.em.segments import F64, I32, I64
from coyo_labeler.formats.label_lists import LabelLists
from coyo_labeler.select.hashes import U64
from coyo_labeler.select.workers import Workers

#: No worker is left who could answer.
NOBODY = -1


def quotas(workers: int, questions: int, most: int | None, file: int, files: int) -> I64:
    """How many questions of one file of questions each worker may get, (W,).

    most: of all files, per worker; it is divided among the files. None: as many for each as it
    takes.
    """
    if most is None:
        return np.full(workers, -(-questions // workers), dtype=np.int64)
    begin = file + np.arange(workers, dtype=np.int64) % files
    return (begin + 1) * most // files - begin * most // files


def assign_randomly(random: U64, barred: dict[int, set[int]], quota: I64) -> I32:
    """A worker by chance for each question, (n,); `NOBODY` where none can be found.

    random: (n,) a number by chance for each question. barred: by question, who must not be asked.
    quota: (W,) questions that each worker may get.
    """
    left = quota.copy()
    chosen = np.full(len(random), NOBODY, dtype=np.int32)
    # Those that may be answered by fewest come first, so that they are not left over.
    order = sorted(range(len(random)), key=lambda q: -len(barred.get(q, ())))
    for question in order:
        slots = left
        if question in barred:
            slots = left.copy()
            slots[list(barred[question])] = 0
        total = int(slots.sum())
        if total == 0:
            continue
        # As drawing one of all open slots: workers with many of them are asked sooner.
        slot = int(random[question] >> np.uint64(1)) % total
        worker = int(np.searchsorted(np.cumsum(slots), slot, side="right"))
        chosen[question] = worker
        left[worker] -= 1
    return chosen


def assign_greedily(
    lists: LabelLists,
    order: I64,
    barred: dict[int, set[int]],
    quota: I64,
    workers: Workers,
) -> I32:
    """For each question in turn the worker with the highest expected accuracy on it, (n,).

    lists: the classes that each image may have. order: of the questions, (m,); of those that are
    not in it none is assigned. barred, quota: see `assign_randomly`. Of equally good workers the
    one with the largest part of the quota left is asked, then the first.
    """
    left = quota.copy()
    chosen = np.full(len(lists.image), NOBODY, dtype=np.int32)
    for question in order.tolist():
        begin, end = lists.offsets[question], lists.offsets[question + 1]
        expected = workers.expected_accuracy(
            lists.label[begin:end], _scaled(lists.probability[begin:end])
        )
        expected[left <= 0] = -np.inf
        for worker in barred.get(question, ()):
            expected[worker] = -np.inf
        best = np.flatnonzero(expected == expected.max())
        if not np.isfinite(expected[best[0]]):
            continue
        worker = int(best[np.argmax(left[best])])
        chosen[question] = worker
        left[worker] -= 1
    return chosen


def _scaled(probability: F64) -> F64:
    """Probabilities of one image that sum to 1 at most."""
    return probability / max(1.0, float(probability.sum()))


def used_of(chosen: NDArray[np.int32], workers: int) -> I64:
    """How many questions each worker got, (W,)."""
    return np.bincount(chosen[chosen >= 0], minlength=workers).astype(np.int64)
