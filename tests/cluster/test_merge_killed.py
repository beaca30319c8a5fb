"""Machines die in the middle of EM: what comes out is what would have come out."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import storage
from coyo_labeler.formats import schemas
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.cluster.conftest import wait_until
from tests.merge.tables import assert_same_tables

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

ITERATIONS = 6

#: No iteration begins before both executors are there, and none is given up while it is held still.
CONF = {
    "spark.cores.max": "4",
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.scheduler.maxRegisteredResourcesWaitingTime": "600s",
    "spark.network.timeout": "3600s",
}

#: A merge that waits after so many iterations until a file is there, or its JVM is not any more.
HELD = """
import os, pathlib, time
from coyo_labeler.cli import job
from coyo_labeler.merge.state import StateFolder

jvm, save = os.getppid(), StateFolder.save_checkpoint

def save_and_wait(self, state):
    save(self, state)
    while len(state.history) == {iterations} and not pathlib.Path({go_on!r}).exists():
        if os.getppid() != jvm:
            os._exit(1)
        time.sleep(0.02)

StateFolder.save_checkpoint = save_and_wait
job("merge")
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The words of a merge of 300 images, four votes each by ten workers, four classes."""
    folder = tmp_path_factory.mktemp("merge")
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 300)
    image = np.repeat(np.arange(300), 4)
    worker = np.concatenate([random.choice(10, 4, replace=False) for _ in range(300)])
    right = random.random(len(image)) < 0.5 + 0.04 * worker
    label = np.where(right, truth[image], random.integers(0, 4, len(image)))
    votes = pa.table(
        [image, [f"w{number}" for number in worker], label.astype(np.int32)], schema=schemas.VOTES
    )
    (folder / "votes").mkdir()
    for number in range(4):
        pq.write_table(votes.slice(number * 300, 300), folder / "votes" / f"{number}.parquet")
    (folder / "labels.txt").write_text("a\nb\nc\nd\n")
    return [
        f"votes={folder}/votes",
        f"label_space={folder}/labels.txt",
        "max_iterations=15",
        "tolerance=0",
        "partitions=4",
    ]


def words_of(inputs, output, way):
    return [
        *inputs, f"output={output}", f"max_broadcast_mb={way}", f"max_iterations={ITERATIONS}"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(inputs, spark, tmp_path_factory):
    """The output of one process that nothing disturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "merged"
    settings = read_stage_settings(STAGES["merge"], words_of(inputs, output, 32))
    run_stage(STAGES["merge"], settings, spark)
    return output


def iterations(output):
    """The finished iterations in the state of an output; [] before the first."""
    prepared = storage.read_json(f"{output}/_state/prepared.json")
    if prepared is None:
        return []
    try:
        state = StateFolder(str(output), prepared["run"]).load_checkpoint()
    except FileNotFoundError:
        return []
    return [] if state is None else list(state.history)


def history(output):
    return json.loads((Path(output) / "history.json").read_text())["iterations"]


def executors(cluster):
    """The process ids of the executors that run on the cluster's workers."""
    found = []
    daemons = {worker.pid for worker in cluster.workers}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if parent in daemons and b"ExecutorBackend" in command:
            found.append(int(entry.name))
    return found


WAYS = pytest.mark.parametrize("way", [32, 0], ids=["broadcast", "sharded"])


def held_merge(folder, iterations):
    """The script of a merge that is held after so many iterations, and the file that ends that."""
    script, go_on = folder / "held_merge.py", folder / "go on"
    script.write_text(HELD.format(iterations=iterations, go_on=str(go_on)))
    return script, go_on


@WAYS
def test_an_executor_killed_within_an_iteration_changes_nothing(
    way, inputs, undisturbed, cluster, submit, tmp_path
):
    output, others = tmp_path / "merged", set(executors(cluster))
    script, go_on = held_merge(tmp_path, 2)
    job = submit(cluster, "merge", words_of(inputs, output, way), CONF, script)
    wait_until(lambda: len(iterations(output)) == 2, job)
    victim, survivor = set(executors(cluster)) - others
    # Both are held still, so that an iteration begins and does not end.
    for executor in (victim, survivor):
        os.kill(executor, signal.SIGSTOP)
    go_on.touch()
    time.sleep(2)  # until it has begun; if it has not, they are killed between two
    assert len(iterations(output)) == 2
    os.kill(victim, signal.SIGKILL)
    os.kill(survivor, signal.SIGCONT)
    status, said = job.wait()
    assert status == 0, said
    assert len(history(output)) == len(history(undisturbed)) == ITERATIONS
    assert_same_tables(output, undisturbed)


@WAYS
def test_a_driver_killed_between_iterations_resumes_after_the_last_finished_one(
    way, inputs, undisturbed, cluster, submit, tmp_path
):
    output = tmp_path / "merged"
    words = words_of(inputs, output, way)
    job = submit(cluster, "merge", words, script=held_merge(tmp_path, 3)[0])
    wait_until(lambda: len(iterations(output)) == 3, job)
    job.process.kill()
    job.wait()
    finished = iterations(output)
    assert len(finished) == 3
    assert not (output / "_manifest.json").exists()
    status, said = submit(cluster, "merge", words).wait()
    assert status == 0, said
    # An iteration done again would have taken another time.
    assert history(output)[:3] == finished
    assert_same_tables(output, undisturbed)
