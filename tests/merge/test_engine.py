"""Merge without Spark: the same tables, resumed from either side, chosen where it should be."""

import os
import subprocess
import sys
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import engines
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.merge import prepare as preparation
from coyo_labeler.merge import state as state_files
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from coyo_labeler.storage import read_json, write_json
from tests.merge.kills import kill_once
from tests.merge.tables import assert_same_tables, read_rows
from tests.merge.test_invariance import GIVEN, write
from tests.merge.test_stage import labels_file, merge, write_votes


@pytest.mark.parametrize("truth", ["single", "multi"])
@pytest.mark.parametrize("partitions", [1, 5])
def test_threads_write_what_spark_writes(spark, tmp_path, truth, partitions):
    inputs = write(tmp_path / "in", 0, 3) | {"gold": gold(tmp_path), "partitions": partitions}
    manifests = [
        merge(given, tmp_path, name, truth=truth, **GIVEN, **inputs)
        for name, given in (("spark", spark), ("here", None))
    ]
    assert_same_tables(tmp_path / "spark", tmp_path / "here")
    assert manifests[0].rows == manifests[1].rows
    assert manifests[0].tables == manifests[1].tables


def test_the_posterior_of_a_merge_is_taken_as_beliefs(tmp_path):
    inputs = write(tmp_path / "in", 0, 3)
    merge(None, tmp_path, "first", **GIVEN, **inputs)
    again = inputs | {"beliefs": str(tmp_path / "first"), "beliefs_are": "categorical"}
    rows = merge(None, tmp_path, "second", **(GIVEN | again)).rows
    first, second = (
        sorted(row["id"] for row in read_rows(tmp_path / name, "posterior"))
        for name in ("first", "second")
    )
    assert first == second
    assert rows.rows_in == rows.rows_out == len(second)


def gold(folder):
    table = pa.table({"image_id": [0, 4, 61], "label": pa.array([0, 1, 2], pa.int32())})
    pq.write_table(table, folder / "gold.parquet")
    return str(folder / "gold.parquet")


def test_bad_and_repeated_votes_are_set_aside_without_spark_too(spark, tmp_path):
    votes = [(1, "w0", 0), (1, "w0", 1), (1, "w1", 9), (2, "w1", 2)]
    given = {"votes": write_votes(tmp_path / "v.csv", votes), "on_bad_vote": "reject"}
    for name, session in (("spark", spark), ("here", None)):
        manifest = merge(session, tmp_path, name, **given)
        assert manifest.tables["votes"].rejected == {"label_outside": 1, "duplicate": 1}
    rows = [sorted(map(str, read_rows(tmp_path / name, "rejects"))) for name in ("spark", "here")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("first", ["spark", "local"])
def test_a_killed_run_is_resumed_by_the_other_engine(spark, tmp_path, monkeypatch, first):
    inputs = write(tmp_path / "in", 0, 2)
    merge(None, tmp_path, "whole", **GIVEN, **inputs)
    saved = kill_once(monkeypatch, 2)
    sessions = [spark, None] if first == "spark" else [None, spark]
    with pytest.raises(KeyboardInterrupt):
        merge(sessions[0], tmp_path, "killed", **GIVEN, **inputs)
    merge(sessions[1], tmp_path, "killed", **GIVEN, **inputs)
    assert saved == [0, 1, 2, 3, 4, 5, 6]
    assert_same_tables(tmp_path / "killed", tmp_path / "whole")


def test_a_run_killed_while_it_prepared_leaves_nothing_behind_in_the_tables(tmp_path, monkeypatch):
    """With fewer partitions the next run would write over only some of its files."""
    votes = [(image, f"w{k}", (image + k) % 3) for image in range(30) for k in (0, 1)]
    votes += [(image, "w0", 0) for image in range(30)]
    inputs = {"votes": write_votes(tmp_path / "v.csv", votes)}
    with monkeypatch.context() as patched:
        patched.setattr(preparation, "_save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            merge(None, tmp_path, partitions=5, **inputs)
    manifest = merge(None, tmp_path, partitions=2, **inputs)
    assert manifest.tables["votes"].rejected == {"duplicate": 30}
    assert len(read_rows(tmp_path / "out", "rejects")) == 30


def test_copies_of_a_remote_state_are_used_again_and_removed_at_the_end(tmp_path, monkeypatch):
    copies, seen = tmp_path / "tmp", []
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    given = write(tmp_path / "in", 0, 2) | GIVEN | {"label_space": labels_file(tmp_path)}
    given["output"] = f"memory://{tmp_path.name}/out"
    words = [f"{key}={value}" for key, value in given.items()]
    settings = read_stage_settings(STAGES["merge"], words)
    save = StateFolder.save_checkpoint

    def save_or_die(self, state):
        save(self, state)
        seen.append({path: path.stat().st_mtime_ns for path in copies.rglob("*.arrow")})
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(StateFolder, "save_checkpoint", save_or_die)
    with pytest.raises(KeyboardInterrupt):
        run_stage(STAGES["merge"], settings)
    state_files._mapped.clear()  # as in another process
    run_stage(STAGES["merge"], settings)
    assert len(seen) > 3
    assert seen[0]
    assert all(copied == seen[0] for copied in seen)
    assert list(copies.iterdir()) == []


def test_a_run_whose_skills_are_in_shards_is_resumed_in_threads(spark, tmp_path, monkeypatch):
    inputs = write(tmp_path / "in", 0, 2)
    merge(None, tmp_path, "whole", **GIVEN, **inputs)
    saved = kill_once(monkeypatch, 2)
    sharded = inputs | {"max_broadcast_mb": 0}
    with pytest.raises(KeyboardInterrupt):
        merge(spark, tmp_path, "killed", **GIVEN, **sharded)
    manifest = merge(None, tmp_path, "killed", engine="local", **GIVEN, **sharded)
    assert "shards" in manifest.details["skills"]
    assert saved == [0, 1, 2, 3, 4, 5, 6]
    assert_same_tables(tmp_path / "killed", tmp_path / "whole")


def test_a_run_that_another_version_left_unfinished_starts_anew(tmp_path, monkeypatch, caplog):
    inputs = write(tmp_path / "in", 0, 2)
    merge(None, tmp_path, "whole", **GIVEN, **inputs)
    saved = kill_once(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        merge(None, tmp_path, "killed", **GIVEN, **inputs)
    prepared = str(tmp_path / "killed" / "_state" / "prepared.json")
    write_json(prepared, {"version": 1, "run": read_json(prepared)["run"]})
    merge(None, tmp_path, "killed", **GIVEN, **inputs)
    assert saved == [0, 1, 0, 1, 2, 3, 4, 5, 6]
    assert caplog.text.count("left unfinished by another version") == 1
    assert_same_tables(tmp_path / "killed", tmp_path / "whole")


def test_neither_pyspark_nor_java_is_needed(tmp_path):
    script = (
        "import sys; sys.modules['pyspark'] = None\n"
        "from coyo_labeler.cli import main\nsys.exit(main())"
    )
    given = write(tmp_path / "in", 0, 1) | {"output": tmp_path / "out"}
    given["label_space"] = labels_file(tmp_path)
    words = [f"{key}={value}" for key, value in given.items()]
    environment = {
        key: value for key, value in os.environ.items() if key not in ("JAVA_HOME", "MASTER")
    }
    ran = subprocess.run(
        [sys.executable, "-c", script, "merge", *words],
        env=environment | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(read_rows(tmp_path / "out", "posterior")) == 67


def test_auto_is_spark_where_a_cluster_is_named_or_the_inputs_are_large(tmp_path, monkeypatch):
    monkeypatch.delenv("MASTER", raising=False)
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)

    def uses_spark(**given):
        inputs = {"output": "out", "votes": str(tmp_path / "in" / "votes")} | given
        return STAGES["merge"].uses_spark(MergeSettings.model_validate(inputs))

    beliefs = write(tmp_path / "in", 0, 2)["beliefs"]
    assert not uses_spark(beliefs=beliefs)
    assert uses_spark(engine="spark")
    assert uses_spark(spark={"master": "spark://head:7077"})
    assert not uses_spark(engine="local", spark={"master": "spark://head:7077"})
    for name in ("PYSPARK_GATEWAY_PORT", "MASTER"):
        with monkeypatch.context() as patched:
            patched.setenv(name, "local[2]")
            assert uses_spark()
    with monkeypatch.context() as patched:
        patched.setattr(engines, "bytes_of_memory", lambda: 100_000)
        assert uses_spark(beliefs=beliefs)
        assert not uses_spark()
    monkeypatch.setattr(engines, "_LOCAL_BELIEFS", 100)
    assert uses_spark(beliefs=beliefs)
    assert not uses_spark()
    monkeypatch.setattr(engines, "_LOCAL_VOTES", 100)
    assert uses_spark()
