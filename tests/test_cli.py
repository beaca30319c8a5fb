import os
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import (
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ProfileNotFound,
    ReadTimeoutError,
)

from coyo_labeler import cli
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.session import explain
from coyo_labeler.stages import STAGES

JOBS = Path(__file__).parents[1] / "jobs"


def run_job(*words, **environment):
    return subprocess.run(
        [sys.executable, str(JOBS / words[0]), *words[1:]],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def assert_one_message(done, status, *parts):
    assert done.returncode == status, done.stderr
    message = done.stderr.strip().splitlines()
    assert len(message) == 1, done.stderr
    assert message[0].startswith("error: ")
    for part in parts:
        assert part in message[0]


def test_a_misspelt_key_is_one_message_and_status_2(tmp_path):
    done = run_job("merge.py", "belief=x", "votes=y", f"output={tmp_path / 'out'}")
    assert_one_message(done, 2, "merge: belief", "did you mean beliefs?")


def test_a_missing_path_is_one_message_and_status_2(tmp_path):
    done = run_job("ingest.py", f"source={tmp_path / 'none'}", f"output={tmp_path / 'out'}")
    assert_one_message(done, 2, "ingest: source", "nothing at", "none")
    assert not (tmp_path / "out").exists()


def test_without_java_one_line_says_what_to_install(tmp_path):
    source = tmp_path / "a.parquet"
    source.write_bytes(b"PAR1")
    done = run_job(
        "ingest.py", f"source={source}", f"output={tmp_path / 'out'}", PATH="", JAVA_HOME=""
    )
    assert_one_message(done, 2, "Java 17", "apt-get install openjdk-17")


@pytest.mark.parametrize("name", STAGES)
def test_help_lists_the_keys_of_a_stage(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for key in STAGES[name].settings_class().model_fields:
        assert key in shown


@pytest.mark.parametrize(
    ("raised", "status"), [(InputError("a: b"), 2), (WorkError("c"), 1), (KeyboardInterrupt(), 130)]
)
def test_what_is_raised_becomes_an_exit_status(raised, status, capsys):
    def work():
        raise raised

    assert cli.guard(work) == status
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (NoCredentialsError(), 2, "Unable to locate credentials); correct the path"),
        (ProfileNotFound(profile="nobody"), 2, "(nobody) could not be found"),
        (ParamValidationError(report="Invalid bucket name\nx"), 2, "correct the path"),
        (EndpointConnectionError(endpoint_url="http://s3"), 1, "the store cannot be reached"),
        (ReadTimeoutError(endpoint_url="http://s3"), 1, "run the same command again"),
    ],
)
def test_what_stops_the_client_of_s3_is_one_line(raised, status, said, capsys):
    def work():
        raise raised

    assert cli.guard(work) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_an_error_of_our_own_code_is_not_hidden():
    def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.guard(work)


def test_an_input_error_in_a_python_worker_comes_back_as_itself(spark):
    def fail(batches):
        raise InputError("votes: row 3: label 12 is outside digits (0..9); drop the row")
        yield from batches

    with pytest.raises(Exception) as raised:
        spark.range(1).mapInArrow(fail, "id long").collect()
    explained = explain(raised.value)
    assert isinstance(explained, InputError)
    assert str(explained) == "votes: row 3: label 12 is outside digits (0..9); drop the row"


def test_any_other_error_in_a_python_worker_is_named_without_its_stack(spark):
    def fail(batches):
        raise ValueError("a tensor of the wrong shape")
        yield from batches

    with pytest.raises(Exception) as raised:
        spark.range(1).mapInArrow(fail, "id long").collect()
    explained = explain(raised.value)
    assert isinstance(explained, WorkError)
    assert "ValueError: a tensor of the wrong shape" in str(explained)
    assert "\n" not in str(explained)
