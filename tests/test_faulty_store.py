"""Stages on an S3 that answers a share of the requests with errors, resets and cut bodies."""

import uuid
from collections.abc import Iterator

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.faulty_store import FAULTS, FaultyStore, faulty_store
from tests.merge.tables import assert_same_tables
from tests.merge.test_invariance import GIVEN, write
from tests.merge.test_stage import labels_file, merge


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
