"""One shard, fetched in this process without Spark."""

import asyncio
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

from coyo_labeler import storage
from coyo_labeler.fetch import generation
from coyo_labeler.fetch.client import Client, Limits, Manners
from coyo_labeler.fetch.generation import RECEIPT_NAME
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.pack import read_rows
from coyo_labeler.fetch.shard import Rules, ShardFetcher
from coyo_labeler.receipts import Receipts

FILES = ["00000.parquet", "00000.tar", "00000_stats.json"]


def make(output, rows, number=1, shard=0, run="", **rules):
    """One generation of a shard; returns its receipt."""
    receipts = Receipts(output, "f", RECEIPT_NAME)

    async def work():
        guard = Guard(allow_private=True)
        limits = Limits(connect_seconds=300, retries=0, backoff_seconds=0.01)
        with ThreadPoolExecutor(2) as threads:
            async with Client(limits, guard, Manners("bot", robots_txt=False)) as client:
                checks = Rules(timeout_seconds=300, **rules)
                fetcher = ShardFetcher(client, threads, checks, receipts, run)
                return await fetcher.fetch(shard, rows, number)

    return asyncio.run(work())


def whole(output):
    return generation.valid(Receipts(output, "f", RECEIPT_NAME))


def assert_agreed(output):
    """The tar holds the images of the rows that succeeded, each once, and no others."""
    with tarfile.open(fileobj=io.BytesIO(read(output, "00000.tar"))) as opened:
        members = opened.getnames()
    rows = read_rows(storage.join(output, "00000.parquet"))
    keys_of_images = [row.key for row in rows if row.sha256 is not None]
    assert members == [f"{key}.{kind}" for key in keys_of_images for kind in ("jpg", "json")]


def files(output):
    fs, path = storage.resolve(output)
    fs.invalidate_cache()
    return sorted(name.rpartition("/")[2] for name in fs.find(path))


def read(output, name):
    fs, path = storage.resolve(storage.join(output, name))
    return fs.cat_file(path)


def tar(output):
    """{name: bytes} of the shard's tar, in its order."""
    with tarfile.open(fileobj=io.BytesIO(read(output, "00000.tar"))) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened}


def statuses(output):
    return [row.status.value for row in read_rows(storage.join(output, "00000.parquet"))]
