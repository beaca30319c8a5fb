import json
import logging
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import cli, session, storage
from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.config.read import read_settings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.ingest.read import Source
from coyo_labeler.ingest.stage import without_known, write_corrupt_files
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.redact import RedactingFormatter, redact, redact_settings

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing at s3://user:hunter2@host/a b", "nothing at s3://***@host/a b"),
        ("https://user:hunt@er2@host/a?b", "https://***@host/a?b"),
        ("https://user:hunt/er2@host/a", "https://***@host/a"),
        ("https://hunter2@host/a", "https://***@host/a"),
        ("https://host/a?x=1&X-Amz-Signature=hunter2&y=2", "https://host/a?x=1&X-Amz-Signature=***&y=2"),
        ("https://host/a?sig=hunter2", "https://host/a?sig=***"),
        ("-Dssl.keyStorePassword=hunter2 -Dx=1", "-Dssl.keyStorePassword=*** -Dx=1"),
    ],
)  # fmt: skip
def test_the_secrets_of_urls_and_options_are_hidden(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "abfs://container@account.dfs.core.windows.net/x",
        "http://127.0.0.1:8000/a@b.jpg and mail@example.org",
        "'x' is not of the form key=value; give user_agent=…",
        "s3://bucket/key=1/a@b?x",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_settings_are_redacted_by_key():
    conf = {
        "spark.hadoop.fs.s3a.secret.key": SECRET,
        "spark.hadoop.fs.s3a.access.key": SECRET,
        "spark.hadoop.fs.azure.account.oauth2.client.secret.x": SECRET,
        "spark.kubernetes.authenticate.oauthToken": SECRET,
        "spark.ssl.keyPassword": SECRET,
        "my.CREDENTIALS": SECRET,
        "spark.app.id": "app",
        "spark.driver.extraJavaOptions": f"-Djavax.net.ssl.trustStorePassword={SECRET} -Da=b",
    }
    shown = redact_settings({"spark": {"conf": conf}, "labels": f"s3://u:{SECRET}@h/x", "keep": 3})
    assert SECRET not in json.dumps(shown)
    assert shown["spark"]["conf"]["spark.app.id"] == "app"
    assert shown["keep"] == 3


def test_no_secret_is_written_or_printed(tmp_path: Path, capsys) -> None:
    (tmp_path / "votes.csv").write_text("image_id,worker_id,label\n")
    words = [
        f"votes={tmp_path / 'votes.csv'}",
        f"output={tmp_path / 'out'}",
        f"spark.conf.spark.hadoop.fs.s3a.secret.key={SECRET}",
        f"spark.conf.spark.hadoop.fs.s3a.endpoint=https://me:{SECRET}@host",
    ]
    settings = read_settings(MergeSettings, "merge", None, words)
    assert settings.spark.conf["spark.hadoop.fs.s3a.secret.key"] == SECRET
    Run.begin("merge", settings).finish(Outcome(Counts(0, 0)))
    for path in (tmp_path / "out").iterdir():
        assert SECRET not in path.read_text(), path

    cli.start_logging("json")
    logging.getLogger("coyo_labeler.x").info("reading s3://me:%s@host/x", SECRET)
    cli.start_logging("text")
    logging.getLogger("coyo_labeler.x").info("reading s3://me:%s@host/x", SECRET)

    def fail() -> None:
        raise OSError(5, "Input/output error", f"https://me:{SECRET}@host/x")

    assert cli.guard(fail) == 1
    assert SECRET not in str(InputError(f"https://me:{SECRET}@host/x"))
    assert SECRET not in str(WorkError(f"https://me:{SECRET}@host/x"))
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    assert printed.err.count("***") == 3


def test_a_wrong_value_of_a_secret_is_not_echoed(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"spark: {{conf: {{fs.s3a.secret.key: [{SECRET}]}}}}\n")
    with pytest.raises(InputError) as error:
        read_settings(MergeSettings, "merge", str(file), ["votes=v", "output=o"])
    assert SECRET not in str(error.value)


def test_no_word_of_the_command_line_is_repeated_with_its_secret(capsys) -> None:
    for word in (f"--config=s3://me:{SECRET}@host/x", f"--x=s3://me:{SECRET}@host/x"):
        with pytest.raises(SystemExit):
            cli.main(["merge", "votes=v", "-q", word])
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    assert "***" in printed.err


def test_a_traceback_holds_no_secret_either(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    try:
        raise KeyError(f"s3://me:{SECRET}@host/x\x1b[2J")
    except KeyError:
        sys.excepthook(*sys.exc_info())
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "KeyError" in printed
    assert SECRET not in printed and "\x1b" not in printed


def test_the_details_of_a_manifest_hold_no_secret(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("x")
    words = [f"votes={tmp_path / 'votes.csv'}", f"output={tmp_path / 'out'}"]
    run = Run.begin("merge", read_settings(MergeSettings, "merge", None, words))
    details = {"corrupt": {f"https://me:{SECRET}@host/x": [f"s3://me:{SECRET}@h", 1]}, "ids": "key"}
    manifest = run.finish(Outcome(Counts(0, 0), details=details))
    assert SECRET not in (tmp_path / "out/_manifest.json").read_text()
    assert manifest.details["ids"] == "key"


@pytest.mark.parametrize("make", [InputError, WorkError])
def test_what_a_stranger_named_cannot_move_the_cursor_or_fill_the_screen(make) -> None:
    """Names of files, workers, classes and columns stand in messages."""
    text = str(make("votes: a\x1b[2Jb\nc\r\u2028d\u202ee\ud800 is wrong"))
    assert text == r"votes: a\x1b[2Jb\nc\r\u2028d\u202ee\ud800 is wrong"
    assert len(str(make("x" * 10**6))) < 5000
    hidden = str(make("x" * 3990 + f"s3://me:{SECRET}@host"))
    assert SECRET not in hidden
    assert str(make("Bär 雪 🙂")) == "Bär 雪 🙂"


def test_log_lines_keep_their_breaks_and_lose_what_a_terminal_acts_on() -> None:
    formatter = RedactingFormatter(logging.Formatter("%(message)s"))
    record = logging.LogRecord("a", logging.INFO, "", 0, "one\n\ttwo\x1b[31m\x07", None, None)
    assert formatter.format(record) == "one\n\ttwo\\x1b[31m\\x07"


def test_warnings_of_libraries_hold_no_secret(capsys, monkeypatch) -> None:
    cli.start_logging("text")
    library = logging.getLogger("some.library")
    monkeypatch.setattr(library, "propagate", False)  # pytest's own handlers are at the root
    library.warning("retrying https://me:%s@host/x", SECRET)
    logging.lastResort.handle(
        logging.makeLogRecord({"msg": f"at s3://me:{SECRET}@h", "levelno": 30})
    )
    printed = capsys.readouterr().err
    assert SECRET not in printed
    assert "***@h" in printed


@pytest.mark.parametrize(
    "name",
    [
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.access.key",
        "spark.hadoop.fs.s3a.session.token",
        "spark.hadoop.fs.azure.account.oauth2.client.secret.x",
        "spark.ssl.keyPassword",
        "spark.hadoop.hadoop.security.credential.provider.path",
        "spark.x.passphrase",
    ],
)
def test_spark_hides_the_same_properties_on_its_pages(name) -> None:
    assert re.search(session._FIXED["spark.redaction.regex"], name)


def test_spark_hides_passwords_of_urls_in_its_plans() -> None:
    pattern = session._FIXED["spark.redaction.string.regex"]
    assert re.sub(pattern, "***", f"s3a://me:{SECRET}@host/x") == "s3a://***@host/x"
    assert not re.search(pattern, "abfs://container@account/x s3a://bucket/a:b@c")


def test_files_that_ingest_sets_aside_are_known_again_without_their_secret(tmp_path: Path) -> None:
    settings = IngestSettings(source="s", output=str(tmp_path), on_corrupt="skip")
    url = f"https://me:{SECRET}@host/a.parquet"
    source = Source({url: 5, "b": 3}, pa.schema([]), {}, {})
    write_corrupt_files(source.without({url: f"{url} breaks off"}), settings)
    rejects = pq.read_table(tmp_path / "rejects" / "corrupt-files.parquet").to_pylist()
    assert rejects[0]["url"] == "https://***@host/a.parquet"
    assert SECRET not in str(rejects)
    assert without_known(source, settings).files == {"b": 3}


@pytest.mark.parametrize("protocol", ["s3", "s3a", "gs"])
def test_a_password_before_a_bucket_is_refused_without_it(protocol) -> None:
    with pytest.raises(InputError, match="takes no user or password") as error:
        storage.resolve(f"{protocol}://me:{SECRET}@bucket/x")
    assert SECRET not in str(error.value)
