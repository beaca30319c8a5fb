"""select against Spark's own top: `python -m benchmarks.selection --rows 10000000`.

The peer is `orderBy(risk desc).limit(n)` of the same files, written to Parquet: neither votes, nor
near twins, nor an audit, nor probabilities. Each run is a process of its own, as a user would start
it, so that its time includes the start of Spark. Memory: peaks of the driver's Python process and
of its JVM, which on local[*] contains all executors.
"""

import argparse
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import CLASSES, LISTED, Cost, measure, show
from coyo_labeler import storage
from coyo_labeler.formats import schemas

PER_FILE = 500_000

PEER = """
import sys
from pyspark.sql import functions as F
from coyo_labeler.config.base import SparkSettings
from coyo_labeler.session import open_session
spark = open_session(SparkSettings(), "peer")
rows = spark.read.parquet(sys.argv[1])
top = rows.orderBy(F.desc("risk")).limit(int(sys.argv[3]))
top.write.mode("overwrite").parquet(sys.argv[2])
"""


def generate(folder: Path, rows: int) -> None:
    """Write a posterior. The lists of one file are those of all; ids, hashes and risks differ."""
    random = np.random.default_rng(0)
    steps = random.integers(1, 400, (PER_FILE, LISTED))
    labels = (np.cumsum(steps, axis=1) % CLASSES).astype(np.int32)
    tail = np.exp(-np.cumsum(random.exponential(0.35, (PER_FILE, LISTED)), axis=1))
    tail = (tail / tail[:, :1]).astype(np.float16).astype(np.float32)
    for start in range(0, rows, PER_FILE):
        n = min(PER_FILE, rows - start)
        ids = np.arange(start, start + n, dtype=np.int64) * 3 + (1 << 33)
        top = random.beta(1.2, 2.0, n).astype(np.float32)
        hashes = random.integers(0, 2**63, n)
        twins = random.random(n) < 0.02  # as those before them
        hashes[1:][twins[1:]] = hashes[:-1][twins[1:]]
        offsets = np.arange(0, (n + 1) * LISTED, LISTED, dtype=np.int32)
        probs = top[:, None] * tail[:n]
        columns = {
            "id": ids,
            "url": np.char.mod("https://cdn.example.com/%d.jpg", ids),
            "imagehash": np.char.mod("%016x", hashes),
            "labels": pa.ListArray.from_arrays(offsets, labels[:n].ravel()),
            "label_probs": pa.ListArray.from_arrays(offsets, probs.ravel()),
            "width": np.full(n, 400, dtype=np.int32),
            "height": np.full(n, 300, dtype=np.int32),
            "n_votes": np.zeros(n, dtype=np.int32),
            "risk": 1 - top,
            "entropy": np.zeros(n, dtype=np.float32),
        }
        name = f"{start // PER_FILE:05d}.parquet"
        storage.write_parquet(str(folder / name), pa.table(columns, schema=schemas.POSTERIOR))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the generated rows here, for another run")
    arguments = parser.parse_args()
    scratch = Path("out/bench/select")
    folder = arguments.folder or scratch
    labels, output = folder / "posterior", folder / "output"
    if not labels.exists():
        print(f"generating {arguments.rows:,} rows", file=sys.stderr)
        generate(labels, arguments.rows)
    job = [sys.executable, "-m", "coyo_labeler", "select", f"labels={labels}", f"output={output}"]
    job.append(f"budget={arguments.questions}")
    commands = {
        "plain Spark: orderBy(risk).limit(n)": [
            sys.executable, "-c", PEER, str(labels), str(output), str(arguments.questions),
        ],
        "select on Spark": [*job, "engine=spark"],
        "select in threads": [*job, "engine=local"],
    }  # fmt: skip
    print(
        f"{arguments.questions:,} questions among {arguments.rows:,} images of {LISTED} classes; "
        f"{os.cpu_count()} cores; PySpark {version('pyspark')}; including Spark's start\n"
        f"{'':<44} {'best':>9}    runs{'':>9} {'Python':>9} {'JVM':>10}"
    )
    runs: dict[str, list[Cost]] = {kind: [] for kind in commands}
    for _ in range(arguments.repeat):  # in turn, for other work on the machine comes and goes
        for kind, command in commands.items():
            shutil.rmtree(output, ignore_errors=True)
            runs[kind].append(measure(*command))
    for kind, costs in runs.items():
        show(kind, costs)
    if arguments.folder is None:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
