"""How a stage is run: its dependencies before its claim, and in as many processes as it allows."""

import socket
from dataclasses import replace

import pytest

from coyo_labeler import cli
from coyo_labeler.config.base import SparkSettings
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.errors import InputError
from coyo_labeler.extras import MissingPackageError
from coyo_labeler.session import open_session
from coyo_labeler.stages import STAGES, run_stage


@pytest.fixture
def merge_settings(tmp_path):
    votes, classes = tmp_path / "votes.csv", tmp_path / "classes.txt"
    votes.write_text("image_id,worker_id,label\n1,a,0\n1,b,0\n2,a,1\n")
    classes.write_text("cat\ndog\n")

    def make(**changes):
        keys = {"votes": str(votes), "label_space": str(classes), "output": str(tmp_path / "out")}
        return MergeSettings(**keys | changes)

    return make


def absent(**changes):
    return replace(STAGES["merge"], **changes)


BROKEN = {
    "the stage": absent(work="acme.stage:merge"),
    "what it imports when it runs": absent(imports=lambda settings, spark: ["acme.model"]),
}


@pytest.mark.parametrize("stage", BROKEN.values(), ids=BROKEN)
def test_an_output_is_not_claimed_without_what_the_work_imports(stage, merge_settings, tmp_path):
    with pytest.raises(MissingPackageError, match=r"^merge: acme is not installed"):
        run_stage(stage, merge_settings())
    assert not (tmp_path / "out").exists()


def test_an_output_is_not_replaced_without_what_the_work_imports(merge_settings, tmp_path):
    run_stage(STAGES["merge"], merge_settings())
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(MissingPackageError):
        run_stage(BROKEN["the stage"], merge_settings(seed=1, overwrite=True))
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before


def test_a_finished_output_needs_nothing(merge_settings):
    run_stage(STAGES["merge"], merge_settings())
    assert run_stage(BROKEN["the stage"], merge_settings())[1] is False


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("JAVA_HOME", "/nowhere", "JAVA_HOME is /nowhere, which has no bin/java"),
        ("SPARK_HOME", "/nowhere", "SPARK_HOME is /nowhere, which has no bin/spark-submit"),
        ("PYSPARK_PYTHON", "/nowhere/python", "PYSPARK_PYTHON is /nowhere/python, which is no"),
    ],
)
def test_a_program_that_the_environment_names_wrongly_is_found_before_the_claim(
    variable, value, says, merge_settings, tmp_path, monkeypatch
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=says):
        run_stage(STAGES["merge"], merge_settings(engine="spark"))
    assert not (tmp_path / "out").exists()


def test_executors_may_have_a_python_that_the_driver_lacks(monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", "./environment/bin/python")
    monkeypatch.setenv("SPARK_HOME", "/nowhere")  # checked next to it, so that no session begins
    with pytest.raises(InputError, match="SPARK_HOME"):
        open_session(SparkSettings(master="spark://head:7077"), "merge")


def test_words_may_stand_before_and_behind_the_configuration(tmp_path, capsys):
    words = ["votes=/nowhere.csv", "--config", "merge", f"output={tmp_path}/out"]
    assert cli.main(["merge", *words]) == cli.WRONG_INPUT
    assert "merge: votes: nothing at /nowhere.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["merge", *words, "--confg=x", "seed=1"])
    assert "unrecognized arguments: --confg=x" in capsys.readouterr().err


def torchrun(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("stage", ["ingest", "merge", "label"])
def test_a_stage_of_one_process_refuses_torchrun(stage, monkeypatch, capsys):
    torchrun(monkeypatch, WORLD_SIZE="2", RANK="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    assert cli.main([stage]) == cli.WRONG_INPUT
    assert f"error: {stage}: torchrun started 2 processes" in capsys.readouterr().err


def test_a_variable_left_behind_is_not_torchrun(monkeypatch, capsys):
    torchrun(monkeypatch, WORLD_SIZE="2")
    assert cli.main(["merge"]) == cli.WRONG_INPUT
    assert "votes: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but no RANK and no MASTER_ADDR and no MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "no MASTER_ADDR and no MASTER_PORT"),
        (
            {"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "WORLD_SIZE=two; start several processes with torchrun",
        ),
    ],
)
def test_a_group_that_is_described_in_part_is_one_line(variables, says, monkeypatch, capsys):
    torchrun(monkeypatch, **variables)
    assert cli.main(["pretrain_vit"]) == cli.WRONG_INPUT
    assert says in capsys.readouterr().err


def test_the_demo_finds_a_busy_port_before_it_begins(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = tmp_path / "demo"
        assert cli.main(["demo", f"output={output}", f"port={port}"]) == cli.WRONG_INPUT
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert not output.exists()
