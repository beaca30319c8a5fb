"""Simulated votes and beliefs for `benchmarks/em.py`, written once per size."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler.formats import schemas

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("BENCH_FOLDER", ROOT / "out" / "bench" / "em"))

PER_TASK = 5
BELIEVED = 50
#: How much too sure a simulated belief is.
TEMPERATURE = 1.3


@dataclass(frozen=True)
class Case:
    """Sizes of a simulation. One task is one image.

    votes: how many; None: five per task, minus repeated workers. beliefs: whether every task has
    one, of 50 classes.
    """

    tasks: int
    classes: int
    workers: int
    votes: int | None = None
    beliefs: bool = False

    @property
    def folder(self) -> Path:
        name = f"{self.tasks}-{self.classes}-{self.workers}-{self.votes or 'five'}"
        return FOLDER / (name + ("-beliefs" if self.beliefs else ""))

    @property
    def beliefs_folder(self) -> Path:
        return FOLDER / f"beliefs-{self.tasks}-{self.classes}"


def simulate(case: Case) -> None:
    """Write votes/, truth.npy and labels.txt (and the beliefs), unless they are there."""
    if (case.folder / "labels.txt").exists():
        return
    random = np.random.default_rng(0)
    truth = np.random.default_rng(1).integers(0, case.classes, case.tasks).astype(np.int32)
    if case.beliefs and not (case.beliefs_folder / "_done.json").exists():
        write_beliefs(case, truth)
    skill = random.beta(8, 2, case.workers)
    if case.votes is None:
        task = np.repeat(np.arange(case.tasks), PER_TASK)
    else:
        task = np.sort(random.integers(0, case.tasks, case.votes))
    worker = random.integers(0, case.workers, len(task))
    _, first = np.unique(task * case.workers + worker, return_index=True)
    task, worker = task[first], worker[first]
    right = random.random(len(task)) < skill[worker]
    wrong = neighbours(
        truth[task], random.integers(1, min(case.classes, BELIEVED), len(task)), case
    )
    label = np.where(right, truth[task], wrong).astype(np.int32)
    (case.folder / "votes").mkdir(parents=True, exist_ok=True)
    parts = np.array_split(np.arange(len(task)), max(4, len(task) // 1_250_000))
    names = pa.array([f"w{number}" for number in range(case.workers)])
    for number, rows in enumerate(parts):
        table = pa.table(
            {
                "image_id": task[rows],
                "worker_id": names.take(pa.array(worker[rows])),
                "label": label[rows],
            }
        )
        pq.write_table(table, case.folder / "votes" / f"{number:05d}.parquet")
    np.save(case.folder / "truth.npy", truth)
    (case.folder / "labels.txt").write_text("\n".join(map(str, range(case.classes))))


def neighbours(label: np.ndarray, step: np.ndarray, case: Case) -> np.ndarray:
    """The class that workers confuse with `label` in `step`-th place; scattered over the space."""
    stride = 1 if case.classes <= BELIEVED else 389
    return (label.astype(np.int64) + step * stride) % case.classes


def write_beliefs(case: Case, truth: np.ndarray) -> None:
    """Write the beliefs of a machine that is right for 70 % of the tasks, but states 79 %.

    Its probabilities fall with the rank, faster for some images than for others. The rank of the
    true class is drawn from the same distribution, flattened by `TEMPERATURE`.
    """
    random = np.random.default_rng(2)
    case.beliefs_folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(np.array_split(np.arange(case.tasks), 8)):
        n = len(rows)
        power = random.gamma(4, 0.6, n) + 0.4
        ranks = np.arange(BELIEVED)
        score = -power[:, None] * np.log(1 + ranks) - 0.2 * ranks
        flat = np.cumsum(np.exp(score / TEMPERATURE), axis=1)
        rank = (flat < random.random((n, 1)) * flat[:, -1:]).sum(axis=1)
        steps = 1 + np.argsort(random.random((n, BELIEVED - 1)), axis=1)
        others = neighbours(truth[rows][:, None], steps, case)
        labels = np.empty((n, BELIEVED), np.int32)
        true = ranks == rank[:, None]
        labels[true], labels[~true] = truth[rows], others.ravel()
        probability = np.exp(score).astype(np.float32)
        probability *= 0.98 / probability.sum(axis=1, keepdims=True)
        offsets = pa.array(np.arange(n + 1, dtype=np.int32) * BELIEVED)
        nulls = pa.nulls(n, pa.string())
        sides = pa.array(np.full(n, 640, dtype=np.int32))
        table = pa.table(
            [
                pa.array(rows),
                nulls,
                nulls,
                pa.ListArray.from_arrays(offsets, pa.array(labels.ravel())),
                pa.ListArray.from_arrays(offsets, pa.array(probability.ravel())),
                sides,
                sides,
            ],
            schema=schemas.BELIEFS,
        )
        path = case.beliefs_folder / f"{number:05d}.parquet"
        pq.write_table(table, path, row_group_size=100_000, compression="zstd")
    (case.beliefs_folder / "_done.json").write_text(json.dumps({"tasks": case.tasks}))


def accuracy(case: Case, output: Path) -> float:
    """The share of voted tasks whose first label is the true one."""
    truth = np.load(case.folder / "truth.npy")
    right = rows = 0
    for path in (output / "posterior").glob("*.parquet"):
        table = pq.read_table(path)
        if case.beliefs:
            table = table.filter(pa.compute.greater(table["n_votes"], 0))
        top = pa.compute.list_element(table["labels"], 0).to_numpy()
        right += int((truth[table["id"].to_numpy()] == top).sum())
        rows += table.num_rows
    return right / rows
