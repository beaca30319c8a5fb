"""The result does not depend on row order, files, partitions, cores or how skills are shared."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.merge.tables import assert_same_tables
from tests.merge.test_stage import labels_file, merge, write_beliefs

IMAGES, CLASSES = 60, 3
JOB = Path(__file__).parents[2] / "jobs" / "merge.py"


def crowd():
    """Votes of eight workers, choices and verifications, and beliefs for most images.

    With truth=multi a choice and a verification can concern the same question. Then the later one
    counts, so every vote has its own timestamp.
    """
    random = np.random.default_rng(11)
    votes, beliefs = [], {}
    for image in range(IMAGES):
        for worker in random.choice(8, 3, replace=False):
            named = image if random.random() < 0.7 else random.integers(0, CLASSES)
            votes.append(f"{image},w{worker},{named % CLASSES},,{timestamp(len(votes))}")
            asked = random.integers(0, CLASSES)
            answer = random.choice(["yes", "no", "unsure"], p=[0.45, 0.45, 0.1])
            votes.append(f"{image},w{worker},{asked},{answer},{timestamp(len(votes))}")
        if image % 5:
            named = random.choice(CLASSES, random.integers(1, CLASSES + 1), replace=False)
            beliefs[image] = {int(c): round(float(random.uniform(0.01, 0.9)), 4) for c in named}
    beliefs |= {image: {image % CLASSES: 0.5} for image in range(IMAGES, IMAGES + 7)}
    return votes, beliefs


def timestamp(second):
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}"


def write(folder, seed, files):
    """The same votes and beliefs, in an order that depends on the seed, and in several files."""
    random = np.random.default_rng(seed)
    votes, beliefs = crowd()
    (folder / "votes").mkdir(parents=True)
    for number, rows in enumerate(np.array_split(random.permutation(votes), files)):
        text = "\n".join(["image_id,worker_id,label,response,timestamp", *rows]) + "\n"
        (folder / "votes" / f"{number}.csv").write_text(text)
    shuffled = {int(image): beliefs[int(image)] for image in random.permutation(list(beliefs))}
    return {
        "votes": str(folder / "votes"),
        "beliefs": write_beliefs(folder / "beliefs", shuffled, files),
    }


#: The first and the third run in threads, in a fraction of the time.
PLANS = {
    "as written": {"partitions": 1, "max_broadcast_mb": 32},
    "three, sharded": {"partitions": 3, "max_broadcast_mb": 0},
    "eight, broadcast": {"partitions": 8, "max_broadcast_mb": 32},
    "eight, sharded": {"partitions": 8, "max_broadcast_mb": 0},
}
GIVEN = {"tolerance": 0, "max_iterations": 6}


@pytest.mark.parametrize("truth", ["single", "multi"])
def test_order_files_partitions_and_the_sharing_of_skills_change_nothing(spark, tmp_path, truth):
    for number, (name, plan) in enumerate(PLANS.items()):
        inputs = write(tmp_path / f"in {name}", number, 1 + 2 * number)
        session = spark if number % 2 else None
        manifest = merge(session, tmp_path, name, truth=truth, **GIVEN, **plan, **inputs)
        assert ("shards" in manifest.details["skills"]) == (plan["max_broadcast_mb"] == 0)
        assert ("duplicate" in manifest.tables["votes"].rejected) == (truth == "multi")
        assert_same_tables(tmp_path / "as written", tmp_path / name)


@pytest.mark.parametrize(
    ("truth", "max_broadcast_mb", "cores"), [("single", 0, 4), ("multi", 32, 1)]
)
def test_the_number_of_cores_changes_nothing(tmp_path, truth, max_broadcast_mb, cores):
    """In a process of its own, because a session cannot change its number of cores."""
    inputs = write(tmp_path / "in", 0, 2)
    merge(None, tmp_path, "here", truth=truth, **GIVEN, **inputs)
    given = GIVEN | inputs | {"truth": truth, "max_broadcast_mb": max_broadcast_mb}
    given |= {"output": tmp_path / "there", "spark.master": f"local[{cores}]"}
    given |= {"label_space": labels_file(tmp_path), "worker_model": "confusion"}
    given["spark.conf.spark.python.daemon.module"] = "tests.python_daemon"
    given["class_prior"] = "estimated"  # as merge() has it
    words = [f"{key}={value}" for key, value in given.items()]
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1"}
    subprocess.run([sys.executable, str(JOB), *words], check=True, env=environment)
    assert_same_tables(tmp_path / "here", tmp_path / "there")


@pytest.mark.parametrize("worker_model", ["one_coin", "shared_mistakes", "perfect"])
def test_partitions_change_nothing_for_simpler_workers(spark, tmp_path, worker_model):
    inputs = write(tmp_path / "in", 0, 2)
    for name, partitions, session in (("one", 1, None), ("five", 5, spark)):
        merge(
            session, tmp_path, name, worker_model=worker_model, partitions=partitions,
            **GIVEN, **inputs,
        )  # fmt: skip
    assert_same_tables(tmp_path / "one", tmp_path / "five")
