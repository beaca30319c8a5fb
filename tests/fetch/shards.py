"""One shard, fetched in this process without Spark."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from coyo_labeler.fetch.client import Client, Limits, Manners
from coyo_labeler.fetch.generation import RECEIPT_NAME
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.shard import Rules, ShardFetcher
from coyo_labeler.receipts import Receipts


def make(output, rows, number=1, shard=0, **rules):
    """One generation of a shard; returns its receipt."""
    receipts = Receipts(output, "f", RECEIPT_NAME)

    async def work():
        guard = Guard(allow_private=True)
        limits = Limits(retries=0, backoff_seconds=0.01)
        with ThreadPoolExecutor(2) as threads:
            async with Client(limits, guard, Manners("bot", robots_txt=False)) as client:
                fetcher = ShardFetcher(client, threads, Rules(timeout_seconds=2, **rules), receipts)
                return await fetcher.fetch(shard, rows, number)

    return asyncio.run(work())
