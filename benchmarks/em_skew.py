"""Seconds by task of merge's passes where the crowd is uneven, from Spark's event log.

    python -m benchmarks.em_skew        # 1 M votes; skills broadcast (10 classes), sharded (100)
    python -m benchmarks.em_skew votes=5000000 partitions=32

Skews: a worker with 30 % of all votes, a class that half of the votes name, an image with 10,000
votes. For each case the benchmark prints the worst stage of the iterations: its median task, its
longest task, and their ratio. Tasks on a shared machine disturb each other: run it alone.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.em_data import ROOT

IMAGE_VOTES = 5
SKEWS = ("none", "busy worker", "favourite class", "crowded image")
COLUMNS = ("skew", "classes", "skills", "stages", "median s", "longest s", "worst ratio")


def simulate(folder: Path, votes: int, classes: int, skew: str) -> None:
    """Write votes/ and labels.txt."""
    random = np.random.default_rng(0)
    workers = 12_000
    image = random.integers(0, votes // IMAGE_VOTES, votes)
    worker = random.integers(0, workers, votes)
    truth = random.integers(0, classes, image.max() + 2)
    if skew == "busy worker":
        worker[random.random(votes) < 0.3] = 0
    if skew == "favourite class":
        truth[random.random(len(truth)) < 0.5] = 7
    if skew == "crowded image":
        image = np.concatenate([image, np.full(10_000, image.max() + 1)])
        worker = np.concatenate([worker, np.arange(10_000)])
    right = random.random(len(image)) < 0.8
    label = np.where(right, truth[image], random.integers(0, classes, len(image)))
    folder.mkdir(parents=True, exist_ok=True)
    names = pa.array([f"w{number}" for number in range(workers)])
    table = pa.table(
        {
            "image_id": image,
            "worker_id": names.take(pa.array(worker)),
            "label": label.astype(np.int32),
        }
    )
    pq.write_table(table, folder / "votes.parquet", row_group_size=100_000)
    (folder / "labels.txt").write_text("\n".join(map(str, range(classes))))


def run(folder: Path, max_broadcast_mb: int, partitions: int) -> Path:
    """One merge of the votes in a folder; returns its event log."""
    events = folder / f"events-{max_broadcast_mb}"
    events.mkdir()
    given = {
        "votes": folder / "votes.parquet",
        "output": folder / f"out-{max_broadcast_mb}",
        "label_space": folder / "labels.txt",
        "max_iterations": 5,
        "tolerance": 0,
        "partitions": partitions,
        "engine": "spark",
        "max_broadcast_mb": max_broadcast_mb,
        "spark.conf": json.dumps(
            {
                "spark.eventLog.enabled": "true",
                "spark.eventLog.dir": events.as_uri(),
                "spark.eventLog.rolling.enabled": "false",
                "spark.eventLog.compress": "false",
            }
        ),
    }
    words = [f"{key}={value}" for key, value in given.items()]
    subprocess.run([sys.executable, str(ROOT / "jobs" / "merge.py"), *words], check=True)
    return next(path for path in events.iterdir() if path.is_file())


def seconds_by_stage(events: Path, tasks: int) -> list[list[float]]:
    """Seconds of each task, for each stage of a pass; tasks: how many a pass has at least.

    Jobs of passes are in no job group: all others are, for their progress bars.
    """
    passes: set[int] = set()
    seconds: dict[int, list[float]] = defaultdict(list)
    with events.open() as lines:
        for line in lines:
            event = json.loads(line)
            if event["Event"] == "SparkListenerJobStart":
                if "spark.jobGroup.id" not in event["Properties"]:
                    passes.update(event["Stage IDs"])
            elif event["Event"] == "SparkListenerTaskEnd":
                time = event["Task Metrics"]["Executor Run Time"] / 1000
                seconds[event["Stage ID"]].append(time)
    return [times for stage, times in seconds.items() if stage in passes and len(times) >= tasks]


def main() -> None:
    given = {"votes": 1_000_000, "partitions": 8}
    given |= {key: int(value) for key, value in (word.split("=") for word in sys.argv[1:])}
    print("  ".join(COLUMNS))
    for classes, max_broadcast_mb in ((10, 1000), (100, 0)):
        for skew in SKEWS:
            with tempfile.TemporaryDirectory() as folder:
                simulate(Path(folder), given["votes"], classes, skew)
                events = run(Path(folder), max_broadcast_mb, given["partitions"])
                stages = seconds_by_stage(events, given["partitions"])
            # The first pass starts Python workers; where tasks are very short, all are compared.
            stages = stages[2:]
            stages = [t for t in stages if statistics.median(t) >= 0.05] or stages
            worst = max(stages, key=lambda times: max(times) / statistics.median(times))
            median, longest = statistics.median(worst), max(worst)
            skills = "broadcast" if max_broadcast_mb else "sharded"
            row = (skew, classes, skills, len(stages))
            numbers = (f"{median:.2f}", f"{longest:.2f}", f"{longest / median:.1f}")
            print("  ".join(map(str, (*row, *numbers))), flush=True)


if __name__ == "__main__":
    main()
