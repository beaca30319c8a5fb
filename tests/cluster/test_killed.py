"""Machines die: what comes out is what would have come out."""

import os
import signal
from pathlib import Path

import pytest

from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.cluster.conftest import SHARDS, wait_until, words_of
from tests.cluster.tables import content, leftovers

pytestmark = pytest.mark.cluster

STAGE_BEFORE = {"fetch": "ingest", "label": "fetch", "merge": "label"}
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


@pytest.mark.parametrize("stage", ["fetch", "label"])
def test_a_killed_worker_loses_and_doubles_nothing(
    stage, world, undisturbed, cluster, submit, tmp_path
):
    output = str(tmp_path / stage)
    words = words_of(world, stage, output, str(undisturbed / STAGE_BEFORE[stage]))
    job = submit(cluster, stage, words)
    wait_until(lambda: receipts(output, stage), job)
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    finished_at_the_kill = len(receipts(output, stage))
    status, said = job.wait()
    assert status == 0, said
    assert finished_at_the_kill < SHARDS
    assert len(receipts(output, stage)) == SHARDS
    assert content(output) == content(str(undisturbed / stage))
    assert leftovers(output) == []


@pytest.mark.parametrize("stage", ["fetch", "label"])
def test_a_killed_driver_goes_on_where_it_stopped(
    stage, world, undisturbed, cluster, submit, tmp_path
):
    output = str(tmp_path / stage)
    words = words_of(world, stage, output, str(undisturbed / STAGE_BEFORE[stage]))
    job = submit(cluster, stage, words)
    wait_until(lambda: receipts(output, stage), job)
    job.process.kill()
    job.wait()
    kept = {file: file.stat().st_mtime_ns for file in receipts(output, stage)}
    assert 0 < len(kept) < SHARDS
    assert not (Path(output) / "_manifest.json").exists()
    status, said = submit(cluster, stage, words).wait()
    assert status == 0, said
    assert content(output) == content(str(undisturbed / stage))
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert leftovers(output) == []
