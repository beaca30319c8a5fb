"""Outputs that cannot be written: one line, nothing under a final name, and a rerun that works."""

import errno
import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pyarrow as pa
import pytest

from coyo_labeler import cli, storage
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.session import explain
from coyo_labeler.storage_errors import explain_os_error, explain_store_error

REPOSITORY = Path(__file__).parents[1]


def votes_and_space(folder: Path) -> list[str]:
    rows = "".join(f"{i},{worker},{i % 3}\n" for i in range(200) for worker in "abc")
    (folder / "votes.csv").write_text(f"image_id,worker_id,label\n{rows}")
    (folder / "space.txt").write_text("cat\ndog\nfish\n")
    words = [f"votes={folder / 'votes.csv'}", f"label_space={folder / 'space.txt'}"]
    return ["merge", *words, "engine=local"]


def run(words: list[str], file_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))

    return subprocess.run(
        [sys.executable, "-m", "coyo_labeler.cli", *words],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )


@pytest.mark.parametrize("file_bytes", [0, 500, 2048, 6000])
def test_a_disk_that_fills_up_is_one_line_and_the_rerun_works(tmp_path: Path, file_bytes: int):
    words = [*votes_and_space(tmp_path), f"output={tmp_path / 'out'}"]
    failed = run(words, file_bytes)
    lines = [line for line in failed.stderr.splitlines() if not line.startswith("[")]
    assert failed.returncode == 1, failed.stderr
    assert lines[-1].startswith("error: output: ")
    assert "File too large; make room" in lines[-1]
    assert "Traceback" not in failed.stderr
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert not (tmp_path / "out" / "_manifest.json").exists()
    assert run(words).returncode == 0
    assert (tmp_path / "out" / "_manifest.json").exists()


@pytest.mark.parametrize("output", ["file", "file/x", "/proc/x", "{long}"])
def test_an_output_that_cannot_be_is_named(tmp_path: Path, output: str, capsys):
    (tmp_path / "file").write_text("")
    output = str(tmp_path / output.replace("{long}", "x" * 300))
    status = cli.main([*votes_and_space(tmp_path), f"output={output}"])
    printed = capsys.readouterr().err.splitlines()
    assert status == 2
    assert len(printed) == 1
    assert output in printed[0]
    assert (tmp_path / "file").read_text() == ""


def test_a_file_in_the_way_in_the_middle_is_named(tmp_path: Path, capsys):
    words = [*votes_and_space(tmp_path), f"output={tmp_path / 'out'}"]
    (tmp_path / "out" / "history.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"history\.json cannot be written \(Is a directory\)"):
        storage.write_json(str(tmp_path / "out" / "history.json"), {})
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "history.json"]
    (tmp_path / "out" / "history.json").rmdir()
    assert cli.main(words) == 0


class Full(io.RawIOBase):
    """A file on a disk that is full after some bytes."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_under_arrow_is_a_work_error(tmp_path: Path, monkeypatch):
    url = str(tmp_path / "a.parquet")
    monkeypatch.setattr(storage.fsspec.filesystem("file"), "open", lambda *_: Full())
    with pytest.raises(WorkError, match=r"a\.parquet: No space left on device; make room"):
        storage.write_parquet(url, pa.table({"x": [1]}))


def test_a_full_disk_under_pytorch_is_a_work_error(tmp_path: Path, monkeypatch):
    torch = pytest.importorskip("torch")
    url = str(tmp_path / "a.pt")
    monkeypatch.setattr(storage.fsspec.filesystem("file"), "open", lambda *_: Full())
    with (
        pytest.raises(WorkError, match=r"a\.pt: No space left on device; make room"),
        storage.open_atomic(url) as file,
    ):
        torch.save({"a": torch.zeros(1000)}, file)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, WorkError),
        (errno.EDQUOT, WorkError),
        (errno.EIO, WorkError),
        (errno.EROFS, InputError),
        (errno.EACCES, InputError),
        (errno.ENOTDIR, InputError),
    ],
)
def test_what_can_pass_is_work_and_what_cannot_is_input(number: int, kind: type[Exception]):
    for url in (None, "out/x"):
        error = explain_os_error(OSError(number, os.strerror(number), "out/x"), url)
        assert type(error) is kind
        assert "out/x" in str(error)
        assert "; " in str(error)


@pytest.mark.parametrize(
    ("cause", "kind", "remedy"),
    [
        ("java.io.IOException: No space left on device", WorkError, "make room"),
        ("OSError: [Errno 27] File too large: '/tmp/x'", WorkError, "make room"),
        ("java.io.FileNotFoundException: /o/x (Permission denied)", InputError, "another output"),
        ("java.io.IOException: Mkdirs failed to create file:/o/x", InputError, "another path"),
        ("java.io.IOException: /o/x: Read-only file system", InputError, "another output"),
    ],
)
def test_sparks_own_writer_is_explained(cause: str, kind: type[Exception], remedy: str):
    text = f"Job aborted due to stage failure\nCaused by: {cause}\n\tat java.base/x(Y.java:1)\n"
    error = type("Py4JError", (Exception,), {"__module__": "py4j.protocol"})(text)
    explained = explain(error)
    assert type(explained) is kind
    assert remedy in str(explained)
    assert "\n" not in str(explained)


@pytest.mark.parametrize(
    ("url", "environment", "message"),
    [
        ("s3://b/v.csv", {}, "cannot be used (Unable to locate credentials); correct the path"),
        ("s3://b/v.csv", {"AWS_PROFILE": "nope"}, "(The config profile (nope) could not be"),
        ("s3://two words/v.csv", {"AWS_ACCESS_KEY_ID": "a"}, "missing: AWS_SECRET_ACCESS_KEY)"),
        ("s3://b/v.csv", {"AWS_ENDPOINT_URL": "minio:9000"}, "(Invalid endpoint: minio:9000)"),
    ],
)
@pytest.mark.parametrize("key", ["votes", "output"])
def test_a_store_that_cannot_be_used_is_one_line(
    tmp_path: Path,
    monkeypatch,
    capsys,
    key: str,
    url: str,
    environment: dict[str, str],
    message: str,
):
    s3fs = pytest.importorskip("s3fs")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nowhere = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in {**nowhere, "AWS_SHARED_CREDENTIALS_FILE": "none", **environment}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    words = [*votes_and_space(tmp_path), f"output={tmp_path / 'out'}", f"{key}={url}"]
    assert cli.main(words) == 2
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith(f"error: merge: {key}: {url}: the store ")
    assert message in printed[0]
    assert not (tmp_path / "out").exists()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_cannot_be_reached_is_asked_again_later():
    exceptions = pytest.importorskip("botocore.exceptions")
    passing = (
        exceptions.EndpointConnectionError(endpoint_url="http://x", error="refused"),
        exceptions.ReadTimeoutError(endpoint_url="http://x"),
        exceptions.ConnectionClosedError(endpoint_url="http://x"),
        exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        aiohttp.ServerDisconnectedError(),
        pytest.importorskip("httpx2").ConnectError("refused"),
    )
    for error in passing:
        explained = explain_store_error(error, "votes: s3://b/v")
        assert isinstance(explained, WorkError)
        assert str(explained).startswith("votes: s3://b/v: the store cannot be reached (")
        assert str(explained).endswith("run the same command again to resume")
    bucket = exceptions.ParamValidationError(report="Invalid bucket name\n 'two words'")
    assert isinstance(explain_store_error(bucket), InputError)
    assert explain_store_error(ValueError("a defect")) is None
