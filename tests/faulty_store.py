"""A proxy before an S3 server that fails as object stores do, a share of the requests at random.

Faults: 503 SlowDown, 500, a reset before the answer, a body that is cut, a stall. What a client may
not see twice as different (a listing, a part) is forwarded unchanged otherwise. Listings may be
late: they lack what was written a moment ago.
"""

import asyncio
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import aiohttp
from aiohttp import web

_DROPPED = {"transfer-encoding", "content-encoding", "connection", "date", "server"}
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
FAULTS = ("slow_down", "internal_error", "reset", "cut", "stall")


_CONTENTS = re.compile(rb"<Contents>\s*<Key>([^<]*)</Key>.*?</Contents>", re.DOTALL)


class FaultyStore:
    """Forwards to `target`.

    share: of requests that fail. late: how many requests after it was written a file is in no
    listing; not how many seconds, so that it does not depend on the machine. injected: how often
    each fault was; "late": files that a listing lacked.
    """

    def __init__(self, target: str, share: float, seed: int, late: int = 0) -> None:
        self.target, self.share, self.late = target, share, late
        self.injected: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._requests = 0
        self._written: dict[str, int] = {}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of the connections to the server."""
        if self._session is not None:
            await self._session.close()

    def _without_late(self, listing: bytes) -> bytes:
        def keep(match: re.Match[bytes]) -> bytes:
            written = self._written.get(unquote(match[1].decode()))
            if written is None or self._requests - written > self.late:
                return match[0]
            self.injected["late"] += 1
            return b""

        return _CONTENTS.sub(keep, listing)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._requests += 1
        fault = None
        if self._random.random() < self.share:
            fault = self._random.choice(FAULTS)
            self.injected[fault] += 1
        if fault == "slow_down":
            return web.Response(status=503, body=_SLOW_DOWN, content_type="application/xml")
        if fault == "internal_error":
            return web.Response(status=500)
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "stall":
            await asyncio.sleep(0.5)
        headers = {k: v for k, v in request.headers.items() if k.lower() != "content-length"}
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=False)
        async with self._session.request(
            request.method,
            self.target + request.raw_path,
            headers=headers,
            data=body,
            allow_redirects=False,
            skip_auto_headers=("Content-Type", "Accept-Encoding"),
        ) as answer:
            content = await answer.read()
            if self.late and request.method in ("PUT", "POST"):
                key = unquote(request.path).lstrip("/").partition("/")[2]
                self._written[key] = self._requests
            elif self.late and "list-type" in request.query:
                content = self._without_late(content)
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _DROPPED}
            if request.method != "HEAD":
                kept["Content-Length"] = str(len(content))
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            if fault == "cut" and len(content) > 1:
                await response.write(content[: len(content) // 2])
                assert request.transport is not None
                request.transport.abort()
                return response
            if request.method != "HEAD":
                await response.write(content)
            await response.write_eof()
            return response


@contextmanager
def faulty_store(
    target: str, share: float, seed: int, late: int = 0
) -> Iterator[tuple[str, FaultyStore]]:
    """The URL of such a proxy on 127.0.0.1, and the proxy. See `FaultyStore`."""
    store, loop = FaultyStore(target, share, seed, late), asyncio.new_event_loop()
    started, ports = threading.Event(), []

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", store.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.run_until_complete(store.close())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(600)
    try:
        yield f"http://127.0.0.1:{ports[0]}", store
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
