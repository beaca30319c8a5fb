"""Downloads over HTTP: many at once, each bounded in time, bytes and attempts.

The library is aiohttp: its parser is compiled, it pools connections to thousands of hosts, and its
connector lets `guard` see every address at the moment of the connect.
"""

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from coyo_labeler.fetch.connections import (
    HEADER_BYTES,
    KEPT_SECONDS,
    MachineError,
    connector,
    refuse_machine_fault,
)
from coyo_labeler.fetch.encodings import decompress, layers
from coyo_labeler.fetch.guard import ForbiddenAddressError, Guard, GuardedResolver
from coyo_labeler.fetch.hosts import Budget, Hosts, Rank, Slots
from coyo_labeler.fetch.policy import (
    ROBOTS_BYTES,
    Robots,
    product_token,
    refused_by_tag,
    retry_after_seconds,
)
from coyo_labeler.fetch.status import TRANSIENT, FetchError, Status
from coyo_labeler.fetch.urls import parse_url

Result = TypeVar("Result")

MAX_REDIRECTS = 5
#: Names that are resolved at once; an answer can take seconds, and blocks its thread.
RESOLVER_THREADS = 64
#: Downloads beyond this size continue a few at a time, so that memory is bounded.
LARGE_BYTES = 4 * 2**20
LARGE_AT_ONCE = 8
#: How often a download waits for this machine's descriptors, which kept connections give back.
MACHINE_PAUSES = 3
#: Deadline of a host's robots.txt, all attempts included, in deadlines of a connection.
ROBOTS_CONNECTS = 3

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FINAL_DNS_ERRORS = frozenset(
    {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME), socket.EAI_FAIL}
)


@dataclass(frozen=True)
class Limits:
    """Bounds of every download; seconds and bytes.

    host_interval_seconds: between the starts of two requests to one host, in one task.
    """

    connect_seconds: float = 10.0
    retries: int = 2
    backoff_seconds: float = 0.5
    max_bytes: int = 32 * 2**20
    connections: int = 128
    host_connections: int = 8
    host_interval_seconds: float = 0.0


@dataclass(frozen=True)
class Manners:
    """Who asks, and which refusals are obeyed.

    robots_txt: whether robots.txt is read and obeyed. refused_tags: the X-Robots-Tag rules that
    mean no.
    """

    user_agent: str
    robots_txt: bool = True
    refused_tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Terms:
    """Terms for one kind of file: the limit of its bytes, and which of its owner's wishes hold."""

    max_bytes: int
    robots: Robots | None = None
    refused_tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Body:
    """The body of a 200 answer."""

    data: bytes
    http_status: int


class Client:
    """An asynchronous context manager; `download` may be called many times at once.

    resolver: resolves host names; None: the system's.
    """

    def __init__(
        self,
        limits: Limits,
        guard: Guard,
        manners: Manners,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._limits = limits
        self._resolver = GuardedResolver(guard, resolver)
        self._guard = guard
        self._token = product_token(manners.user_agent)
        self._headers = {
            "User-Agent": manners.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        }
        self._hosts = Hosts(limits.host_connections, limits.host_interval_seconds)
        robots = Robots(self._read_robots, self._token) if manners.robots_txt else None
        self._images = Terms(limits.max_bytes, robots, manners.refused_tags)
        self._slots = Slots(limits.connections)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def __aenter__(self) -> "Client":
        self._resolver_threads = ThreadPoolExecutor(RESOLVER_THREADS, "resolve")
        asyncio.get_running_loop().set_default_executor(self._resolver_threads)
        self._session = aiohttp.ClientSession(
            connector=connector(self._resolver, self._guard.socket_factory),
            max_field_size=HEADER_BYTES,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self._limits.connect_seconds,
                sock_connect=self._limits.connect_seconds,
            ),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()
        self._resolver_threads.shutdown(wait=False, cancel_futures=True)

    async def download(
        self, url: str | None, budget: Budget, use: Callable[[Body], Awaitable[Result]]
    ) -> Result:
        """The result of `use` on the body of a URL, after as many attempts as the budget allows.

        The download keeps its slot until `use` has ended, so that bodies do not pile up where
        hosts are faster than `use`. The time of `use` does not count against the budget.

        Raises: FetchError, and whatever `use` raises.
        """
        target = parse_url(url)
        return await self._try_again(
            lambda budget: self._follow(target, budget, use, self._images), budget
        )

    async def _read_robots(self, url: URL, rank: Rank) -> bytes:
        async def use(body: Body) -> bytes:
            return body.data

        return await self._try_again(
            lambda budget: self._follow(url, budget, use, Terms(ROBOTS_BYTES)),
            Budget(ROBOTS_CONNECTS * self._limits.connect_seconds, rank),
        )

    async def _try_again(
        self, attempt_once: Callable[[Budget], Awaitable[Result]], budget: Budget
    ) -> Result:
        attempt = pauses = 0
        while True:
            try:
                return await attempt_once(budget)
            except MachineError:
                if pauses == MACHINE_PAUSES:
                    raise
                pauses += 1
                await asyncio.sleep(KEPT_SECONDS)  # not at the image's expense
                continue
            except FetchError as error:
                pause = self._limits.backoff_seconds * 2**attempt * random.uniform(0.5, 1.5)
                pause = max(pause, error.retry_after or 0.0)
                final = error.status not in TRANSIENT or error.status is Status.ROBOTS_UNAVAILABLE
                if final or attempt == self._limits.retries or pause >= budget.left:
                    raise
            await budget.pause(pause)
            attempt += 1

    async def _follow(
        self,
        target: URL,
        budget: Budget,
        use: Callable[[Body], Awaitable[Result]],
        terms: Terms,
    ) -> Result:
        """One attempt, redirects included; every hop is checked and waits for its host's turn."""
        for _ in range(MAX_REDIRECTS + 1):
            if terms.robots is not None:
                await terms.robots.check(target, budget.rank)
            assert target.host is not None
            async with AsyncExitStack() as held:
                async with self._hosts.turn(target.host, budget) as host:
                    await held.enter_async_context(self._slots.hold(budget.rank))
                    async with budget.spend():
                        answer = await self._ask(target, terms, held, last=host.users == 1)
                if isinstance(answer, Body):
                    return await use(answer)
            target = answer
        raise FetchError(Status.TOO_MANY_REDIRECTS, f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, target: URL, terms: Terms, held: AsyncExitStack, last: bool) -> Body | URL:
        """The body of an answer, or the URL to which it redirects.

        held: receives what must be held while the body is in memory. last: nothing else is wanted
        from the host, so that the connection need not be kept.
        """
        headers = {"Connection": "close"} if last else None
        try:
            async with self._session.get(
                target, allow_redirects=False, headers=headers
            ) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return parse_url(response.headers["Location"], base=target)
                refuse_status(response.status, response.headers.get("Retry-After"))
                # Only now: on any other answer the tag is about a page that is no image.
                tags = response.headers.getall("X-Robots-Tag", ())
                rule = refused_by_tag(tags, self._token, terms.refused_tags)
                if rule is not None:
                    raise FetchError(Status.ROBOTS_TAG, f"X-Robots-Tag {rule}", response.status)
                return Body(await self._read(response, terms.max_bytes, held), response.status)
        except (aiohttp.ClientError, ValueError, OSError) as error:
            refuse_machine_fault(error)
            raise explain(error) from error

    async def _read(
        self, response: aiohttp.ClientResponse, max_bytes: int, held: AsyncExitStack
    ) -> bytes:
        too_large = FetchError(Status.TOO_LARGE, f"more than {max_bytes:,} bytes", response.status)
        if response.content_length is not None and response.content_length > max_bytes:
            raise too_large
        encodings = layers(response.headers.getall("Content-Encoding", ()), response.status)
        if encodings:  # its size is not known yet
            await held.enter_async_context(self._large)
        try:
            data = await self._stream(response.content, max_bytes, None if encodings else held)
        except (aiohttp.ClientError, OSError) as error:
            raise FetchError(Status.INTERRUPTED, "the answer broke off", response.status) from error
        if data is None:
            raise too_large
        if encodings:
            data = await asyncio.to_thread(decompress, data, encodings, max_bytes, response.status)
        return data

    async def _stream(
        self, content: aiohttp.StreamReader, max_bytes: int, held: AsyncExitStack | None
    ) -> bytes | None:
        """All bytes, or None where there are more than `max_bytes`.

        held: receives one of the few slots of large bodies; None where it has one already.
        """
        data = bytearray()
        chunks = content.iter_any()
        async for chunk in chunks:
            data += chunk
            if len(data) > min(LARGE_BYTES, max_bytes):
                break
        if len(data) > max_bytes:
            return None
        if len(data) > LARGE_BYTES:
            if held is not None:
                await held.enter_async_context(self._large)
            async for chunk in chunks:
                data += chunk
                if len(data) > max_bytes:
                    return None
        return bytes(data)


def refuse_status(status: int, retry_after: str | None) -> None:
    """Raises: FetchError for every HTTP status but 200 and 203."""
    if status in (200, 203):
        return
    pause = retry_after_seconds(retry_after) if status in (429, 503) else None
    if status in (404, 410):
        kind = Status.HTTP_NOT_FOUND
    elif status in (401, 403, 451):
        kind = Status.HTTP_REFUSED
    elif status == 429 or pause is not None:
        kind = Status.HTTP_THROTTLED
    elif status >= 500:
        kind = Status.HTTP_SERVER_ERROR
    else:
        kind = Status.HTTP_ERROR
    raise FetchError(kind, f"HTTP {status}", status, pause)


def explain(error: Exception) -> FetchError:  # noqa: PLR0911 - a table
    """The failure that an exception of the HTTP library means; its message may hold the URL."""
    cause = getattr(error, "os_error", None) or error.__cause__
    if isinstance(cause, ForbiddenAddressError):
        return FetchError(Status.FORBIDDEN_ADDRESS, str(cause.strerror))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        code = cause.errno if isinstance(cause, OSError) else None
        if code in _FINAL_DNS_ERRORS:
            return FetchError(Status.DNS_NOT_FOUND, "the host's name is not known")
        return FetchError(Status.DNS_UNAVAILABLE, "the host's name could not be resolved")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return FetchError(Status.TLS_FAILED, type(error).__name__)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.InvalidUrlClientError):
        return FetchError(Status.BAD_URL, "not a URL")
    if isinstance(error, TimeoutError):
        return FetchError(Status.TIMEOUT, "no connection in time")
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError(Status.INTERRUPTED, "the answer broke off")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return FetchError(Status.CONNECTION_FAILED, "closed before an answer")
    if isinstance(error, OSError):
        reason = cause.strerror if isinstance(cause, OSError) else error.strerror
        return FetchError(Status.CONNECTION_FAILED, reason or type(error).__name__)
    if isinstance(error, aiohttp.ClientConnectionError):
        return FetchError(Status.CONNECTION_FAILED, type(error).__name__)
    return FetchError(Status.BAD_RESPONSE, type(error).__name__)
