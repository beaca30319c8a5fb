"""The report of a million generated rows: `python -m benchmarks.report --rows 1000000`.

Each report runs in its own process, as a user would start it, so its time includes the start of
Spark. For comparison the same run measures the threshold table alone, as a Spark user would
write it (explode, filter, group). Memory: peaks of the driver's Python process and of its JVM,
which on local[*] contains all executors.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.formats import schemas

CLASSES, LISTED, PER_FILE = 21_841, 50, 50_000

PLAIN = """
import sys
from pyspark.sql import functions as F
from coyo_labeler.config.base import SparkSettings
from coyo_labeler.session import open_session
spark = open_session(SparkSettings(), "plain")
rows = spark.read.parquet(sys.argv[1])
pairs = rows.select("id", F.explode(F.arrays_zip("labels", "label_probs")).alias("p"))
for threshold in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25):
    above = pairs.where(F.col("p.label_probs") >= threshold)
    print(above.agg(F.count("*"), F.countDistinct("p.labels"), F.countDistinct("id")).first())
"""


def generate(folder: Path, rows: int) -> None:
    """Write a posterior, the beliefs before it, and gold and slices for every row."""
    for start in range(0, rows, PER_FILE):
        n = min(PER_FILE, rows - start)
        random = np.random.default_rng(start)
        ids = np.arange(start, start + n, dtype=np.int64) * 3 + (1 << 33)
        truth = (CLASSES * random.random(n) ** 2.5).astype(np.int32)
        confidence = random.beta(1.2, 2.0, n)
        for name, skill in (("beliefs", 0.6), ("merged/posterior", 0.75)):
            first = np.where(random.random(n) < skill, truth, random.integers(0, CLASSES, n))
            steps = random.integers(1, 400, (n, LISTED))
            steps[:, 0] = 0
            labels = ((first[:, None] + np.cumsum(steps, axis=1)) % CLASSES).astype(np.int32)
            tail = np.exp(-np.cumsum(random.exponential(0.35, (n, LISTED)), axis=1))
            probs = (confidence[:, None] * tail / tail[:, :1]).astype(np.float16)
            storage.write_parquet(
                str(folder / name / f"{start // PER_FILE:05d}.parquet"),
                _table(ids, labels, probs.astype(np.float32), random, posterior="/" in name),
            )
        name = f"{start // PER_FILE:05d}.parquet"
        gold = pa.table({"image_id": ids, "label": truth}, schema=schemas.GOLD)
        storage.write_parquet(str(folder / "gold" / name), gold)
        slices = pa.table({"image_id": ids, "slice": np.char.mod("host %d", ids % 40)})
        storage.write_parquet(str(folder / "slices" / name), slices)


def _table(
    ids: np.ndarray, labels: np.ndarray, probs: np.ndarray, random: np.random.Generator, *,
    posterior: bool,
) -> pa.Table:  # fmt: skip
    n = len(ids)
    offsets = np.arange(0, (n + 1) * LISTED, LISTED, dtype=np.int32)
    side = (200 * 2 ** random.exponential(1.0, (2, n))).astype(np.int32)
    columns = {
        "id": ids,
        "url": np.char.mod("https://cdn.example.com/%d.jpg", ids),
        "imagehash": np.char.mod("%016x", ids),
        "labels": pa.ListArray.from_arrays(offsets, labels.ravel()),
        "label_probs": pa.ListArray.from_arrays(offsets, probs.ravel()),
        "width": side[0],
        "height": side[1],
    }
    if posterior:
        columns["n_votes"] = random.poisson(0.35, n).astype(np.int32)
        columns["risk"] = (1 - probs[:, 0]).astype(np.float32)
        columns["entropy"] = (-probs * np.log(probs + 1e-9)).sum(axis=1).astype(np.float32)
    schema = schemas.POSTERIOR if posterior else schemas.BELIEFS
    return pa.table(columns).cast(schema)


@dataclass(frozen=True)
class Cost:
    """Cost of a run: wall seconds; peak memory of the driver's Python and of its JVM, in MB."""

    seconds: float
    python: float
    jvm: float


def measure(*command: str) -> Cost:
    """Run a command and measure its cost; its output goes to standard error."""
    start = time.perf_counter()
    running = subprocess.Popen(command, stdout=sys.stderr)
    peaks = {"python": 0.0, "jvm": 0.0}
    while running.poll() is None:
        peaks["python"] = max(peaks["python"], peak_memory(running.pid))
        for child in children(running.pid):
            peaks["jvm"] = max(peaks["jvm"], peak_memory(child))
        time.sleep(0.1)
    if running.returncode:
        sys.exit(f"{' '.join(command)} ended with {running.returncode}")
    return Cost(time.perf_counter() - start, **peaks)


def peak_memory(pid: int) -> float:
    """Peak resident memory of a process so far, in MB; 0 if /proc does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0][1]) / 1024 if lines else 0.0


def children(pid: int) -> list[int]:
    """Child processes of a process; a driver's child is its JVM."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def show(kind: str, runs: Sequence[Cost]) -> None:
    best = min(run.seconds for run in runs)
    spent = " ".join(f"{run.seconds:.1f}" for run in runs)
    python, jvm = (max(getattr(run, name) for run in runs) for name in ("python", "jvm"))
    print(f"{kind:<44} {best:>7.1f} s   ({spent})   {python:>6.0f} MB {jvm:>7.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--only", help="run only the reports whose name contains this")
    parser.add_argument("--folder", type=Path, help="keep the generated rows here, for another run")
    arguments = parser.parse_args()
    scratch = Path("out/bench/report")
    folder = arguments.folder or scratch
    if not (folder / "merged").exists():
        print(f"generating {arguments.rows:,} rows", file=sys.stderr)
        generate(folder, arguments.rows)
    labels = f"labels={folder / 'merged'}/posterior"
    further = [f"{key}={folder / key}" for key in ("gold", "slices")]
    job = [sys.executable, str(Path(__file__).parents[1] / "jobs" / "report.py")]
    output = folder / "output"
    kinds = {
        "plain Spark: the threshold table alone": [
            sys.executable, "-c", PLAIN, str(folder / "merged" / "posterior"),
        ],
        "report of labels": [*job, labels],
        "report of labels, gold, slices": [*job, labels, *further],
        "report of labels, gold, slices, compare": [
            *job, labels, *further, f"compare={folder / 'beliefs'}",
        ],
    }  # fmt: skip
    print(
        f"{arguments.rows:,} rows, {LISTED} of {CLASSES:,} classes each; {os.cpu_count()} cores; "
        f"PySpark {version('pyspark')}; including Spark's start\n"
        f"{'':<44} {'best':>9}    runs{'':>9} {'Python':>9} {'JVM':>10}"
    )
    for kind, command in kinds.items():
        if arguments.only is None or arguments.only in kind:
            runs = []
            for _ in range(arguments.repeat):
                shutil.rmtree(output, ignore_errors=True)
                destination = [] if kind.startswith("plain") else [f"output={output}"]
                runs.append(measure(*command, *destination))
            show(kind, runs)
    if arguments.folder is None:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
