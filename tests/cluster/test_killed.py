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
    world.gate.close_after(ANSWERS)
    job = submit(cluster, stage, words, CONF[stage])
    wait_until(lambda: receipts(output, stage), job)
    worker = cluster.workers[worker_of_the_first_receipt(output, stage)]
    os.kill(worker.pid, signal.SIGKILL)
    finished_at_the_kill = len(receipts(output, stage))
    world.gate.open()
    status, said = job.wait()
    worker.tether.wait()  # so that the next test finds that it has ended
    assert status == 0, said
    assert finished_at_the_kill < SHARDS
    assert len(receipts(output, stage)) == SHARDS
    assert_same(output, undisturbed, stage)
    assert leftovers(output) == []


@pytest.mark.parametrize("stage", ["fetch", "label"])
def test_a_killed_driver_goes_on_where_it_stopped(
    stage, world, undisturbed, cluster, submit, tmp_path
):
    output = str(tmp_path / stage)
    words = words_of(world, stage, output, str(undisturbed / STAGE_BEFORE[stage]))
    world.gate.close_after(ANSWERS)
    job = submit(cluster, stage, words, CONF[stage])
    wait_until(lambda: receipts(output, stage), job)
    job.process.kill()
    job.wait()
    kept = {file: file.stat().st_mtime_ns for file in receipts(output, stage)}
    world.gate.open()
    assert 0 < len(kept) < SHARDS
    assert not (Path(output) / "_manifest.json").exists()
    status, said = submit(cluster, stage, words, CONF[stage]).wait()
    assert status == 0, said
    assert_same(output, undisturbed, stage)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert leftovers(output) == []
