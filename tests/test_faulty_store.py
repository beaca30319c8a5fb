"""Stages on an S3 that answers a share of the requests with errors, resets and cut bodies."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import botocore.retryhandler
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from coyo_labeler.manifest import Manifest
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.annotation_tools.tables import write_questions
from tests.collect import exports
from tests.faulty_store import FAULTS, FaultyStore, faulty_store
from tests.merge.tables import assert_same_tables
from tests.merge.test_invariance import GIVEN, write
from tests.merge.test_stage import labels_file, merge
from tests.select import tables


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, object, FaultyStore]]:
    """A bucket behind the proxy, a client that goes past it, and the proxy."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    target = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=target)
    bucket = f"bucket-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    # Clients wait for up to a second, at random, before they repeat a request.
    soon = SimpleNamespace(random=lambda: 0.02)
    monkeypatch.setattr(botocore.retryhandler, "random", soon)
    with faulty_store(target, share=0.05, seed=1) as (url, proxy):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield bucket, client, proxy
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def download(client, bucket, prefix, folder):
    for entry in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in entry.get("Contents", []):
            path = folder / item["Key"].removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, item["Key"], str(path))


def test_merge_on_a_failing_store_writes_the_tables_of_a_sound_one(store, tmp_path):
    bucket, client, proxy = store
    inputs = write(tmp_path / "in", 0, 6) | {"partitions": 4}
    sound = merge(None, tmp_path, "sound", **GIVEN, **inputs)
    for path in (tmp_path / "in").rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"in/{path.relative_to(tmp_path / 'in')}")
    on_s3 = {
        key: value.replace(str(tmp_path / "in"), f"s3://{bucket}/in")
        if isinstance(value, str)
        else value
        for key, value in inputs.items()
    }
    given = GIVEN | on_s3 | {"output": f"s3://{bucket}/out", "worker_model": "confusion"}
    given |= {"label_space": labels_file(tmp_path), "class_prior": "estimated"}  # as merge() has it
    words = [f"{key}={value}" for key, value in given.items()]
    failing = run_stage(STAGES["merge"], read_stage_settings(STAGES["merge"], words))[0]
    assert set(proxy.injected) == set(FAULTS), proxy.injected
    download(client, bucket, "out", tmp_path / "failing")
    assert_same_tables(tmp_path / "failing", tmp_path / "sound")
    assert failing.rows == sound.rows
    assert failing.tables == sound.tables
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def select_words(folder: Path) -> list[str]:
    rows = {n: {"probs": {n % 6: 0.3 + n / 200, (n + 1) % 6: 0.2}} for n in range(60)}
    tables.write_labels(folder / "labels", rows, files=3)
    votes = [(n, f"w{n % 3}", n % 6, None) for n in range(0, 60, 4)]
    tables.write_csv(folder / "votes.csv", "image_id,worker_id,label,response", votes)
    tables.write_csv(folder / "gold.csv", "image_id,label", [(n, n % 6) for n in range(1, 60, 9)])
    (folder / "space.txt").write_text("\n".join(f"class {c}" for c in range(6)))
    inputs = [f"labels={folder}/labels", f"votes={folder}/votes.csv", f"gold={folder}/gold.csv"]
    return [*inputs, f"label_space={folder}/space.txt", "budget=20", "partitions=2", "engine=local"]


def send_words(folder: Path) -> list[str]:
    rows = exports.QUESTIONS
    for number in range(5):
        path = write_questions(folder, rows[number::5]) / "part-0.parquet"
        path.rename(path.with_name(f"part-{number + 1}.parquet"))
    return [f"questions={folder}/questions", "to=label_studio_files"]


def collect_words(folder: Path) -> list[str]:
    (folder / "exports").mkdir()
    for number, task in enumerate(exports.LABEL_STUDIO):
        (folder / "exports" / f"{number}.json").write_text(json.dumps([task]))
    questions = send_words(folder)[0]
    return [questions, f"source={folder}/exports"]


def run(stage: str, words: list[str]) -> Manifest:
    return run_stage(STAGES[stage], read_stage_settings(STAGES[stage], words))[0]


def files_below(folder: Path) -> dict[str, bytes]:
    """What an output holds besides its claim and manifest, which name the folders, and state.

    What a late listing does not show is not removed from the state.
    """
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in paths.items() if str(name)[0] != "_"}


def test_questions_and_answers_are_the_same_on_a_failing_store(store, tmp_path):
    """Its listings are late too."""
    bucket, client, proxy = store
    proxy.late = 20
    for stage, words in {
        "select": select_words, "send": send_words, "collect": collect_words
    }.items():  # fmt: skip
        folder = tmp_path / stage
        (folder / "in").mkdir(parents=True)
        given = words(folder / "in")
        sound = run(stage, [*given, f"output={folder}/sound"])
        for path in (folder / "in").rglob("*"):
            if path.is_file():
                client.upload_file(str(path), bucket, str(path.relative_to(tmp_path)))
        on_s3 = [word.replace(f"{folder}/", f"s3://{bucket}/{stage}/") for word in given]
        failing = run(stage, [*on_s3, f"output=s3://{bucket}/{stage}/out"])
        download(client, bucket, f"{stage}/out", folder / "failing")
        assert files_below(folder / "failing") == files_below(folder / "sound"), stage
        assert (failing.rows, failing.tables) == (sound.rows, sound.tables)
    assert proxy.injected.keys() == {*FAULTS, "late"}, proxy.injected
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
