import asyncio
import os
import threading
import uuid
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from coyo_labeler import storage
from coyo_labeler.fetch.shard import CatalogRow
from tests.fetch.web import Web, encode, phash, photograph, reply


@pytest.fixture
def web() -> Iterator[Web]:
    site = Web()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(site.handle, "127.0.0.1", 0))
    site.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield site

    async def stop() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        loop.stop()

    asyncio.run_coroutine_threadsafe(stop(), loop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    bucket = f"bucket-{uuid.uuid4().hex}"  # moto keeps its buckets from server to server
    fs, _ = storage.resolve(f"s3://{bucket}")
    fs.mkdir(bucket)
    yield f"s3://{bucket}"
    server.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    type(fs).clear_instance_cache()


@pytest.fixture(params=["file", "memory", "s3"])
def output(request, tmp_path):
    """A folder of its own on each kind of filesystem."""
    if request.param == "file":
        return str(tmp_path / "out")
    root = "memory://" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{root}/{uuid.uuid4().hex}"


@pytest.fixture
def rows(web):
    """Good, busy for now, gone for good, good; ids from 10."""
    rows = []
    for index in range(4):
        data = encode(photograph(index))
        rows.append(CatalogRow(10 + index, web.serve(f"/{index}", data), phash(data)))
    web.answers["/busy"] = web.answers["/1"]
    web.answers["/1"] = reply(b"", "503 Busy")
    del web.answers["/2"]
    return rows
