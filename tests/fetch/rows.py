"""Rows fetched in this process as from the real web: only the test's own port is a public host."""

import asyncio
import socket
import zlib
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver

from coyo_labeler.fetch.client import Client, Limits, Manners
from coyo_labeler.fetch.generation import RECEIPT_NAME
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.pack import read_rows
from coyo_labeler.fetch.shard import CatalogRow, Rules, ShardFetcher
from coyo_labeler.receipts import Receipts
from tests.fetch.web import encode, phash, photograph

GOOD = encode(photograph(1))
#: What succeeds has time enough on a busy machine; what must run out of it is given less.
LIMITS = Limits(connect_seconds=300, retries=1, backoff_seconds=0.01, max_bytes=200_000)
RULES = Rules(timeout_seconds=300.0, max_pixels=1_000_000)
AGENT = "test-bot/1.0 (+https://example.org/bot)"
TAGS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml"})


class OnlyThisServer(Guard):
    """A guard as for the real web, for which one port of 127.0.0.1 is a public host."""

    def __init__(self, port):
        super().__init__()
        self.port = port

    def allows(self, address):
        return address == "127.0.0.1" or super().allows(address)

    def socket_factory(self, info):
        family, kind, protocol, _, target = info
        if target == ("127.0.0.1", self.port):
            return socket.socket(family, kind, protocol)
        return Guard().socket_factory(info)


class Names(AbstractResolver):
    """A resolver of invented names."""

    def __init__(self, addresses):
        self.addresses = addresses

    async def resolve(self, host, port=0, family=socket.AF_INET):
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            {"hostname": host, "host": address, "port": port, "family": 0, "proto": 0, "flags": 0}
            for address in self.addresses[host]
        ]

    async def close(self):
        pass


def fetch_rows(web, folder, rows, limits=LIMITS, rules=RULES, guard=None, resolver=None, **manners):
    """The rows of one shard, by id."""
    manners = Manners(AGENT, **{"robots_txt": False, "refused_tags": TAGS, **manners})
    receipts = Receipts(str(folder), "f", RECEIPT_NAME)
    site = guard or OnlyThisServer(web.port)

    async def work():
        with ThreadPoolExecutor(2) as threads:
            async with Client(limits, site, manners, resolver) as client:
                return await ShardFetcher(client, threads, rules, receipts).fetch(0, rows)

    receipt = asyncio.run(work())
    found = {row.id: row for row in read_rows(f"{folder}/00000.parquet")}
    assert receipt.rows.rows_in == len(rows) == len(found)
    return found


def fetch_one(web, folder, url, expected=GOOD, **options):
    row = CatalogRow(1, url, phash(expected))
    return fetch_rows(web, folder, [row], **options)[1]


def gzipped(data):
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()
