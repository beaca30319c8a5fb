"""Machines die: what comes out is what would have come out."""

import json
import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.cluster.conftest import ANSWERS, SHARDS, wait_until, words_of
from tests.cluster.tables import content, digests, leftovers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

STAGE_BEFORE = {"fetch": "ingest", "label": "fetch", "merge": "label"}
#: Each task of `label` has one of the two fake GPUs, and none starts before both are there.
CONF = {
    "fetch": {},
    "label": {
        "spark.executor.resource.gpu.amount": "1",
        "spark.executor.cores": "2",
        "spark.executor.memory": "512m",
        "spark.cores.max": "4",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "600s",
    },
}
RECEIPTS = {"fetch": "*_stats.json", "label": "_receipts/*.json"}
#: How many shards can be done at the kill, since the job is held.
MOST = {"fetch": SHARDS - 1, "label": 3}

#: PySpark's daemon, whose workers wait after a few receipts of `label` until a file is there.
HELD = """
import pathlib, time
import pyspark.daemon
from coyo_labeler.receipts import Receipts

output, go_on, write = pathlib.Path({output!r}), pathlib.Path({go_on!r}), Receipts.write

def wait_and_write(self, receipt):
    while len(list(output.glob("_receipts/*.json"))) >= 2 and not go_on.exists():
        time.sleep(0.02)
    write(self, receipt)

Receipts.write = wait_and_write
if __name__ == "__main__":
    pyspark.daemon.manager()
"""


@pytest.fixture(scope="module")
def undisturbed(world, spark, tmp_path_factory):
    """The outputs of every stage, run in one process without any trouble."""
    folder = tmp_path_factory.mktemp("undisturbed")
    before = ""
    for name in ("ingest", "fetch", "label", "merge"):
        output = str(folder / name)
        settings = read_stage_settings(STAGES[name], words_of(world, name, output, before))
        run_stage(STAGES[name], settings, spark)
        before = output
    return folder


def hold(stage, world, output):
    """What holds a job when some shards are done: properties for it, and what lets it go on."""
    if stage == "fetch":
        world.gate.close_after(ANSWERS)
        return CONF[stage], world.gate.open
    folder = Path(output).parent
    go_on = folder / "go on"
    (folder / "held_daemon.py").write_text(HELD.format(output=output, go_on=str(go_on)))
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    daemon = {"spark.python.daemon.module": "held_daemon", "spark.executorEnv.PYTHONPATH": path}
    return {**CONF[stage], **daemon}, go_on.touch


def receipts(output, stage):
    return list(Path(output).glob(RECEIPTS[stage]))


def worker_of_the_first_receipt(output, stage):
    """The number of the worker that did the first shard; 0 where receipts do not say whose it is.

    To wait until both have done one would be a race: when the slow one has, the fast one may have
    done all the others.
    """
    first = min(receipts(output, stage), key=lambda file: (file.stat().st_mtime_ns, file.name))
    return int(json.loads(first.read_text()).get("gpu", 0))


def assert_same(output, undisturbed, stage):
    expected = str(undisturbed / stage)
    assert content(output) == content(expected)
    if stage == "label":
        assert digests(output) == digests(expected)
        done = [json.loads(file.read_text()) for file in receipts(output, stage)]
        assert all(receipt["cuda_visible_devices"] == receipt["gpu"] for receipt in done)


def test_the_teacher_of_these_tests_depends_on_its_input(undisturbed):
    beliefs = pq.read_table([str(file) for file in (undisturbed / "label").glob("*.parquet")])
    assert len({labels[0] for labels in beliefs["labels"].to_pylist()}) >= 4


@pytest.mark.parametrize("stage", ["fetch", "label"])
def test_a_killed_worker_loses_and_doubles_nothing(
    stage, world, undisturbed, cluster, submit, tmp_path
):
    output = str(tmp_path / stage)
    words = words_of(world, stage, output, str(undisturbed / STAGE_BEFORE[stage]))
    conf, go_on = hold(stage, world, output)
    job = submit(cluster, stage, words, conf)
    wait_until(lambda: receipts(output, stage), job)
    worker = cluster.workers[worker_of_the_first_receipt(output, stage)]
    os.kill(worker.pid, signal.SIGKILL)
    finished_at_the_kill = len(receipts(output, stage))
    go_on()
    status, said = job.wait()
    worker.tether.wait()  # so that the next test finds that it has ended
    assert status == 0, said
    assert finished_at_the_kill <= MOST[stage]
    assert len(receipts(output, stage)) == SHARDS
    assert_same(output, undisturbed, stage)
    assert leftovers(output) == []


@pytest.mark.parametrize("stage", ["fetch", "label"])
def test_a_killed_driver_goes_on_where_it_stopped(
    stage, world, undisturbed, cluster, submit, tmp_path
):
    output = str(tmp_path / stage)
    words = words_of(world, stage, output, str(undisturbed / STAGE_BEFORE[stage]))
    conf, go_on = hold(stage, world, output)
    job = submit(cluster, stage, words, conf)
    wait_until(lambda: receipts(output, stage), job)
    job.process.kill()
    job.wait()
    kept = {file: file.stat().st_mtime_ns for file in receipts(output, stage)}
    go_on()
    assert 0 < len(kept) <= MOST[stage]
    assert not (Path(output) / "_manifest.json").exists()
    status, said = submit(cluster, stage, words, CONF[stage]).wait()
    assert status == 0, said
    assert_same(output, undisturbed, stage)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert leftovers(output) == []
