"""The report of a million generated rows; `python benchmarks/report.py --rows 1000000`.

Each report runs in a process of its own, as a user would start it: Spark's start is in its time.
Beside it, in the same run, what the threshold table alone costs as a Spark user would write it
(explode, filter, group), Spark's start included too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from coyo_labeler import schemas, storage

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
    kept = pairs.where(F.col("p.label_probs") >= threshold)
    print(kept.agg(F.count("*"), F.countDistinct("p.labels"), F.countDistinct("id")).first())
"""


def generate(folder: Path, rows: int) -> None:
    """A posterior, the beliefs before it, gold and slices for every row, in schemas' layout."""
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


def timed(*command: str) -> float:
    """Seconds that a command takes; its own output goes to standard error."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the generated rows here for another run")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-report-"))
    if not (folder / "merged").exists():
        generate(folder, arguments.rows)
    labels = f"labels={folder / 'merged'}/posterior"
    further = [f"{key}={folder / key}" for key in ("gold", "slices")]
    kinds = {
        "labels": [labels],
        "labels, gold": [labels, *further],
        "labels, gold, compare": [labels, *further, f"compare={folder / 'beliefs'}"],
    }
    job = [sys.executable, str(Path(__file__).parents[1] / "jobs" / "report.py")]
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.repeat):
        plain = timed(sys.executable, "-c", PLAIN, str(folder / "merged" / "posterior"))
        seconds.setdefault("plain Spark, threshold table alone", []).append(plain)
        for kind, keys in kinds.items():
            output = folder / "output"
            shutil.rmtree(output, ignore_errors=True)
            seconds.setdefault(kind, []).append(timed(*job, *keys, f"output={output}"))
    for kind, runs in seconds.items():
        spent = [round(run, 1) for run in runs]
        result = {"report of": kind, "rows": arguments.rows, "seconds": spent, "best": min(spent)}
        print(json.dumps(result | {"cores": os.cpu_count(), "load": os.getloadavg()[0]}))
    if arguments.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
