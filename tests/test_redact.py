import json
import logging
from pathlib import Path

import pytest

from coyo_labeler import cli
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.config.read import read_settings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.redact import redact, redact_settings

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
