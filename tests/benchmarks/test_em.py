"""What the benchmarks of EM read: memory of a process tree, seconds from Spark's event log."""

import json
import sys

import pytest

from benchmarks import em, em_skew

#: Holds memory until it has been measured.
HOLD = """import pathlib, time
held = bytearray({megabytes} * 2**20)
pathlib.Path({folder!r}, "holds {megabytes}").touch()
while not pathlib.Path({folder!r}, "measured").exists():
    time.sleep(0.02)
"""


def test_a_jvm_below_the_process_counts_for_the_driver_and_workers_do_not(tmp_path, monkeypatch):
    """A link named java stands for the JVM, another process for a Python worker."""
    (tmp_path / "java").symlink_to(sys.executable)
    jvm, worker = (HOLD.format(megabytes=size, folder=str(tmp_path)) for size in (60, 120))
    children = (
        "import subprocess\n"
        f"jvm = subprocess.Popen([{str(tmp_path / 'java')!r}, '-c', {jvm!r}])\n"
        f"worker = subprocess.Popen([{sys.executable!r}, '-c', {worker!r}])\n"
        "jvm.wait(), worker.wait()\n"
    )
    descendants, held = em.descendants, []

    def listed(root):
        """Called before the sizes are read: both held during the round before this one."""
        if held and held[-1]:
            (tmp_path / "measured").touch()
        held.append(len(list(tmp_path.glob("holds *"))) == 2)
        return descendants(root)

    monkeypatch.setattr(em, "descendants", listed)
    found = em.measure([sys.executable, "-c", children])
    assert 60 < found["driver MB"] < 120
    assert found["peak MB"] > 180


def test_the_cases_vary_the_classes_alone():
    alone = [case for case, _ in em.cases(1.0) if case.tasks == 100_000 and case.workers == 1000]
    assert [case.classes for case in alone] == [10, 100, 1000, 21_841]


def test_stages_of_passes_are_those_of_jobs_without_a_progress_bar(tmp_path):
    def job(stages, **properties):
        start = {"Event": "SparkListenerJobStart", "Stage IDs": stages, "Properties": properties}
        return [start, *(task(stage) for stage in stages for _ in range(2))]

    def task(stage):
        metrics = {"Executor Run Time": 1000 * stage}
        return {"Event": "SparkListenerTaskEnd", "Stage ID": stage, "Task Metrics": metrics}

    events = [*job([1], **{"spark.jobGroup.id": "merge: reading votes"}), *job([2, 3]), task(3)]
    log = tmp_path / "events"
    log.write_text("\n".join(map(json.dumps, events)))
    assert em_skew.seconds_by_stage(log, 2) == [[2.0, 2.0], [3.0, 3.0, 3.0]]
    assert em_skew.seconds_by_stage(log, 3) == [[3.0, 3.0, 3.0]]


def test_tasks_are_measured_on_spark(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(em_skew.subprocess, "run", lambda words, **_: said.extend(words))
    with pytest.raises(StopIteration):  # nothing ran, so there is no event log
        em_skew.run(tmp_path, 0, 4)
    assert "engine=spark" in said
