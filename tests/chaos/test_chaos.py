"""Every stage, disturbed at random: kills, overwrites, second runs, lost, cut and flipped files,
and a store that fails.

Whatever happens, a run ends in the tables of an undisturbed one or in an error of one line, and the
same command leads there in the end. CHAOS_SECONDS sets how long each stage goes on after its first
round, CHAOS_SEED with what.
"""

import asyncio
import os
import random
import shutil
import threading
import time
import uuid
from collections.abc import Iterator

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from coyo_labeler import receipt_bundles
from coyo_labeler.manifest import read_manifest
from tests.chaos.disturbances import FILES, PROCESSES
from tests.chaos.on_store import run_on_store
from tests.chaos.pipeline import build
from tests.faulty_store import faulty_store
from tests.fetch.web import Web
from tests.label.conftest import one_thread, small_spec, small_teacher  # noqa: F401 - fixtures

SECONDS = float(os.environ.get("CHAOS_SECONDS", "4"))
#: The share of the requests to a store that fail, and by how many requests its listings are late.
FAILING = float(os.environ.get("CHAOS_FAILING", "0.05"))
LATE = 20
SEED = int(os.environ.get("CHAOS_SEED", "17"))

STAGES = [
    "ingest",
    "fetch",
    "label",
    "merge",
    "report",
    "export-webdataset",
    "export-huggingface",
    "pretrain_vit",
]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(int(SECONDS * 4) + 900)]


@pytest.fixture(autouse=True)
def bundled(monkeypatch):
    """A handful of shards have bundles of receipts too, here and in processes of their own."""
    monkeypatch.setattr(receipt_bundles, "FEWEST", 1)


@pytest.fixture(scope="module")
def site() -> Iterator[Web]:
    """A server whose answers do not change."""
    web = Web()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(web.handle, "127.0.0.1", 0))
    web.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield web
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, site, small_spec, spark):  # noqa: F811 - the fixture
    return build(tmp_path_factory.mktemp("chaos"), site, small_spec, spark)


@pytest.mark.parametrize("name", STAGES)
def test_nothing_is_lost_or_doubled_whatever_happens(name, pipeline):
    stage = pipeline[name]
    dice = random.Random(f"{SEED} {name}")
    until = time.monotonic() + SECONDS
    chosen = [dice.choice(PROCESSES), *dice.sample(FILES, 2)]
    while True:
        shutil.rmtree(stage.output, ignore_errors=True)
        stage.flipped, done = False, []
        for disturbance in chosen:
            done.append(disturbance.__name__)
            disturbance(stage, dice)
            stage.check(done)
        stage.end(done)
        if time.monotonic() > until:
            return
        chosen = dice.choices([*PROCESSES, *FILES], k=dice.randint(1, 4))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a server of S3 that does what it should."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


#: Of merge, `tests/test_faulty_store.py` asks for more. Other formats of export are written by
#: Spark too, see `tests.chaos.on_store`.
@pytest.mark.parametrize("name", ["ingest", "fetch", "label", "report", "export-parquet"])
def test_a_store_that_fails_a_share_of_the_requests_changes_no_table(
    name, pipeline, s3, spark, monkeypatch, tmp_path
):
    stage, bucket = pipeline[name], f"bucket-{uuid.uuid4().hex}"
    access = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with faulty_store(s3, FAILING, SEED, LATE) as (url, proxy):
        for key, value in {**access, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(key, value)
            monkeypatch.setitem(spark.sparkContext.environment, key, value)  # of its tasks
        client = boto3.client("s3", endpoint_url=s3)
        client.create_bucket(Bucket=bucket)
        s3fs.S3FileSystem.clear_instance_cache()
        manifest = run_on_store(stage, client, bucket, tmp_path)
        s3fs.S3FileSystem.clear_instance_cache()
    assert sum(proxy.injected.values()) > 0
    stage.same(tmp_path, stage.whole)
    undisturbed = read_manifest(str(stage.whole))
    assert (manifest.rows, manifest.tables) == (undisturbed.rows, undisturbed.tables)
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
